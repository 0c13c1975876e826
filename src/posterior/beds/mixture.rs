//! Beds with a mixture of Gaussians as prior.

use std::sync::Arc;

use super::{
    Parts,
    exact::{self, Covariance, Diagonal, LinearPosterior},
};
use crate::{
    Result,
    compute::Compute,
    instrument::exact::projection,
    prior::mixture::{Component, Mixture},
    rng::Rng,
};

/// Draws of beds with few dimensions.
const DRAWS: usize = 1000;
/// Standard deviation within each mode of the two-dimensional priors.
const MODE_STD: f64 = 0.25;
/// Direction of the projection: no two modes share a projection by symmetry.
const DIRECTION: [f64; 2] = [0.9, 0.435_889_894_354_067_4];
/// Noise of the projection.
const SIGMA: f64 = 0.5;

/// Eight equal modes on a circle of radius 2.
///
/// # Errors
/// Those of the tensor library.
pub(super) fn ring(_: &Rng, compute: &Compute) -> Result<Parts> {
    let angle = |k: u8| f64::from(k) * std::f64::consts::FRAC_PI_4;
    let mode = |k: u8| vec![2.0 * angle(k).cos(), 2.0 * angle(k).sin()];
    plane((0..8).map(mode).collect(), 1.0, compute)
}

/// Nine equal modes on a square grid of pitch 2.
///
/// # Errors
/// Those of the tensor library.
pub(super) fn grid(_: &Rng, compute: &Compute) -> Result<Parts> {
    let mode = |k: u8| vec![2.0 * f64::from(k % 3) - 2.0, 2.0 * f64::from(k / 3) - 2.0];
    plane((0..9).map(mode).collect(), 0.7, compute)
}

fn plane(means: Vec<Vec<f64>>, y: f64, compute: &Compute) -> Result<Parts> {
    let weights = vec![1.0; means.len()];
    parts(&weights, means, MODE_STD * MODE_STD, (&[DIRECTION.to_vec()], &[y], SIGMA), compute)
}

/// One Gaussian in one dimension: the posterior is N(1.2, 0.2).
///
/// # Errors
/// Those of the tensor library.
pub(super) fn gaussian_1d(_: &Rng, compute: &Compute) -> Result<Parts> {
    parts(&[1.0], vec![vec![0.0]], 1.0, (&[vec![1.0]], &[1.5], 0.5), compute)
}

/// 25 modes of unit covariance at (8 i, 8 j), i and j from -2 to 2, repeated to `dim` dimensions, with weights that are
/// squares of normal draws; a random matrix with sorted uniform singular values, noise of a uniform fraction of the
/// largest, and data of a draw of the prior (the set-up of Cardoso et al. 2024, "Monte Carlo guided diffusion for Bayesian
/// linear inverse problems").
///
/// # Errors
/// Those of the tensor library.
pub(super) fn modes_25(dim: usize, rows: usize, rng: &Rng, compute: &Compute) -> Result<Parts> {
    let mode = |k: usize| -> Vec<f64> {
        let pair = [8.0 * (k / 5) as f64 - 16.0, 8.0 * (k % 5) as f64 - 16.0];
        (0..dim).map(|i| pair[i % 2]).collect()
    };
    let means: Vec<Vec<f64>> = (0..25).map(mode).collect();
    let mut rng = rng.stream("recipe", 0);
    let weights: Vec<f64> = (0..25).map(|_| rng.normal().powi(2)).collect();
    observed(&weights, means, rows, None, &mut rng, compute)
}

/// Two modes of unit covariance at -0.5 and 0.5 in all of 16 dimensions, with weights 0.8 and 0.2, and 14 random projections
/// with noise 1: the sizes and weights of the bed of arXiv 2602.04189, on which solvers are told apart by a kernel Stein discrepancy.
///
/// # Errors
/// Those of the tensor library.
pub(super) fn two_modes(rng: &Rng, compute: &Compute) -> Result<Parts> {
    let means = [-0.5, 0.5].map(|mean| vec![mean; 16]).into();
    observed(&[0.8, 0.2], means, 14, Some(1.0), &mut rng.stream("recipe", 0), compute)
}

