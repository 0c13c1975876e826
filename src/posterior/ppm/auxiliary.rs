//! The auxiliary denoiser: starts as the prior's, follows the particles, and so stands for their density.

use candle_core::{Tensor, backprop::GradStore};

use crate::{
    Result,
    posterior::{
        ppm::{
            loss::{NoiseLevels, auxiliary_loss},
            settings::AuxiliarySettings,
        },
        solver::TensorMap,
    },
    prior::{Denoiser, Trainable},
    rng::Rng,
    tensor::adam::{Adam, AdamSettings},
    transfer::send,
};

/// Largest norm of the gradient of all weights; early losses are as large as the prior's own.
const GRADIENT_NORM: f64 = 1.0;

/// A trainable copy of the prior's denoiser with its optimiser.
pub struct Auxiliary {
    denoiser: Box<dyn Trainable>,
    optimiser: Adam,
    settings: AuxiliarySettings,
}

impl Auxiliary {
    /// Equal to `prior` until the first update.
    ///
    /// # Errors
    /// A prior that cannot be trained.
    pub fn new(prior: &dyn Denoiser, settings: AuxiliarySettings, rng: &mut Rng) -> Result<Self> {
        let denoiser = prior.trainable(settings.adaptation.into(), rng)?;
        Self::training(denoiser, settings)
    }

    /// A denoiser that starts as it is.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn training(denoiser: Box<dyn Trainable>, settings: AuxiliarySettings) -> Result<Self> {
        let adam = AdamSettings { max_gradient_norm: Some(GRADIENT_NORM), ..AdamSettings::default() };
        let optimiser = Adam::new(denoiser.variables(), adam)?;
        Ok(Self { denoiser, optimiser, settings })
    }

    /// The denoiser as it is now.
    pub fn denoiser(&self) -> &dyn Trainable {
        self.denoiser.as_ref()
    }

    /// Moves the weights against `gradient` of their training loss, then trains on images that `draw` gives with fresh
    /// noise until [`AuxiliarySettings::updates`] are done, all at `decay` times the learning rate.
    ///
    /// # Errors
    /// A gradient that is not finite.
    pub fn update(
        &mut self,
        gradient: &GradStore,
        decay: f64,
        draw: &dyn Fn(usize, &mut Rng) -> Result<Tensor>,
        levels: &NoiseLevels,
        rng: &mut Rng,
    ) -> Result<()> {
        self.descend(gradient, decay)?;
        for _ in 1..self.settings.updates {
            let images = draw(self.settings.batch, rng)?;
            let (_, gradient) = auxiliary_loss(&images, self.denoiser(), levels, rng)?;
            self.descend(&gradient, decay)?;
        }
        Ok(())
    }

    /// Moves the weights against `gradient` at `decay` times the learning rate.
    ///
    /// # Errors
    /// A gradient that is not finite.
    pub fn descend(&mut self, gradient: &GradStore, decay: f64) -> Result<()> {
        self.optimiser.step(gradient, decay * self.settings.learning_rate)?;
        Ok(())
    }

    /// Weights and moments, by name.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn state(&self) -> Result<TensorMap> {
        self.optimiser.state()
    }

    /// Continues from [`Auxiliary::state`].
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn restore(&mut self, state: &TensorMap) -> Result<()> {
        self.optimiser.restore(state)
    }
}

/// `count` of the images at random, or all if there are no more.
///
/// # Errors
/// Those of the tensor library.
pub fn some(images: &Tensor, count: usize, rng: &mut Rng) -> Result<Tensor> {
    let total = images.dim(0)?;
    if total <= count {
        return Ok(images.clone());
    }
    let chosen: Vec<u32> = (0..count).map(|_| rng.below(total) as u32).collect();
    Ok(images.index_select(&send(chosen, images.device())?, 0)?)
}
