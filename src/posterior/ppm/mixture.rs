//! The family of Gaussian mixtures: weights, means and covariances are fitted, and the denoiser of q is known in closed form.

use candle_core::{D, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::family::{Drawn, Family};
use crate::{
    Error, Result,
    compute::Compute,
    prior::{
        Denoiser,
        factored::{Factored, FactoredMixture},
        mixture::{Component, Mixture as DiagonalMixture},
    },
    rng::Rng,
    tensor::{compute_of, to_host},
    transfer::send,
};

/// Standard deviation of every pixel of a component at the start, standard deviations of the prior.
const FIRST_STD: f64 = 0.3;
/// Length of every factor at the start, in units of [`FIRST_STD`].
const FIRST_FACTOR: f64 = 0.1;
/// How far a step of the learning rate moves ln std and ln weight: they are numbers of order one that have further to go
/// than means, which start near their place.
const LOG_STD_STEP: f64 = 4.0;
const LOG_WEIGHT_STEP: f64 = 10.0;

/// Settings of the mixture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixtureSettings {
    /// Number of Gaussians.
    pub components: usize,
    /// Directions along which each varies besides the independent noise of its pixels: covariance diagonal plus that rank.
    pub rank: usize,
}

impl Default for MixtureSettings {
    fn default() -> Self {
        Self { components: 12, rank: 0 }
    }
}

/// x = std (m_c + exp(l_c) n + F_c^T w) with the component c drawn by its weight, n and w white.
pub(super) struct Mixture {
    /// m `[C, D]`, standard deviations of the prior.
    means: Var,
    /// l / [`LOG_STD_STEP`], `[C, D]`.
    log_stds: Var,
    /// ln weight / [`LOG_WEIGHT_STEP`] up to a constant, `[C]`.
    log_weights: Var,
    /// F `[C, R, D]`, standard deviations of the prior; none for rank 0.
    factors: Option<Var>,
    /// Draws of a step.
    count: usize,
    std: f64,
    shape: [usize; 3],
}

impl Mixture {
    /// A mixture of which `count` images are drawn in each step, as many of each component.
    pub(super) fn new(
        settings: &MixtureSettings,
        count: usize,
        prior: &dyn Denoiser,
        rng: &mut Rng,
        compute: &Compute,
    ) -> Result<Self> {
        let MixtureSettings { components, rank } = *settings;
        let shape = prior.shape();
        let pixels: usize = shape.iter().product();
        if components == 0 || components > count || rank > pixels {
            let problem =
                format!("needs 1 to {count} components (as many as particles) of rank up to {pixels}");
            return Err(Error::config("solver.matching.family", problem));
        }
        let zeros = |shape: &[usize]| Tensor::zeros(shape, compute.dtype, &compute.device);
        let log_std = FIRST_STD.ln() / LOG_STD_STEP;
        let factor = FIRST_FACTOR * FIRST_STD;
        let factors = (rank > 0).then(|| -> Result<Var> {
            Ok(Var::from_tensor(&(rng.normals(&[components, rank, pixels], compute)? * factor)?)?)
        });
        Ok(Self {
            means: Var::from_tensor(&zeros(&[components, pixels])?)?,
            log_stds: Var::from_tensor(&(zeros(&[components, pixels])? + log_std)?)?,
            log_weights: Var::from_tensor(&zeros(&[components])?)?,
            factors: factors.transpose()?,
            count,
            std: prior.data_std(),
            shape,
        })
    }

    fn components(&self) -> Result<usize> {
        Ok(self.means.dim(0)?)
    }

    /// Weights `[C]`, sum 1.
    fn weights(&self) -> Result<Tensor> {
        let logs = (self.log_weights.as_tensor() * LOG_WEIGHT_STEP)?;
        let shares = logs.broadcast_sub(&logs.max_keepdim(D::Minus1)?.detach())?.exp()?;
        Ok(shares.broadcast_div(&shares.sum_keepdim(D::Minus1)?)?)
    }

    /// Standard deviations `[C, D]` of the independent noise, those of the prior.
    fn stds(&self) -> Result<Tensor> {
        Ok((self.log_stds.as_tensor() * LOG_STD_STEP)?.exp()?)
    }

