//! Images in noise, and how well a network denoises them.

use candle_core::Tensor;

use crate::{
    Result,
    compute::Compute,
    prior::{Denoiser, unet::UNet},
    rng::Rng,
    transfer::Transfer,
};

/// Clean images `[B, 1, Y, X]` and the noise that is added to them.
pub(super) struct Noisy {
    clean: Tensor,
    noise: Tensor,
    levels: Vec<f64>,
}

impl Noisy {
    /// Noise of the given levels for each of `clean`.
    pub(super) fn draw(clean: Tensor, levels: Vec<f64>, rng: &mut Rng, compute: &Compute) -> Result<Self> {
        let each = compute.tensor(levels.clone(), &[levels.len(), 1, 1, 1])?;
        let noise = rng.normals(clean.dims(), compute)?.broadcast_mul(&each)?;
        Ok(Self { clean, noise, levels })
    }

    /// All images of several parts.
    pub(super) fn together(parts: &[Self]) -> Result<Self> {
        let all = |part: fn(&Self) -> &Tensor| Tensor::cat(&parts.iter().map(part).collect::<Vec<_>>(), 0);
        let levels = parts.iter().flat_map(|part| part.levels.iter().copied()).collect();
        Ok(Self { clean: all(|part| &part.clean)?, noise: all(|part| &part.noise)?, levels })
    }

    /// Weighted squared errors `[B]` of denoised images, mean over pixels: weight (s^2 + c^2) / (s c)^2, which makes the loss
    /// of an untrained network about 1 at every noise level (Karras et al. 2022, table 1).
    pub(super) fn losses(&self, network: &UNet, compute: &Compute) -> Result<Tensor> {
        let size = self.levels.len();
        let std = network.data_std();
        let weights = self.levels.iter().map(|s| (s * s + std * std) / (s * std).powi(2)).collect();
        let weights = compute.tensor(weights, &[size])?;
        let levels = compute.tensor(self.levels.clone(), &[size])?;
        let (clean, noise) = (self.clean.transfer(&compute.device)?, self.noise.transfer(&compute.device)?);
        let error = (network.denoise(&(&clean + noise)?, &levels)? - clean)?;
        Ok((error.sqr()?.flatten_from(1)?.mean(1)? * weights)?)
    }
}
