//! What every posterior sampler offers to the run loop.

use std::{collections::HashMap, fmt};

use candle_core::Tensor;

use super::draws::Draws;
use crate::{Error, Result, instrument::Problem, prior::Denoiser, rng::Rng};

/// Named tensors: the state of a solver in a checkpoint.
pub type TensorMap = HashMap<String, Tensor>;

/// What one step reports.
#[derive(Debug, Clone)]
pub struct Step {
    /// Stage of the solver, for example `ppm` or `gibbs`.
    pub stage: &'static str,
    /// Named numbers for `metrics.jsonl` and the progress bar.
    pub metrics: Vec<(&'static str, f64)>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stage)?;
        self.metrics.iter().try_for_each(|(name, value)| write!(f, " {name} {value:.4}"))
    }
}

/// A posterior sampler. It works in the prior's network unit and draws randomness only from its `rng` argument.
pub trait Solver: Send {
    /// Largest number of steps of a whole run; it may become smaller on the way.
    fn steps(&self) -> usize;

    /// Number of draws with which the run may end here, before its last step; 0 where it may not.
    fn finished_draws(&self) -> usize {
        0
    }

    /// Advances by one step; the run loop calls it at most [`Solver::steps`] times, each with its own stream of `rng`.
    ///
    /// # Errors
    /// A diverged computation, or a failure of problem or prior.
    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step>;

    /// Posterior draws so far, network unit.
    ///
    /// # Errors
    /// No draws yet.
    fn draws(&self) -> Result<Draws>;

    /// Everything needed to continue, except the random generator, which the run loop derives from seed and step.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn state(&self) -> Result<TensorMap>;

    /// Continues from a state of an equally configured solver.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    fn restore(&mut self, state: TensorMap) -> Result<()>;
}

/// Takes the tensor `name` of the given shape out of a state.
///
/// # Errors
/// It is missing or has another shape.
pub fn take(state: &mut TensorMap, name: &str, shape: &[usize]) -> Result<Tensor> {
    match state.remove(name) {
        Some(tensor) if tensor.dims() == shape => Ok(tensor),
        _ => {
            let problem = format!("has no `{name}` of shape {shape:?}; resume with the same settings");
            Err(Error::config("checkpoint", problem))
        }
    }
}

/// `map` with `prefix` before every name.
pub(super) fn prefixed(prefix: &'static str, map: TensorMap) -> impl Iterator<Item = (String, Tensor)> {
    map.into_iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor))
}

/// The tensors whose names begin with `prefix`, without it.
pub(super) fn part(state: &TensorMap, prefix: &str) -> TensorMap {
    let named =
        |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()));
    state.iter().filter_map(named).collect()
}
