//! Beds with structured images as prior: a mixture of Gaussians that vary along a few directions.

use std::sync::Arc;

use candle_core::Tensor;
use nalgebra::{Cholesky, DMatrix, DVector};

use super::{
    Parts,
    exact::{Component, Covariance, LinearPosterior},
    field::{blur, doubtful, filtered, mask, transfer},
};
use crate::{
    Error, Result,
    compute::Compute,
    instrument::Linear,
    prior::low_rank::{LowRank, LowRankMixture},
    rng::Rng,
    tensor::{compute_of, fft::circular_convolve, to_host},
};

const SIDE: usize = 32;
const DRAWS: usize = 256;
/// Weights of the components.
const WEIGHTS: [f64; 4] = [0.4, 0.3, 0.2, 0.1];
/// Directions of each component and the standard deviation along the first; the j-th has that over j.
const RANK: usize = 8;
const LENGTH: f64 = 4.0;
/// Standard deviation of the white noise.
const FLOOR: f64 = 0.05;
/// Noise per pixel: as much as leaves the data doubtful which component it was.
const SIGMA: f64 = 2.5;

/// Such images through a Gaussian blur.
///
/// # Errors
/// Those of the tensor library.
pub(super) fn psf(rng: &Rng, compute: &Compute) -> Result<Parts> {
    let (prior, problem, exact, draws) = parts(blur(SIDE), rng, compute)?;
    Ok((prior, doubtful(problem, SIDE)?, exact, draws))
}

/// Such images of which a random set of low Fourier modes is seen.
///
/// # Errors
/// Those of the tensor library.
pub(super) fn vlbi(rng: &Rng, compute: &Compute) -> Result<Parts> {
    parts(mask(SIDE, rng), rng, compute)
}

/// A smooth random image of unit norm, `[1, Z Y X]`.
fn smooth(rng: &mut Rng, compute: &Compute) -> Result<Tensor> {
    let white = rng.normals(&[1, 1, SIDE, SIDE], compute)?;
    let transfer = transfer(SIDE, |f| (-0.5 * (f / 0.08).powi(2)).exp());
    let image = circular_convolve(&white, &transfer)?.flatten_from(1)?;
    Ok(image.broadcast_div(&image.sqr()?.sum_keepdim(1)?.sqrt()?)?)
}

/// A component with a small random mean and random smooth directions, made orthonormal one after the other.
fn component(weight: f64, rng: &mut Rng, compute: &Compute) -> Result<LowRank> {
    let mut rows: Vec<Tensor> = Vec::new();
    for _ in 0..RANK {
        let mut row = smooth(rng, compute)?;
        for other in rows.iter().chain(rows.iter()) {
            row = (&row - other.broadcast_mul(&(&row * other)?.sum_keepdim(1)?)?)?;
        }
        rows.push(row.broadcast_div(&row.sqr()?.sum_keepdim(1)?.sqrt()?)?);
    }
    let variances = (0..RANK).map(|j| (LENGTH / (j + 1) as f64).powi(2)).collect();
    let mean = (smooth(rng, compute)? * LENGTH)?;
    Ok(LowRank { weight, mean, directions: Tensor::cat(&rows, 0)?, variances })
}

fn parts(gains: Vec<f64>, rng: &Rng, compute: &Compute) -> Result<Parts> {
    let mut rng = rng.stream("recipe", 0);
    let components =
        WEIGHTS.iter().map(|&weight| component(weight, &mut rng, compute)).collect::<Result<Vec<_>>>()?;
    let prior = LowRankMixture::new(components, FLOOR * FLOOR, [1, SIDE, SIDE], compute)?;
    let gaussian = |component: &LowRank| -> Result<Component> {
        let covariance = Arc::new(Factors { component: component.clone(), floor: FLOOR * FLOOR });
        let mean = component.mean.reshape((1, 1, SIDE, SIDE))?;
        Ok(Component { weight: component.weight, mean, covariance })
    };
    let components = prior.components().iter().map(gaussian).collect::<Result<Vec<_>>>()?;
    let origin = &components[rng.weighted(&WEIGHTS)];
    let truth = (origin.covariance.deviations(1, &mut rng)? + &origin.mean)?;
    let problem = filtered(&truth, gains, SIGMA, &mut rng)?;
    let exact = LinearPosterior::new(&problem, components, compute)?;
    Ok((Box::new(prior), problem, exact, DRAWS))
}

/// floor I + U^T L U with the component's directions U and variances L.
struct Factors {
    component: LowRank,
    floor: f64,
}

