//! The Gaussian prior: its denoiser is the Wiener filter, exact at every noise level.

use std::f64::consts::TAU;

use candle_core::{DType, Tensor};

use crate::{
    Error, Result,
    compute::Compute,
    prior::{Adaptation, Denoiser, Trainable, residual::Residual},
    rng::Rng,
    tensor::{
        compute_of,
        fft::{circular_convolve, fourier_modes},
    },
    transfer::Transfer,
};

/// In which orthonormal basis a covariance is diagonal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Independent pixels.
    Pixels,
    /// Fourier modes: a periodic, homogeneous random field of one plane.
    Fourier,
}

/// N(mean, C) with C diagonal in a [`Basis`].
#[derive(Debug, Clone)]
pub struct Gaussian {
    mean: Tensor,
    variances: Vec<f64>,
    basis: Basis,
}

impl Gaussian {
    /// Independent pixels of mean `mean` and variances `variances`, both `shape` Z, Y, X, row-major.
    ///
    /// # Errors
    /// Lengths that do not fit `shape`, or a variance that is not positive.
    pub fn diagonal(
        mean: Vec<f64>,
        variances: Vec<f64>,
        shape: [usize; 3],
        compute: &Compute,
    ) -> Result<Self> {
        Self::new(mean, variances, shape, Basis::Pixels, compute)
    }

    /// A periodic random field of mean 0 on Y, X pixels, whose orthonormal Fourier modes have variance
    /// `power(|f|)`, |f| in cycles per pixel.
    ///
    /// # Errors
    /// A power that is not positive.
    pub fn periodic(shape: [usize; 2], power: impl Fn(f64) -> f64, compute: &Compute) -> Result<Self> {
        let [y, x] = shape;
        let frequency = |i: usize, n: usize| i.min(n - i) as f64 / n as f64;
        let variances = (0..y * x).map(|i| power(frequency(i / x, y).hypot(frequency(i % x, x)))).collect();
        Self::new(vec![0.0; y * x], variances, [1, y, x], Basis::Fourier, compute)
    }

    fn new(
        mean: Vec<f64>,
        variances: Vec<f64>,
        shape: [usize; 3],
        basis: Basis,
        compute: &Compute,
    ) -> Result<Self> {
        let count = shape.iter().product();
        if mean.len() != count || variances.len() != count {
            let found = vec![mean.len(), variances.len()];
            return Err(Error::Shape {
                what: "mean and variances of a prior",
                expected: vec![count; 2],
                found,
            });
        }
        if let Some(wrong) = variances.iter().find(|v| !(v.is_finite() && **v > 0.0)) {
            return Err(Error::config("prior.variances", format!("{wrong}; must be positive and finite")));
        }
        let mean = compute.tensor(mean, &[1, shape[0], shape[1], shape[2]])?;
        Ok(Self { mean, variances, basis })
    }

    /// Prior variance of every pixel or Fourier mode, row-major, frequency 0 first.
    pub fn variances(&self) -> &[f64] {
        &self.variances
    }

    fn compute(&self) -> Compute {
        compute_of(&self.mean)
    }

    /// The gains C / (C + s^2) of the Wiener filter for each of the noise levels.
    fn gains(&self, levels: &[f64]) -> Vec<f64> {
        levels.iter().flat_map(|s| self.variances.iter().map(move |v| v / (v + s * s))).collect()
    }

    /// Host values, batch-major, as a tensor like `x`.
    fn like(&self, values: Vec<f64>, x: &Tensor) -> Result<Tensor> {
        let compute = compute_of(x);
        compute.tensor(values, x.dims())
    }
}

impl Denoiser for Gaussian {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        let gains = self.gains(&host(noise_level)?);
        let centred = noisy.broadcast_sub(&self.mean)?;
        let filtered = match self.basis {
            Basis::Pixels => (&centred * self.like(gains, noisy)?)?,
            Basis::Fourier => circular_convolve(&centred, &gains)?,
        };
        Ok(filtered.broadcast_add(&self.mean)?)
    }

    fn shape(&self) -> [usize; 3] {
        let dims = self.mean.dims();
        [dims[1], dims[2], dims[3]]
    }

    fn noise_range(&self) -> (f64, f64) {
        let std = self.data_std();
        (1e-3 * std, 100.0 * std)
    }

    fn data_std(&self) -> f64 {
        (self.variances.iter().sum::<f64>() / self.variances.len() as f64).sqrt()
    }

    fn log_density(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Option<Tensor>> {
        let levels = host(noise_level)?;
        let total = || levels.iter().flat_map(|s| self.variances.iter().map(move |v| v + s * s));
        let centred = noisy.broadcast_sub(&self.mean)?;
        let squares = match self.basis {
            Basis::Pixels => centred.sqr()?.flatten_from(1)?,
            Basis::Fourier => fourier_modes(&centred)?.sqr()?.sum(2)?,
        };
        let precisions = self.like(total().map(|v| 1.0 / v).collect(), noisy)?.flatten_from(1)?;
        let logs: Vec<f64> = total().map(|v| (TAU * v).ln()).collect();
        let logs = self.like(logs, noisy)?.flatten_from(1)?;
        Ok(Some((((squares * precisions)? + logs)?.sum(1)? * -0.5)?))
    }

    /// The exact denoiser plus a small network.
    fn trainable(&self, _: Adaptation, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        Ok(Box::new(Residual::new(self.clone(), rng, &self.compute())?))
    }

    fn conditional(&self, images: usize, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        Ok(Box::new(Residual::told(self.clone(), images, rng, &self.compute())?))
    }
}

/// Values of a tensor on the host.
fn host(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.read_list()?)
}
