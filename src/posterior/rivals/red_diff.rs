//! RED-diff: the variational fit of one point per chain, with the denoiser as regulariser. Not a sampler: chains collapse.
//!
//! Source: Mardani et al. 2024, "A variational perspective on solving inverse problems with diffusion models": the loss
//! -log p(y|x) + lambda w(s) (eps(x_s) - n).x with the network held fixed and s falling. With w = s, which the authors call the
//! inverse root of the signal-to-noise ratio, its gradient is lambda (x - D(x_s, s)); here in units of the prior's variance, so that
//! a weight of 1 is the scale of log p(x).

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

/// Settings of RED-diff.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedDiff {
    /// Number of images.
    pub chains: usize,
    /// Noise levels, one step each.
    pub schedule: Schedule,
    /// Step of Adam, standard deviations of the prior per pixel.
    pub learning_rate: f64,
    /// Weight lambda of the prior.
    pub weight: f64,
}

impl Default for RedDiff {
    fn default() -> Self {
        Self {
            chains: 32,
            schedule: Schedule { steps: 500, ..Schedule::default() },
            learning_rate: 0.02,
            weight: 1.0,
        }
    }
}

impl Pull for RedDiff {
    const NAME: &'static str = "red-diff";

    fn level(&self, index: usize, levels: &[f64], _: &mut Rng) -> f64 {
        levels[index]
    }

    fn gradient(&mut self, images: &Tensor, noisy: &Noisy, _: &mut Rng) -> Result<Tensor> {
        Ok(((images - &noisy.clean)? * (self.weight / noisy.data_std.powi(2)))?)
    }
}

impl Rival for RedDiff {
    fn entry(&self) -> Entry {
        Entry {
            name: "red_diff",
            summary: "RED-diff: points of high posterior density, which collapse; not a sampler",
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
