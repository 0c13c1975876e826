//! Adaptation to one data set: the prior's weights learn to fit the data between the steps of the diffusion.
//!
//! Source: Chung and Ye 2024, "Deep diffusion image prior for efficient OOD adaptation in 3D inverse problems" (DDIP): at every
//! level a low-rank change of the network descends on -log p(y|D(x_s, s)) before the denoised image is made to fit the data and
//! diffused again. Meant for images unlike those of the prior; its spread has no meaning. All chains share the changed network,
//! and the data step is that of DiffPIR.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    diffpir::Proximal,
    diffusion::{Diffusion, Ensemble, Levels, Schedule, Transition},
};
use crate::{
    Result,
    instrument::Problem,
    posterior::{Entry, Solver, ppm::AuxiliaryWeights, solver::TensorMap},
    prior::{Denoiser, Trainable, reverse::denoised},
    rng::Rng,
    tensor::adam::{Adam, AdamSettings},
};

/// Largest norm of the gradient of all weights.
const GRADIENT_NORM: f64 = 1.0;

/// Settings of the adaptation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ddip {
    /// Number of chains.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// Which weights may change.
    pub adaptation: AuxiliaryWeights,
    /// Steps of Adam at every level.
    pub updates: usize,
    /// Their learning rate.
    pub learning_rate: f64,
    /// Weight lambda of the denoised image against the data.
    pub weight: f64,
    /// Noise of each step: 1 that of the diffusion, 0 none.
    pub eta: f64,
}

impl Default for Ddip {
    fn default() -> Self {
        Self {
            chains: 32,
            schedule: Schedule { steps: 100, ..Schedule::default() },
            adaptation: AuxiliaryWeights::LowRank(4),
            updates: 1,
            learning_rate: 1e-3,
            weight: 1.0,
            eta: 0.85,
        }
    }
}

struct Adapted {
    settings: Ddip,
    proximal: Proximal,
    network: Box<dyn Trainable>,
    optimiser: Adam,
}

impl Adapted {
    /// One descent of the weights on the mean misfit per datum.
    fn adapt(&mut self, problem: &Problem, x: &Tensor, level: f64) -> Result<()> {
        let levels = Tensor::full(level, x.dim(0)?, x.device())?.to_dtype(x.dtype())?;
        let data: usize = problem.likelihoods.iter().map(|likelihood| likelihood.count()).sum();
        let value = problem.log_likelihood(&self.network.denoise(x, &levels)?)?;
        let loss = (value.mean_all()? * (-1.0 / data.max(1) as f64))?;
        self.optimiser.step(&loss.backward()?, self.settings.learning_rate)?;
        Ok(())
    }
}

impl Transition for Adapted {
    const NAME: &'static str = "ddip";

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        levels: Levels,
        problem: &Problem,
        _prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        for _ in 0..self.settings.updates {
            self.adapt(problem, &ensemble.x, levels.from)?;
        }
        let clean = denoised(self.network.as_ref(), &ensemble.x, levels.from)?;
        let fitted = self.proximal.fitted(problem, &clean, levels.from)?;
        ensemble.x = levels.renoise(&ensemble.x, &fitted, self.settings.eta, rng)?;
        Ok(())
    }

    fn memory(&self) -> Result<TensorMap> {
        self.optimiser.state()
    }

    fn recall(&mut self, memory: TensorMap) -> Result<()> {
        self.optimiser.restore(&memory)
    }
}

impl Rival for Ddip {
    fn entry(&self) -> Entry {
        Entry {
            name: "ddip",
            summary: "adapts the prior's weights to the data between steps (DDIP): for images unlike the prior's; no posterior",
            needs: &["trainable prior", "likelihood gradient"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        let network =
            given.prior.trainable(self.adaptation.into(), &mut given.rng.stream("adaptation", 0))?;
        let adam = AdamSettings { max_gradient_norm: Some(GRADIENT_NORM), ..AdamSettings::default() };
        let optimiser = Adam::new(network.variables(), adam)?;
        let proximal = Proximal::new(self.weight, given);
        let transition = Adapted { settings: self.clone(), proximal, network, optimiser };
        Ok(Box::new(Diffusion::new(transition, self.chains, &self.schedule, given)?))
    }
}
