//! Score distillation: descent on the data's misfit plus the network's estimate of the noise, at random levels. Not a sampler.
//!
//! Source: Poole et al. 2023, "DreamFusion: text-to-3D using 2D diffusion", eq. 3: the gradient w(s) (eps(x_s) - n) without the
//! network's Jacobian, with s drawn at random. In expectation this is (x - D(x_s, s)) / s, here over the prior's standard deviation.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    descent::{Descent, Noisy, Pace, Pull},
    diffusion::Schedule,
};
use crate::{
    Result,
    posterior::{Entry, Solver},
    rng::Rng,
};

/// Settings of score distillation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sds {
    /// Number of images.
    pub chains: usize,
    /// Noise levels from which each step draws one.
    pub schedule: Schedule,
    /// Step of Adam, standard deviations of the prior per pixel.
    pub learning_rate: f64,
    /// Weight of the prior.
    pub weight: f64,
}

impl Default for Sds {
    fn default() -> Self {
        Self {
            chains: 32,
            schedule: Schedule { steps: 500, ..Schedule::default() },
            learning_rate: 0.02,
            weight: 1.0,
        }
    }
}

impl Pull for Sds {
    const NAME: &'static str = "sds";

    fn level(&self, _: usize, levels: &[f64], rng: &mut Rng) -> f64 {
        levels[rng.below(levels.len())]
    }

    fn gradient(&mut self, images: &Tensor, noisy: &Noisy, _: &mut Rng) -> Result<Tensor> {
        Ok(((images - &noisy.clean)? * (self.weight / (noisy.level * noisy.data_std)))?)
    }
}

impl Rival for Sds {
    fn entry(&self) -> Entry {
        Entry {
            name: "sds",
            summary: "score distillation with a data term: seeks modes, collapses; not a sampler",
            needs: &["denoiser", "likelihood gradient"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        let pace = Pace { chains: self.chains, learning_rate: self.learning_rate };
        Ok(Box::new(Descent::new(self.clone(), pace, &self.schedule, given)?))
    }
}
