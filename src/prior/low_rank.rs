//! A mixture of Gaussians each of which varies along a few directions: an exact denoiser of structured images.

use std::f64::consts::TAU;

use candle_core::Tensor;

use crate::{
    Error, Result,
    compute::Compute,
    prior::{Adaptation, Denoiser, Trainable, residual::Residual},
    rng::Rng,
    transfer::Transfer,
};

/// One Gaussian: mean plus sqrt(variance) n along each of a few orthonormal directions, plus white noise.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// Probability.
    pub weight: f64,
    /// Mean `[1, Z Y X]`.
    pub mean: Tensor,
    /// Orthonormal directions as rows `[R, Z Y X]`.
    pub directions: Tensor,
    /// Variance along each, besides that of the white noise.
    pub variances: Vec<f64>,
}

/// Such a mixture; all components share the variance of the white noise.
#[derive(Debug, Clone)]
pub struct LowRankMixture {
    components: Vec<LowRank>,
    floor: f64,
    shape: [usize; 3],
    compute: Compute,
}

impl LowRankMixture {
    /// A mixture over images of `shape` Z, Y, X with white noise of variance `floor`.
    ///
    /// # Errors
    /// No component, or a weight or variance that is not positive.
    pub fn new(
        mut components: Vec<LowRank>,
        floor: f64,
        shape: [usize; 3],
        compute: &Compute,
    ) -> Result<Self> {
        let positive = |v: &f64| v.is_finite() && *v > 0.0;
        let fits = |c: &LowRank| positive(&c.weight) && c.variances.iter().all(positive);
        if components.is_empty() || !components.iter().all(fits) || !positive(&floor) {
            let problem = "needs components with positive weights and variances";
            return Err(Error::config("prior.components", problem));
        }
        let total: f64 = components.iter().map(|c| c.weight).sum();
        components.iter_mut().for_each(|c| c.weight /= total);
        Ok(Self { components, floor, shape, compute: compute.clone() })
    }

    /// The components, weights summing to 1.
    pub fn components(&self) -> &[LowRank] {
        &self.components
    }

    /// Variance of the white noise.
    pub fn floor(&self) -> f64 {
        self.floor
    }

    /// Log density `[B]` of a component with its weight, and its denoised images `[B, Z Y X]`; `white` `[B, 1]` is the
    /// variance of white noise plus s^2.
    fn component(&self, component: &LowRank, x: &Tensor, white: &Tensor) -> Result<(Tensor, Tensor)> {
        let centred = x.broadcast_sub(&component.mean)?;
        let along = centred.matmul(&component.directions.t()?)?;
        let rank = component.variances.len();
        let own = self.compute.tensor(component.variances.clone(), &[1, rank])?;
        let total = white.broadcast_add(&own)?;
        let explained = (along.sqr()? * own.broadcast_div(&total)?)?.sum_keepdim(1)?;
        let distance = (centred.sqr()?.sum_keepdim(1)? - explained)?.div(white)?;
        let logs = (total.log()?.sum_keepdim(1)? + (white.log()? * (x.dim(1)? - rank) as f64)?)?;
        let constant = component.weight.ln() - 0.5 * x.dim(1)? as f64 * TAU.ln();
        let log_density = (((distance + logs)? * -0.5)? + constant)?;
        let plain = (white.recip()? * self.floor)?;
        let gain = ((own + self.floor)?.broadcast_div(&total)?.broadcast_sub(&plain))?;
        let clean = (centred.broadcast_mul(&plain)? + (along * gain)?.matmul(&component.directions)?)?;
        Ok((log_density.squeeze(1)?, clean.broadcast_add(&component.mean)?))
    }

    /// [`Self::component`] of all components, `[B, C]` and a list.
    fn all(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        let (x, white) = (noisy.flatten_from(1)?, (noise_level.sqr()? + self.floor)?.unsqueeze(1)?);
        let parts = self.components.iter().map(|component| self.component(component, &x, &white));
        let (logs, clean): (Vec<_>, Vec<_>) = parts.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok((Tensor::stack(&logs, 1)?, clean))
    }
}

impl Denoiser for LowRankMixture {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        let (logs, clean) = self.all(noisy, noise_level)?;
        let joint = logs.broadcast_sub(&logs.max_keepdim(1)?.detach())?.exp()?;
        let shares = joint.broadcast_div(&joint.sum_keepdim(1)?)?;
        let mut mean = noisy.flatten_from(1)?.zeros_like()?;
        for (index, clean) in clean.iter().enumerate() {
            mean = (mean + clean.broadcast_mul(&shares.narrow(1, index, 1)?)?)?;
        }
        Ok(mean.reshape(noisy.dims())?)
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn noise_range(&self) -> (f64, f64) {
        let std = self.data_std();
        (1e-3 * std, 100.0 * std)
    }

    /// Root of the mean second moment: of means that differ between components, an upper limit.
    fn data_std(&self) -> f64 {
        let pixels = self.shape.iter().product::<usize>() as f64;
        let square = |c: &LowRank| {
            let mean =
                c.mean.sqr().and_then(|m| m.sum_all()?.to_dtype(candle_core::DType::F64)?.read_scalar());
            c.weight * (mean.unwrap_or(0.0) + c.variances.iter().sum::<f64>())
        };
        (self.components.iter().map(square).sum::<f64>() / pixels + self.floor).sqrt()
    }

    fn log_density(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.all(noisy, noise_level)?.0.log_sum_exp(1)?))
    }

    /// The exact denoiser plus a small network.
    fn trainable(&self, _: Adaptation, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        Ok(Box::new(Residual::new(self.clone(), rng, &self.compute)?))
    }

    fn conditional(&self, images: usize, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        Ok(Box::new(Residual::told(self.clone(), images, rng, &self.compute)?))
    }
}
