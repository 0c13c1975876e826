//! A mixture of Gaussians with covariance diagonal plus low rank: an exact denoiser by Woodbury's identity.

use std::f64::consts::TAU;

use candle_core::Tensor;
use nalgebra::{Cholesky, DMatrix};

use super::{Denoiser, mixture::Component};
use crate::{
    Error, Result,
    compute::Compute,
    prior::{Adaptation, Trainable, residual::Residual},
    rng::Rng,
    transfer::Transfer,
};

/// One Gaussian: independent pixels, plus the rows of `factors` times white numbers.
#[derive(Debug, Clone)]
pub struct Factored {
    /// Weight, mean, and variances of the independent part.
    pub component: Component,
    /// `[R, Z Y X]`.
    pub factors: Tensor,
}

/// Such a mixture.
#[derive(Debug, Clone)]
pub struct FactoredMixture {
    parts: Vec<Part>,
    data_std: f64,
    shape: [usize; 3],
    compute: Compute,
}

/// A component on the device.
#[derive(Debug, Clone)]
struct Part {
    log_weight: f64,
    /// `[1, D]`.
    mean: Tensor,
    /// `[1, D]`.
    variances: Tensor,
    /// `[R, D]`.
    factors: Tensor,
}

/// (I + F P F^T)^-1 `[B, R, R]` and ln det of its inverse `[B, 1]` for diagonals P.
struct Inner {
    inverse: Tensor,
    log_determinant: Tensor,
}

impl FactoredMixture {
    /// A mixture over images of `shape` Z, Y, X.
    ///
    /// # Errors
    /// No component, or means, variances and factors of other lengths.
    pub fn new(components: Vec<Factored>, shape: [usize; 3], compute: &Compute) -> Result<Self> {
        let pixels = shape.iter().product::<usize>();
        let fits = |f: &Factored| {
            let Component { mean, variances, .. } = &f.component;
            [mean.len(), variances.len(), f.factors.dims().last().copied().unwrap_or(0)] == [pixels; 3]
        };
        let total: f64 = components.iter().map(|f| f.component.weight).sum();
        if components.is_empty() || !components.iter().all(fits) || !(total > 0.0 && total.is_finite()) {
            let problem = format!("needs components of {pixels} pixels with positive weights");
            return Err(Error::config("prior.components", problem));
        }
        let data_std = deviation(&components, total)?;
        let part = |Factored { component, factors }: Factored| -> Result<Part> {
            Ok(Part {
                log_weight: (component.weight / total).ln(),
                mean: compute.tensor(component.mean, &[1, pixels])?,
                variances: compute.tensor(component.variances, &[1, pixels])?,
                factors,
            })
        };
        let parts = components.into_iter().map(part).collect::<Result<_>>()?;
        Ok(Self { parts, data_std, shape, compute: compute.clone() })
    }

    /// Log density `[B, C]` of each component with its weight, and (C + s^2)^-1 (x - mean) of each, `[B, D]`.
    fn all(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        let (x, variance) = (noisy.flatten_from(1)?, noise_level.sqr()?.unsqueeze(1)?);
        let each = self.parts.iter().map(|part| self.one(part, &x, &variance));
        let (logs, pulls): (Vec<_>, Vec<_>) = each.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok((Tensor::cat(&logs, 1)?, pulls))
    }

    fn one(&self, part: &Part, x: &Tensor, variance: &Tensor) -> Result<(Tensor, Tensor)> {
        let precision = part.variances.broadcast_add(variance)?.recip()?;
        let inner = self.inner(part, &precision)?;
        let centred = x.broadcast_sub(&part.mean)?;
        let scaled = (&centred * &precision)?;
        let along = scaled.matmul(&part.factors.t()?)?;
        let solved = along.unsqueeze(1)?.matmul(&inner.inverse)?.squeeze(1)?;
        let pull = (&scaled - (solved.matmul(&part.factors)? * &precision)?)?;
        let distance = (centred * &pull)?.sum_keepdim(1)?;
        let logs = (inner.log_determinant - (precision / TAU)?.log()?.sum_keepdim(1)?)?;
        Ok(((((distance + logs)? * -0.5)? + part.log_weight)?, pull))
    }

    fn inner(&self, part: &Part, precision: &Tensor) -> Result<Inner> {
        let (batch, rank) = (precision.dim(0)?, part.factors.dim(0)?);
        let weighted = precision.unsqueeze(1)?.broadcast_mul(&part.factors.unsqueeze(0)?)?;
        let gram = weighted.reshape((batch * rank, ()))?.matmul(&part.factors.t()?)?;
        let gram: Vec<f64> = gram.to_dtype(candle_core::DType::F64)?.flatten_all()?.read_list()?;
        let (mut inverses, mut logs) = (Vec::with_capacity(gram.len()), Vec::with_capacity(batch));
        for values in gram.chunks_exact(rank * rank) {
            let matrix = DMatrix::from_row_slice(rank, rank, values) + DMatrix::identity(rank, rank);
            let factor = Cholesky::new(matrix)
                .ok_or_else(|| Error::config("prior.components", "a covariance is not positive definite"))?;
            logs.push(2.0 * factor.l_dirty().diagonal().iter().map(|d| d.ln()).sum::<f64>());
            inverses.extend(factor.inverse().iter().copied());
        }
        let inverse = self.compute.tensor(inverses, &[batch, rank, rank])?;
        Ok(Inner { inverse, log_determinant: self.compute.tensor(logs, &[batch, 1])? })
    }
}

