//! The family of particles: q is a set of images. Only the smoothness of the auxiliary denoiser gives it a density, so its
//! spread is too small where data are precise.

use candle_core::{Tensor, Var};

use super::{
    auxiliary::some,
    family::{Drawn, Family},
};
use crate::{Result, compute::Compute, prior::Denoiser, rng::Rng};

/// Images that move.
pub(super) struct Particles {
    /// `[K, Z, Y, X]`, standard deviations of the prior.
    images: Var,
    std: f64,
}

impl Particles {
    /// `count` dark images.
    pub(super) fn new(count: usize, prior: &dyn Denoiser, compute: &Compute) -> Result<Self> {
        let [z, y, x] = prior.shape();
        let dark = Tensor::zeros((count, z, y, x), compute.dtype, &compute.device)?;
        Ok(Self { images: Var::from_tensor(&dark)?, std: prior.data_std() })
    }
}

impl Family for Particles {
    fn start(&mut self, first: &Tensor) -> Result<()> {
        Ok(self.images.set(&(first / self.std)?)?)
    }

    fn draw(&self, _: &mut Rng) -> Result<Drawn> {
        Ok(Drawn { images: (self.images.as_tensor() * self.std)?, weights: None })
    }

    fn sample(&self, count: usize, rng: &mut Rng) -> Result<Tensor> {
        some(&(self.images.as_tensor() * self.std)?.detach(), count, rng)
    }

    fn has_members(&self) -> bool {
        true
    }

    fn variables(&self) -> Vec<(String, Var)> {
        vec![("particles".into(), self.images.clone())]
    }
}
