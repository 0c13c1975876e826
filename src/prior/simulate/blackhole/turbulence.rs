//! Correlated turbulence: a log-normal field in (ln r, azimuth, height), sheared into trailing spirals.

use std::f64::consts::TAU;

use rustfft::{FftPlanner, num_complex::Complex64};

use super::Range;
use crate::rng::Rng;

/// Cells of the texture along each of its two periodic axes of length 2 pi.
const CELLS: usize = 128;

/// Ranges that the turbulence of one image is drawn from.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TurbulenceSettings {
    /// Standard deviation of ln emissivity.
    pub amplitude: Range,
    /// Correlation length in ln r (drawn log-uniformly).
    pub radial_length: Range,
    /// Correlation length in azimuth along the spiral, radians (drawn log-uniformly).
    pub azimuthal_length: Range,
    /// Slope of the power spectrum beyond the correlation length.
    pub slope: Range,
    /// Radians by which a spiral arm trails per e-fold in radius.
    pub winding: Range,
    /// Turns of the field per unit of cos theta: how quickly layers decorrelate with height.
    pub layering: Range,
}

impl Default for TurbulenceSettings {
    fn default() -> Self {
        Self {
            amplitude: Range(0.1, 1.3),
            radial_length: Range(0.15, 0.9),
            azimuthal_length: Range(0.3, 1.6),
            slope: Range(2.6, 4.2),
            winding: Range(-0.3, 3.5),
            layering: Range(0.0, 0.8),
        }
    }
}

/// One realisation of the turbulence: a factor of mean one for every point of the flow.
///
/// The texture is a complex Gaussian field Z on a periodic grid, made in Fourier space; Re(Z exp(i chi)) with a phase
/// chi that grows with height is a Gaussian field of unit variance at every height whose layers decorrelate.
#[derive(Debug, Clone)]
pub struct Turbulence {
    texture: Vec<Complex64>,
    amplitude: f64,
    winding: f64,
    layering: f64,
}

impl Turbulence {
    /// Draws one realisation.
    pub fn draw(settings: &TurbulenceSettings, rng: &mut Rng) -> Self {
        let radial = settings.radial_length.log_uniform(rng);
        let azimuthal = settings.azimuthal_length.log_uniform(rng);
        let slope = settings.slope.uniform(rng);
        Self {
            texture: texture(radial, azimuthal, slope, rng),
            amplitude: settings.amplitude.uniform(rng),
            winding: settings.winding.uniform(rng),
            layering: TAU * settings.layering.uniform(rng),
        }
    }

    /// The factor by which the emissivity is changed at (ln r, azimuth, cos theta).
    pub fn factor(&self, ln_radius: f64, azimuth: f64, cos_polar: f64) -> f64 {
        let field = self.sample(ln_radius, azimuth + self.winding * ln_radius);
        let (sin, cos) = (self.layering * cos_polar).sin_cos();
        let gaussian = field.re * cos - field.im * sin;
        (self.amplitude * (gaussian - 0.5 * self.amplitude)).exp()
    }

    fn sample(&self, x: f64, y: f64) -> Complex64 {
        let cell = |t: f64| {
            let t = t * (CELLS as f64 / TAU);
            let floor = t.floor();
            let low = (floor as i64).rem_euclid(CELLS as i64) as usize;
            (low, (low + 1) % CELLS, t - floor)
        };
        let ((x0, x1, fx), (y0, y1, fy)) = (cell(x), cell(y));
        let row = |x: usize| self.texture[x * CELLS + y0] * (1.0 - fy) + self.texture[x * CELLS + y1] * fy;
        row(x0) * (1.0 - fx) + row(x1) * fx
    }
}

/// A periodic complex Gaussian field with spectrum (1 + (k l)^2)^(-slope/2), real and imaginary part of unit variance.
fn texture(radial: f64, azimuthal: f64, slope: f64, rng: &mut Rng) -> Vec<Complex64> {
    let wave = |i: usize| if i <= CELLS / 2 { i as f64 } else { i as f64 - CELLS as f64 };
    let amplitudes: Vec<f64> = (0..CELLS * CELLS)
        .map(|i| {
            let (k, m) = (wave(i / CELLS) * radial, wave(i % CELLS) * azimuthal);
            if i == 0 { 0.0 } else { (1.0 + k * k + m * m).powf(-0.25 * slope) }
        })
        .collect();
    let scale = amplitudes.iter().map(|a| a * a).sum::<f64>().sqrt().recip();
    let mut field: Vec<Complex64> =
        amplitudes.iter().map(|a| Complex64::new(rng.normal(), rng.normal()) * (a * scale)).collect();
    let fft = FftPlanner::new().plan_fft_forward(CELLS);
    for _ in 0..2 {
        fft.process(&mut field);
        transpose(&mut field);
    }
    field
}

fn transpose(field: &mut [Complex64]) {
    for i in 0..CELLS {
        for j in 0..i {
            field.swap(i * CELLS + j, j * CELLS + i);
        }
    }
}
