//! Twisted diffusion sampling: guided particles whose weights undo what the guidance got wrong.
//!
//! Source: Wu et al. 2023, "Practical and asymptotically exact conditional sampling in diffusion models", algorithm 1. The twist
//! p(y|D(x_s, s)) guides the proposals and enters the weights
//! p(x'|x) twist(x') / (q(x'|x) twist(x)), so that any guidance gives the posterior under the discretised diffusion as particles
//! grow in number. The twist of new particles is evaluated with their next proposal: one vector-Jacobian product a step.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    diffusion::{Diffusion, Ensemble, Levels, Schedule, Transition},
    guidance::{Guidance, guidance},
};
use crate::{
    Result,
    instrument::Problem,
    posterior::{Entry, Solver, hmc::squared_norm},
    prior::Denoiser,
    rng::Rng,
    tensor::compute_of,
    transfer::Transfer,
};

/// Settings of twisted diffusion sampling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tds {
    /// Number of particles.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// Particles are resampled when fewer than this fraction of them are effective.
    pub resample_below: f64,
}

impl Default for Tds {
    fn default() -> Self {
        Self { chains: 64, schedule: Schedule::default(), resample_below: 0.5 }
    }
}

/// The particles `chosen` of a guidance.
fn reordered(guided: Guidance, chosen: &Tensor) -> Result<Guidance> {
    let order = chosen.read_list::<u32>()?;
    Ok(Guidance {
        clean: guided.clean.index_select(chosen, 0)?,
        log_likelihood: order.iter().map(|&i| guided.log_likelihood[i as usize]).collect(),
        gradient: guided.gradient.index_select(chosen, 0)?,
    })
}

impl Transition for Tds {
    const NAME: &'static str = "tds";

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        levels: Levels,
        problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let mut guided = guidance(problem, prior, &ensemble.x, levels.from)?;
        let twists = ensemble.log_weights.iter_mut().zip(&guided.log_likelihood);
        twists.for_each(|(weight, twist)| *weight += twist);
        if let Some(chosen) = ensemble.resample(self.resample_below, rng)? {
            guided = reordered(guided, &chosen)?;
        }
        let x = &ensemble.x;
        let variance = levels.ancestral();
        let kept = (levels.to / levels.from).powi(2);
        let mean = (&guided.clean + ((x - &guided.clean)? * kept)?)?;
        if variance == 0.0 {
            // The twist of the last particles is the likelihood of what they become.
            ensemble.x = mean;
            return Ok(());
        }
        let noise = (rng.normals(x.dims(), &compute_of(x))? * variance.sqrt())?;
        let moved = (guided.step(problem, levels.variance())? + &noise)?;
        let (plain, shifted) = (squared_norm(&noise)?, squared_norm(&moved)?);
        for (i, log_weight) in ensemble.log_weights.iter_mut().enumerate() {
            *log_weight += (plain[i] - shifted[i]) / (2.0 * variance) - guided.log_likelihood[i];
        }
        ensemble.x = (mean + moved)?;
        Ok(())
    }
}

impl Rival for Tds {
    fn entry(&self) -> Entry {
        Entry {
            name: "tds",
            summary: "twisted diffusion sampling: guided, weighted particles; exact for many particles, any smooth likelihood",
            needs: &["denoiser gradient", "likelihood gradient"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        Ok(Box::new(Diffusion::new(self.clone(), self.chains, &self.schedule, given)?))
    }
}
