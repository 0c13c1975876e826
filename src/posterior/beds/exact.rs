//! The exact posterior of a mixture of Gaussians under linear data with Gaussian noise.

use std::sync::Arc;

use candle_core::Tensor;

use crate::{
    Error, Result,
    compute::Compute,
    instrument::{Linear, Problem, hartley},
    rng::Rng,
    tensor::to_host,
};

/// The covariance C of one Gaussian of the prior, next to an instrument's coordinates with noise covariance S.
pub trait Covariance: Send + Sync {
    /// Draws `[count, Z, Y, X]` of N(0, C).
    ///
    /// # Errors
    /// Those of the tensor library.
    fn deviations(&self, count: usize, rng: &mut Rng) -> Result<Tensor>;

    /// C V (V^T C V + S)^-1 m for misfits m `[B, R]` of the coordinates V^T x: how data move an image.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn moved(&self, linear: &Linear, misfit: &Tensor) -> Result<Tensor>;

    /// Log density of N(0, V^T C V + S) at a misfit `[1, R]`, up to a constant that all components share.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn log_evidence(&self, linear: &Linear, misfit: &Tensor) -> Result<f64>;

    /// Log density of N(0, C) at each of the images `[B, Z, Y, X]`, up to such a constant.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn log_density(&self, x: &Tensor) -> Result<Vec<f64>>;
}

/// One Gaussian of the prior.
#[derive(Clone)]
pub struct Component {
    /// Prior probability.
    pub weight: f64,
    /// Mean `[1, Z, Y, X]`.
    pub mean: Tensor,
    /// Covariance.
    pub covariance: Arc<dyn Covariance>,
}

/// A posterior that is drawn from component by component: weights by the evidence, and each Gaussian by a draw of the
/// prior that is moved as the misfit of its simulated data asks (Matheron's rule; Hoffman and Ribak 1991).
pub struct LinearPosterior {
    /// The instrument's coordinates.
    pub linear: Linear,
    /// Posterior weight of each component.
    pub weights: Vec<f64>,
    components: Vec<Component>,
    compute: Compute,
}

impl LinearPosterior {
    /// The posterior of `problem` under a mixture.
    ///
    /// # Errors
    /// No components, or a problem that is not linear with Gaussian noise.
    pub fn new(problem: &Problem, components: Vec<Component>, compute: &Compute) -> Result<Self> {
        if components.is_empty() {
            return Err(Error::config("bed", "needs at least one component"));
        }
        let linear = problem.linear(compute)?;
        let evidence = |component: &Component| -> Result<f64> {
            let misfit = misfit(&linear, &component.mean)?;
            Ok(component.weight.ln() + component.covariance.log_evidence(&linear, &misfit)?)
        };
        let evidences = components.iter().map(evidence).collect::<Result<Vec<f64>>>()?;
        let largest = evidences.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = evidences.iter().map(|e| (e - largest).exp()).sum();
        let weights = evidences.iter().map(|e| (e - largest).exp() / total).collect();
        Ok(Self { linear, weights, components, compute: compute.clone() })
    }

    /// Independent draws `[count, Z, Y, X]`, ordered by component.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn draws(&self, count: usize, rng: &mut Rng) -> Result<Tensor> {
        let mut counts = vec![0; self.weights.len()];
        (0..count).for_each(|_| counts[rng.weighted(&self.weights)] += 1);
        let drawn = self.components.iter().zip(counts).filter(|(_, count)| *count > 0);
        let drawn = drawn.map(|(component, count)| self.conditioned(component, count, rng));
        Ok(Tensor::cat(&drawn.collect::<Result<Vec<_>>>()?, 0)?)
    }

    fn conditioned(&self, component: &Component, count: usize, rng: &mut Rng) -> Result<Tensor> {
        let prior = component.covariance.deviations(count, rng)?.broadcast_add(&component.mean)?;
        let noise = rng.normals(&[count, self.linear.rank()], &self.compute)?;
        let noise = noise.broadcast_mul(&self.linear.each(&prior, |_, sigma| sigma)?)?;
        let misfit = (misfit(&self.linear, &prior)? - noise)?;
        Ok((prior + component.covariance.moved(&self.linear, &misfit)?)?)
    }

    /// The component that each of the images `[S, Z, Y, X]` most probably belongs to. Data do not enter: given the
    /// image they say nothing more.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn components(&self, images: &Tensor) -> Result<Vec<usize>> {
        let count = images.dim(0)?;
        if self.components.len() == 1 {
            return Ok(vec![0; count]);
        }
        let score = |component: &Component| -> Result<Vec<f64>> {
            let logs = component.covariance.log_density(&images.broadcast_sub(&component.mean)?)?;
            Ok(logs.into_iter().map(|log| log + component.weight.ln()).collect())
        };
        let scores = self.components.iter().map(score).collect::<Result<Vec<_>>>()?;
        let best = |i: usize| (0..scores.len()).max_by(|&a, &b| scores[a][i].total_cmp(&scores[b][i]));
        Ok((0..count).map(|i| best(i).unwrap_or(0)).collect())
    }
}

