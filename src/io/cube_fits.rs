//! Posterior cubes as FITS: mean in the primary HDU, extensions STD, Q05, Q95 and SAMPLES.

use std::path::Path;

use fitsio::FitsFile;
use fitsio::hdu::FitsHdu;
use fitsio::images::{ImageDescription, ImageType};
use ndarray::{Array3, ArrayView3, Axis};

use super::image::celestial_keys;
use super::{atomic, cfitsio};
use crate::{
    Error, Result,
    io::cube::{Cube, SkyFrame},
};

/// Writes a sky cube (Z = 1). Rows are stored south first, as FITS viewers expect.
///
/// # Errors
/// A cube without samples, one of a microscope or with several planes, or a file that cannot be written.
pub fn write(cube: &Cube, file: &Path) -> Result<()> {
    let sky = cube.sky()?;
    if cube.grid.shape[0] != 1 {
        let found = format!("the image has {} planes; FITS output is for sky images", cube.grid.shape[0]);
        return Err(Error::format(file, "Z axis", found));
    }
    let summary = cube.summary()?;
    let samples = cube.samples.index_axis(Axis(1), 0);
    atomic::replace(file, |temporary| {
        let _guard = cfitsio::lock();
        write_hdus((cube, sky), &summary, samples, temporary)
            .map_err(|e| Error::format(file, "writing the cube", format!("{e}; check space and permissions")))
    })
}

fn write_hdus(
    (cube, sky): (&Cube, &SkyFrame),
    summary: &super::cube::Summary,
    samples: ArrayView3<f32>,
    file: &Path,
) -> fitsio::errors::Result<()> {
    let [_, ny, nx] = cube.grid.shape;
    let plane = [ny, nx];
    let description = |dimensions| ImageDescription { data_type: ImageType::Float, dimensions };
    // The phase centre lies at the array's centre.
    let put_keys =
        |fits: &mut FitsFile, hdu: &FitsHdu| celestial_keys(fits, hdu, &cube.grid, sky, &cube.unit, [0.0; 2]);
    let mut fits = FitsFile::create(file).with_custom_primary(&description(&plane)).open()?;
    let primary = fits.primary_hdu()?;
    put_plane(&mut fits, &primary, &summary.mean)?;
    put_keys(&mut fits, &primary)?;
    provenance_keys(&mut fits, &primary, cube, samples.len_of(Axis(0)))?;
    for (name, image) in [("STD", &summary.std), ("Q05", &summary.q05), ("Q95", &summary.q95)] {
        let hdu = fits.create_image(name, &description(&plane))?;
        put_plane(&mut fits, &hdu, image)?;
        put_keys(&mut fits, &hdu)?;
    }
    let hdu = fits.create_image("SAMPLES", &description(&[samples.len_of(Axis(0)), ny, nx]))?;
    let flipped: Vec<f32> = samples.slice(ndarray::s![.., ..;-1, ..]).iter().copied().collect();
    hdu.write_image(&mut fits, &flipped)?;
    put_keys(&mut fits, &hdu)?;
    for (key, value) in [("CTYPE3", "SAMPLE"), ("CUNIT3", "")] {
        hdu.write_key(&mut fits, key, value)?;
    }
    for key in ["CRPIX3", "CRVAL3", "CDELT3"] {
        hdu.write_key(&mut fits, key, 1.0)?;
    }
    Ok(())
}

fn put_plane(fits: &mut FitsFile, hdu: &FitsHdu, image: &Array3<f32>) -> fitsio::errors::Result<()> {
    let south_first: Vec<f32> = image.slice(ndarray::s![0, ..;-1, ..]).iter().copied().collect();
    hdu.write_image(fits, &south_first)
}

fn provenance_keys(
    fits: &mut FitsFile,
    hdu: &FitsHdu,
    cube: &Cube,
    samples: usize,
) -> fitsio::errors::Result<()> {
    let origin = concat!("antumbra ", env!("CARGO_PKG_VERSION"));
    let made = &cube.provenance;
    for (key, value) in [("ORIGIN", origin), ("PRIOR", &made.prior), ("CONFHASH", &made.config_sha256)] {
        hdu.write_key(fits, key, value)?;
    }
    hdu.write_key(fits, "SEED", made.seed.to_string().as_str())?;
    hdu.write_key(fits, "NSAMPLES", samples as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::cube::tests::example;

    #[test]
    fn the_cube_reads_back_with_its_coordinates() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("posterior.fits");
        let cube = example();
        write(&cube, &file).unwrap();
        write(&cube, &file).unwrap();
        let _guard = cfitsio::lock();
        let mut fits = FitsFile::open(&file).unwrap();
        let primary = fits.primary_hdu().unwrap();
        let mean: Vec<f32> = primary.read_image(&mut fits).unwrap();
        let summary = cube.summary().unwrap();
        assert_eq!(mean[0], summary.mean[[0, 3, 0]], "the first stored row is the southern one");
        assert_eq!(primary.read_key::<f64>(&mut fits, "CRPIX1").unwrap(), 3.5);
        assert_eq!(primary.read_key::<String>(&mut fits, "SEED").unwrap(), "7");
        assert!(primary.read_key::<f64>(&mut fits, "CDELT1").unwrap() < 0.0);
        let samples = fits.hdu("SAMPLES").unwrap();
        let values: Vec<f32> = samples.read_image(&mut fits).unwrap();
        assert_eq!(values.len(), 5 * 4 * 6);
        assert_eq!(values[24], cube.samples[[1, 0, 3, 0]]);
    }
}
