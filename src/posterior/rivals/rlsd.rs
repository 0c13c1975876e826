//! Repulsive score distillation: RED-diff with particles that push each other apart in pixel space.
//!
//! Source: Zilberstein et al. 2024, "Repulsive latent score distillation for solving inverse problems"; the repulsion is the gradient of a
//! radial kernel exp(-|x_i - x_j|^2 / h), h the median squared distance over the logarithm of their number, between the images
//! themselves instead of features of a network. Its strength sets the spread, which is therefore not that of the posterior.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    descent::{Descent, Noisy, Pace, Pull},
    diffusion::Schedule,
};
use crate::{
    Error, Result,
    posterior::{Entry, Solver},
    rng::Rng,
    transfer::Transfer,
};

/// Settings of repulsive score distillation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rlsd {
    /// Number of particles.
    pub chains: usize,
    /// Noise levels, one step each.
    pub schedule: Schedule,
    /// Step of Adam, standard deviations of the prior per pixel.
    pub learning_rate: f64,
    /// Weight lambda of the prior.
    pub weight: f64,
    /// Strength of the repulsion.
    pub repulsion: f64,
}

impl Default for Rlsd {
    fn default() -> Self {
        Self {
            chains: 32,
            schedule: Schedule { steps: 500, ..Schedule::default() },
            learning_rate: 0.02,
            weight: 1.0,
            repulsion: 1.0,
        }
    }
}

/// Images whose distances from all others the median is taken of.
const MEDIAN_OF: usize = 32;

/// Gradient of minus the mean kernel between each image and the others: -(2 / h K) sum_j k_ij (x_i - x_j).
fn repulsion(images: &Tensor) -> Result<Tensor> {
    let flat = images.flatten_from(1)?;
    let count = flat.dim(0)?;
    let squares = flat.sqr()?.sum_keepdim(1)?;
    let distances = (squares.broadcast_add(&squares.t()?)? - (flat.matmul(&flat.t()?)? * 2.0)?)?.relu()?;
    let some = distances.narrow(0, 0, count.min(MEDIAN_OF))?.flatten_all()?;
    let mut sorted = some.to_dtype(DType::F64)?.read_list::<f64>()?;
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2].max(f64::MIN_POSITIVE.sqrt());
    let width = median / (count as f64).ln().max(1.0);
    let kernel = (distances / -width)?.exp()?;
    let pushed = (flat.broadcast_mul(&kernel.sum_keepdim(1)?)? - kernel.matmul(&flat)?)?;
    Ok((pushed * (-2.0 / (width * count as f64)))?.reshape(images.dims())?)
}

impl Pull for Rlsd {
    const NAME: &'static str = "rlsd";

    fn level(&self, index: usize, levels: &[f64], _: &mut Rng) -> f64 {
        levels[index]
    }

    fn gradient(&mut self, images: &Tensor, noisy: &Noisy, _: &mut Rng) -> Result<Tensor> {
        let pull = ((images - &noisy.clean)? * (self.weight / noisy.data_std.powi(2)))?;
        Ok((pull + (repulsion(images)? * self.repulsion)?)?)
    }
}

impl Rival for Rlsd {
    fn entry(&self) -> Entry {
        Entry {
            name: "rlsd",
            summary: "repulsive score distillation in pixel space: RED-diff with a spread that is set by hand",
            needs: &["denoiser", "likelihood gradient"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        if self.chains < 2 {
            return Err(Error::config(
                "solver.chains",
                "needs at least 2 that push each other apart; use 32",
            ));
        }
        let pace = Pace { chains: self.chains, learning_rate: self.learning_rate };
        Ok(Box::new(Descent::new(self.clone(), pace, &self.schedule, given)?))
    }
}