/// Data minus coordinates of images, `[B, R]`.
fn misfit(linear: &Linear, x: &Tensor) -> Result<Tensor> {
    Ok(linear.row(linear.data.clone(), x)?.broadcast_sub(&linear.coordinates(x)?)?)
}

/// A covariance that is diagonal in the instrument's own coordinates.
#[derive(Debug, Clone)]
pub enum Diagonal {
    /// White, with this variance; images of this shape.
    White(f64, [usize; 3], Compute),
    /// Variance of every Fourier mode of a periodic field Y, X, row-major with frequency 0 first.
    Fourier(Vec<f64>, [usize; 2], Compute),
}

impl Diagonal {
    /// Variance of each coordinate.
    fn variances(&self, linear: &Linear) -> Result<Vec<f64>> {
        match (self, linear.frequencies()?) {
            (Self::White(variance, ..), _) => Ok(vec![*variance; linear.rank()]),
            (Self::Fourier(all, ..), Some(kept)) => Ok(kept.iter().map(|&i| all[i]).collect()),
            (Self::Fourier(..), None) => {
                Err(Error::config("bed", "a random field needs a periodic instrument"))
            }
        }
    }
}

impl Covariance for Diagonal {
    fn deviations(&self, count: usize, rng: &mut Rng) -> Result<Tensor> {
        match self {
            Self::White(variance, [z, y, x], compute) => {
                Ok((rng.normals(&[count, *z, *y, *x], compute)? * variance.sqrt())?)
            }
            Self::Fourier(variances, [y, x], compute) => {
                let stds = variances.iter().map(|v| v.sqrt()).collect();
                let white = rng.normals(&[count, 1, *y, *x], compute)?;
                let scaled = white.broadcast_mul(&compute.tensor(stds, &[1, 1, *y, *x])?)?;
                Ok(hartley(&scaled)?.reshape((count, 1, *y, *x))?)
            }
        }
    }

    fn moved(&self, linear: &Linear, misfit: &Tensor) -> Result<Tensor> {
        let variances = self.variances(linear)?;
        let gains = variances.iter().zip(&linear.sigma).map(|(v, s)| v / (v + s * s)).collect();
        let shape = match self {
            Self::White(_, shape, _) => *shape,
            Self::Fourier(_, [y, x], _) => [1, *y, *x],
        };
        linear.image(&misfit.broadcast_mul(&linear.row(gains, misfit)?)?, shape)
    }

    fn log_evidence(&self, linear: &Linear, misfit: &Tensor) -> Result<f64> {
        let variances = self.variances(linear)?;
        let totals = variances.iter().zip(&linear.sigma).map(|(v, s)| v + s * s);
        Ok(to_host(misfit)?.iter().zip(totals).map(|(m, total)| -0.5 * (m * m / total + total.ln())).sum())
    }

    fn log_density(&self, x: &Tensor) -> Result<Vec<f64>> {
        match self {
            Self::White(variance, ..) => to_host(&(x.flatten_from(1)?.sqr()?.sum(1)? / (-2.0 * variance))?),
            Self::Fourier(variances, [y, columns], compute) => {
                let precisions = variances.iter().map(|v| -0.5 / v).collect();
                let weights = compute.tensor(precisions, &[1, y * columns])?;
                to_host(&hartley(x)?.sqr()?.broadcast_mul(&weights)?.sum(1)?)
            }
        }
    }
}
