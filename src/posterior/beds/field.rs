//! Beds with a periodic Gaussian random field as prior: the posterior is diagonal in Fourier space.

use std::{f64::consts::PI, sync::Arc};

use candle_core::Tensor;

use super::{
    Parts,
    exact::{Component, Covariance, Diagonal, LinearPosterior},
};
use crate::{
    Result,
    compute::Compute,
    grid::Grid,
    instrument::{
        Problem,
        exact::{Blur, Filter, Normal},
    },
    prior::{Scaling, gaussian::Gaussian},
    rng::Rng,
    tensor::{compute_of, fft::circular_convolve},
};

/// Draws of a bed: each is an image, and every mode tells.
const DRAWS: usize = 64;
/// Noise per pixel.
const SIGMA: f64 = 0.3;
/// Standard deviation of the blur, pixels.
const BLUR: f64 = 1.0;
/// Median of the blur's width a priori over the true one, and the spread of its logarithm, for solvers that do not know it.
const DOUBT: (f64, f64) = (1.5, 0.4);
/// Highest frequency that is seen, cycles per pixel, and the fraction of modes that are seen below it.
const SEEN: (f64, f64) = (0.35, 0.73);

/// A field seen through a Gaussian blur.
///
/// # Errors
/// Those of the tensor library.
pub(super) fn psf(side: usize, rng: &Rng, compute: &Compute) -> Result<Parts> {
    let (prior, problem, exact, draws) = parts(side, blur(side), rng, compute)?;
    Ok((prior, doubtful(problem, side)?, exact, draws))
}

/// A field of which a random set of low Fourier modes is seen, as an interferometer does.
///
/// # Errors
/// Those of the tensor library.
pub(super) fn vlbi(side: usize, rng: &Rng, compute: &Compute) -> Result<Parts> {
    parts(side, mask(side, rng), rng, compute)
}

/// Gains of a Gaussian blur.
pub(super) fn blur(side: usize) -> Vec<f64> {
    transfer(side, |f| (-2.0 * (PI * f * BLUR).powi(2)).exp())
}

/// The same problem for those who know the blur; others take it for one of a median width half as large again.
///
/// # Errors
/// No pixels.
pub(super) fn doubtful(problem: Problem, side: usize) -> Result<Problem> {
    let known = Filter { grid: Grid::sky(side, 1e-9)?, gains: blur(side) };
    let forward = Blur { known, width: DOUBT.0 * BLUR, spread: DOUBT.1 };
    Ok(Problem { forward: Arc::new(forward), ..problem })
}

/// Gains of a random set of low modes: 1 where seen.
pub(super) fn mask(side: usize, rng: &Rng) -> Vec<f64> {
    let mut chance = rng.stream("modes", 0);
    let mut seen = |i: usize| frequency(i, side) < SEEN.0 && chance.uniform() < SEEN.1;
    let kept: Vec<bool> = (0..side * side).map(&mut seen).collect();
    let mirror = |i: usize| (side - i / side) % side * side + (side - i % side) % side;
    (0..side * side).map(|i| f64::from(u8::from(kept[i.min(mirror(i))]))).collect()
}

/// The gain of every mode by the modulus of its frequency, cycles per pixel.
pub(super) fn transfer(side: usize, gain: impl Fn(f64) -> f64) -> Vec<f64> {
    (0..side * side).map(|i| gain(frequency(i, side))).collect()
}

/// Modulus of the frequency of mode i, cycles per pixel.
fn frequency(i: usize, side: usize) -> f64 {
    let part = |k: usize| k.min(side - k) as f64 / side as f64;
    part(i / side).hypot(part(i % side))
}

fn parts(side: usize, gains: Vec<f64>, rng: &Rng, compute: &Compute) -> Result<Parts> {
    let power = |f: f64| 16.0 / (1.0 + (f / 0.06).powi(2)).powf(1.5) + 0.01;
    let prior = Gaussian::periodic([side, side], power, compute)?;
    let mut rng = rng.stream("data", 0);
    let covariance = Diagonal::Fourier(prior.variances().to_vec(), [side, side], compute.clone());
    let truth = covariance.deviations(1, &mut rng)?;
    let problem = filtered(&truth, gains, SIGMA, &mut rng)?;
    let component = Component { weight: 1.0, mean: truth.zeros_like()?, covariance: Arc::new(covariance) };
    let exact = LinearPosterior::new(&problem, vec![component], compute)?;
    Ok((Box::new(prior), problem, exact, DRAWS))
}

/// The problem of an image `[1, 1, Y, X]` seen through a filter, with noise in the modes that are seen.
///
/// # Errors
/// Those of the tensor library.
pub(super) fn filtered(truth: &Tensor, gains: Vec<f64>, sigma: f64, rng: &mut Rng) -> Result<Problem> {
    let seen: Vec<f64> = gains.iter().map(|gain| f64::from(u8::from(*gain > 0.0))).collect();
    let noise = (rng.normals(truth.dims(), &compute_of(truth))? * sigma)?;
    let data = (circular_convolve(truth, &gains)? + circular_convolve(&noise, &seen)?)?.flatten_from(1)?;
    Ok(Problem {
        forward: Arc::new(Filter { grid: Grid::sky(truth.dim(3)?, 1e-9)?, gains }),
        likelihoods: vec![Arc::new(Normal { data, sigma })],
        scaling: Scaling::IDENTITY,
    })
}