/// Random projections of a draw of a mixture of unit covariance, with noise `sigma` or a uniform fraction of the largest
/// singular value.
fn observed(
    weights: &[f64],
    means: Vec<Vec<f64>>,
    rows: usize,
    sigma: Option<f64>,
    rng: &mut Rng,
    compute: &Compute,
) -> Result<Parts> {
    let (matrix, largest) = random_matrix(rows, means[0].len(), rng);
    let sigma = sigma.unwrap_or_else(|| rng.uniform() * largest);
    let mode = rng.weighted(weights);
    let truth: Vec<f64> = means[mode].iter().map(|mean| mean + rng.normal()).collect();
    let data: Vec<f64> = matrix
        .iter()
        .map(|row| row.iter().zip(&truth).map(|(a, x)| a * x).sum::<f64>() + sigma * rng.normal())
        .collect();
    parts(weights, means, 1.0, (&matrix, &data, sigma), compute)
}

/// U S V^T with random orthonormal U and V and sorted uniform S, and the largest of S.
fn random_matrix(rows: usize, columns: usize, rng: &mut Rng) -> (Vec<Vec<f64>>, f64) {
    let mut singular: Vec<f64> = (0..rows).map(|_| rng.uniform()).collect();
    singular.sort_by(|a, b| b.total_cmp(a));
    let normal = nalgebra::DMatrix::from_fn(rows, columns, |_, _| rng.normal());
    let turned = normal.svd(true, true);
    let (Some(u), Some(v)) = (turned.u, turned.v_t) else { return (vec![], 0.0) };
    let matrix = u * nalgebra::DMatrix::from_diagonal(&singular.clone().into()) * v;
    ((0..rows).map(|i| matrix.row(i).iter().copied().collect()).collect(), singular[0])
}

/// Rows of the matrix, data, noise.
type Data<'a> = (&'a [Vec<f64>], &'a [f64], f64);

fn parts(
    weights: &[f64],
    means: Vec<Vec<f64>>,
    variance: f64,
    (rows, data, sigma): Data,
    compute: &Compute,
) -> Result<Parts> {
    let dim = means[0].len();
    let total: f64 = weights.iter().sum();
    let weights: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
    let component = |(weight, mean): (&f64, &Vec<f64>)| Component {
        weight: *weight,
        mean: mean.clone(),
        variances: vec![variance; dim],
    };
    let components = weights.iter().zip(&means).map(component).collect();
    let prior = Mixture::new(components, [1, 1, dim], compute)?;
    let problem = projection(rows, data, sigma, compute)?;
    let covariance: Arc<dyn Covariance> = Arc::new(Diagonal::White(variance, [1, 1, dim], compute.clone()));
    let gaussian = |(weight, mean): (&f64, Vec<f64>)| -> Result<exact::Component> {
        let mean = compute.tensor(mean, &[1, 1, 1, dim])?;
        Ok(exact::Component { weight: *weight, mean, covariance: covariance.clone() })
    };
    let components = weights.iter().zip(means).map(gaussian).collect::<Result<_>>()?;
    let exact = LinearPosterior::new(&problem, components, compute)?;
    Ok((Box::new(prior), problem, exact, DRAWS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::to_host;

    /// Weights and moments of draws against Bayes' rule for each component, computed in the ordinary way.
    #[test]
    fn draws_are_those_of_the_conditioned_components() {
        let compute = Compute::cpu_f64();
        let (matrix, _) = random_matrix(2, 6, &mut Rng::new(4));
        let means = vec![vec![1.0; 6], vec![-1.0; 6], vec![0.5; 6]];
        let data = ([0.3, -0.2], 0.4);
        let (_, _, exact, _) =
            parts(&[1.0, 2.0, 0.5], means.clone(), 0.8, (&matrix, &data.0, data.1), &compute).unwrap();
        let component = |(weight, mean): (f64, Vec<f64>)| Component { weight, mean, variances: vec![0.8; 6] };
        let prior = [1.0, 2.0, 0.5].into_iter().zip(means).map(component).collect();
        let prior = Mixture::new(prior, [1, 1, 6], &compute).unwrap();
        let reference = prior.linear_posterior(&matrix, &data.0, data.1).unwrap();
        for (found, reference) in exact.weights.iter().zip(&reference) {
            assert!((found - reference.weight).abs() < 1e-9);
        }
        let count = 40000;
        let values = to_host(&exact.draws(count, &mut Rng::new(5)).unwrap()).unwrap();
        for (i, j) in [(0, 0), (0, 3), (2, 5)] {
            let found = values.chunks(6).map(|x| x[i] * x[j]).sum::<f64>() / count as f64;
            let exact: f64 =
                reference.iter().map(|p| p.weight * (p.covariance[(i, j)] + p.mean[i] * p.mean[j])).sum();
            assert!((found - exact).abs() < 0.03, "{i} {j}: {found}, exact {exact}");
        }
    }
}
