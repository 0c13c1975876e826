//! Brightness of an image at a few places after blurring to a resolution.

use ndarray::ArrayView2;

/// Places along each side of an image.
pub const PLACES: usize = 6;
/// Full width at half maximum of a Gaussian in standard deviations, 2 sqrt(2 ln 2).
const FULL_WIDTH: f64 = 2.354_820_045_030_949_3;
/// Standard deviations after which a Gaussian is cut off.
const REACH: f64 = 4.0;

/// Gaussian averages around a square of [`PLACES`] x [`PLACES`] places in the middle of an image.
#[derive(Debug, Clone)]
pub struct Blurred {
    rows: Vec<Window>,
    columns: Vec<Window>,
}

/// Weights of the pixels from `start` on; they sum to 1.
#[derive(Debug, Clone)]
struct Window {
    start: usize,
    weights: Vec<f64>,
}

impl Window {
    fn new(centre: f64, sigma: f64, size: usize) -> Self {
        let last = size.saturating_sub(1) as f64;
        let start = (centre - REACH * sigma).floor().clamp(0.0, last) as usize;
        let end = (centre + REACH * sigma).ceil().clamp(0.0, last) as usize;
        let weight = |i: usize| (-0.5 * ((i as f64 - centre) / sigma).powi(2)).exp();
        let weights: Vec<f64> = (start..=end).map(weight).collect();
        let total: f64 = weights.iter().sum();
        Self { start, weights: weights.into_iter().map(|weight| weight / total).collect() }
    }
}

impl Blurred {
    /// On images of `shape` (rows, columns), blurred to a full width at half maximum of `fwhm` pixels, at places `spacing`
    /// pixels apart (down, across).
    pub fn new(shape: [usize; 2], fwhm: f64, spacing: [f64; 2]) -> Self {
        let sigma = (fwhm / FULL_WIDTH).max(1e-3);
        let along = |axis: usize| {
            let middle = 0.5 * (shape[axis] as f64 - 1.0);
            let place = |k: usize| middle + (k as f64 - 0.5 * (PLACES - 1) as f64) * spacing[axis];
            (0..PLACES).map(|k| Window::new(place(k), sigma, shape[axis])).collect()
        };
        Self { rows: along(0), columns: along(1) }
    }

    /// Averages of an image, row by row.
    pub fn measure(&self, image: ArrayView2<f64>) -> Vec<f64> {
        let row = |window: &Window, row: usize| -> f64 {
            let pixels = window.weights.iter().enumerate();
            pixels.map(|(k, weight)| weight * image[[row, window.start + k]]).sum()
        };
        let place = |down: &Window, across: &Window| -> f64 {
            let rows = down.weights.iter().enumerate();
            rows.map(|(k, weight)| weight * row(across, down.start + k)).sum()
        };
        let places = self.rows.iter().flat_map(|down| self.columns.iter().map(move |across| (down, across)));
        places.map(|(down, across)| place(down, across)).collect()
    }

    /// Names of the places in the same order.
    pub fn names() -> impl Iterator<Item = String> {
        (0..PLACES * PLACES).map(|k| format!("pixel_{}_{}", k / PLACES + 1, k % PLACES + 1))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// A Gaussian of width s blurred by one of width b has height s^2 / (s^2 + b^2).
    #[test]
    fn a_gaussian_is_blurred_to_the_sum_of_variances() {
        let (s, b) = (3.0, 4.0);
        let blurred = Blurred::new([65, 64], b * FULL_WIDTH, [8.0, 8.0]);
        let place = 32.0 - 0.5 * 8.0;
        let centre = [place, 31.5 + 0.5 * 8.0];
        let image = Array2::from_shape_fn((65, 64), |(y, x)| {
            (-0.5 * ((y as f64 - centre[0]).powi(2) + (x as f64 - centre[1]).powi(2)) / (s * s)).exp()
        });
        let values = blurred.measure(image.view());
        let peak = values[2 * PLACES + 3];
        assert!((peak - s * s / (s * s + b * b)).abs() < 1e-3, "{peak}");
        assert!(values.iter().all(|value| *value <= peak) && values.len() == Blurred::names().count());
    }

    #[test]
    fn an_even_image_stays_even() {
        let blurred = Blurred::new([20, 30], 5.0, [3.0, 5.0]);
        let values = blurred.measure(Array2::from_elem((20, 30), 2.0).view());
        assert!(values.iter().all(|value| (value - 2.0).abs() < 1e-12));
    }
}