/// (D + W^T L W)^-1 by Woodbury's identity: D diagonal, W the directions in the instrument's coordinates.
struct Inverse {
    /// 1 / D.
    diagonal: DVector<f64>,
    /// W, `[R, coordinates]`.
    directions: DMatrix<f64>,
    /// L^-1 + W D^-1 W^T.
    inner: Cholesky<f64, nalgebra::Dyn>,
    log_determinant: f64,
}

impl Factors {
    fn inverse(&self, linear: &Linear) -> Result<Inverse> {
        let rows = self.component.directions.reshape((RANK, 1, SIDE, SIDE))?;
        let directions = DMatrix::from_row_slice(RANK, linear.rank(), &to_host(&linear.coordinates(&rows)?)?);
        let totals = DVector::from_iterator(linear.rank(), linear.sigma.iter().map(|s| self.floor + s * s));
        let diagonal = totals.map(f64::recip);
        let mut scaled = directions.clone();
        for (mut column, weight) in scaled.column_iter_mut().zip(diagonal.iter()) {
            column *= *weight;
        }
        let variances = DVector::from_column_slice(&self.component.variances);
        let inner = DMatrix::from_diagonal(&variances.map(f64::recip)) + scaled * directions.transpose();
        let inner = Cholesky::new(inner)
            .ok_or_else(|| Error::config("bed", "the data's covariance is not positive definite"))?;
        let halves = inner.l_dirty().diagonal().iter().map(|d| d.ln()).sum::<f64>();
        let logs = |values: &DVector<f64>| values.iter().map(|v| v.ln()).sum::<f64>();
        let log_determinant = 2.0 * halves + logs(&variances) + logs(&totals);
        Ok(Inverse { diagonal, directions, inner, log_determinant })
    }
}

impl Inverse {
    fn solve(&self, misfit: &DVector<f64>) -> DVector<f64> {
        let scaled = misfit.component_mul(&self.diagonal);
        let inner = self.inner.solve(&(&self.directions * &scaled));
        &scaled - self.directions.tr_mul(&inner).component_mul(&self.diagonal)
    }
}

impl Covariance for Factors {
    fn deviations(&self, count: usize, rng: &mut Rng) -> Result<Tensor> {
        let directions = &self.component.directions;
        let compute = compute_of(directions);
        let stds = self.component.variances.iter().map(|v| v.sqrt()).collect();
        let along =
            rng.normals(&[count, RANK], &compute)?.broadcast_mul(&compute.tensor(stds, &[1, RANK])?)?;
        let white = (rng.normals(&[count, SIDE * SIDE], &compute)? * self.floor.sqrt())?;
        Ok((along.matmul(directions)? + white)?.reshape((count, 1, SIDE, SIDE))?)
    }

    fn moved(&self, linear: &Linear, misfit: &Tensor) -> Result<Tensor> {
        let (compute, inverse) = (compute_of(misfit), self.inverse(linear)?);
        let rows = to_host(misfit)?;
        let solve = |row: &[f64]| inverse.solve(&DVector::from_column_slice(row)).as_slice().to_vec();
        let solved: Vec<f64> = rows.chunks_exact(linear.rank()).flat_map(solve).collect();
        let back = linear.image(&compute.tensor(solved, misfit.dims())?, [1, SIDE, SIDE])?.flatten_from(1)?;
        let directions = &self.component.directions;
        let variances = compute.tensor(self.component.variances.clone(), &[1, RANK])?;
        let along = back.matmul(&directions.t()?)?.broadcast_mul(&variances)?.matmul(directions)?;
        Ok(((back * self.floor)? + along)?.reshape((misfit.dim(0)?, 1, SIDE, SIDE))?)
    }

    fn log_evidence(&self, linear: &Linear, misfit: &Tensor) -> Result<f64> {
        let inverse = self.inverse(linear)?;
        let misfit = DVector::from_vec(to_host(misfit)?);
        Ok(-0.5 * (misfit.dot(&inverse.solve(&misfit)) + inverse.log_determinant))
    }

    fn log_density(&self, x: &Tensor) -> Result<Vec<f64>> {
        let (x, directions) = (x.flatten_from(1)?, &self.component.directions);
        let variances = &self.component.variances;
        let shares = variances.iter().map(|v| v / (v + self.floor)).collect();
        let shares = compute_of(&x).tensor(shares, &[1, RANK])?;
        let explained = x.matmul(&directions.t()?)?.sqr()?.broadcast_mul(&shares)?.sum(1)?;
        let logs: f64 = variances.iter().map(|v| (v / self.floor + 1.0).ln()).sum();
        to_host(&((((x.sqr()?.sum(1)? - explained)? / self.floor)? + logs)? * -0.5)?)
    }
}
