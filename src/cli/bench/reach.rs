//! Steps of a solver until its draws are good enough.

use std::time::Instant;

use serde::Serialize;

use super::scaling::processor_time;
use crate::{
    Result,
    compute::Compute,
    instrument::Problem,
    posterior::{Draws, SolverSettings},
    prior::{Denoiser, counted::Counted},
    rng::Rng,
};

/// What a run cost until its draws were good, or until it ended or was given up.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    /// True if the draws became good.
    pub(super) reached: bool,
    /// The smallest measure that draws had; none if it was never known.
    pub(super) nearest: Option<f64>,
    /// Steps of the solver.
    pub(super) steps: usize,
    /// Images that passed through the prior's denoiser, in all chains together.
    pub(super) forwards: u64,
    /// Vector-Jacobian products of it.
    pub(super) backwards: u64,
    /// Time of these steps, s.
    pub(super) seconds: f64,
    /// Processor time of all threads, s: hardly longer on a busy machine.
    pub(super) processor_seconds: f64,
}

/// A run that is to give good draws.
pub(super) struct Attempt<'a> {
    pub(super) problem: &'a Problem,
    pub(super) prior: &'a dyn Denoiser,
    pub(super) settings: &'a SolverSettings,
    pub(super) rng: &'a Rng,
    pub(super) compute: &'a Compute,
    /// Processor time after which it is given up, s.
    pub(super) limit: f64,
}

impl Attempt<'_> {
    /// Steps until a `measure` of the draws, which grows the worse they are, falls to `target`.
    ///
    /// # Errors
    /// Those of the solver and of `measure`.
    pub(super) fn until(
        &self,
        target: f64,
        mut measure: impl FnMut(&Draws) -> Result<Option<f64>>,
    ) -> Result<Cost> {
        let prior = Counted::new(self.prior);
        let mut clock = Clock::default();
        let mut solver = clock.time(|| {
            self.settings.build(self.problem, &prior, &self.rng.stream("solver", 0), self.compute)
        })?;
        let (mut nearest, mut steps, mut known): (Option<f64>, _, _) = (None, 0, 0);
        let reached = |nearest: Option<f64>| nearest.is_some_and(|nearest| nearest <= target);
        while !reached(nearest) && steps < solver.steps() && clock.processor_seconds < self.limit {
            let mut rng = self.rng.stream("step", steps as u64);
            let step = clock.time(|| solver.step(self.problem, &prior, &mut rng))?;
            steps += 1;
            // The particles of matching move without growing in number; a sampler has no draws before its burn-in ends.
            if let Ok(draws) = solver.draws()
                && (draws.len() != known || step.stage == "ppm")
            {
                known = draws.len();
                nearest = measure(&draws)?.into_iter().chain(nearest).reduce(f64::min);
            }
        }
        let (forwards, backwards) = (prior.forwards(), prior.backwards());
        let Clock { seconds, processor_seconds } = clock;
        Ok(Cost {
            reached: reached(nearest),
            nearest,
            steps,
            forwards,
            backwards,
            seconds,
            processor_seconds,
        })
    }
}

/// Time spent so far.
#[derive(Default)]
struct Clock {
    seconds: f64,
    processor_seconds: f64,
}

impl Clock {
    /// What `work` gives; its time is added.
    fn time<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let (start, used) = (Instant::now(), processor_time());
        let result = work();
        self.seconds += start.elapsed().as_secs_f64();
        self.processor_seconds += processor_time() - used;
        result
    }
}
