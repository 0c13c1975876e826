//! Denoising diffusion null-space: each denoised image is made to fit the data before it is diffused again.
//!
//! Source: Wang et al. 2023, "Zero-shot image restoration using denoising diffusion null-space model", the noisy form DDNM+:
//! a share l = min(1, t / sigma) of each measured coordinate is taken from the data, t = eta s' the fresh noise of a step, and the noise
//! that comes with it is left out of the noise that is added. Without time travel.

use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    diffusion::{Diffusion, Ensemble, Levels, Schedule, Transition},
};
use crate::{
    Result,
    instrument::{Linear, Problem},
    posterior::{Entry, Solver},
    prior::{Denoiser, reverse::denoised},
    rng::Rng,
    tensor::compute_of,
};

/// Settings of denoising diffusion null-space sampling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ddnm {
    /// Number of chains.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// Share of fresh noise in each step.
    pub eta: f64,
}

impl Default for Ddnm {
    fn default() -> Self {
        Self { chains: 32, schedule: Schedule::default(), eta: 0.85 }
    }
}

struct NullSpace {
    eta: f64,
    linear: Linear,
}

impl Transition for NullSpace {
    const NAME: &'static str = "ddnm";

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        Levels { from, to, .. }: Levels,
        _problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let (x, linear, eta) = (&ensemble.x, &self.linear, self.eta);
        let clean = denoised(prior, x, from)?;
        let fresh = eta * to;
        let taken = |sigma: f64| (fresh / sigma).min(1.0);
        let share = linear.each(x, |_, sigma| taken(sigma))?;
        let centre = linear.coordinates(&clean)?;
        let misfit = linear.row(linear.data.clone(), x)?.broadcast_sub(&centre)?;
        let fitted = linear.replaced(&clean, &(centre + misfit.broadcast_mul(&share)?)?)?;
        let kept = to * (1.0 - eta * eta).max(0.0).sqrt() / from;
        let mean = (fitted + ((x - &clean)? * kept)?)?;
        let noise = rng.normals(x.dims(), &compute_of(x))?;
        let spread = |sigma: f64| (fresh.powi(2) - (taken(sigma) * sigma).powi(2)).max(0.0).sqrt();
        let spread = linear.each(x, |_, sigma| spread(sigma))?;
        let measured = linear.coordinates(&noise)?.broadcast_mul(&spread)?;
        ensemble.x = (mean + linear.replaced(&(&noise * fresh)?, &measured)?)?;
        Ok(())
    }
}

impl Rival for Ddnm {
    fn entry(&self) -> Entry {
        Entry {
            name: "ddnm",
            summary: "denoising diffusion null-space (DDNM+): each denoised image is made to fit the data",
            needs: &["denoiser", "linear instrument", "Gaussian noise", "singular-value decomposition"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        let transition = NullSpace { eta: self.eta, linear: given.problem.linear(given.compute)? };
        Ok(Box::new(Diffusion::new(transition, self.chains, &self.schedule, given)?))
    }
}
