//! The noise of an unknown camera, from the spatial frequencies that the objective cannot transmit.

use ndarray::{Array2, ArrayView2, ArrayView3};
use rustfft::num_complex::Complex64;

use crate::{Error, Result, tensor::fft::Fft2};

/// The band begins this far above the cut-off frequency.
const MARGIN: f64 = 1.06;
/// Least fraction of all frequencies that the band must hold.
const LEAST_BAND: f64 = 0.05;
/// Border that is tapered and not used, pixels.
const BORDER: usize = 12;
/// Groups of pixels of similar brightness.
const GROUPS: usize = 12;
/// Standard errors by which the variance must grow with the signal to be believed.
const SIGNIFICANT: f64 = 4.0;

/// Noise measured in an image.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseEstimate {
    /// Standard deviation over the whole image.
    pub sigma: f64,
    /// Mean and variance of groups of pixels, from dark to bright.
    pub groups: Vec<[f64; 2]>,
    /// Straight line through the groups, variance = intercept + slope * mean, and the slope's standard error.
    pub line: Line,
}

/// A straight line with the standard error of its slope.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Variance at a mean of 0.
    pub intercept: f64,
    /// Variance per unit of the mean.
    pub slope: f64,
    /// Standard error of the slope.
    pub slope_error: f64,
}

/// What a measured noise says about the likelihood to use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// The variance does not grow with the signal: one standard deviation for all pixels.
    Fixed,
    /// The variance grows along a straight line.
    Growing,
}

impl NoiseEstimate {
    /// Measures the noise of data `[Z, Y, X]` with camera pixels of `pitch` metres (Y, X) behind an objective with a
    /// cut-off frequency in 1/m.
    ///
    /// # Errors
    /// Images too small, or pixels so coarse that the objective fills all frequencies.
    pub fn measure(data: ArrayView3<f64>, pitch: [f64; 2], cut_off: f64) -> Result<Self> {
        let (_, rows, columns) = data.dim();
        if rows.min(columns) < 4 * BORDER || data.is_empty() {
            let problem =
                format!("{rows} x {columns} pixels are too few to measure noise; give the camera's");
            return Err(Error::config("camera", problem));
        }
        if data.iter().any(|value| !value.is_finite()) {
            return Err(Error::config("data", "holds values that are no numbers; mend or mask them"));
        }
        let band = Band::new([rows, columns], pitch, cut_off)?;
        let mut pairs: Vec<[f64; 2]> = data.outer_iter().flat_map(|plane| band.pairs(plane)).collect();
        pairs.sort_by(|a, b| a[0].total_cmp(&b[0]));
        let mean = |pairs: &[[f64; 2]], part: usize| {
            pairs.iter().map(|pair| pair[part]).sum::<f64>() / pairs.len().max(1) as f64
        };
        let size = pairs.len().div_ceil(GROUPS);
        let groups: Vec<[f64; 2]> =
            pairs.chunks(size).map(|group| [mean(group, 0), mean(group, 1)]).collect();
        Ok(Self { sigma: mean(&pairs, 1).sqrt(), line: line(&groups), groups })
    }

    /// Standard deviation in dark pixels.
    pub fn dark(&self) -> f64 {
        match (self.verdict(), self.groups.first()) {
            (Verdict::Growing, Some([_, variance])) => variance.sqrt(),
            _ => self.sigma,
        }
    }

    /// The likelihood that the measurement supports.
    pub fn verdict(&self) -> Verdict {
        let dark = self.groups.first().map_or(0.0, |group| group[0]);
        let at_dark = self.line.intercept + self.line.slope * dark;
        let grows = self.line.slope > SIGNIFICANT * self.line.slope_error;
        if grows && at_dark > 0.0 { Verdict::Growing } else { Verdict::Fixed }
    }

    /// The verdict and its reason in words.
    pub fn reason(&self) -> String {
        let Line { slope, slope_error, .. } = self.line;
        let fit =
            format!("variance per unit of signal {slope:.4} +- {slope_error:.4} above the cut-off frequency");
        match self.verdict() {
            Verdict::Fixed => format!(
                "Gaussian noise of {:.4} for all pixels, because the variance does not grow in a straight line with the signal ({fit})",
                self.sigma
            ),
            Verdict::Growing => format!("Gaussian noise that grows with the signal ({fit})"),
        }
    }
}

/// Frequencies without signal, and the taper that keeps the image's edges out of them.
struct Band {
    shape: [usize; 2],
    outside: Vec<bool>,
    fraction: f64,
}

impl Band {
    fn new(shape: [usize; 2], pitch: [f64; 2], cut_off: f64) -> Result<Self> {
        let frequency = |index: usize, axis: usize| {
            index.min(shape[axis] - index) as f64 / (shape[axis] as f64 * pitch[axis])
        };
        let outside: Vec<bool> = (0..shape[0] * shape[1])
            .map(|i| frequency(i / shape[1], 0).hypot(frequency(i % shape[1], 1)) > MARGIN * cut_off)
            .collect();
        let fraction = outside.iter().filter(|is| **is).count() as f64 / outside.len() as f64;
        if fraction < LEAST_BAND {
            let problem = format!(
                "pixels of {:.1} nm leave no frequency above the cut-off of {:.2}/um; give the camera's noise",
                pitch[1] * 1e9,
                cut_off * 1e-6
            );
            return Err(Error::config("camera", problem));
        }
        Ok(Self { shape, outside, fraction })
    }

