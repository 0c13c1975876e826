//! Draws of clean images given noisy ones, by the reverse diffusion of a denoiser.

use candle_core::Tensor;

use super::Denoiser;
use crate::{
    Error, Result,
    rng::Rng,
    tensor::{by_parts, compute_of},
};

/// Lowest level of a draw as a fraction of the first.
const LAST: f64 = 0.15;
/// Power of a step's ratio of levels by which its noise is larger than that of a known clean image.
const UNKNOWN: f64 = 0.25;

/// Draws x ~ p(x) N(noisy; x, level^2 I) with `forwards` denoiser evaluations, one draw per batch element.
///
/// The reverse diffusion runs by SDE-DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095) over geometric levels: a step
/// from s to s' with k = 1 - s'^2/s^2 is x' = (1 - k) x + k E + s' sqrt(k) (s/s')^(1/4) n, where E is the denoised value
/// extrapolated to the middle of the step in ln s from this and the last evaluation; the draw is the denoised value of
/// the last level. The solver itself has the power 0, which leaves out part of the spread of what is not known;
/// Euler-Maruyama steps have 1, more noise than the denoiser is told, which it takes for faint structure where the clean
/// image is known. For a Gaussian prior of variance P the mean is exact, and with 5 evaluations the standard
/// deviation is within 5 % for all P above 0.1 level^2. With 4 it is 11 % too small for large P; fewer are too few.
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
    let floor = prior.noise_range().0.min(level);
    let intervals = (forwards - 1).max(1) as f64;
    let at = |i: usize| (level * LAST.powf(i as f64 / intervals)).max(floor);
    let mut x = noisy.clone();
    let mut last: Option<(Tensor, f64)> = None;
    for i in 1..forwards {
        let (from, to) = (at(i - 1), at(i));
        if to >= from {
            break;
        }
        let clean = denoised(prior, &x, from)?;
        let length = (from / to).ln();
        let middle = match &last {
            Some((before, step)) => (&clean + ((&clean - before)? * (0.5 * length / step))?)?,
            None => clean.clone(),
        };
        let share = 1.0 - (to / from).powi(2);
        let spread = to * share.sqrt() * (from / to).powf(UNKNOWN);
        let noise = (rng.normals(x.dims(), &compute_of(&x))? * spread)?;
        x = (((x * (1.0 - share))? + (middle * share)?)? + noise)?;
        last = Some((clean, length));
    }
    denoised(prior, &x, at(forwards - 1))
}

/// Pixels that a thread of the CPU denoises at a time.
const PART: usize = 1 << 15;

/// D(noisy, level) with one noise level for the whole batch, detached. Below the prior's range its score is that of the lowest
/// level.
///
/// # Errors
/// Those of the prior.
pub fn denoised(prior: &dyn Denoiser, noisy: &Tensor, level: f64) -> Result<Tensor> {
    let known = level.max(prior.noise_range().0);
    let [clean] = by_parts(noisy, PART, |part| {
        let levels = Tensor::full(known, part.dim(0)?, part.device())?.to_dtype(part.dtype())?;
        Ok([prior.denoise(part, &levels)?.detach()])
    })?;
    if known > level {
        return Ok((noisy + ((clean - noisy)? * (level / known).powi(2))?)?);
    }
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
        for (ratio, forwards, tolerance) in [
            (100.0, 5, 0.04),
            (1.0, 5, 0.05),
            (0.1, 5, 0.04),
            (100.0, 4, 0.12),
            (1.0, 4, 0.02),
            (1.0, 20, 0.015),
        ] {
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

    /// Below the lowest level the score is that of the lowest.
    #[test]
    fn the_score_goes_on_below_the_range() {
        let (prior, compute) = (White(2.0), Compute::cpu_f64());
        let noisy = Rng::new(6).normals(&[2, 1, 8, 8], &compute).unwrap();
        let score = |level: f64| {
            let step = (denoised(&prior, &noisy, level).unwrap() - &noisy).unwrap();
            (step / (level * level)).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        for (below, lowest) in score(1e-5).iter().zip(score(1e-4)) {
            assert!((below / lowest - 1.0).abs() < 1e-4, "{below} {lowest}");
        }
    }
}
