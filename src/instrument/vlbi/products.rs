//! The data products as the field tabulates and plots them: closures of the minimal set with value and error.

use rustfft::num_complex::Complex64;

use super::{
    Observation, Visibility,
    closure::{Closure, minimal_quadrangles, minimal_triangles},
    fourier::{Pulse, visibilities},
    likelihood::wrap,
};
use crate::{Result, grid::Grid};

/// A measured closure: phase in radians (N = 3) or log amplitude (N = 4).
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredClosure<const N: usize> {
    /// Which stations, when, and of which visibilities.
    pub closure: Closure<N>,
    /// Measured value.
    pub value: f64,
    /// Its standard deviation, errors of the visibilities taken as independent.
    pub sigma: f64,
}

/// Closure phases of eht-imaging's minimal set, wrapped to (-pi, pi].
pub fn closure_phases(observation: &Observation) -> Vec<MeasuredClosure<3>> {
    let phases: Vec<f64> = observation.visibilities.iter().map(|row| row.value.arg()).collect();
    let measured = |closure: Closure<3>| MeasuredClosure {
        value: wrap(closure.sum(&phases)),
        sigma: closure.sigma(observation),
        closure,
    };
    minimal_triangles(observation).into_iter().map(measured).collect()
}

/// Log closure amplitudes of eht-imaging's minimal set, debiased as it does.
pub fn log_closure_amplitudes(observation: &Observation) -> Vec<MeasuredClosure<4>> {
    let measured = |closure: Closure<4>| {
        let (value, sigma) = closure.debiased(observation);
        MeasuredClosure { closure, value, sigma }
    };
    minimal_quadrangles(observation).into_iter().map(measured).collect()
}

/// sqrt(|V|^2 - sigma^2), 0 below the noise, Jy.
pub fn debiased_amplitude(row: &Visibility) -> f64 {
    (row.value.norm_sqr() - row.sigma.powi(2)).max(0.0).sqrt()
}

impl<const N: usize> MeasuredClosure<N> {
    /// The same closure where visibility `k` has become `new[k]`.
    pub fn renumbered(mut self, new: &[usize]) -> Self {
        self.closure = self.closure.renumbered(new);
        self
    }
}

impl MeasuredClosure<3> {
    /// The model's closure phase, in (-pi, pi], from its visibilities in the order of the observation.
    pub fn predicted(&self, model: &[Complex64]) -> f64 {
        wrap(self.closure.terms.iter().map(|&(index, factor)| factor * model[index].arg()).sum())
    }
}

impl MeasuredClosure<4> {
    /// The model's log closure amplitude from its visibilities in the order of the observation.
    pub fn predicted(&self, model: &[Complex64]) -> f64 {
        self.closure.terms.iter().map(|&(index, factor)| factor * model[index].norm().ln()).sum()
    }
}

/// Exact visibilities, in the order of the observation, of an image in Jy/pixel, row by row from the north-east.
///
/// # Errors
/// An image of another size than the grid.
pub fn model_visibilities(
    observation: &Observation,
    pixels: &[f64],
    grid: &Grid,
    pulse: Pulse,
) -> Result<Vec<Complex64>> {
    let uv: Vec<_> = observation.visibilities.iter().map(|row| [row.u, row.v]).collect();
    visibilities(pixels, grid, pulse, &uv)
}

/// Reduced chi-square of one data product.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Fit {
    /// Chi-square per real datum.
    pub chi2: f64,
    /// Number of visibilities, amplitudes or closures.
    pub count: usize,
}

/// How well model visibilities fit each data product, by eht-imaging's definitions; `None` without such data.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Fits {
    /// sum |V - M|^2 / sigma^2 / 2N.
    pub visibility: Option<Fit>,
    /// sum (A - |M|)^2 / sigma^2 / N with A debiased.
    pub amplitude: Option<Fit>,
    /// (2/N) sum (1 - cos d) / sigma^2.
    pub closure_phase: Option<Fit>,
    /// sum d^2 / sigma^2 / N.
    pub log_closure_amplitude: Option<Fit>,
}

impl Fits {
    /// The fits of `model`, in the order of the observation.
    pub fn new(observation: &Observation, model: &[Complex64]) -> Self {
        let rows = || observation.visibilities.iter().zip(model);
        Self {
            visibility: fit(rows().map(|(row, m)| 0.5 * (row.value - m).norm_sqr() / row.sigma.powi(2))),
            amplitude: fit(rows().map(|(row, m)| ((debiased_amplitude(row) - m.norm()) / row.sigma).powi(2))),
            closure_phase: closure_phase_fit(&closure_phases(observation), model),
            log_closure_amplitude: log_closure_amplitude_fit(&log_closure_amplitudes(observation), model),
        }
    }
}

/// The fit to closure phases.
pub fn closure_phase_fit(data: &[MeasuredClosure<3>], model: &[Complex64]) -> Option<Fit> {
    fit(data
        .iter()
        .map(|datum| 2.0 * (1.0 - (datum.value - datum.predicted(model)).cos()) / datum.sigma.powi(2)))
}

/// The fit to log closure amplitudes.
pub fn log_closure_amplitude_fit(data: &[MeasuredClosure<4>], model: &[Complex64]) -> Option<Fit> {
    fit(data.iter().map(|datum| ((datum.value - datum.predicted(model)) / datum.sigma).powi(2)))
}

fn fit(terms: impl ExactSizeIterator<Item = f64>) -> Option<Fit> {
    let count = terms.len();
    (count > 0).then(|| Fit { chi2: terms.sum::<f64>() / count as f64, count })
}
