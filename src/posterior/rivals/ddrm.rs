//! Denoising diffusion restoration: measured coordinates are drawn towards the data as far as their noise allows, the others
//! are denoised.
//!
//! Source: Kawar et al. 2022, "Denoising diffusion restoration models", the update in the singular-vector basis
//! with its three cases: coordinate not measured; noise of its measurement above the next level; below.

use candle_core::Tensor;
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

/// Settings of denoising diffusion restoration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ddrm {
    /// Number of chains.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// Share of fresh noise where the data say less than the level.
    pub eta: f64,
    /// Share of the data where they say more.
    pub eta_data: f64,
}

impl Default for Ddrm {
    fn default() -> Self {
        Self { chains: 32, schedule: Schedule::default(), eta: 0.85, eta_data: 1.0 }
    }
}

struct Restored {
    settings: Ddrm,
    linear: Linear,
}

impl Transition for Restored {
    const NAME: &'static str = "ddrm";

    /// Measured coordinates start at their data with the noise that is missing.
    fn start(&self, noise: Tensor, level: f64) -> Result<Tensor> {
        let missing = |sigma: f64| (1.0 - (sigma / level).powi(2)).max(0.0).sqrt();
        let data = self.linear.each(&noise, |data, sigma| if sigma < level { data } else { 0.0 })?;
        let share = self.linear.each(&noise, |_, sigma| if sigma < level { missing(sigma) } else { 1.0 })?;
        let coordinates = self.linear.coordinates(&noise)?.broadcast_mul(&share)?.broadcast_add(&data)?;
        self.linear.replaced(&noise, &coordinates)
    }

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        Levels { from, to, .. }: Levels,
        _problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let (x, linear) = (&ensemble.x, &self.linear);
        let Ddrm { eta, eta_data, .. } = self.settings;
        let old = (1.0 - eta * eta).max(0.0).sqrt();
        let clean = denoised(prior, x, from)?;
        let noise = rng.normals(x.dims(), &compute_of(x))?;
        let free = ((&clean + ((x - &clean)? * (old * to / from))?)? + (&noise * (eta * to))?)?;
        let pull = linear.each(x, |_, sigma| if sigma >= to { old * to / sigma } else { eta_data })?;
        let spread = linear.each(x, |_, sigma| {
            if sigma >= to { eta * to } else { (to * to - (eta_data * sigma).powi(2)).max(0.0).sqrt() }
        })?;
        let centre = linear.coordinates(&clean)?;
        let misfit = linear.row(linear.data.clone(), x)?.broadcast_sub(&centre)?;
        let noise = linear.coordinates(&noise)?.broadcast_mul(&spread)?;
        let measured = ((centre + misfit.broadcast_mul(&pull)?)? + noise)?;
        ensemble.x = linear.replaced(&free, &measured)?;
        Ok(())
    }
}

impl Rival for Ddrm {
    fn entry(&self) -> Entry {
        Entry {
            name: "ddrm",
            summary: "denoising diffusion restoration: data replace measured coordinates as far as their noise allows",
            needs: &["denoiser", "linear instrument", "Gaussian noise", "singular-value decomposition"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        let transition = Restored { settings: self.clone(), linear: given.problem.linear(given.compute)? };
        Ok(Box::new(Diffusion::new(transition, self.chains, &self.schedule, given)?))
    }
}
