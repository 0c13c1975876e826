//! Plug-and-play restoration by diffusion: a proximal step on the data after each denoising.
//!
//! Source: Zhu et al. 2023, "Denoising diffusion models for plug-and-play image restoration", algorithm 1: the denoised image D
//! is replaced by the minimiser of -log p(y|x) + lambda |x - D|^2 / 2 s^2, and part of the noise by fresh noise. The minimiser
//! is exact where the instrument is linear; elsewhere it is one gradient step that does not go past the fit.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    diffusion::{Diffusion, Ensemble, Levels, Schedule, Transition},
    guidance::Guidance,
};
use crate::{
    Result,
    instrument::{Linear, Problem},
    posterior::{Entry, Solver},
    prior::{Denoiser, reverse::denoised},
    rng::Rng,
    tensor::{compute_of, to_host},
};

/// Settings of plug-and-play restoration by diffusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Diffpir {
    /// Number of chains.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// Weight lambda of the denoised image against the data.
    pub weight: f64,
    /// Share zeta of the noise that is fresh.
    pub fresh: f64,
}

impl Default for Diffpir {
    fn default() -> Self {
        Self { chains: 32, schedule: Schedule::default(), weight: 1.0, fresh: 0.3 }
    }
}

/// The proximal step on the data.
pub(super) struct Proximal {
    weight: f64,
    /// None where one gradient step has to do.
    linear: Option<Linear>,
}

impl Proximal {
    /// A step that holds the denoised image with `weight`.
    pub(super) fn new(weight: f64, given: &Given) -> Self {
        Self { weight, linear: given.problem.linear(given.compute).ok() }
    }

    /// The image that fits the data and is near `clean`.
    ///
    /// # Errors
    /// Those of the problem.
    pub(super) fn fitted(&self, problem: &Problem, clean: &Tensor, level: f64) -> Result<Tensor> {
        let variance = level * level / self.weight;
        let Some(linear) = &self.linear else {
            let (value, gradient) = problem.log_likelihood_and_gradient(clean)?;
            let guidance = Guidance { clean: clean.clone(), log_likelihood: to_host(&value)?, gradient };
            return Ok((clean + guidance.step(problem, variance)?)?);
        };
        let gain = linear.each(clean, |_, sigma| variance / (variance + sigma * sigma))?;
        let centre = linear.coordinates(clean)?;
        let misfit = linear.row(linear.data.clone(), clean)?.broadcast_sub(&centre)?;
        linear.replaced(clean, &(centre + misfit.broadcast_mul(&gain)?)?)
    }
}

/// The transition.
struct Restored {
    proximal: Proximal,
    fresh: f64,
}

impl Transition for Restored {
    const NAME: &'static str = "diffpir";

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        Levels { from, to, .. }: Levels,
        problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let x = &ensemble.x;
        let fitted = self.proximal.fitted(problem, &denoised(prior, x, from)?, from)?;
        let fresh = self.fresh;
        let old = ((x - &fitted)? * ((1.0 - fresh).sqrt() * to / from))?;
        let noise = (rng.normals(x.dims(), &compute_of(x))? * (fresh.sqrt() * to))?;
        ensemble.x = ((fitted + old)? + noise)?;
        Ok(())
    }
}

impl Rival for Diffpir {
    fn entry(&self) -> Entry {
        Entry {
            name: "diffpir",
            summary: "plug-and-play restoration by diffusion: a proximal step on the data after each denoising",
            needs: &["denoiser", "likelihood gradient"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        let transition = Restored { proximal: Proximal::new(self.weight, given), fresh: self.fresh };
        Ok(Box::new(Diffusion::new(transition, self.chains, &self.schedule, given)?))
    }
}
