//! Variational families: what the distribution q of Principled Posterior Matching is made of.

use candle_core::{Tensor, Var};

use super::{
    generator::Generator,
    mixture::Mixture,
    particles::Particles,
    settings::{FamilySettings, PpmSettings},
};
use crate::{Error, Result, compute::Compute, prior::Denoiser, rng::Rng};

/// Images on which one step descends.
pub(super) struct Drawn {
    /// Images `[K, Z, Y, X]`, network unit, differentiable in the family's variables.
    pub images: Tensor,
    /// Weight `[K]` of each in an average over q, mean 1 and differentiable too; none where all are equal.
    pub weights: Option<Tensor>,
}

/// A distribution over images with variables to be fitted.
pub(super) trait Family: Send {
    /// Starts from `first` `[K, Z, Y, X]`, independent draws of the prior.
    fn start(&mut self, first: &Tensor) -> Result<()>;

    /// What the gradient of one step is taken at.
    fn draw(&self, rng: &mut Rng) -> Result<Drawn>;

    /// `count` draws of equal weight, detached; fewer where the family has no more.
    fn sample(&self, count: usize, rng: &mut Rng) -> Result<Tensor>;

    /// The denoiser of q as it is now, if it is known in closed form.
    fn denoiser(&self) -> Result<Option<Box<dyn Denoiser>>> {
        Ok(None)
    }

    /// True where draws are members that can take the places of others.
    fn has_members(&self) -> bool {
        false
    }

    /// What is fitted, by name; a step of the learning rate moves each about that far.
    fn variables(&self) -> Vec<(String, Var)>;
}

/// The family that the settings name.
///
/// # Errors
/// A prior that the family cannot use.
pub(super) fn family(
    settings: &PpmSettings,
    prior: &dyn Denoiser,
    rng: &Rng,
    compute: &Compute,
) -> Result<Box<dyn Family>> {
    let mut rng = rng.stream("family", 0);
    Ok(match &settings.family {
        FamilySettings::Particles => Box::new(Particles::new(settings.particles, prior, compute)?),
        FamilySettings::Mixture(own) => {
            Box::new(Mixture::new(own, settings.particles, prior, &mut rng, compute)?)
        }
        FamilySettings::Generator(own) => {
            Box::new(Generator::new(own, settings.particles, prior, &mut rng, compute)?)
        }
        FamilySettings::Amortized(_) => {
            let problem = "amortized learns from many data sets, not from one";
            return Err(Error::config("solver.matching.family", problem));
        }
    })
}
