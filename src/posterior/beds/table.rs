//! How a solver does on a bed: distances from exact draws, cost, and the same distances between exact draws.

use std::time::Instant;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::{Bed, mmd2, score_ksd, sliced_w2};
use crate::{
    Error, Result,
    compute::Compute,
    posterior::SolverSettings,
    prior::{counted::Counted, reverse::denoised},
    rng::Rng,
    transfer::{Transfer, send},
};

/// Distances of a set of draws from the exact posterior.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Score {
    /// Sliced 2-Wasserstein distance.
    pub sliced_w2: f64,
    /// Unbiased squared maximum mean discrepancy.
    pub mmd2: f64,
    /// Total variation between the shares of modes and their exact weights; none where there is one mode.
    pub mode_error: Option<f64>,
    /// Standard deviation within modes over the exact one, rms over the directions that the data tell more about than
    /// the prior does; none if there is no such direction.
    pub spread_measured: Option<f64>,
    /// The same across these directions.
    pub spread_unmeasured: Option<f64>,
    /// Kernel Stein discrepancy from the exact posterior's score; none in more than 128 dimensions.
    pub score_ksd: Option<f64>,
}

/// Most dimensions in which a Stein discrepancy tells anything.
const KSD_PIXELS: usize = 128;
/// Noise level at which the prior's denoiser gives its score, smallest levels that it knows.
const SCORE_LEVEL: f64 = 20.0;

/// What became of a solver.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has draws.
    Draws(Score),
    /// It refused, or its computation failed.
    Failed(String),
}

/// One row of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Name of the bed.
    pub bed: String,
    /// Name of the solver, or `exact` for the distances between two sets of exact draws: the split-half floor.
    pub solver: String,
    /// Number of draws.
    pub draws: usize,
    /// Distances.
    pub outcome: Outcome,
    /// Denoiser evaluations per draw.
    pub forwards: f64,
    /// Vector-Jacobian products of the denoiser per draw.
    pub backwards: f64,
    /// Wall-clock time of all draws.
    pub seconds: f64,
}

/// Runs a solver with as many chains as draws, one draw of each, and compares these with as many exact draws.
///
/// # Errors
/// Exact draws that cannot be made; a failure of the solver is an outcome.
pub fn measure(
    bed: &Bed,
    settings: &SolverSettings,
    draws: usize,
    rng: &Rng,
    compute: &Compute,
) -> Result<Row> {
    let mut settings = settings.clone();
    settings.set_chains(draws);
    let counted = Counted::new(bed.prior.as_ref());
    let clock = Instant::now();
    let found = run(bed, &settings, &counted, rng, compute);
    let seconds = clock.elapsed().as_secs_f64();
    let outcome = match found {
        Ok(images) => Outcome::Draws(score(bed, &images, &reference(bed, images.dim(0)?, rng)?)?),
        Err(error) => Outcome::Failed(error.to_string()),
    };
    let each = |count: u64| count as f64 / draws as f64;
    let (forwards, backwards) = (each(counted.forwards()), each(counted.backwards()));
    Ok(Row {
        bed: bed.name.into(),
        solver: settings.name().into(),
        draws,
        outcome,
        forwards,
        backwards,
        seconds,
    })
}

/// The distances between two independent sets of exact draws.
///
/// # Errors
/// Those of the tensor library.
pub fn floor(bed: &Bed, draws: usize, rng: &Rng) -> Result<Row> {
    let clock = Instant::now();
    let other = bed.draws(draws, &mut rng.stream("floor", 0))?;
    let seconds = clock.elapsed().as_secs_f64();
    let outcome = Outcome::Draws(score(bed, &other, &reference(bed, draws, rng)?)?);
    let (bed, solver) = (bed.name.into(), "exact".into());
    Ok(Row { bed, solver, draws, outcome, forwards: 0.0, backwards: 0.0, seconds })
}

fn reference(bed: &Bed, draws: usize, rng: &Rng) -> Result<Tensor> {
    bed.draws(draws, &mut rng.stream("reference", 0))
}

