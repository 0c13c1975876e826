//! Position of the image, which closures leave free.

use rustfft::num_complex::Complex64;

use super::{EDGE_PHASE, Product};
use crate::{instrument::Position, rng::Rng};

/// A Gaussian on the centroid of the image, read from the phases at two short spacings.
///
/// Closures do not change when the source moves. Without this gauge the samples lie at different places, and their mean
/// is blurred by what nobody can know; the centroid at the centre of the field says where the image is drawn, not where
/// the source is.
#[derive(Debug, Clone)]
pub struct Centroid {
    /// Expected flux density, Jy.
    pub flux: f64,
    /// Expected position towards east and north, fields of view from the centre.
    pub position: [f64; 2],
    /// Its standard deviation along each axis, fields of view.
    pub sigma: f64,
    /// Number of visibilities of the observation; the short spacings follow.
    pub spacings: usize,
}

impl Centroid {
    /// Phase of a source of the expected flux, per field of view, times its flux.
    fn slope(&self) -> f64 {
        2.0 * EDGE_PHASE * self.flux
    }

    /// First moments of the model over the expected flux, fields of view: exact for a small source, 1 % less for one at
    /// the edge of the field.
    fn moments(&self, model: &[Complex64]) -> [f64; 2] {
        [1, 2].map(|k| model[self.spacings + k].im / self.slope())
    }
}

impl Product for Centroid {
    const NAME: &'static str = "centroid";
    const SINGULAR: bool = false;

    fn count(&self) -> usize {
        2
    }

    fn visibilities(&self) -> usize {
        self.spacings
    }

    fn log_prob(&self, model: &[Complex64], gradient: &mut [Complex64]) -> f64 {
        let residuals = self.residuals(model);
        for (k, residual) in residuals.iter().enumerate() {
            gradient[self.spacings + 1 + k].im += residual / (self.sigma * self.slope());
        }
        -0.5 * residuals.iter().map(|residual| residual * residual).sum::<f64>()
    }

    fn residuals(&self, model: &[Complex64]) -> Vec<f64> {
        let pairs = self.position.into_iter().zip(self.moments(model));
        pairs.map(|(expected, moment)| (expected - moment) / self.sigma).collect()
    }

    fn chi2(&self, model: &[Complex64]) -> f64 {
        0.5 * self.residuals(model).iter().map(|residual| residual * residual).sum::<f64>()
    }

    fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64> {
        self.moments(model).map(|moment| moment + self.sigma * rng.normal()).to_vec()
    }

    fn position(&self) -> Option<Position> {
        // The first row is north, the first column east.
        Some(Position { mean: [self.position[1], self.position[0]], sigma: self.sigma })
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::{
        super::{SHORT_SPACINGS, laws, short_spacings},
        *,
    };

    #[test]
    fn gradient_and_draws_fit_the_density() {
        let model =
            [[0.2, 0.1], [0.55, 0.0], [0.5, 0.02], [0.6, -0.03]].map(|[re, im]| Complex64::new(re, im));
        let with = |data: Option<&[f64]>| Centroid {
            flux: 0.6,
            position: data.map_or([0.0, 0.0], |data| [data[0], data[1]]),
            sigma: 0.02,
            spacings: 1,
        };
        laws::gradient_is_exact(&with(None), &model);
        laws::draws_fit_the_density(&model, with);
    }

    #[test]
    fn the_moments_of_a_point_source_are_its_position() {
        let (fov, flux, place) = (7e-10, 0.6, [0.11, -0.07]);
        let phase = |[u, v]: [f64; 2]| TAU * fov * (u * place[0] + v * place[1]);
        let model = short_spacings(fov).map(|uv| Complex64::from_polar(flux, phase(uv)));
        assert_eq!(model.len(), SHORT_SPACINGS);
        let found = Centroid { flux, position: [0.0; 2], sigma: 0.02, spacings: 0 }.moments(&model);
        assert!(found.iter().zip(place).all(|(found, place)| (found - place).abs() < 1e-3), "{found:?}");
    }
}
