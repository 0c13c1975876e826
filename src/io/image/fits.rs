//! FITS images of the sky.

use std::path::Path;

use fitsio::FitsFile;
use fitsio::images::{ImageDescription, ImageType};
use ndarray::{Array2, s};

use super::{SkyImage, celestial_keys, check_sides};
use crate::io::cube::SkyFrame;
use crate::io::fits::{FitsReader, Hdu, Header};
use crate::io::{atomic, cfitsio};
use crate::units::MICROARCSECOND;
use crate::{Error, Result, grid::Grid};

/// Reads the first image of a FITS file, 2 to 4 axes, in Jy/pixel, Jy/beam or Jy/sr.
///
/// Undefined pixels count as dark. Columns are turned to east first and rows to north first.
pub(super) fn read(path: &Path) -> Result<SkyImage> {
    let mut file = FitsReader::open(path)?;
    let unit = find_image(&file)?;
    let header = &unit.header;
    let sides = check_sides(path, "NAXIS1, NAXIS2", [unit.axes[0], unit.axes[1]])?;
    let [nx, ny] = sides;
    let axes = [axis(path, header, 1, nx)?, axis(path, header, 2, ny)?];
    check_rotation(path, header)?;
    let mut stored = vec![0.0; nx * ny];
    file.image(unit.number, &mut stored)?;
    if stored.iter().all(|pixel| !pixel.is_finite()) {
        return Err(Error::format(path, unit.place(), "no pixel is finite; the image is empty"));
    }
    let factor = jansky_per_pixel(path, header, axes[0].step.abs() * axes[1].step.abs())?;
    let stored = Array2::from_shape_vec((ny, nx), stored)
        .map_err(|error| Error::format(path, unit.place(), error.to_string()))?;
    let (columns, rows) = (if axes[0].step > 0.0 { -1 } else { 1 }, if axes[1].step > 0.0 { -1 } else { 1 });
    let pixels = stored
        .slice(s![..;rows, ..;columns])
        .mapv(|pixel| if pixel.is_finite() { pixel * factor } else { 0.0 });
    let grid =
        Grid { shape: [1, ny, nx], pitch: [axes[0].step.abs(), axes[1].step.abs(), axes[0].step.abs()] };
    Ok(SkyImage { grid, pixels, sky: sky_frame(header), offset: [axes[0].centre, axes[1].centre] })
}

/// Writes an image with its coordinates, float64, southern row first.
///
/// # Errors
/// A file that cannot be written.
pub fn write(image: &SkyImage, path: &Path) -> Result<()> {
    let [_, ny, nx] = image.grid.shape;
    let south_first: Vec<f64> = image.pixels.slice(s![..;-1, ..]).iter().copied().collect();
    atomic::replace(path, |temporary| {
        let _guard = cfitsio::lock();
        let write = || {
            let description = ImageDescription { data_type: ImageType::Double, dimensions: &[ny, nx] };
            let mut fits = FitsFile::create(temporary).with_custom_primary(&description).open()?;
            let hdu = fits.primary_hdu()?;
            hdu.write_image(&mut fits, &south_first)?;
            celestial_keys(&mut fits, &hdu, &image.grid, &image.sky, "JY/PIXEL", image.offset)
        };
        write().map_err(|error: fitsio::errors::Error| {
            Error::format(path, "writing the image", format!("{error}; check space and permissions"))
        })
    })
}

/// The primary unit, or the first image extension behind an empty one.
fn find_image(file: &FitsReader) -> Result<Hdu> {
    let units = file.units();
    let is_image = |unit: &Hdu| unit.number == 1 || unit.header.text("XTENSION") == Some("IMAGE");
    let unit = units.iter().find(|unit| is_image(unit) && !unit.axes.is_empty());
    let Some(unit) = unit else {
        let found: Vec<_> = units.iter().map(Hdu::place).collect();
        let problem = format!("no image, only {}; give a FITS image", found.join(", "));
        return Err(Error::format(file.path(), "all units", problem));
    };
    if unit.has_groups() {
        let problem = "these are UVFITS visibilities, not an image; give a FITS image";
        return Err(Error::format(file.path(), unit.place(), problem));
    }
    let wrong = |problem: String| Error::format(file.path(), unit.place(), problem);
    if unit.axes.len() < 2 || unit.axes.len() > 4 {
        return Err(wrong(format!("{} axes; an image has 2, 3 or 4", unit.axes.len())));
    }
    if let Some(length) = unit.axes[2..].iter().find(|length| **length != 1) {
        return Err(wrong(format!(
            "a cube with {length} planes; write the one plane to use to a file of its own"
        )));
    }
    Ok(unit.clone())
}

