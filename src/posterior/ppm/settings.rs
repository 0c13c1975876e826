//! Settings of Principled Posterior Matching and their defaults.

use serde::{Deserialize, Serialize};

use super::{amortized::AmortizedSettings, generator::GeneratorSettings, mixture::MixtureSettings};
use crate::{Error, Result, prior::Adaptation};

/// Settings of the variational stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpmSettings {
    /// What q is made of.
    pub family: FamilySettings,
    /// Number of particles, the images that stand for the posterior; draws of q in each step of the other families.
    pub particles: usize,
    /// Largest number of steps.
    pub steps: usize,
    /// Steps over which the objective, the bound on the divergence minus the expected log likelihood, is averaged: once such an
    /// average is not lower than the one before by more than their scatter, the last third of the run begins. Without, it begins
    /// after two thirds of the steps.
    pub patience: Option<usize>,
    /// Steps of Heun's method that draw each particle from the prior.
    pub draw_steps: usize,
    /// Draws of the prior for each particle, of which as many as there are particles are chosen by their likelihood. The
    /// weights of isolated modes are then as well known as from so many more particles.
    pub candidates: usize,
    /// Fraction of the steps over which the likelihood rises from weak to full.
    pub annealing: f64,
    /// Step of particles and of the means of a mixture, standard deviations of the prior per pixel. This learning rate
    /// and that of the auxiliary denoiser fall to a tenth in the last third.
    pub learning_rate: f64,
    /// Noise levels per particle and step; each is used with +n and -n.
    pub noise_levels: usize,
    /// While the likelihood rises, particles are resampled by their weight if they and their candidates are at least so
    /// many. Fewer cannot hold the weights of modes, and would lose more diversity than they gain.
    pub resample_from: usize,
    /// How the denoisers of q and of the prior are compared.
    pub distance: Distance,
    /// The auxiliary denoiser.
    pub auxiliary: AuxiliarySettings,
}

/// The variational family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum FamilySettings {
    /// Images.
    Particles,
    /// Gaussians.
    Mixture(MixtureSettings),
    /// Images that a network makes of noise.
    Generator(GeneratorSettings),
    /// Images that a network makes of noise and of any data of the instrument.
    Amortized(AmortizedSettings),
}

impl FamilySettings {
    /// Name of the solver that uses the family.
    pub fn solver(&self) -> &'static str {
        match self {
            Self::Particles => "ppm",
            Self::Mixture(_) => "ppm_mixture",
            Self::Generator(_) => "ppm_generator",
            Self::Amortized(_) => "ppm_amortized",
        }
    }

    /// The family, with default settings, that the solver `name` uses; none if there is no such solver.
    pub fn of_solver(name: &str) -> Option<Self> {
        let all = [
            Self::Particles,
            Self::Mixture(Default::default()),
            Self::Generator(Default::default()),
            Self::Amortized(Default::default()),
        ];
        all.into_iter().find(|family| family.solver() == name)
    }
}

/// A convex distance between the denoisers of q and of the prior.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// The squared one, with which the integral is the Kullback-Leibler divergence.
    #[default]
    Squared,
    /// Squared for small differences, linear for large ones. The integral is then no divergence that fits a likelihood, and
    /// the result is not the posterior.
    PseudoHuber {
        /// Where it turns from squared to linear, noise standard deviations per pixel.
        width: f64,
    },
}

impl Default for PpmSettings {
    fn default() -> Self {
        Self {
            family: FamilySettings::Particles,
            particles: 12,
            steps: 30,
            patience: None,
            draw_steps: 18,
            candidates: 1,
            annealing: 1.0 / 3.0,
            learning_rate: 0.05,
            noise_levels: 1,
            resample_from: 256,
            distance: Distance::Squared,
            auxiliary: AuxiliarySettings::default(),
        }
    }
}

impl PpmSettings {
    /// Steps over which the likelihood rises.
    pub(super) fn rising(&self) -> usize {
        (self.annealing * self.steps as f64).round() as usize
    }

    /// All learning rates fall to a tenth over the last third of a run of `steps` steps, so that the family comes to rest.
    pub(super) fn decay(step: usize, steps: usize) -> f64 {
        let late = (step as f64 / steps as f64 - 2.0 / 3.0) * 3.0;
        0.1f64.powf(late.max(0.0))
    }

    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first wrong setting.
    pub fn validate(&self) -> Result<()> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let checks = [
            (self.particles > 1, "particles", "needs at least 2; use 16"),
            (self.steps > 0, "steps", "needs at least 1; use 30"),
            (self.patience.is_none_or(|patience| patience > 1), "patience", "needs at least 2 steps; use 20"),
            (self.draw_steps > 1, "draw_steps", "needs at least 2; use 18"),
            (self.candidates > 0, "candidates", "needs at least 1"),
            ((0.0..=1.0).contains(&self.annealing), "annealing", "must lie between 0 and 1"),
            (positive(self.learning_rate), "learning_rate", "must be positive; use 0.05"),
            (self.noise_levels > 0, "noise_levels", "needs at least 1"),
            (self.auxiliary.updates > 0, "auxiliary.updates", "needs at least 1"),
            (self.auxiliary.batch > 0, "auxiliary.batch", "needs at least 1; use 256"),
            (positive(self.auxiliary.learning_rate), "auxiliary.learning_rate", "must be positive"),
            (self.distance.is_valid(), "distance", "its width must be positive; use 0.1"),
        ];
        match &self.family {
            FamilySettings::Generator(generator) => generator.validate()?,
            FamilySettings::Amortized(_) if self.patience.is_some() => {
                let problem = "is of one data set; a training on many has its number of steps";
                return Err(Error::config("solver.matching.patience", problem));
            }
            FamilySettings::Amortized(amortized) => amortized.generator().validate()?,
            FamilySettings::Particles | FamilySettings::Mixture(_) => {}
        }
        match checks.into_iter().find(|(holds, ..)| !holds) {
            Some((_, name, problem)) => Err(Error::config(format!("solver.matching.{name}"), problem)),
            None => Ok(()),
        }
    }
}

impl Distance {
    /// Name of the integral in the metrics.
    pub(super) fn metric(self) -> &'static str {
        match self {
            Self::Squared => "kl_bound",
            Self::PseudoHuber { .. } => "distance",
        }
    }

    /// Why a fit by it is not one to the posterior.
    pub(crate) fn bias(self) -> Option<&'static str> {
        match self {
            Self::Squared => None,
            Self::PseudoHuber { .. } => Some(
                "the prior was matched by a pseudo-Huber distance, which next to a likelihood has another optimum than the posterior",
            ),
        }
    }

    fn is_valid(self) -> bool {
        match self {
            Self::Squared => true,
            Self::PseudoHuber { width } => width.is_finite() && width > 0.0,
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
