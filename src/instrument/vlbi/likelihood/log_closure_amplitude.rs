//! Log closure amplitudes.

use nalgebra::{DMatrix, DVector};
use rustfft::num_complex::Complex64;

use super::closures::{Closures, Quantity, softened};
use crate::{
    Result,
    instrument::vlbi::{
        Observation,
        closure::{ClosureSet, independent_quadrangles},
        products::{MeasuredClosure, log_closure_amplitude_fit, log_closure_amplitudes},
    },
    rng::Rng,
};

/// Log closure amplitudes.
pub type LogClosureAmplitude = Closures<LogAmplitude, 4>;

/// Log amplitudes; the noise of their closures is Gaussian.
///
/// The datum is ln |V| itself, whose mean exceeds the truth by E1(snr^2 / 2) / 2 only: 0.006 at a signal-to-noise ratio
/// of 2.5. Below that ln |V| has a long tail and no Gaussian describes it: such visibilities should be cut. Chi-square is
/// eht-imaging's: its minimal set, debiased, errors taken as independent.
#[derive(Debug, Clone)]
pub struct LogAmplitude;

impl Quantity<4> for LogAmplitude {
    const NAME: &'static str = "log_closure_amplitude";
    const REMEDY: &'static str = "no quadrangle of well-measured visibilities at any time; lower vlbi.snr_cut or leave log_closure_amplitude out of vlbi.data";

    fn of(visibility: &Complex64) -> f64 {
        0.5 * softened(visibility).ln()
    }

    fn slope(visibility: &Complex64) -> Complex64 {
        visibility / softened(visibility)
    }

    fn independent(observation: &Observation) -> Result<Vec<ClosureSet<4>>> {
        independent_quadrangles(observation)
    }

    fn minimal(observation: &Observation) -> Vec<MeasuredClosure<4>> {
        log_closure_amplitudes(observation)
    }

    fn chi2(minimal: &[MeasuredClosure<4>], model: &[Complex64]) -> Option<f64> {
        log_closure_amplitude_fit(minimal, model).map(|fit| fit.chi2)
    }

    fn residual(difference: f64) -> f64 {
        difference
    }

    fn misfit(d: &DVector<f64>, precision: &DMatrix<f64>) -> (f64, DVector<f64>) {
        let slope = precision * d;
        (d.dot(&slope), slope)
    }

    fn noise(_: &DMatrix<f64>, lower: &DMatrix<f64>, rng: &mut Rng) -> DVector<f64> {
        lower * DVector::from_fn(lower.nrows(), |_, _| rng.normal())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::closures::laws, *};

    #[test]
    fn log_closure_amplitudes_have_gradient_and_draws_of_their_density() {
        laws::gradient_and_draws_fit_the_density::<LogAmplitude, 4>();
    }

    #[test]
    fn a_known_baseline_ties_log_closure_amplitudes_to_janskys() {
        laws::a_known_baseline_tells_the_scale::<LogAmplitude, 4>();
    }

    #[test]
    fn a_dark_image_gives_finite_log_closure_amplitudes() {
        laws::a_dark_image_gives_finite_values::<LogAmplitude, 4>();
    }
}
