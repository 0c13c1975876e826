//! Diffusion posterior sampling: the data are taken to see the denoised image, without its uncertainty.
//!
//! Source: Chung et al. 2023, "Diffusion posterior sampling for general noisy inverse problems", algorithm 1, with
//! grad log p(y|x_s) replaced by grad log p(y|D(x_s, s)). The gradient enters with the weight s^2 - s'^2 that the
//! reverse diffusion gives a score, and no step goes past the fit (see [`Guidance::step`]); the paper divides a tuned
//! constant by the norm of the residual instead.
//!
//! [`Guidance::step`]: super::guidance::Guidance::step

use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    diffusion::{Diffusion, Ensemble, Levels, Schedule, Transition},
    guidance::guidance,
};
use crate::{
    Result,
    instrument::Problem,
    posterior::{Entry, Solver},
    prior::Denoiser,
    rng::Rng,
};

/// Settings of diffusion posterior sampling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dps {
    /// Number of chains.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// Weight of the data; 1 is the likelihood's own.
    pub scale: f64,
}

impl Default for Dps {
    fn default() -> Self {
        Self { chains: 32, schedule: Schedule::default(), scale: 1.0 }
    }
}

impl Transition for Dps {
    const NAME: &'static str = "dps";

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        levels: Levels,
        problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let guided = guidance(problem, prior, &ensemble.x, levels.from)?;
        let moved = levels.renoise(&ensemble.x, &guided.clean, 1.0, rng)?;
        ensemble.x = (moved + guided.step(problem, self.scale * levels.variance())?)?;
        Ok(())
    }
}

impl Rival for Dps {
    fn entry(&self) -> Entry {
        Entry {
            name: "dps",
            summary: "diffusion posterior sampling: guided by the fit of the denoised image; biased, too narrow",
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
