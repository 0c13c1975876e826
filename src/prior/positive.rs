//! A prior of images that hold no negative light.

use candle_core::{Tensor, Var};

use super::{Adaptation, Denoiser, Trainable};
use crate::{Result, rng::Rng};

/// Error of a network in dark pixels, noise levels, that is left to it: three times what the default prior of stacks errs there
/// on images like those it was trained on. Cut at the dark itself, errors would have a positive mean, and rounds of sampling
/// would add it up to light that is not there.
const SLACK: f64 = 0.3;

/// A denoiser whose images are hardly darker than `dark`, network unit. Where no image of a prior is, their mean given a noisy one
/// is not either; a trained network keeps to that only near the images it has seen.
#[derive(Debug, Clone)]
pub struct Positive<D: ?Sized> {
    dark: f64,
    inner: Box<D>,
}

impl<D: ?Sized> Positive<D> {
    /// Cuts what `inner` returns below `dark`, by 0.3 of the noise level.
    pub fn new(inner: Box<D>, dark: f64) -> Self {
        Self { dark, inner }
    }

    fn cut(&self, denoised: Tensor, noise_level: &Tensor) -> Result<Tensor> {
        let least = noise_level.affine(-SLACK, self.dark)?.reshape(((), 1, 1, 1))?;
        Ok(denoised.broadcast_sub(&least)?.relu()?.broadcast_add(&least)?)
    }
}

impl<D: Denoiser + ?Sized> Denoiser for Positive<D> {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        self.cut(self.inner.denoise(noisy, noise_level)?, noise_level)
    }

    fn shape(&self) -> [usize; 3] {
        self.inner.shape()
    }

    fn noise_range(&self) -> (f64, f64) {
        self.inner.noise_range()
    }

    fn data_std(&self) -> f64 {
        self.inner.data_std()
    }

    fn trainable(&self, adaptation: Adaptation, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        let inner = self.inner.trainable(adaptation, rng)?;
        Ok(Box::new(Positive { dark: self.dark, inner }))
    }

    fn conditional(&self, images: usize, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        Ok(Box::new(Positive { dark: self.dark, inner: self.inner.conditional(images, rng)? }))
    }
}

impl Trainable for Positive<dyn Trainable> {
    fn denoise_given(&self, noisy: &Tensor, noise_level: &Tensor, known: &Tensor) -> Result<Tensor> {
        self.cut(self.inner.denoise_given(noisy, noise_level, known)?, noise_level)
    }

    fn variables(&self) -> Vec<(String, Var)> {
        self.inner.variables()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compute::Compute, prior::gaussian::Gaussian};

    #[test]
    fn nothing_is_much_darker_than_the_dark_and_the_rest_stays() {
        let compute = Compute::cpu_f64();
        let gaussian = || Gaussian::diagonal(vec![0.0; 4], vec![1.0; 4], [1, 2, 2], &compute).unwrap();
        let noisy = compute.tensor([-3.0, -0.1, 0.2, 5.0].repeat(2), &[2, 1, 2, 2]).unwrap();
        let level = compute.tensor(vec![1.0, 0.5], &[2]).unwrap();
        let values = |prior: &dyn Denoiser| -> Vec<f64> {
            prior.denoise(&noisy, &level).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let free = values(&gaussian());
        let cut = values(&Positive::new(Box::new(gaussian()), -0.5));
        for (i, (cut, free)) in cut.iter().zip(&free).enumerate() {
            let least = if i < 4 { -0.8 } else { -0.65 };
            assert!((cut - free.max(least)).abs() < 1e-12, "{cut} {free}");
        }
        assert!(free[0] < -0.8 && free[4] < -0.65);
    }
}
