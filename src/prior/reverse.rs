//! Draws of clean images given noisy ones, by the reverse diffusion of a denoiser.

use candle_core::Tensor;

use super::Denoiser;
use crate::{Error, Result, compute::Compute, rng::Rng, tensor::by_parts};

/// Draws x ~ p(x) N(noisy; x, level^2 I) with `forwards` denoiser evaluations, one draw per batch element.
///
/// The reverse diffusion (Anderson 1982) runs by Euler-Maruyama steps in the variance,
/// x' = x + (s^2 - s'^2) (D(x, s) - x) / s^2 + sqrt(s^2 - s'^2) n,
/// over geometric levels from `level` to a fraction c = 0.6 / sqrt(forwards) of it, and ends with the denoised value.
/// Each step overestimates the variance and the last one leaves out that below c; the fraction balances the two. For a
/// Gaussian prior of variance P the mean is exact, and with 5 evaluations the standard deviation is within 4 % for
/// all P above 0.3 level^2.
///
/// # Errors
/// No evaluations, or those of the prior.
pub fn draw_given_noisy(
    prior: &dyn Denoiser,
    noisy: &Tensor,
    level: f64,
    forwards: usize,
    rng: &mut Rng,
) -> Result<Tensor> {
    if forwards == 0 {
        return Err(Error::config("denoise", "0 evaluations; use 5"));
    }
    let compute = Compute { device: noisy.device().clone(), dtype: noisy.dtype() };
    let last = (0.6 / (forwards as f64).sqrt()).min(1.0);
    let floor = prior.noise_range().0.min(level);
    let at = |i: usize| (level * last.powf(i as f64 / (forwards - 1).max(1) as f64)).max(floor);
    let mut x = noisy.clone();
    for i in 1..forwards {
        let (from, to) = (at(i - 1), at(i));
        let variance = from * from - to * to;
        let pull = ((denoised(prior, &x, from)? - &x)? * (variance / (from * from)))?;
        let noise = (rng.normals(x.dims(), &compute)? * variance.sqrt())?;
        x = ((x + pull)? + noise)?;
    }
    denoised(prior, &x, at(forwards - 1))
}

/// Pixels that a thread of the CPU denoises at a time.
const PART: usize = 1 << 15;

/// D(noisy, level) with one noise level for the whole batch, detached.
///
/// # Errors
/// Those of the prior.
pub fn denoised(prior: &dyn Denoiser, noisy: &Tensor, level: f64) -> Result<Tensor> {
    let [clean] = by_parts(noisy, PART, |part| {
        let levels = Tensor::full(level, part.dim(0)?, part.device())?.to_dtype(part.dtype())?;
        Ok([prior.denoise(part, &levels)?.detach()])
    })?;
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Compute;

    /// N(0, variance) per pixel.
    struct White(f64);

    impl Denoiser for White {
        fn denoise(&self, noisy: &Tensor, level: &Tensor) -> Result<Tensor> {
            let gain = ((level.sqr()? + self.0)?.recip()? * self.0)?;
            Ok(noisy.broadcast_mul(&gain.reshape((gain.elem_count(), 1, 1, 1))?)?)
        }
        fn shape(&self) -> [usize; 3] {
            [1, 8, 8]
        }
        fn noise_range(&self) -> (f64, f64) {
            (1e-4, 100.0)
        }
        fn data_std(&self) -> f64 {
            self.0.sqrt()
        }
    }

    /// Mean and standard deviation of the draws against P z / (P + r^2) and P r^2 / (P + r^2).
    #[test]
    fn draws_follow_the_conditional_of_a_gaussian() {
        let compute = Compute::cpu();
        let level = 0.7;
        for (ratio, forwards, tolerance) in
            [(100.0, 5, 0.04), (1.0, 5, 0.04), (0.3, 5, 0.04), (1.0, 20, 0.015)]
        {
            let variance: f64 = ratio * level * level;
            let prior = White(variance);
            let mut rng = Rng::new(5);
            let noisy = Tensor::full(1.5f32, (2000, 1, 8, 8), &compute.device).unwrap();
            let draws = draw_given_noisy(&prior, &noisy, level, forwards, &mut rng).unwrap();
            let values: Vec<f32> = draws.flatten_all().unwrap().to_vec1().unwrap();
            let count = values.len() as f64;
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
            let spread = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
            let exact_mean = 1.5 * variance / (variance + level * level);
            let exact = (variance * level * level / (variance + level * level)).sqrt();
            assert!(
                (mean - exact_mean).abs() < 0.01 * exact,
                "P/r^2 {ratio}: mean {mean}, exact {exact_mean}"
            );
            let error = spread.sqrt() / exact - 1.0;
            assert!(error.abs() < tolerance, "P/r^2 {ratio}, {forwards} forwards: std off by {error}");
        }
    }
}
