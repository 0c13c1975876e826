//! Variational inference by the integral divergence: particles follow the difference of two scores at many noise levels.
//!
//! Source: Lee et al. 2024, "Diffusion prior-based amortized variational inference for noisy inverse problems" (DAVI), whose
//! gradient is that of Luo et al. 2023, "Diff-Instruct: a universal approach for transferring knowledge from pre-trained
//! diffusion models": (score of the particles - score of the prior) at x + s n, without a network's Jacobian, s
//! log-normal. It descends on the average of KL(q_s || p_s) over s instead of KL(q || p). Here without the amortised generator,
//! without paired images and without the adversarial term: particles for one data set, an auxiliary denoiser for their score.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    descent::{Descent, Noisy, Pace, Pull},
    diffusion::Schedule,
};
use crate::{
    Result,
    posterior::{
        Entry, Solver,
        ppm::{
            AuxiliarySettings,
            auxiliary::{Auxiliary, some},
            loss::{NoiseLevels, auxiliary_loss},
        },
        solver::TensorMap,
    },
    prior::{Denoiser, draw::draws, reverse::denoised},
    rng::Rng,
    tensor::compute_of,
};

/// Mean and standard deviation of ln(s / c) of the noise levels, c the prior's standard deviation (as in Diff-Instruct).
const LEVELS: (f64, f64) = (-1.2, 1.2);
/// Steps of Heun's method for the first particles.
const DRAW_STEPS: usize = 18;

/// Settings of variational inference by the integral divergence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Davi {
    /// Number of particles.
    pub chains: usize,
    /// Range of the noise levels that the auxiliary denoiser learns; as many steps.
    pub schedule: Schedule,
    /// Step of Adam, standard deviations of the prior per pixel.
    pub learning_rate: f64,
    /// The auxiliary denoiser.
    pub auxiliary: AuxiliarySettings,
}

impl Default for Davi {
    fn default() -> Self {
        Self {
            chains: 32,
            schedule: Schedule { steps: 400, ..Schedule::default() },
            learning_rate: 0.01,
            auxiliary: AuxiliarySettings::default(),
        }
    }
}

/// The pull, with the particles' own denoiser.
struct Integral {
    auxiliary: Auxiliary,
    levels: NoiseLevels,
}

impl Pull for Integral {
    const NAME: &'static str = "davi";

    fn start(&self, images: &Tensor, _: f64, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Tensor> {
        draws(prior, images.dim(0)?, DRAW_STEPS, rng, &compute_of(images))
    }

    fn level(&self, _: usize, levels: &[f64], rng: &mut Rng) -> f64 {
        let (first, last) = (levels[0], levels[levels.len() - 1]);
        let drawn = (LEVELS.0 + LEVELS.1 * rng.normal()).exp() * self.levels.data_std;
        drawn.clamp(last.min(first), first.max(last))
    }

    fn gradient(&mut self, images: &Tensor, noisy: &Noisy, rng: &mut Rng) -> Result<Tensor> {
        let own = denoised(self.auxiliary.denoiser(), &noisy.image, noisy.level)?;
        let gradient = ((own - &noisy.clean)? / (noisy.level * noisy.level))?;
        let (_, slope) = auxiliary_loss(images, self.auxiliary.denoiser(), &self.levels, rng)?;
        self.auxiliary.update(&slope, 1.0, &|count, rng| some(images, count, rng), &self.levels, rng)?;
        Ok(gradient)
    }

    fn memory(&self) -> Result<TensorMap> {
        self.auxiliary.state()
    }

    fn recall(&mut self, memory: &TensorMap) -> Result<()> {
        self.auxiliary.restore(memory)
    }
}

impl Rival for Davi {
    fn entry(&self) -> Entry {
        Entry {
            name: "davi",
            summary: "particles by the integral divergence (DAVI, unpaired and not amortised): over-confident",
            needs: &["trainable prior", "likelihood gradient"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        let range = self.schedule.levels(given.prior)?;
        let levels = NoiseLevels {
            smallest: range[range.len() - 2],
            largest: range[0],
            data_std: given.prior.data_std(),
        };
        let mut rng = given.rng.stream("auxiliary", 0);
        let auxiliary = Auxiliary::new(given.prior, self.auxiliary.clone(), &mut rng)?;
        let pace = Pace { chains: self.chains, learning_rate: self.learning_rate };
        Ok(Box::new(Descent::new(Integral { auxiliary, levels }, pace, &self.schedule, given)?))
    }
}
