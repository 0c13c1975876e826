//! Point-spread functions of measured radial transfer functions.

use ndarray::Array3;
use rustfft::num_complex::Complex64;

use super::{Psf, check_grid};
use crate::{Error, Result, grid::Grid, io::radial_otf::RadialOtf, tensor::fft::Fft2};

/// Largest ratio of a measured cut-off to that of the optics: measured ones lie below, up to noise.
const WIDEST: f64 = 1.3;

/// The point-spread function of a radial transfer function in one plane, with the centre at shape/2 and sum 1.
///
/// Negative values, which noise and the limited range of frequencies make, are set to 0.
///
/// # Errors
/// A grid of several planes (a radial OTF knows one), or too large.
pub fn from_radial_otf(otf: &RadialOtf, grid: &Grid) -> Result<Psf> {
    check_grid(grid)?;
    if grid.shape[0] != 1 {
        let problem = format!("{} planes; a radial OTF is that of a single plane", grid.shape[0]);
        return Err(Error::config("shape", problem));
    }
    let period = |axis: usize| {
        // Half the period that the frequency step resolves, so that nothing measured is lost.
        let resolved = (0.5 / (otf.step * grid.pitch[axis])) as usize;
        resolved.max(grid.shape[axis]).next_multiple_of(2)
    };
    let [rows, columns] = [1, 2].map(period);
    check_grid(&Grid { shape: [1, rows, columns], pitch: grid.pitch })?;
    let frequency =
        |index: usize, count: usize, pitch: f64| index.min(count - index) as f64 / (count as f64 * pitch);
    let mut modes: Vec<Complex64> = (0..rows * columns)
        .map(|i| {
            let v = frequency(i / columns, rows, grid.pitch[1]);
            let u = frequency(i % columns, columns, grid.pitch[2]);
            Complex64::from(otf.at(v.hypot(u)))
        })
        .collect();
    Fft2::new([rows, columns]).inverse(&mut modes);
    // The transform puts the centre at index 0.
    let place = |index: usize, axis: usize, period: usize| (index + period - grid.shape[axis] / 2) % period;
    let mut values = Array3::from_shape_fn(grid.shape, |(_, y, x)| {
        modes[place(y, 1, rows) * columns + place(x, 2, columns)].re.max(0.0)
    });
    values /= values.sum();
    Ok(Psf { grid: *grid, values })
}

/// Refuses a measured transfer function that reaches much farther than the optics can.
///
/// # Errors
/// A cut-off far beyond `cut_off` (1/m), as when a frequency step was taken for a pixel size.
pub fn check_cut_off(otf: &RadialOtf, cut_off: f64) -> Result<()> {
    let measured = otf.cut_off();
    if measured <= WIDEST * cut_off {
        return Ok(());
    }
    Err(Error::config(
        "otf",
        format!(
            "reaches {:.2}/um, the optics only {:.2}/um; check wavelength, numerical aperture and the file's frequency step",
            measured * 1e-6,
            cut_off * 1e-6
        ),
    ))
}
