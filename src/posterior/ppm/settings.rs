//! Settings of Principled Posterior Matching and their defaults.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, prior::Adaptation};

/// Settings of the variational stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpmSettings {
    /// Number of particles, the images that stand for the posterior.
    pub particles: usize,
    /// Number of steps.
    pub steps: usize,
    /// Steps of Heun's method that draw each particle from the prior.
    pub draw_steps: usize,
    /// Fraction of the steps over which the likelihood rises from weak to full.
    pub annealing: f64,
    /// Step of the particles, standard deviations of the prior per pixel. This learning rate and that of the
    /// auxiliary denoiser fall to a tenth in the last third.
    pub learning_rate: f64,
    /// Noise levels per particle and step; each is used with +n and -n.
    pub noise_levels: usize,
    /// While the likelihood rises, particles are resampled by their weight if there are at least so many. Fewer
    /// cannot hold the weights of modes, and would lose more diversity than they gain.
    pub resample_from: usize,
    /// The auxiliary denoiser.
    pub auxiliary: AuxiliarySettings,
}

impl Default for PpmSettings {
    fn default() -> Self {
        Self {
            particles: 16,
            steps: 30,
            draw_steps: 18,
            annealing: 1.0 / 3.0,
            learning_rate: 0.05,
            noise_levels: 1,
            resample_from: 256,
            auxiliary: AuxiliarySettings::default(),
        }
    }
}

impl PpmSettings {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first wrong setting.
    pub fn validate(&self) -> Result<()> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let checks = [
            (self.particles > 1, "particles", "needs at least 2; use 16"),
            (self.steps > 0, "steps", "needs at least 1; use 30"),
            (self.draw_steps > 1, "draw_steps", "needs at least 2; use 18"),
            ((0.0..=1.0).contains(&self.annealing), "annealing", "must lie between 0 and 1"),
            (positive(self.learning_rate), "learning_rate", "must be positive; use 0.05"),
            (self.noise_levels > 0, "noise_levels", "needs at least 1"),
            (self.auxiliary.updates > 0, "auxiliary.updates", "needs at least 1"),
            (self.auxiliary.batch > 0, "auxiliary.batch", "needs at least 1; use 256"),
            (positive(self.auxiliary.learning_rate), "auxiliary.learning_rate", "must be positive"),
        ];
        match checks.into_iter().find(|(holds, ..)| !holds) {
            Some((_, name, problem)) => Err(Error::config(format!("solver.matching.{name}"), problem)),
            None => Ok(()),
        }
    }
}

/// Settings of the auxiliary denoiser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuxiliarySettings {
    /// Which of its weights are free.
    pub adaptation: AuxiliaryWeights,
    /// Learning rate of Adam.
    pub learning_rate: f64,
    /// Updates per step of the particles; the first shares its denoiser evaluations with the particles.
    pub updates: usize,
    /// Particles in each of the other updates.
    pub batch: usize,
}

impl Default for AuxiliarySettings {
    fn default() -> Self {
        Self { adaptation: AuxiliaryWeights::Copy, learning_rate: 1e-4, updates: 1, batch: 256 }
    }
}

/// Free weights of the auxiliary denoiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuxiliaryWeights {
    /// All weights of a copy of the prior.
    Copy,
    /// A change of this rank in every layer: less memory for large priors.
    LowRank(usize),
}

impl From<AuxiliaryWeights> for Adaptation {
    fn from(weights: AuxiliaryWeights) -> Self {
        match weights {
            AuxiliaryWeights::Copy => Self::Copy,
            AuxiliaryWeights::LowRank(rank) => Self::LowRank(rank),
        }
    }
}
