//! Likelihoods of the interferometer's data products, all of the same model visibilities.
//!
//! Each product is written once, on the host in f64, with its analytic gradient; [`Visibilities`] makes
//! it a [`Density`] of the tensor `[B, M + 3, 2]` that the forward model returns: M visibilities in the order of the
//! observation and, last, those at the [`short_spacings`].

mod bessel;
mod centroid;
mod closure_phase;
mod closures;
mod flux;
mod log_amplitude;
mod log_amplitudes;
mod log_closure_amplitude;
mod noise;
mod rice;
mod visibility;

use std::f64::consts::PI;

use rustfft::num_complex::Complex64;

pub use self::{
    centroid::Centroid,
    closure_phase::{ClosurePhase, wrap},
    flux::TotalFlux,
    log_amplitude::LogAmplitude,
    log_closure_amplitude::LogClosureAmplitude,
    noise::Known,
    visibility::{Amplitude, ComplexVisibility},
};
use crate::{
    instrument::{Measured, Position, density::Density},
    rng::Rng,
};

/// Model amplitudes are softened below this, Jy, so that a dark image has finite phases and log amplitudes.
const FAINTEST: f64 = 1e-9;

/// Spacings that follow those of the observation in every model: see [`short_spacings`].
pub const SHORT_SPACINGS: usize = 3;

/// Phase of a source at the edge of the field at the two short spacings, radians: nearly linear in the position.
const EDGE_PHASE: f64 = 0.25;

/// Spacings (u, v) in wavelengths that hold an image's flux and centroid: zero, one along u and one along v, at which
/// a field of view of `fov` radians spans half a radian.
pub fn short_spacings(fov: f64) -> [[f64; 2]; SHORT_SPACINGS] {
    let short = EDGE_PHASE / (PI * fov);
    [[0.0, 0.0], [short, 0.0], [0.0, short]]
}

/// One data product: a density of the measured data given the model visibilities of one image.
///
/// `model` holds the visibilities in the order of the observation, then those at the [`short_spacings`].
pub trait Product: Send + Sync + 'static {
    /// Name as in `diagnostics.json`.
    const NAME: &'static str;
    /// True where the gradient is unbounded near a visibility of zero.
    const SINGULAR: bool;

    /// Number of real, independent data.
    fn count(&self) -> usize;

    /// Number of visibilities of the observation.
    fn visibilities(&self) -> usize;

    /// Log probability of the data, nats, up to a constant; its derivatives by the real and imaginary part of each
    /// visibility are added to `gradient`.
    fn log_prob(&self, model: &[Complex64], gradient: &mut [Complex64]) -> f64;

    /// Whitened residuals.
    fn residuals(&self, model: &[Complex64]) -> Vec<f64>;

    /// Chi-square per datum, by eht-imaging's definition where it has one.
    fn chi2(&self, model: &[Complex64]) -> f64;

    /// Data drawn from the density around `model`.
    fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64>;

    /// The same product of other data, which [`Product::draw`] gave; none where data are formed from others.
    fn with_data(&self, _data: &[f64]) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// See [`crate::instrument::Likelihood::balanced`]: noise of standard deviation `noise`, Jy, in the real and in the imaginary part of
    /// each visibility.
    fn balanced(&self, _noise: f64) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// See [`crate::instrument::Likelihood::position`].
    fn position(&self) -> Option<Position> {
        None
    }

    /// See [`crate::instrument::Likelihood::measured`]: real and imaginary part of every visibility, then of the short
    /// spacings.
    fn measured(&self) -> Option<Measured> {
        None
    }
}

/// A product as a density of the real and imaginary parts `[M + 3, 2]` of the model.
pub struct Visibilities<P>(pub P);

impl<P: Product> Density for Visibilities<P> {
    const NAME: &'static str = P::NAME;
    const SINGULAR: bool = P::SINGULAR;

    fn count(&self) -> usize {
        self.0.count()
    }

    fn prediction(&self) -> Vec<usize> {
        vec![self.0.visibilities() + SHORT_SPACINGS, 2]
    }

    fn log_prob(&self, predicted: &[f64]) -> (f64, Vec<f64>) {
        let model = complex(predicted);
        let mut gradient = vec![Complex64::ZERO; model.len()];
        let value = self.0.log_prob(&model, &mut gradient);
        (value, gradient.into_iter().flat_map(|slope| [slope.re, slope.im]).collect())
    }

