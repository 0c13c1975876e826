//! The largest curvature of a log density, which bounds the step of explicit integrators.

use candle_core::Tensor;

use super::hmc::{per_chain, squared_norm};
use crate::{Error, Result, instrument::Problem, rng::Rng, tensor::compute_of};

/// Power iterations of [`largest_curvature_of`].
const POWER_ITERATIONS: usize = 12;

/// Largest curvature of -log p(y|x) over the chains at `x`; see [`largest_curvature_of`].
///
/// # Errors
/// Those of the problem.
pub fn largest_curvature(problem: &Problem, x: &Tensor, reach: f64, rng: &mut Rng) -> Result<f64> {
    largest_curvature_of(|x| Ok(problem.log_likelihood_and_gradient(x)?.1), x, reach, rng)
}

/// Largest curvature of minus the log density with this `gradient` over the chains at `x`, by power iteration on central
/// differences of the gradient over a distance `reach` per pixel.
///
/// # Errors
/// Those of `gradient`, or a curvature that is no number.
pub fn largest_curvature_of(
    gradient: impl Fn(&Tensor) -> Result<Tensor>,
    x: &Tensor,
    reach: f64,
    rng: &mut Rng,
) -> Result<f64> {
    let pixels = (x.elem_count() / x.dim(0)?) as f64;
    let mut direction = rng.normals(x.dims(), &compute_of(x))?;
    let mut curvature = 0.0f64;
    for _ in 0..POWER_ITERATIONS {
        let norms = squared_norm(&direction)?;
        let scale = norms.iter().map(|n| reach * (pixels / n.max(f64::MIN_POSITIVE)).sqrt()).collect();
        let offset = direction.broadcast_mul(&per_chain(scale, x)?)?;
        let (ahead, behind) = (gradient(&(x + &offset)?)?, gradient(&(x - &offset)?)?);
        direction = ((behind - ahead)? / (2.0 * reach * pixels.sqrt()))?;
        curvature = squared_norm(&direction)?.into_iter().fold(0.0, f64::max).sqrt();
    }
    if curvature.is_finite() {
        return Ok(curvature);
    }
    Err(Error::Diverged { what: "curvature of the likelihood".into(), step: 0 })
}
