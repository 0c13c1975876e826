//! How bright the structures of a stack are: the unit in which the prior sees them.

use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::Array3;

use crate::{
    Error, Result,
    posterior::{
        Solver, Step,
        gibbs::{Gibbs, GibbsSettings},
        run::Observer,
    },
    quantile::quantile,
    reconstruction::{Reconstruction, settings::sampling},
    rng::Rng,
    tensor::to_host,
};

/// Quantile of an image that counts as the brightness of its bright structures.
const BRIGHT: f64 = 0.995;

/// Runs of so many chains and more can afford one that finds the brightness.
const AFFORDED: usize = 8;

/// Light per voxel of bright structures in a classical image. It shows thin ones wider than they are, and so dimmer.
pub(super) fn of_classical(classical: &Array3<f32>) -> Result<f64> {
    let found = bright(classical.iter().map(|&value| f64::from(value)).collect());
    match found.is_finite() && found > 0.0 {
        true => Ok(found),
        false => Err(Error::config("microscope.background", "no light is left above it; give a lower one")),
    }
}

/// Gives the prior the brightness that the settings name, or that a first, short chain finds, and the coupling the level that the
/// data then resolve; writes both into the settings.
///
/// # Errors
/// [`Error::Interrupted`] once `stop` is set, and those of the sampler.
pub(in crate::reconstruction) fn settle(
    run: &mut Reconstruction,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<()> {
    let found = match run.settings.stack.brightness {
        Some(known) => known,
        None if run.settings.solver.chains() >= AFFORDED => of_chain(run, stop, observer)?,
        None => f64::NAN,
    };
    // A dark object has no bright structures to measure.
    if found.is_finite() && found > 0.0 && found * run.card.unit != run.problem.scaling.unit {
        run.problem.scaling.unit = found * run.card.unit;
        run.resolve()?;
    }
    let brightness = run.problem.scaling.unit / run.card.unit;
    run.settings.stack.brightness = Some(brightness);
    run.assumptions.push(format!("bright structures of {brightness:.4} {}", run.subject.unit()));
    Ok(())
}

/// Light per voxel of bright structures in the last image of a short chain.
fn of_chain(run: &Reconstruction, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<f64> {
    let Some(start) = run.problem.guess(&run.compute)? else { return Ok(f64::NAN) };
    let settings = GibbsSettings { anneal: 10, rounds: 1, draws: 1, ..sampling() };
    let mut gibbs = Gibbs::new(settings, start)?;
    let mut rng = Rng::new(run.settings.seed).stream("brightness", 0);
    for finished in 1..=gibbs.steps() {
        let step = gibbs.step(&run.problem, run.prior.as_ref(), &mut rng)?;
        observer.on_step(finished, gibbs.steps(), &Step { stage: "brightness", ..step });
        // Processes that share a run stop together, once they take steps of it.
        if run.ensemble.is_none() && stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
    }
    Ok(bright(to_host(&run.problem.scaling.to_image(&gibbs.draws()?.images)?)?))
}

/// The value of an image's bright structures: those of the 99.5 % quantile, or a third of the peak where they are small.
fn bright(mut values: Vec<f64>) -> f64 {
    let peak = values.iter().copied().fold(0.0, f64::max);
    quantile(&mut values, BRIGHT).max(peak / 3.0)
}
