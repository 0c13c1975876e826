//! The Gaussian-mixture prior: an exact denoiser with many modes, and its exact posterior for linear data.

use std::f64::consts::TAU;

use candle_core::{D, Tensor};
use nalgebra::{Cholesky, DMatrix, DVector};

use crate::{
    Error, Result,
    compute::Compute,
    prior::{Adaptation, Denoiser, Trainable, residual::Residual},
    rng::Rng,
};

/// One Gaussian of a mixture with independent pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// Probability; a mixture scales its weights to sum 1.
    pub weight: f64,
    /// Mean of every pixel.
    pub mean: Vec<f64>,
    /// Variance of every pixel.
    pub variances: Vec<f64>,
}

/// A mixture of Gaussians with independent pixels.
#[derive(Debug, Clone)]
pub struct Mixture {
    components: Vec<Component>,
    shape: [usize; 3],
    compute: Compute,
    /// ln weight `[1, C]`, means and variances `[1, C, Z Y X]`.
    log_weights: Tensor,
    means: Tensor,
    variances: Tensor,
    /// All components have the same variances.
    alike: bool,
}

impl Mixture {
    /// A mixture over images of `shape` Z, Y, X.
    ///
    /// # Errors
    /// No component, a mean or variance of another length, or a weight or variance that is not positive.
    pub fn new(mut components: Vec<Component>, shape: [usize; 3], compute: &Compute) -> Result<Self> {
        let count = shape.iter().product::<usize>();
        let positive = |v: &f64| v.is_finite() && *v > 0.0;
        let fits = |c: &Component| {
            c.mean.len() == count
                && c.variances.len() == count
                && positive(&c.weight)
                && c.variances.iter().all(positive)
        };
        if components.is_empty() || !components.iter().all(fits) {
            let problem = format!("needs components of {count} pixels with positive weights and variances");
            return Err(Error::config("prior.components", problem));
        }
        let total: f64 = components.iter().map(|c| c.weight).sum();
        components.iter_mut().for_each(|c| c.weight /= total);
        let pixels = |of: fn(&Component) -> &[f64]| {
            let values = components.iter().flat_map(|c| of(c).iter().copied()).collect();
            compute.tensor(values, &[1, components.len(), count])
        };
        let means = pixels(|c| &c.mean)?;
        let variances = pixels(|c| &c.variances)?;
        let log_weights = components.iter().map(|c| c.weight.ln()).collect();
        let log_weights = compute.tensor(log_weights, &[1, components.len()])?;
        let alike = components.iter().all(|c| c.variances == components[0].variances);
        Ok(Self { components, shape, compute: compute.clone(), log_weights, means, variances, alike })
    }

    /// The components, weights summing to 1.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// Log probability `[B, C]` of each component and a diffused image, with the parts from which it was made:
    /// x - mean and variance + s^2, both `[B, C, Z Y X]`.
    fn log_joint(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let centred = noisy.flatten_from(1)?.unsqueeze(1)?.broadcast_sub(&self.means)?;
        let total = self.variances.broadcast_add(&noise_level.sqr()?.reshape(((), 1, 1))?)?;
        let exponent = (((centred.sqr()? / &total)? + (&total * TAU)?.log()?)?.sum(D::Minus1)? * -0.5)?;
        Ok((exponent.broadcast_add(&self.log_weights)?, centred, total))
    }

    /// D where all components have the same variances: their log probabilities differ by terms linear in the image, so
    /// that matrix products do.
    fn denoise_alike(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        let x = noisy.flatten_from(1)?;
        let (means, variances) = (self.means.squeeze(0)?, self.variances.narrow(1, 0, 1)?.squeeze(1)?);
        let precision = variances.broadcast_add(&noise_level.sqr()?.unsqueeze(1)?)?.recip()?;
        let linear = (&x * &precision)?.matmul(&means.t()?)?;
        let constant = (precision.matmul(&means.sqr()?.t()?)? * 0.5)?;
        let log_joint = (linear - constant)?.broadcast_add(&self.log_weights)?;
        let centre = shares(&log_joint)?.matmul(&means)?;
        let gain = precision.broadcast_mul(&variances)?;
        Ok((&centre + ((x - &centre)? * gain)?)?.reshape(noisy.dims())?)
    }

