//! Images of the sky keep their orientation, scale and flux through files.

use antumbra::grid::Grid;
use antumbra::io::cube::SkyFrame;
use antumbra::io::image::{self, SkyImage};
use fitsio::FitsFile;
use fitsio::images::{ImageDescription, ImageType};
use ndarray::Array2;

/// Every pixel differs, the sides differ, the pitches differ, the centre is off the reference.
fn example() -> SkyImage {
    SkyImage {
        grid: Grid { shape: [1, 3, 4], pitch: [1.2e-11, 1.5e-11, 1.2e-11] },
        pixels: Array2::from_shape_fn((3, 4), |(y, x)| 1.0 + (y * 4 + x) as f64),
        sky: SkyFrame {
            source: "M87".into(),
            ra_deg: 187.7059,
            dec_deg: 12.3911,
            frequency_hz: 2.27e11,
            mjd: 57848.0,
        },
        offset: [2.4e-11, -1.5e-11],
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * b.abs().max(1e-12)
}

/// Writes the pixels of [`example`] as stored, with these keywords, and reads the file.
fn read_with_keys(
    dimensions: &[usize],
    numbers: &[(&str, f64)],
    texts: &[(&str, &str)],
) -> antumbra::Result<SkyImage> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.fits");
    {
        let _guard = antumbra::io::cfitsio::lock();
        let description = ImageDescription { data_type: ImageType::Double, dimensions };
        let mut fits = FitsFile::create(&path).with_custom_primary(&description).open().unwrap();
        let hdu = fits.primary_hdu().unwrap();
        let count: usize = dimensions.iter().product();
        let stored: Vec<f64> = (0..count).map(|index| 1.0 + index as f64).collect();
        hdu.write_image(&mut fits, &stored).unwrap();
        numbers.iter().for_each(|(key, value)| hdu.write_key(&mut fits, key, *value).unwrap());
        texts.iter().for_each(|(key, value)| hdu.write_key(&mut fits, key, *value).unwrap());
    }
    image::read(&path)
}

#[test]
fn a_written_image_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.fits");
    let image = example();
    image::write(&image, &path).unwrap();
    let found = image::read(&path).unwrap();
    assert_eq!(found.pixels, image.pixels);
    assert_eq!(found.sky, image.sky);
    assert_eq!(found.grid.shape, image.grid.shape);
    (1..3).for_each(|axis| assert!(close(found.grid.pitch[axis], image.grid.pitch[axis])));
    (0..2).for_each(|axis| assert!(close(found.offset[axis], image.offset[axis])));
}

#[test]
fn columns_and_rows_are_turned_to_east_and_north_first() {
    let step = 1e-9;
    let turned = |east: f64, north: f64| {
        read_with_keys(&[3, 4], &[("CDELT1", east), ("CDELT2", north)], &[]).unwrap().pixels
    };
    // Stored: first row 1 2 3 4, the last row 9 10 11 12.
    assert_eq!(turned(-step, step)[[0, 0]], 9.0);
    assert_eq!(turned(step, step)[[0, 0]], 12.0);
    assert_eq!(turned(-step, -step)[[0, 0]], 1.0);
    assert_eq!(turned(step, -step)[[2, 3]], 9.0);
}

#[test]
fn four_axes_and_janskys_per_beam_are_understood() {
    let keys = [("CDELT1", -1e-9), ("CDELT2", 1e-9), ("BMAJ", 4e-9), ("BMIN", 3e-9)];
    let image = read_with_keys(&[1, 1, 3, 4], &keys, &[("BUNIT", "Jy/beam")]).unwrap();
    let beam = std::f64::consts::PI * 12.0 / (4.0 * std::f64::consts::LN_2);
    assert!(close(image.pixels[[2, 0]], 1.0 / beam), "{}", image.pixels[[2, 0]]);
    assert_eq!(image.grid.shape, [1, 3, 4]);
}

#[test]
fn unusable_images_are_refused_by_name_of_the_keyword() {
    let steps = [("CDELT1", -1e-9), ("CDELT2", 1e-9)];
    let refused = |dimensions: &[usize], numbers: &[(&str, f64)], texts: &[(&str, &str)], word: &str| {
        let message = read_with_keys(dimensions, numbers, texts).unwrap_err().to_string();
        assert!(message.contains(word) && message.contains("image.fits"), "{word}: {message}");
    };
    refused(&[3, 4], &[], &[], "CDELT1");
    refused(&[3, 4], &[("CDELT1", -1e-9), ("CDELT2", 0.0)], &[], "CDELT2");
    refused(&[5, 3, 4], &steps, &[], "cube");
    refused(&[12], &steps, &[], "axes");
    refused(&[1, 9000], &steps, &[], "9000");
    refused(&[3, 4], &steps, &[("BUNIT", "K")], "BUNIT");
    refused(&[3, 4], &steps, &[("BUNIT", "JY/BEAM")], "BMAJ");
    refused(&[3, 4], &steps, &[("CUNIT1", "furlong")], "CUNIT1");
    refused(&[3, 4], &[steps[0], steps[1], ("CROTA2", 10.0)], &[], "CROTA2");
}

#[test]
fn text_images_are_read_and_broken_ones_refused() {
    let header = "# SRC: Sgr A\n# RA: 17 h 45 m 36.0 s\n# DEC: -0 deg 30 m 0.0 s\n# MJD: 48277.0\n\
                  # RF: 230.0 GHz\n# FOVX: 2 pix 0.0001 as\n# FOVY: 1 pix 0.00005 as\n# ---\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.txt");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        image::read(&path)
    };
    let image = read(&format!("{header}0.1 0.1 0.25 7\n\n-0.1 0.1 1.5e-3 7\n")).unwrap();
    assert_eq!(image.pixels.as_slice().unwrap(), [0.25, 1.5e-3]);
    assert_eq!((image.sky.source.as_str(), image.sky.dec_deg), ("Sgr A", -0.5));
    assert!(close(image.sky.ra_deg, 266.4) && close(image.sky.frequency_hz, 2.3e11));
    for (text, word) in [
        (format!("{header}0 0 1\n"), "1 rows for 2 x 1"),
        (format!("{header}0 0 1\n0 0 1\n0 0 1\n"), "line 11"),
        (format!("{header}0 0 one\n0 0 1\n"), "line 9"),
        (header.replace("FOVX", "FOVZ"), "FOVX"),
        (header.replace("2 pix", "20000000000 pix"), "20000000000"),
        (header.replace("2 pix", "-2 pix"), "FOVX"),
        (header.replace("230.0", "inf"), "RF"),
        ("#".to_string(), "eht-imaging"),
    ] {
        let message = read(&text).unwrap_err().to_string();
        assert!(message.contains(word) && message.contains("image.txt"), "{word}: {message}");
    }
}
