//! A network that is told the same about every image.

use candle_core::{Tensor, Var};

use super::{Denoiser, Trainable};
use crate::Result;

/// A network of [`Denoiser::conditional`] with what it is told: one data set.
pub struct Told<'a> {
    network: &'a dyn Trainable,
    /// `[1, C, Y, X]`.
    known: Tensor,
}

impl<'a> Told<'a> {
    /// Tells `network` `known` `[1, C, Y, X]`.
    pub fn new(network: &'a dyn Trainable, known: Tensor) -> Self {
        Self { network, known }
    }
}

impl Denoiser for Told<'_> {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        let (_, images, y, x) = self.known.dims4()?;
        let known = self.known.broadcast_as((noisy.dim(0)?, images, y, x))?.contiguous()?;
        self.network.denoise_given(noisy, noise_level, &known)
    }

    fn shape(&self) -> [usize; 3] {
        self.network.shape()
    }

    fn noise_range(&self) -> (f64, f64) {
        self.network.noise_range()
    }

    fn data_std(&self) -> f64 {
        self.network.data_std()
    }
}

impl Trainable for Told<'_> {
    fn variables(&self) -> Vec<(String, Var)> {
        self.network.variables()
    }
}
