//! A prior together with one of the same images on half as many pixels along each side.

use candle_core::Tensor;

use super::{Adaptation, Denoiser, Scaling, Trainable};
use crate::{
    Error, Result,
    rng::Rng,
    tensor::blocks::{doubled, halved},
};

/// The coarser prior of [`Denoiser::coarser`].
#[derive(Clone, Copy)]
pub struct Coarser<'a> {
    /// The prior, with a network unit of its own.
    pub prior: &'a dyn Denoiser,
    /// From its network unit to that of the finer prior, of blocks of 2 x 2 pixels all alike.
    pub scaling: Scaling,
}

impl Coarser<'_> {
    /// Images `[B, Z, Y / 2, X / 2]` of the coarser prior from those of the finer one.
    ///
    /// # Errors
    /// An odd number of pixels.
    pub fn halved(&self, x: &Tensor) -> Result<Tensor> {
        self.scaling.to_network(&halved(x)?)
    }

    /// Images `[B, Z, Y, X]` of the finer prior, without detail, from those of the coarser one.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn doubled(&self, x: &Tensor) -> Result<Tensor> {
        self.scaling.to_image(&doubled(x)?)
    }

    /// Noise level of the coarser prior that the finer one's `level` becomes in the mean of a block.
    pub fn level(&self, level: f64) -> f64 {
        0.5 * level / self.scaling.unit
    }
}

/// A prior that knows a coarser one.
pub struct Pyramid {
    fine: Box<dyn Denoiser>,
    coarse: Box<dyn Denoiser>,
    scaling: Scaling,
}

impl Pyramid {
    /// `fine` with `coarse`; see [`Coarser::scaling`].
    ///
    /// # Errors
    /// Priors that are not of the same images: `coarse` must have half as many pixels along each side.
    pub fn new(fine: Box<dyn Denoiser>, coarse: Box<dyn Denoiser>, scaling: Scaling) -> Result<Self> {
        let ([z, y, x], [depth, height, width]) = (fine.shape(), coarse.shape());
        if [z, y, x] != [depth, 2 * height, 2 * width] {
            let problem = format!(
                "makes {height} x {width} images, which are not half of {y} x {x}; name another prior or none"
            );
            return Err(Error::config("prior card: coarser", problem));
        }
        Ok(Self { fine, coarse, scaling })
    }
}

impl Denoiser for Pyramid {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        self.fine.denoise(noisy, noise_level)
    }

    fn shape(&self) -> [usize; 3] {
        self.fine.shape()
    }

    fn noise_range(&self) -> (f64, f64) {
        self.fine.noise_range()
    }

    fn data_std(&self) -> f64 {
        self.fine.data_std()
    }

    fn tile(&self) -> Option<Box<dyn Denoiser + '_>> {
        self.fine.tile()
    }

    fn coarser(&self) -> Option<Coarser<'_>> {
        Some(Coarser { prior: self.coarse.as_ref(), scaling: self.scaling })
    }

    fn log_density(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Option<Tensor>> {
        self.fine.log_density(noisy, noise_level)
    }

    fn trainable(&self, adaptation: Adaptation, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        self.fine.trainable(adaptation, rng)
    }

    fn conditional(&self, images: usize, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        self.fine.conditional(images, rng)
    }
}
