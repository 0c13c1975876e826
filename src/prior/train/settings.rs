//! Settings of a training, its learning rate and its noise levels.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, prior::unet::Architecture, rng::Rng};

/// How a prior is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// Seed of weights, noise and order.
    pub seed: u64,
    /// Number of optimiser steps.
    pub steps: usize,
    /// Images per step.
    pub batch: usize,
    /// Largest learning rate.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises; it then falls as a cosine to zero.
    pub warmup: usize,
    /// Longest memory of the averaged weights, steps.
    pub average: usize,
    /// Longest gradient.
    pub max_gradient_norm: f64,
    /// Mean of ln(noise level) of the log-normal part, in units of the data's standard deviation.
    pub log_level_mean: f64,
    /// Its standard deviation.
    pub log_level_std: f64,
    /// Share of levels drawn log-uniformly from the whole range instead.
    pub uniform_share: f64,
    /// Steps between two checkpoints.
    pub checkpoint_every: usize,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            steps: 20_000,
            batch: 16,
            learning_rate: 1e-3,
            warmup: 200,
            average: 1000,
            max_gradient_norm: 1.0,
            log_level_mean: -0.4,
            log_level_std: 1.4,
            uniform_share: 0.25,
            checkpoint_every: 250,
        }
    }
}

impl TrainSettings {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first one that is out of range.
    pub fn validate(&self) -> Result<()> {
        let counts =
            [("steps", self.steps), ("batch", self.batch), ("checkpoint_every", self.checkpoint_every)];
        let rates = [("learning_rate", self.learning_rate), ("max_gradient_norm", self.max_gradient_norm)];
        if let Some((name, _)) = counts.iter().find(|(_, count)| !(1..=100_000_000).contains(count)) {
            return Err(Error::config(format!("training.{name}"), "must be at least 1"));
        }
        if let Some((name, _)) = rates.iter().find(|(_, rate)| !(*rate > 0.0 && rate.is_finite())) {
            return Err(Error::config(format!("training.{name}"), "must be positive"));
        }
        Ok(())
    }

    /// Linear rise, then a cosine to zero.
    pub(super) fn learning_rate(&self, step: usize) -> f64 {
        let rise = ((step + 1) as f64 / self.warmup.max(1) as f64).min(1.0);
        let progress = step as f64 / self.steps as f64;
        self.learning_rate * rise * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
    }

    pub(super) fn noise_level(&self, architecture: &Architecture, rng: &mut Rng) -> f64 {
        let (low, high) = architecture.noise_range;
        let uniform = rng.uniform() < self.uniform_share;
        let level = if uniform {
            low * (high / low).powf(rng.uniform())
        } else {
            architecture.data_std * (self.log_level_mean + self.log_level_std * rng.normal()).exp()
        };
        level.clamp(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_and_falls_to_zero() {
        let settings =
            TrainSettings { steps: 100, warmup: 10, learning_rate: 1.0, ..TrainSettings::default() };
        assert!(settings.learning_rate(0) < 0.11 && settings.learning_rate(10) > 0.95);
        assert!(settings.learning_rate(99) < 1e-3);
        assert!(TrainSettings { batch: 0, ..settings }.validate().is_err());
    }
}
