//! Complex visibilities and their amplitudes.

use rustfft::num_complex::Complex64;

use super::{Product, SHORT_SPACINGS, bessel::log_i0_and_ratio};
use crate::{
    instrument::{Measured, vlbi::Visibility},
    rng::Rng,
};

/// Complex visibilities with Gaussian noise; right only for data whose station gains are calibrated.
#[derive(Debug, Clone)]
pub struct ComplexVisibility {
    data: Vec<(Complex64, f64)>,
}

impl ComplexVisibility {
    /// The measured values and sigmas of `visibilities`.
    pub fn new(visibilities: &[Visibility]) -> Self {
        Self { data: visibilities.iter().map(|row| (row.value, row.sigma)).collect() }
    }
}

impl Product for ComplexVisibility {
    const NAME: &'static str = "visibility";
    const SINGULAR: bool = false;

    fn count(&self) -> usize {
        2 * self.data.len()
    }

    fn visibilities(&self) -> usize {
        self.data.len()
    }

    fn log_prob(&self, model: &[Complex64], gradient: &mut [Complex64]) -> f64 {
        let mut sum = 0.0;
        for (((value, sigma), model), gradient) in self.data.iter().zip(model).zip(gradient) {
            let residual = (value - model) / *sigma;
            *gradient += residual / *sigma;
            sum += residual.norm_sqr();
        }
        -0.5 * sum
    }

    fn residuals(&self, model: &[Complex64]) -> Vec<f64> {
        let residuals = self.data.iter().zip(model).map(|((value, sigma), model)| (value - model) / *sigma);
        residuals.flat_map(|residual| [residual.re, residual.im]).collect()
    }

    fn chi2(&self, model: &[Complex64]) -> f64 {
        let sum: f64 = self.residuals(model).iter().map(|residual| residual * residual).sum();
        sum / self.count() as f64
    }

    fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64> {
        let noisy = |(&(_, sigma), model): (&(Complex64, f64), &Complex64)| {
            [model.re + sigma * rng.normal(), model.im + sigma * rng.normal()]
        };
        self.data.iter().zip(model).flat_map(noisy).collect()
    }

    fn with_data(&self, data: &[f64]) -> Option<Self> {
        let values = data.chunks_exact(2).map(|pair| Complex64::new(pair[0], pair[1]));
        Some(Self { data: values.zip(&self.data).map(|(value, (_, sigma))| (value, *sigma)).collect() })
    }

    fn measured(&self) -> Option<Measured> {
        let unseen = [(0.0, f64::INFINITY); 2 * SHORT_SPACINGS];
        let seen = self.data.iter().flat_map(|(value, sigma)| [(value.re, *sigma), (value.im, *sigma)]);
        let (values, sigmas) = seen.chain(unseen).unzip();
        Some(Measured { values, sigmas })
    }
}

/// Visibility amplitudes with the exact density of a complex Gaussian's modulus, the Rice distribution
/// (A / s^2) exp(-(A^2 + |M|^2) / 2 s^2) I0(A |M| / s^2): no debiasing needed, smooth also at |M| = 0.
///
/// Chi-square and residuals use the debiased amplitude sqrt(A^2 - s^2), 0 below the noise, as the field does; they have
/// unit variance where the amplitude stands well above the noise. Blind to station phases, not to amplitude gains.
#[derive(Debug, Clone)]
pub struct Amplitude {
    data: Vec<(f64, f64)>,
}

impl Amplitude {
    /// The measured amplitudes and sigmas of `visibilities`.
    pub fn new(visibilities: &[Visibility]) -> Self {
        Self { data: visibilities.iter().map(|row| (row.value.norm(), row.sigma)).collect() }
    }
}

impl Product for Amplitude {
    const NAME: &'static str = "amplitude";
    const SINGULAR: bool = false;

    fn count(&self) -> usize {
        self.data.len()
    }

    fn visibilities(&self) -> usize {
        self.data.len()
    }

    fn log_prob(&self, model: &[Complex64], gradient: &mut [Complex64]) -> f64 {
        let mut sum = 0.0;
        for ((&(amplitude, sigma), model), gradient) in self.data.iter().zip(model).zip(gradient) {
            let precision = sigma.powi(-2);
            let scaled = amplitude * precision;
            let (log_i0, ratio) = log_i0_and_ratio(scaled * model.norm());
            sum += log_i0 - 0.5 * precision * (amplitude * amplitude + model.norm_sqr());
            *gradient += model * (scaled * scaled * ratio - precision);
        }
        sum
    }

    fn residuals(&self, model: &[Complex64]) -> Vec<f64> {
        let residual = |(&(amplitude, sigma), model): (&(f64, f64), &Complex64)| {
            let debiased = (amplitude * amplitude - sigma * sigma).max(0.0).sqrt();
            (debiased - model.norm()) / sigma
        };
        self.data.iter().zip(model).map(residual).collect()
    }

    fn chi2(&self, model: &[Complex64]) -> f64 {
        let sum: f64 = self.residuals(model).iter().map(|residual| residual * residual).sum();
        sum / self.count() as f64
    }

    fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64> {
        let noisy = |(&(_, sigma), model): (&(f64, f64), &Complex64)| {
            (model + Complex64::new(sigma * rng.normal(), sigma * rng.normal())).norm()
        };
        self.data.iter().zip(model).map(noisy).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::laws, *};

    const DATA: [(Complex64, f64); 3] = [
        (Complex64::new(0.5, -0.2), 0.05),
        (Complex64::new(0.3, 0.4), 0.06),
        (Complex64::new(-0.2, 0.1), 0.02),
    ];

    fn model() -> Vec<Complex64> {
        let mut model: Vec<_> = DATA.iter().map(|(value, sigma)| value + sigma).collect();
        model.push(Complex64::ONE);
        model
    }

    #[test]
    fn complex_visibilities_have_gradient_and_draws_of_their_density() {
        let with = |data: Option<&[f64]>| ComplexVisibility {
            data: match data {
                None => DATA.to_vec(),
                Some(data) => data
                    .chunks_exact(2)
                    .zip(DATA)
                    .map(|(pair, (_, sigma))| (Complex64::new(pair[0], pair[1]), sigma))
                    .collect(),
            },
        };
        laws::gradient_is_exact(&with(None), &model());
        laws::draws_fit_the_density(&model(), with);
    }

    #[test]
    fn amplitudes_have_gradient_and_draws_of_their_density() {
        let amplitudes: Vec<f64> = DATA.iter().map(|(value, _)| value.norm()).collect();
        let with = |data: Option<&[f64]>| Amplitude {
            data: data
                .unwrap_or(&amplitudes)
                .iter()
                .zip(DATA)
                .map(|(&value, (_, sigma))| (value, sigma))
                .collect(),
        };
        laws::gradient_is_exact(&with(None), &model());
        laws::draws_fit_the_density(&model(), with);
        // Where the model has no amplitude the density is flat, not singular.
        laws::gradient_is_exact(&with(None), &[Complex64::ZERO; 4]);
    }
}
