//! What the posterior samples predict for the data, and credible bands of it.

use ndarray::Array2;
use rustfft::num_complex::Complex64;

use crate::{
    Result,
    features::sky_images,
    instrument::vlbi::{
        Observation,
        closure::Closure,
        fourier::{Pulse, visibilities},
        likelihood::wrap,
    },
    io::cube::Cube,
    quantile::quantile,
};

/// Visibilities that every sample predicts, without noise and gains.
#[derive(Debug, Clone)]
pub struct Predicted {
    /// Visibilities `[S, M]` in the order of the observation, Jy.
    pub visibilities: Array2<Complex64>,
}

impl Predicted {
    /// The visibilities of a cube of images in Jy/pixel.
    ///
    /// # Errors
    /// A cube that is not on its own grid.
    pub fn new(cube: &Cube, observation: &Observation, pulse: Pulse) -> Result<Self> {
        let uv: Vec<[f64; 2]> = observation.visibilities.iter().map(|row| [row.u, row.v]).collect();
        let images = sky_images(cube);
        let mut predicted = Array2::zeros((images.len(), uv.len()));
        for (image, mut row) in images.iter().zip(predicted.outer_iter_mut()) {
            let pixels: Vec<f64> = image.iter().copied().collect();
            row.assign(&ndarray::Array1::from(visibilities(&pixels, &cube.grid, pulse, &uv)?));
        }
        Ok(Self { visibilities: predicted })
    }

    /// Amplitude of one visibility in every sample, Jy.
    pub(crate) fn amplitudes(&self, index: usize) -> Vec<f64> {
        self.visibilities.column(index).iter().map(|value| value.norm()).collect()
    }

    /// Closure phase in every sample, radians in (-pi, pi].
    pub(crate) fn closure_phases<const N: usize>(&self, closure: &Closure<N>) -> Vec<f64> {
        self.closures(closure, Complex64::arg).into_iter().map(wrap).collect()
    }

    /// Log closure amplitude in every sample.
    pub(crate) fn log_closure_amplitudes<const N: usize>(&self, closure: &Closure<N>) -> Vec<f64> {
        self.closures(closure, |value| value.norm().ln())
    }

    fn closures<const N: usize>(&self, closure: &Closure<N>, of: impl Fn(Complex64) -> f64) -> Vec<f64> {
        let sum = |row: ndarray::ArrayView1<Complex64>| {
            closure.terms.iter().map(|(index, factor)| factor * of(row[*index])).sum()
        };
        self.visibilities.outer_iter().map(sum).collect()
    }
}

/// The central interval that holds 95 % of values.
pub(crate) fn central_95(mut values: Vec<f64>) -> [f64; 2] {
    [quantile(&mut values, 0.025), quantile(&mut values, 0.975)]
}

/// The central 95 % interval of angles (radians) around their circular mean, which lies within half a turn of
/// `near`.
pub(crate) fn central_95_of_angles(angles: &[f64], near: f64) -> [f64; 2] {
    let resultant: Complex64 = angles.iter().map(|angle| Complex64::cis(*angle)).sum();
    let centre = near + wrap(resultant.arg() - near);
    central_95(angles.iter().map(|angle| centre + wrap(angle - centre)).collect())
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;

    #[test]
    fn bands_of_angles_do_not_tear_at_half_a_turn() {
        let angles: Vec<f64> = (-10..=10).map(|k| wrap(PI + 0.01 * f64::from(k))).collect();
        let [low, high] = central_95_of_angles(&angles, 3.0);
        assert!((low - (PI - 0.095)).abs() < 1e-9 && (high - (PI + 0.095)).abs() < 1e-9, "{low} {high}");
        let [low, _] = central_95_of_angles(&angles, -3.0);
        assert!((low - (-PI - 0.095)).abs() < 1e-9, "{low}");
    }
}
