//! What is known of the log amplitudes of single visibilities.

use super::{
    closures::softened,
    rice::{Moments, log_amplitude},
};
use crate::instrument::vlbi::{Observation, Visibility};

/// A visibility whose true amplitude is known: that of the whole source at a spacing too short to resolve it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Known {
    /// Flux density, Jy.
    pub flux: f64,
    /// Fractional error, one for all times.
    pub error: f64,
}

/// What is known of one visibility.
#[derive(Debug, Clone)]
pub(super) struct Noise {
    /// Where the model has it; none where its true amplitude is known.
    pub(super) place: Option<usize>,
    /// Moments at the measured, or the known, amplitude.
    pub(super) measured: Moments,
    /// Thermal noise, Jy.
    sigma: f64,
    /// Variance of ln |V| beside it.
    systematic: f64,
    /// Errors that it shares with others at all times, and with others of its time stamp: number and standard deviation.
    pub(super) errors: [Vec<(usize, f64)>; 2],
}

impl Noise {
    /// Of a measured visibility at its `place` in the model, of whose sigma the fraction `systematic` of |V| is no thermal noise.
    fn of(row: &Visibility, systematic: f64, place: Option<usize>) -> Self {
        let amplitude = row.value.norm();
        let thermal = row.sigma.powi(2) - (systematic * amplitude).powi(2);
        let sigma = thermal.max(1e-12 * row.sigma.powi(2)).sqrt();
        let systematic = systematic * systematic;
        let errors = Default::default();
        Self { place, measured: moments(amplitude, sigma, systematic), sigma, systematic, errors }
    }

    /// What is known of each visibility of `all`, with its place in the model if it has one; otherwise its amplitude is `known`, with the
    /// error of that `number` of those that all times share.
    pub(super) fn all(
        all: &Observation,
        systematic: f64,
        places: &[Option<usize>],
        known: Option<Known>,
        number: usize,
    ) -> Vec<Self> {
        let noise = |(row, &place): (&Visibility, &Option<usize>)| {
            let mut noise = Self::of(row, systematic, place);
            if let (None, Some(known)) = (place, known) {
                noise.measured = noise.moments(known.flux);
                noise.errors[0].push((number, known.error));
            }
            noise
        };
        all.visibilities.iter().zip(places).map(noise).collect()
    }

    /// Moments of ln |V| of a true `amplitude`.
    pub(super) fn moments(&self, amplitude: f64) -> Moments {
        moments(amplitude, self.sigma, self.systematic)
    }
}

/// Moments of ln |V| of a true `amplitude` with noise of `sigma`, and the variance `systematic` beside it.
fn moments(amplitude: f64, sigma: f64, systematic: f64) -> Moments {
    let moments = log_amplitude(amplitude, sigma);
    Moments { variance: moments.variance + systematic, ..moments }
}

/// ln |V| of all measured visibilities.
pub(super) fn measured(observation: &Observation) -> Vec<f64> {
    observation.visibilities.iter().map(|row| 0.5 * softened(&row.value).ln()).collect()
}