fn run(
    bed: &Bed,
    settings: &SolverSettings,
    prior: &Counted,
    rng: &Rng,
    compute: &Compute,
) -> Result<Tensor> {
    let mut solver = settings.build(&bed.problem, prior, &rng.stream("solver", 0), compute)?;
    let mut step = 0;
    while step < solver.steps() {
        solver.step(&bed.problem, prior, &mut rng.stream("step", step as u64))?;
        step += 1;
    }
    let images = solver.draws()?.images;
    match sum(&images.sqr()?)?.is_finite() {
        true => Ok(images),
        false => Err(Error::Diverged { what: "a draw".into(), step: solver.steps() }),
    }
}

/// Compares draws `[S, Z, Y, X]` with as many exact ones.
///
/// # Errors
/// Draws of another shape.
pub fn score(bed: &Bed, images: &Tensor, exact: &Tensor) -> Result<Score> {
    let (flat, reference) = (images.flatten_from(1)?, exact.flatten_from(1)?);
    let (found, right) = (variances(bed, images)?, variances(bed, exact)?);
    let ratio = |i: usize| (right[i] > 0.0).then(|| (found[i] / right[i]).sqrt());
    Ok(Score {
        sliced_w2: sliced_w2(&flat, &reference)?,
        mmd2: mmd2(&flat, &reference)?,
        mode_error: mode_error(bed, images)?,
        spread_measured: ratio(0),
        spread_unmeasured: ratio(1),
        score_ksd: ksd(bed, images)?,
    })
}

fn ksd(bed: &Bed, images: &Tensor) -> Result<Option<f64>> {
    let flat = images.flatten_from(1)?;
    if flat.dim(1)? > KSD_PIXELS {
        return Ok(None);
    }
    let level = SCORE_LEVEL * bed.prior.noise_range().0;
    let prior = ((denoised(bed.prior.as_ref(), images, level)? - images)? / (level * level))?;
    let (_, likelihood) = bed.problem.log_likelihood_and_gradient(images)?;
    Ok(Some(score_ksd(&flat, &(prior + likelihood)?.flatten_from(1)?)?))
}

fn mode_error(bed: &Bed, images: &Tensor) -> Result<Option<f64>> {
    let weights = &bed.exact.weights;
    if weights.len() < 2 {
        return Ok(None);
    }
    let components = bed.exact.components(images)?;
    let share = |k: usize| components.iter().filter(|&&c| c == k).count() as f64 / components.len() as f64;
    Ok(Some(0.5 * weights.iter().enumerate().map(|(k, weight)| (share(k) - weight).abs()).sum::<f64>()))
}

/// Variance around the mean of each mode, summed over the measured directions and over the others.
fn variances(bed: &Bed, images: &Tensor) -> Result<[f64; 2]> {
    let linear = &bed.exact.linear;
    let components = bed.exact.components(images)?;
    let count = components.len();
    let mut members = vec![Vec::new(); bed.exact.weights.len()];
    components.iter().enumerate().for_each(|(i, &component)| members[component].push(i as u32));
    members.retain(|group| !group.is_empty());
    let told = linear.sigma.iter().map(|sigma| f64::from(u8::from(*sigma < bed.prior.data_std())));
    let told = linear.row(told.collect(), images)?;
    let (mut measured, mut total) = (0.0, 0.0);
    for group in &members {
        let group = images.index_select(&send(group.as_slice(), images.device())?, 0)?;
        let centred = group.broadcast_sub(&group.mean_keepdim(0)?)?;
        measured += sum(&linear.coordinates(&centred)?.broadcast_mul(&told)?.sqr()?)?;
        total += sum(&centred.sqr()?)?;
    }
    let freedom = count.saturating_sub(members.len()).max(1) as f64;
    // A remainder of rounding errors is no variance.
    let across = if total - measured > 1e-5 * total { total - measured } else { 0.0 };
    Ok([measured / freedom, across / freedom])
}

fn sum(x: &Tensor) -> Result<f64> {
    Ok(x.to_dtype(DType::F64)?.sum_all()?.read_scalar::<f64>()?)
}
