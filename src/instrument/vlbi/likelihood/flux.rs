//! Total flux density of the image, which closures leave free.

use rustfft::num_complex::Complex64;

use super::{Product, SHORT_SPACINGS};
use crate::{instrument::Measured, rng::Rng};

/// A Gaussian on the sum of all pixels, read as the visibility at zero spacing.
#[derive(Debug, Clone)]
pub struct TotalFlux {
    /// Expected flux density, Jy.
    pub flux: f64,
    /// Its standard deviation, Jy.
    pub sigma: f64,
    /// Number of visibilities of the observation; the zero spacing follows.
    pub spacings: usize,
}

impl TotalFlux {
    fn residual(&self, model: &[Complex64]) -> f64 {
        (self.flux - model[self.spacings].re) / self.sigma
    }
}

impl Product for TotalFlux {
    const NAME: &'static str = "flux";
    const SINGULAR: bool = false;

    fn count(&self) -> usize {
        1
    }

    fn visibilities(&self) -> usize {
        self.spacings
    }

    fn log_prob(&self, model: &[Complex64], gradient: &mut [Complex64]) -> f64 {
        let residual = self.residual(model);
        gradient[self.spacings].re += residual / self.sigma;
        -0.5 * residual * residual
    }

    fn residuals(&self, model: &[Complex64]) -> Vec<f64> {
        vec![self.residual(model)]
    }

    fn chi2(&self, model: &[Complex64]) -> f64 {
        self.residual(model).powi(2)
    }

    fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64> {
        vec![model[self.spacings].re + self.sigma * rng.normal()]
    }

    fn measured(&self) -> Option<Measured> {
        let numbers = 2 * (self.spacings + SHORT_SPACINGS);
        let here = |number: usize| number == 2 * self.spacings;
        Some(Measured {
            values: (0..numbers).map(|i| if here(i) { self.flux } else { 0.0 }).collect(),
            sigmas: (0..numbers).map(|i| if here(i) { self.sigma } else { f64::INFINITY }).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::laws, *};

    #[test]
    fn gradient_and_draws_fit_the_density() {
        let model = [[0.2, 0.1], [0.55, 0.0], [0.5, 0.1], [0.5, 0.0]].map(|[re, im]| Complex64::new(re, im));
        let with = |data: Option<&[f64]>| TotalFlux {
            flux: data.map_or(0.6, |data| data[0]),
            sigma: 0.1,
            spacings: 1,
        };
        laws::gradient_is_exact(&with(None), &model);
        laws::draws_fit_the_density(&model, with);
    }
}
