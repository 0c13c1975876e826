//! Numbers read off a point-spread function: widths, light inside the stack, transfer function.

use std::f64::consts::TAU;

use ndarray::Axis;
use rustfft::num_complex::Complex64;

use super::Psf;

impl Psf {
    /// Index of the brightest voxel.
    pub fn peak(&self) -> [usize; 3] {
        let brightest = self.values.indexed_iter().max_by(|a, b| a.1.total_cmp(b.1));
        brightest.map_or([0; 3], |((z, y, x), _)| [z, y, x])
    }

    /// Full width at half maximum along Z, Y or X through the brightest voxel, m; none where the stack ends before the
    /// half is reached.
    pub fn fwhm(&self, axis: usize) -> Option<f64> {
        let peak = self.peak();
        let mut lane = self.values.view();
        for other in (0..3).rev().filter(|&other| other != axis) {
            lane.slice_axis_inplace(Axis(other), (peak[other]..peak[other] + 1).into());
        }
        let profile: Vec<f64> = lane.iter().copied().collect();
        let half = 0.5 * self.values[peak];
        // Distance from the peak at which straight lines between voxels cross the half.
        let side = |values: &mut dyn Iterator<Item = f64>| {
            let mut above = values.next()?;
            for (steps, value) in values.enumerate() {
                if value < half {
                    return Some(steps as f64 + (above - half) / (above - value));
                }
                above = value;
            }
            None
        };
        let right = side(&mut profile[peak[axis]..].iter().copied())?;
        let left = side(&mut profile[..=peak[axis]].iter().rev().copied())?;
        Some((left + right) * self.grid.pitch[axis])
    }

    /// Share of the light of each plane that falls into the stack, averaged over the planes; of computed functions only.
    pub fn light_inside(&self) -> f64 {
        self.values.sum() / self.grid.shape[0] as f64
    }

    /// Modulus of the transfer function of the central plane along X at spatial frequencies in 1/m, 1 at frequency 0.
    pub fn lateral_otf(&self, frequencies: &[f64]) -> Vec<f64> {
        let plane = self.values.index_axis(Axis(0), self.grid.shape[0] / 2);
        let line = plane.sum_axis(Axis(0));
        let total = line.sum();
        let at = |&frequency: &f64| {
            let wave = |(x, value): (usize, &f64)| {
                Complex64::cis(-TAU * frequency * x as f64 * self.grid.pitch[2]) * *value
            };
            line.iter().enumerate().map(wave).sum::<Complex64>().norm() / total
        };
        frequencies.iter().map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::grid::Grid;

    #[test]
    fn widths_of_a_gaussian_are_found() {
        let grid = Grid { shape: [21, 31, 41], pitch: [2e-7, 1e-7, 5e-8] };
        let sigma = [6e-7, 3e-7, 1.5e-7];
        let offset =
            |index: usize, axis: usize| (index as f64 - (grid.shape[axis] / 2) as f64) * grid.pitch[axis];
        let values = Array3::from_shape_fn(grid.shape, |(z, y, x)| {
            let index = [z, y, x];
            (-(0..3).map(|axis| 0.5 * (offset(index[axis], axis) / sigma[axis]).powi(2)).sum::<f64>()).exp()
        });
        let psf = Psf { grid, values };
        for (axis, width) in sigma.into_iter().enumerate() {
            let exact = 2.354_82 * width;
            assert!((psf.fwhm(axis).unwrap() / exact - 1.0).abs() < 0.01);
        }
        let otf = psf.lateral_otf(&[0.0, 1e6]);
        assert!((otf[0] - 1.0).abs() < 1e-12);
        let exact = (-2.0 * (std::f64::consts::PI * 1e6 * sigma[2]).powi(2)).exp();
        assert!((otf[1] - exact).abs() < 1e-3, "{} {exact}", otf[1]);
        let narrow = Psf { grid, values: Array3::ones(grid.shape) };
        assert_eq!(narrow.fwhm(0), None);
    }
}