    /// The exact posterior of y = F x + sigma n for the rows of F: again a mixture, by Bayes' rule for each
    /// component.
    ///
    /// # Errors
    /// A row of another length than the image, or a noise level that is not positive.
    pub fn linear_posterior(&self, rows: &[Vec<f64>], data: &[f64], sigma: f64) -> Result<Vec<Posterior>> {
        let count = self.shape.iter().product::<usize>();
        if rows.len() != data.len()
            || rows.iter().any(|row| row.len() != count)
            || sigma.is_nan()
            || sigma <= 0.0
        {
            let problem = format!("needs {} rows of {count} numbers and positive noise", data.len());
            return Err(Error::config("data", problem));
        }
        let forward = DMatrix::from_fn(rows.len(), count, |i, j| rows[i][j]);
        let data = DVector::from_column_slice(data);
        let parts = self.components.iter().map(|component| component.observe(&forward, &data, sigma));
        let mut parts = parts.collect::<Result<Vec<_>>>()?;
        let largest = parts.iter().map(|p| p.weight).fold(f64::NEG_INFINITY, f64::max);
        parts.iter_mut().for_each(|p| p.weight = (p.weight - largest).exp());
        let total: f64 = parts.iter().map(|p| p.weight).sum();
        parts.iter_mut().for_each(|p| p.weight /= total);
        Ok(parts)
    }
}

/// One Gaussian of an exact posterior.
#[derive(Debug, Clone)]
pub struct Posterior {
    /// Posterior probability.
    pub weight: f64,
    /// Posterior mean.
    pub mean: DVector<f64>,
    /// Posterior covariance.
    pub covariance: DMatrix<f64>,
}

impl Component {
    /// Conditions on y = F x + sigma n; the weight is returned as the log of weight times evidence.
    fn observe(&self, forward: &DMatrix<f64>, data: &DVector<f64>, sigma: f64) -> Result<Posterior> {
        let covariance = DMatrix::from_diagonal(&DVector::from_column_slice(&self.variances));
        let mean = DVector::from_column_slice(&self.mean);
        let cross = &covariance * forward.transpose();
        let predicted = forward * &cross + DMatrix::identity(data.len(), data.len()) * (sigma * sigma);
        let factor = Cholesky::new(predicted)
            .ok_or_else(|| Error::config("data", "the predicted covariance is not positive definite"))?;
        let residual = data - forward * &mean;
        let weighted = factor.solve(&residual);
        let log_determinant = 2.0 * factor.l().diagonal().iter().map(|d| d.ln()).sum::<f64>();
        let log_evidence = -0.5 * (residual.dot(&weighted) + log_determinant);
        Ok(Posterior {
            weight: self.weight.ln() + log_evidence,
            mean: mean + &cross * weighted,
            covariance: covariance - &cross * factor.solve(&cross.transpose()),
        })
    }
}

impl Denoiser for Mixture {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        if self.alike {
            return self.denoise_alike(noisy, noise_level);
        }
        let (log_joint, centred, total) = self.log_joint(noisy, noise_level)?;
        let probability = shares(&log_joint)?;
        let shrunk = (centred * self.variances.broadcast_div(&total)?)?.broadcast_add(&self.means)?;
        let mean = shrunk.broadcast_mul(&probability.unsqueeze(2)?)?.sum(1)?;
        Ok(mean.reshape(noisy.dims())?)
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn noise_range(&self) -> (f64, f64) {
        let std = self.data_std();
        (1e-3 * std, 100.0 * std)
    }

    fn data_std(&self) -> f64 {
        let count = self.shape.iter().product::<usize>();
        let moment = |j: usize, of: fn(f64, f64) -> f64| -> f64 {
            self.components.iter().map(|c| c.weight * of(c.mean[j], c.variances[j])).sum()
        };
        let variance = |j| moment(j, |m, v| v + m * m) - moment(j, |m, _| m).powi(2);
        ((0..count).map(variance).sum::<f64>() / count as f64).sqrt()
    }

    fn log_density(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.log_joint(noisy, noise_level)?.0.log_sum_exp(1)?))
    }

    /// The exact denoiser plus a small network.
    fn trainable(&self, _: Adaptation, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        Ok(Box::new(Residual::new(self.clone(), rng, &self.compute)?))
    }

    fn conditional(&self, images: usize, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        Ok(Box::new(Residual::told(self.clone(), images, rng, &self.compute)?))
    }
}

/// Probabilities `[B, C]` from their logarithms up to a constant.
fn shares(log_joint: &Tensor) -> Result<Tensor> {
    let largest = log_joint.max_keepdim(1)?.detach();
    let joint = log_joint.broadcast_sub(&largest)?.exp()?;
    Ok(joint.broadcast_div(&joint.sum_keepdim(1)?)?)
}