/// One image axis: its signed pixel size and where the array's centre lies from the reference, radians.
struct ImageAxis {
    step: f64,
    centre: f64,
}

fn axis(path: &Path, header: &Header, n: usize, length: usize) -> Result<ImageAxis> {
    let name = format!("CUNIT{n}");
    let unit = header.text(&name).unwrap_or("deg").trim().to_ascii_lowercase();
    let scale = match unit.as_str() {
        "" | "deg" | "degree" | "degrees" => 1_f64.to_radians(),
        "rad" => 1.0,
        "arcsec" => MICROARCSECOND * 1e6,
        "mas" => MICROARCSECOND * 1e3,
        "uas" => MICROARCSECOND,
        _ => return Err(Error::format(path, name, format!("unknown unit `{unit}`; use deg"))),
    };
    let key = format!("CDELT{n}");
    let step = header.number(&key).or_else(|| header.number(&format!("CD{n}_{n}"))).unwrap_or(0.0) * scale;
    // A pixel of a radian is larger than any image of the sky.
    if step == 0.0 || step.abs() > 1.0 {
        let problem =
            "missing, zero or absurd pixel size; set it in degrees (CDELT1 negative: east to the left)";
        return Err(Error::format(path, key, problem));
    }
    let middle = length as f64 / 2.0 + 0.5;
    let reference = header.number(&format!("CRPIX{n}")).unwrap_or(middle);
    Ok(ImageAxis { step, centre: (middle - reference) * step })
}

/// Refuses images whose axes are not aligned with north and east.
fn check_rotation(path: &Path, header: &Header) -> Result<()> {
    let keys = ["CROTA1", "CROTA2", "PC1_2", "PC2_1", "PC001002", "PC002001", "CD1_2", "CD2_1"];
    match keys.iter().find(|key| header.number(key).is_some_and(|value| value != 0.0)) {
        Some(key) => Err(Error::format(path, *key, "the image is rotated; regrid it with north up first")),
        None => Ok(()),
    }
}

/// Factor from the unit in BUNIT to Jy/pixel; `pixel` is a pixel's solid angle in steradian.
fn jansky_per_pixel(path: &Path, header: &Header, pixel: f64) -> Result<f64> {
    let unit = header.text("BUNIT").unwrap_or("JY/PIXEL").to_ascii_uppercase().replace(' ', "");
    match unit.as_str() {
        "" | "JY/PIXEL" | "JY/PIX" | "JY" | "JYPIXEL-1" | "JY.PIXEL-1" => Ok(1.0),
        "JY/SR" | "JYSR-1" | "JY.SR-1" => Ok(pixel),
        "JY/BEAM" | "JYBEAM-1" | "JY.BEAM-1" => {
            let axis = |key: &str| header.number(key).filter(|width| *width > 0.0).map(f64::to_radians);
            let Some((major, minor)) = axis("BMAJ").zip(axis("BMIN")) else {
                let problem = "missing in an image in Jy/beam; give the beam's widths (FWHM) in degrees";
                return Err(Error::format(path, "BMAJ, BMIN", problem));
            };
            let beam = std::f64::consts::PI * major * minor / (4.0 * std::f64::consts::LN_2);
            Ok(pixel / beam)
        }
        _ => Err(Error::format(
            path,
            "BUNIT",
            format!("unknown unit `{unit}`; use Jy/pixel, Jy/beam or Jy/sr"),
        )),
    }
}

fn sky_frame(header: &Header) -> SkyFrame {
    let number = |key: &str| header.number(key);
    let axis = |n: usize, kind: &str| {
        let matches = header.text(&format!("CTYPE{n}")).is_some_and(|name| name.starts_with(kind));
        number(&format!("CRVAL{n}")).filter(|_| matches)
    };
    SkyFrame {
        source: header.text("OBJECT").unwrap_or_default().to_string(),
        ra_deg: axis(1, "RA").or_else(|| number("OBSRA")).unwrap_or(0.0),
        dec_deg: axis(2, "DEC").or_else(|| number("OBSDEC")).unwrap_or(0.0),
        frequency_hz: ["FREQ", "RESTFRQ", "RESTFREQ"]
            .into_iter()
            .find_map(number)
            .or_else(|| axis(3, "FREQ").or_else(|| axis(4, "FREQ")))
            .unwrap_or(0.0),
        mjd: ["MJD", "MJD-OBS"].into_iter().find_map(number).unwrap_or(0.0),
    }
}