/// Root of the mean variance per pixel.
fn deviation(components: &[Factored], total: f64) -> Result<f64> {
    let pixels = components[0].component.mean.len();
    let (mut means, mut squares) = (vec![0.0; pixels], 0.0);
    for Factored { component, factors } in components {
        let share = component.weight / total;
        means.iter_mut().zip(&component.mean).for_each(|(sum, mean)| *sum += share * mean);
        let own = component.mean.iter().zip(&component.variances).map(|(m, v)| m * m + v).sum::<f64>();
        let along = factors.sqr()?.sum_all()?.to_dtype(candle_core::DType::F64)?.read_scalar::<f64>()?;
        squares += share * (own + along);
    }
    let centre: f64 = means.iter().map(|mean| mean * mean).sum();
    Ok(((squares - centre) / pixels as f64).max(0.0).sqrt())
}

impl Denoiser for FactoredMixture {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        let (logs, pulls) = self.all(noisy, noise_level)?;
        let joint = logs.broadcast_sub(&logs.max_keepdim(1)?.detach())?.exp()?;
        let shares = joint.broadcast_div(&joint.sum_keepdim(1)?)?;
        let mut pull = pulls[0].zeros_like()?;
        for (index, own) in pulls.iter().enumerate() {
            pull = (pull + own.broadcast_mul(&shares.narrow(1, index, 1)?)?)?;
        }
        let change = pull.broadcast_mul(&noise_level.sqr()?.unsqueeze(1)?)?;
        Ok((noisy - change.reshape(noisy.dims())?)?)
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn noise_range(&self) -> (f64, f64) {
        (1e-3 * self.data_std, 100.0 * self.data_std)
    }

    fn data_std(&self) -> f64 {
        self.data_std
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        prior::low_rank::{LowRank, LowRankMixture},
        tensor::value_and_gradient,
    };

    /// Orthonormal directions with white noise are a special case with a denoiser of its own.
    #[test]
    fn agrees_with_orthonormal_directions_and_with_its_own_density() {
        let compute = Compute::cpu_f64();
        let shape = [1, 2, 2];
        let half = |signs: [f64; 4]| signs.map(|sign| 0.5 * sign).to_vec();
        let directions = [half([1.0, 1.0, 1.0, 1.0]), half([1.0, -1.0, 1.0, -1.0])].concat();
        let directions = compute.tensor(directions, &[2, 4]).unwrap();
        let lengths = compute.tensor(vec![2.0f64.sqrt(), 3.0f64.sqrt()], &[2, 1]).unwrap();
        let means = [vec![0.0, 1.0, -1.0, 0.5], vec![2.0, 0.0, 0.3, -0.4]];
        let plain = |(mean, weight): (&Vec<f64>, f64)| LowRank {
            weight,
            mean: compute.tensor(mean.clone(), &[1, 4]).unwrap(),
            directions: directions.clone(),
            variances: vec![2.0, 3.0],
        };
        let factored = |(mean, weight): (&Vec<f64>, f64)| Factored {
            component: Component { weight, mean: mean.clone(), variances: vec![0.25; 4] },
            factors: directions.broadcast_mul(&lengths).unwrap(),
        };
        let weights = [0.3, 0.7];
        let reference =
            LowRankMixture::new(means.iter().zip(weights).map(plain).collect(), 0.25, shape, &compute)
                .unwrap();
        let found =
            FactoredMixture::new(means.iter().zip(weights).map(factored).collect(), shape, &compute).unwrap();
        let x = Rng::new(1).normals(&[3, 1, 2, 2], &compute).unwrap();
        let levels = compute.tensor(vec![0.1, 0.8, 5.0], &[3]).unwrap();
        let close = |a: &Tensor, b: &Tensor| {
            let worst = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(worst.to_scalar::<f64>().unwrap() < 1e-9, "{a} {b}");
        };
        close(&found.denoise(&x, &levels).unwrap(), &reference.denoise(&x, &levels).unwrap());
        let density = |of: &dyn Denoiser, x: &Tensor| of.log_density(x, &levels).map(Option::unwrap);
        close(&density(&found, &x).unwrap(), &density(&reference, &x).unwrap());
        let score = value_and_gradient(&x, |x| density(&found, x)).unwrap().1;
        let step = score.broadcast_mul(&levels.sqr().unwrap().reshape((3, 1, 1, 1)).unwrap()).unwrap();
        close(&(&x + step).unwrap(), &found.denoise(&x, &levels).unwrap());
    }
}