    fn residuals(&self, predicted: &[f64]) -> Vec<f64> {
        self.0.residuals(&complex(predicted))
    }

    fn chi2(&self, predicted: &[f64]) -> f64 {
        self.0.chi2(&complex(predicted))
    }

    fn draw(&self, predicted: &[f64], rng: &mut Rng) -> Vec<f64> {
        self.0.draw(&complex(predicted), rng)
    }

    fn with_data(&self, data: Vec<f64>) -> Option<Self> {
        self.0.with_data(&data).map(Self)
    }

    fn balanced(&self, noise: f64) -> Option<Self> {
        self.0.balanced(noise).map(Self)
    }

    fn position(&self) -> Option<Position> {
        self.0.position()
    }

    fn measured(&self) -> Option<Measured> {
        self.0.measured()
    }
}

fn complex(pairs: &[f64]) -> Vec<Complex64> {
    pairs.chunks_exact(2).map(|pair| Complex64::new(pair[0], pair[1])).collect()
}

#[cfg(test)]
pub(super) mod laws {
    //! What holds for every product.

    use super::*;

    /// Compares the gradient with central differences of the value.
    pub(in super::super) fn gradient_is_exact(product: &impl Product, model: &[Complex64]) {
        const STEP: f64 = 1e-6;
        let mut gradient = vec![Complex64::ZERO; model.len()];
        product.log_prob(model, &mut gradient);
        let value = |model: &[Complex64]| product.log_prob(model, &mut vec![Complex64::ZERO; model.len()]);
        for k in 0..model.len() {
            for direction in [Complex64::ONE, Complex64::I] {
                let mut moved = model.to_vec();
                moved[k] += direction * STEP;
                let above = value(&moved);
                moved[k] -= 2.0 * STEP * direction;
                let slope = (above - value(&moved)) / (2.0 * STEP);
                let exact = gradient[k].re * direction.re + gradient[k].im * direction.im;
                assert!((slope - exact).abs() < 1e-5 * (1.0 + exact.abs()), "{k}: {slope} {exact}");
            }
        }
    }

    /// An image without light has a finite value, gradient and residuals.
    pub(in super::super) fn dark_images_have_finite_values(product: &impl Product, visibilities: usize) {
        let dark = vec![Complex64::ZERO; visibilities];
        let mut gradient = dark.clone();
        assert!(product.log_prob(&dark, &mut gradient).is_finite());
        assert!(gradient.iter().all(|value| value.is_finite()));
        assert!(product.residuals(&dark).iter().all(|value| value.is_finite()));
    }

    /// Over data drawn around `model` the score has zero mean and the residuals have unit variance.
    pub(in super::super) fn draws_fit_the_density<P: Product>(
        model: &[Complex64],
        mut with: impl FnMut(Option<&[f64]>) -> P,
    ) {
        const DRAWS: usize = 4000;
        let product = with(None);
        let mut rng = Rng::new(11);
        let mut score = vec![Complex64::ZERO; model.len()];
        let mut power = vec![0.0; model.len()];
        let (mut sum, mut squares) = (vec![0.0; product.count()], vec![0.0; product.count()]);
        for _ in 0..DRAWS {
            let drawn = with(Some(&product.draw(model, &mut rng)));
            let mut gradient = vec![Complex64::ZERO; model.len()];
            drawn.log_prob(model, &mut gradient);
            for (k, value) in gradient.iter().enumerate() {
                score[k] += value;
                power[k] += value.norm_sqr();
            }
            for (k, residual) in drawn.residuals(model).iter().enumerate() {
                sum[k] += residual;
                squares[k] += residual * residual;
            }
        }
        let draws = DRAWS as f64;
        for k in (0..model.len()).filter(|&k| power[k] > 0.0) {
            let error = (power[k] / draws).sqrt() / draws.sqrt();
            assert!((score[k] / draws).norm() < 5.0 * error, "score {k}: {} +- {error}", score[k] / draws);
        }
        for k in 0..sum.len() {
            let mean = sum[k] / draws;
            let variance = squares[k] / draws - mean * mean;
            assert!(mean.abs() < 0.1 && (variance - 1.0).abs() < 0.15, "residual {k}: {mean} {variance}");
        }
    }
}
