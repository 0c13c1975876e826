//! Pseudoinverse-guided diffusion: the data see the denoised image with one variance for all directions.
//!
//! Source: Song et al. 2023, "Pseudoinverse-guided diffusion models for inverse problems": given x_s the clean image is taken
//! as N(D, r^2 I) with r^2 = s^2 v / (s^2 + v), v the prior's variance (the paper has v = 1), so that
//! grad log p(y|x_s) = J^T A^T (r^2 A A^T + R)^-1 (y - A D). It enters as the score that it is; the paper weights it by
//! r^2 instead. Exact for a white Gaussian prior.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    diffusion::{Diffusion, Ensemble, Levels, Schedule, Transition},
    guidance::{PART, denoised, pulled_back},
};
use crate::{
    Result,
    instrument::{Linear, Problem},
    posterior::{Entry, Solver},
    prior::Denoiser,
    rng::Rng,
    tensor::by_parts,
};

/// Settings of pseudoinverse-guided diffusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pigdm {
    /// Number of chains.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// Noise of each step: 1 that of the diffusion, 0 none.
    pub eta: f64,
}

impl Default for Pigdm {
    fn default() -> Self {
        Self { chains: 32, schedule: Schedule::default(), eta: 1.0 }
    }
}

struct Guided {
    eta: f64,
    linear: Linear,
}

impl Guided {
    /// D(x, s) + s^2 grad log p(y|x).
    fn clean(&self, prior: &dyn Denoiser, x: &Tensor, level: f64) -> Result<Tensor> {
        let (variable, clean) = denoised(prior, x, level)?;
        let (square, variance) = (level * level, prior.data_std().powi(2));
        let ours = square * variance / (square + variance);
        let misfit = self.linear.row(self.linear.data.clone(), x)?;
        let misfit = misfit.broadcast_sub(&self.linear.coordinates(&clean.detach())?)?;
        let weight = self.linear.each(x, |_, sigma| square / (ours + sigma * sigma))?;
        let back = self.linear.image(&misfit.broadcast_mul(&weight)?, prior.shape())?;
        Ok((clean.detach() + pulled_back(&(&clean * back)?, &variable)?)?)
    }
}

impl Transition for Guided {
    const NAME: &'static str = "pigdm";

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        levels: Levels,
        _problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let [clean] = by_parts(&ensemble.x, PART, |part| Ok([self.clean(prior, part, levels.from)?]))?;
        ensemble.x = levels.renoise(&ensemble.x, &clean, self.eta, rng)?;
        Ok(())
    }
}

impl Rival for Pigdm {
    fn entry(&self) -> Entry {
        Entry {
            name: "pigdm",
            summary: "pseudoinverse-guided diffusion: guided with one variance for all directions",
            needs: &[
                "denoiser gradient",
                "linear instrument",
                "Gaussian noise",
                "singular-value decomposition",
            ],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        let transition = Guided { eta: self.eta, linear: given.problem.linear(given.compute)? };
        Ok(Box::new(Diffusion::new(transition, self.chains, &self.schedule, given)?))
    }
}
