//! Images of the sky: FITS and eht-imaging's text format.

mod celestial;
mod fits;
mod regrid;
mod text;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ndarray::Array2;

use super::cube::SkyFrame;
use crate::{Error, Result, grid::Grid};

pub use celestial::celestial_keys;
pub use fits::write;

/// Largest number of pixels along one side of an image that is read.
const LARGEST_SIDE: u64 = 8192;

/// An image of the sky in Jy/pixel.
#[derive(Debug, Clone, PartialEq)]
pub struct SkyImage {
    /// Pixel grid; its pitches may differ.
    pub grid: Grid,
    /// Flux per pixel, Jy, `[Y, X]`; row 0 = north, column 0 = east.
    pub pixels: Array2<f64>,
    /// Source, direction, frequency (0 where the file does not say) and date.
    pub sky: SkyFrame,
    /// Angular offset east and north of the array's centre from `sky`'s direction, radians; zero for
    /// CRPIX = n/2 + 1/2.
    ///
    /// eht-imaging ignores CRPIX, and so does a comparison with data here: it puts the phase centre at the
    /// array's centre. Amplitudes and closures are the same either way.
    pub offset: [f64; 2],
}

impl SkyImage {
    /// Sum of the pixels, Jy.
    pub fn total_flux(&self) -> f64 {
        self.pixels.sum()
    }

    /// Scales all pixels to a total of `flux`, Jy.
    ///
    /// # Errors
    /// A flux, or an image, that is not positive.
    pub fn scale_to(&mut self, flux: f64) -> Result<()> {
        let total = self.total_flux();
        if !(flux > 0.0 && total > 0.0) {
            let problem = format!("{total} Jy cannot be scaled to {flux} Jy; both must be positive");
            return Err(Error::config("--flux", problem));
        }
        self.pixels *= flux / total;
        Ok(())
    }
}

/// Reads a FITS image, an eht-imaging text image, or the mean image of a run directory.
///
/// # Errors
/// A file of another kind, or one that is damaged.
pub fn read(path: &Path) -> Result<SkyImage> {
    if path.is_dir() {
        return fits::read(&path.join("posterior.fits"));
    }
    let mut beginning = [0; 1];
    let file = File::open(path).map_err(|source| Error::io(path, source))?;
    file.take(1).read(&mut beginning).map_err(|source| Error::io(path, source))?;
    if beginning == *b"#" { text::read(path) } else { fits::read(path) }
}

/// Refuses images that are empty or larger than [`LARGEST_SIDE`]; `place` names the two numbers.
fn check_sides(path: &Path, place: &str, sides: [u64; 2]) -> Result<[usize; 2]> {
    if sides.iter().all(|side| (1..=LARGEST_SIDE).contains(side)) {
        return Ok(sides.map(|side| side as usize));
    }
    let problem =
        format!("{} x {} pixels; sides of 1 to {LARGEST_SIDE} pixels can be read", sides[0], sides[1]);
    Err(Error::format(path, place, problem))
}