    /// An image `[B, Z, Y, X]` of each of the components `chosen`.
    fn images(&self, chosen: &[u32], rng: &mut Rng) -> Result<Tensor> {
        let (count, compute) = (chosen.len(), compute_of(self.means.as_tensor()));
        let chosen = send(chosen, &compute.device)?;
        let of = |variable: &Tensor| variable.index_select(&chosen, 0);
        let white = rng.normals(&[count, self.means.dim(1)?], &compute)?;
        let mut x = (of(self.means.as_tensor())? + (of(&self.stds()?)? * white)?)?;
        if let Some(factors) = &self.factors {
            let along = rng.normals(&[count, 1, factors.dim(1)?], &compute)?;
            x = (x + along.matmul(&of(factors.as_tensor())?)?.squeeze(1)?)?;
        }
        let [z, y, columns] = self.shape;
        Ok((x * self.std)?.reshape((count, z, y, columns))?)
    }
}

impl Family for Mixture {
    fn start(&mut self, first: &Tensor) -> Result<()> {
        // Neighbours may be copies of one draw.
        let (count, components) = (first.dim(0)?, self.components()?);
        let chosen: Vec<u32> = (0..components).map(|c| (c * count / components) as u32).collect();
        let means = first.index_select(&send(chosen, first.device())?, 0)?.flatten_from(1)?;
        Ok(self.means.set(&(means / self.std)?)?)
    }

    /// As many images of each component, which count by its weight.
    fn draw(&self, rng: &mut Rng) -> Result<Drawn> {
        let components = self.components()?;
        let chosen: Vec<u32> = (0..self.count).map(|i| (i % components) as u32).collect();
        let drawn = |c: usize| ((self.count - c - 1) / components + 1) as f64;
        let shares = (0..components).map(|c| self.count as f64 / drawn(c)).collect();
        let weights = self.weights()?;
        let weights = (&weights * compute_of(&weights).tensor(shares, &[components])?)?;
        let images = self.images(&chosen, rng)?;
        let chosen = send(chosen, images.device())?;
        Ok(Drawn { images, weights: Some(weights.index_select(&chosen, 0)?) })
    }

    fn sample(&self, count: usize, rng: &mut Rng) -> Result<Tensor> {
        let weights = to_host(&self.weights()?)?;
        let chosen: Vec<u32> = (0..count).map(|_| rng.weighted(&weights) as u32).collect();
        Ok(self.images(&chosen, rng)?.detach())
    }

    fn denoiser(&self) -> Result<Option<Box<dyn Denoiser>>> {
        let compute = compute_of(self.means.as_tensor());
        let pixels = self.means.dim(1)?;
        let rows = |x: &Tensor, unit: f64| -> Result<Vec<Vec<f64>>> {
            Ok(to_host(&x.detach().flatten_all()?)?
                .chunks_exact(pixels)
                .map(|row| row.iter().map(|value| value * unit).collect())
                .collect())
        };
        let means = rows(self.means.as_tensor(), self.std)?;
        let variances = rows(&self.stds()?.sqr()?, self.std * self.std)?;
        let weights = to_host(&self.weights()?)?;
        let components = weights.into_iter().zip(means).zip(variances).map(|((weight, mean), variances)| {
            // A weight may underflow; its component then only has to be a Gaussian.
            Component { weight: weight.max(f64::MIN_POSITIVE), mean, variances }
        });
        let Some(factors) = &self.factors else {
            return Ok(Some(Box::new(DiagonalMixture::new(components.collect(), self.shape, &compute)?)));
        };
        let factors = (factors.as_tensor().detach() * self.std)?;
        let factored =
            components.enumerate().map(|(c, component)| Ok(Factored { component, factors: factors.get(c)? }));
        let factored = factored.collect::<Result<Vec<_>>>()?;
        Ok(Some(Box::new(FactoredMixture::new(factored, self.shape, &compute)?)))
    }

    fn variables(&self) -> Vec<(String, Var)> {
        let own = [
            ("means", Some(&self.means)),
            ("log_stds", Some(&self.log_stds)),
            ("log_weights", Some(&self.log_weights)),
            ("factors", self.factors.as_ref()),
        ];
        own.into_iter().filter_map(|(name, variable)| Some((name.into(), variable?.clone()))).collect()
    }
}