    /// Local mean and noise power of each inner pixel.
    fn pairs(&self, plane: ArrayView2<f64>) -> Vec<[f64; 2]> {
        let [rows, columns] = self.shape;
        let mean = plane.mean().unwrap_or_default();
        let fft = Fft2::new(self.shape);
        let mut modes: Vec<Complex64> = plane
            .indexed_iter()
            .map(|((y, x), value)| Complex64::from((value - mean) * taper(y, rows) * taper(x, columns)))
            .collect();
        fft.forward(&mut modes);
        let mut noise = modes.clone();
        noise
            .iter_mut()
            .zip(&self.outside)
            .filter(|(_, outside)| !**outside)
            .for_each(|(mode, _)| *mode = Complex64::ZERO);
        fft.inverse(&mut noise);
        let power = Array2::from_shape_fn((rows, columns), |(y, x)| {
            noise[y * columns + x].re.powi(2) / self.fraction
        });
        let (local, power) = (smooth(plane), smooth(power.view()));
        let inner = |count: usize| 2 * BORDER..count - 2 * BORDER + 1;
        let pixels = inner(rows).flat_map(|y| inner(columns).map(move |x| [y, x]));
        pixels.map(|at| [local[at], power[at]]).collect()
    }
}

/// 1 inside, falling to 0 at the border like half a cosine.
pub(super) fn taper(index: usize, count: usize) -> f64 {
    let distance = index.min(count - 1 - index) as f64 + 0.5;
    let part = (distance / BORDER as f64).min(1.0);
    0.5 * (1.0 - (std::f64::consts::PI * part).cos())
}

/// Means over squares of 17 pixels, cut at the edges.
fn smooth(plane: ArrayView2<f64>) -> Array2<f64> {
    const REACH: usize = 8;
    let along = |values: &Array2<f64>| {
        let (rows, columns) = values.dim();
        Array2::from_shape_fn((columns, rows), |(x, y)| {
            let near = x.saturating_sub(REACH)..(x + REACH + 1).min(columns);
            let count = near.len() as f64;
            near.map(|x| values[[y, x]]).sum::<f64>() / count
        })
    };
    // Each pass transposes, so that the second one runs along the other axis and turns the result back.
    along(&along(&plane.to_owned()))
}

/// Least squares through the groups.
fn line(groups: &[[f64; 2]]) -> Line {
    let count = groups.len() as f64;
    let mean = |part: usize| groups.iter().map(|group| group[part]).sum::<f64>() / count;
    let (x, y) = (mean(0), mean(1));
    let spread: f64 = groups.iter().map(|group| (group[0] - x).powi(2)).sum();
    let slope = groups.iter().map(|group| (group[0] - x) * (group[1] - y)).sum::<f64>()
        / spread.max(f64::MIN_POSITIVE);
    let intercept = y - slope * x;
    let rest: f64 = groups.iter().map(|group| (group[1] - intercept - slope * group[0]).powi(2)).sum();
    let slope_error = (rest / (count - 2.0).max(1.0) / spread.max(f64::MIN_POSITIVE)).sqrt();
    Line { intercept, slope, slope_error }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::rng::Rng;

    const PITCH: f64 = 62.6e-9;
    const CUT_OFF: f64 = 5.0e6;

    /// Waves below the cut-off with noise of variance `floor + slope * signal`.
    fn image(floor: f64, slope: f64) -> Array3<f64> {
        let mut rng = Rng::new(5);
        Array3::from_shape_fn((1, 160, 160), |(_, y, x)| {
            let wave = |period: f64, at: usize| (std::f64::consts::TAU * at as f64 / period).sin();
            let signal = 1000.0 + 300.0 * wave(61.0, y) + 200.0 * wave(47.0, x) + 60.0 * wave(5.3, x + y);
            signal + (floor + slope * signal).sqrt() * rng.normal()
        })
    }

    #[test]
    fn constant_noise_is_measured_and_called_constant() {
        let estimate = NoiseEstimate::measure(image(400.0, 0.0).view(), [PITCH; 2], CUT_OFF).unwrap();
        assert!((estimate.sigma / 20.0 - 1.0).abs() < 0.03, "{}", estimate.sigma);
        assert_eq!(estimate.verdict(), Verdict::Fixed);
        assert_eq!(estimate.dark(), estimate.sigma);
        assert!(estimate.reason().contains("for all pixels"));
    }

    #[test]
    fn growing_noise_is_measured_and_called_growing() {
        let estimate = NoiseEstimate::measure(image(100.0, 2.0).view(), [PITCH; 2], CUT_OFF).unwrap();
        assert!((estimate.line.slope / 2.0 - 1.0).abs() < 0.2, "{:?}", estimate.line);
        assert_eq!(estimate.verdict(), Verdict::Growing);
        // The darkest twelfth of the pixels are at about 540, all at 1000.
        assert!((estimate.dark() / 34.0 - 1.0).abs() < 0.1, "{}", estimate.dark());
        assert!(estimate.sigma > 1.2 * estimate.dark());
    }

    #[test]
    fn images_without_free_frequencies_are_refused() {
        let data = image(1.0, 0.0);
        let message = NoiseEstimate::measure(data.view(), [150e-9; 2], CUT_OFF).unwrap_err().to_string();
        assert!(message.contains("150.0 nm") && message.contains("5.00/um"), "{message}");
        assert!(NoiseEstimate::measure(Array3::zeros((1, 20, 20)).view(), [PITCH; 2], CUT_OFF).is_err());
    }
}
