//! A prior that counts how often its network is passed.

use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Tensor;

use super::{Adaptation, Denoiser, Trainable};
use crate::{Result, rng::Rng};

/// Counts the images that pass through the denoiser `inner`.
pub struct Counted<'a> {
    inner: &'a dyn Denoiser,
    passes: AtomicU64,
}

impl<'a> Counted<'a> {
    /// Nothing has passed yet.
    pub fn new(inner: &'a dyn Denoiser) -> Self {
        Self { inner, passes: AtomicU64::new(0) }
    }

    /// Images that passed so far.
    pub fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }
}

impl Denoiser for Counted<'_> {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        self.passes.fetch_add(noisy.dim(0)? as u64, Ordering::Relaxed);
        self.inner.denoise(noisy, noise_level)
    }

    fn shape(&self) -> [usize; 3] {
        self.inner.shape()
    }

    fn noise_range(&self) -> (f64, f64) {
        self.inner.noise_range()
    }

    fn data_std(&self) -> f64 {
        self.inner.data_std()
    }

    fn tile(&self) -> Option<Box<dyn Denoiser + '_>> {
        self.inner.tile()
    }

    fn log_density(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Option<Tensor>> {
        self.inner.log_density(noisy, noise_level)
    }

    fn trainable(&self, adaptation: Adaptation, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        self.inner.trainable(adaptation, rng)
    }

    fn conditional(&self, images: usize, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        self.inner.conditional(images, rng)
    }
}
