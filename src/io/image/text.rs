//! eht-imaging's text images: seven header lines, then one row of numbers per pixel.

use std::fs;
use std::path::Path;

use ndarray::Array2;

use super::{SkyImage, check_sides};
use crate::io::cube::SkyFrame;
use crate::units::MICROARCSECOND;
use crate::{Error, Result, grid::Grid};

/// Largest text image that is read, bytes.
const LARGEST_FILE: u64 = 4 << 30;

/// Reads a text image; Stokes I is its third column.
pub(super) fn read(path: &Path) -> Result<SkyImage> {
    let length = fs::metadata(path).map_err(|source| Error::io(path, source))?.len();
    if length > LARGEST_FILE {
        return Err(Error::format(
            path,
            "size",
            format!("{length} bytes is too large for a text image; use FITS"),
        ));
    }
    let bytes = fs::read(path).map_err(|source| Error::io(path, source))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        Error::format(path, format!("byte {}", error.utf8_error().valid_up_to()), "not text")
    })?;
    let sky = sky_frame(path, &text)?;
    let [(nx, east), (ny, north)] = [axis(path, &text, "FOVX")?, axis(path, &text, "FOVY")?];
    let [nx, ny] = check_sides(path, "FOVX, FOVY", [nx, ny])?;
    let pixels = pixels(path, &text, nx, ny)?;
    let (pitch_x, pitch_y) = (east / nx as f64, north / ny as f64);
    let grid = Grid { shape: [1, ny, nx], pitch: [pitch_x, pitch_y, pitch_x] };
    Ok(SkyImage { grid, pixels, sky, offset: [0.0; 2] })
}

/// Words after the colon of the header line `# KEY: ...`.
fn words<'a>(path: &Path, text: &'a str, key: &str) -> Result<Vec<&'a str>> {
    let header = text.lines().take_while(|line| line.starts_with('#'));
    let line = header.filter_map(|line| line[1..].trim().strip_prefix(key)?.strip_prefix(':')).next();
    let problem = format!("no line `# {key}: ...`; this is not an image in eht-imaging's text format");
    Ok(line.ok_or_else(|| Error::format(path, "header", problem))?.split_whitespace().collect())
}

fn number(path: &Path, words: &[&str], index: usize, key: &str) -> Result<f64> {
    let word = words.get(index).copied().unwrap_or_default();
    let number = word.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| Error::format(path, format!("header, {key}"), format!("`{word}` is not a number")))
}

/// Number of pixels and field of view, radians, of `# FOVX: 100 pix 0.000182 as`.
fn axis(path: &Path, text: &str, key: &str) -> Result<(u64, f64)> {
    let words = words(path, text, key)?;
    let field = number(path, &words, 2, key)? * MICROARCSECOND * 1e6;
    if field <= 0.0 {
        return Err(Error::format(path, format!("header, {key}"), "the field of view must be above 0"));
    }
    let count = words.first().and_then(|word| word.parse().ok());
    let problem = "expected `PIXELS pix FIELD as`";
    Ok((count.ok_or_else(|| Error::format(path, format!("header, {key}"), problem))?, field))
}

fn sky_frame(path: &Path, text: &str) -> Result<SkyFrame> {
    let sexagesimal = |key: &str| -> Result<f64> {
        let words = words(path, text, key)?;
        let part = |index| number(path, &words, index, key);
        let size = part(0)?.abs() + part(2)?.abs() / 60.0 + part(4)?.abs() / 3600.0;
        // The sign may stand before a zero.
        Ok(if words[0].starts_with('-') { -size } else { size })
    };
    let first = |key: &str| number(path, &words(path, text, key)?, 0, key);
    Ok(SkyFrame {
        source: words(path, text, "SRC")?.join(" "),
        ra_deg: sexagesimal("RA")? * 15.0,
        dec_deg: sexagesimal("DEC")?,
        frequency_hz: first("RF")? * 1e9,
        mjd: first("MJD")?,
    })
}

fn pixels(path: &Path, text: &str, nx: usize, ny: usize) -> Result<Array2<f64>> {
    let mut values = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let wrong = |problem: String| Error::format(path, format!("line {}", index + 1), problem);
        let word = line.split_whitespace().nth(2);
        let value = word.and_then(|word| word.parse().ok()).filter(|value: &f64| value.is_finite());
        values.push(value.ok_or_else(|| wrong("the third column must be the flux in Jy/pixel".to_string()))?);
        if values.len() > nx * ny {
            return Err(wrong(format!("more rows than the {nx} x {ny} pixels of the header")));
        }
    }
    let found = values.len();
    Array2::from_shape_vec((ny, nx), values).map_err(|_| {
        let problem = format!("{found} rows for {nx} x {ny} pixels; the file is cut off: copy it again");
        Error::format(path, "last line", problem)
    })
}
