//! Are the samples images that the prior knows? Their denoising loss against that of draws of the prior.
//!
//! A denoiser restores images like those it was trained on better than others, at noise levels that hide what makes them
//! strange: the loss over all levels bounds the negative log density (Kingma & Gao 2023, "Understanding diffusion objectives
//! as the ELBO with simple data augmentation").

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    compute::Compute,
    prior::{Denoiser, draw, reverse::denoised},
    rng::Rng,
    tensor::to_host,
    transfer::send,
};

/// Noise levels in standard deviations of the prior's images.
const LEVELS: [f64; 4] = [0.1, 0.3, 1.0, 3.0];
/// Samples that are looked at, evenly spaced.
const SAMPLES: usize = 4;
/// Most and fewest draws of the prior.
const DRAWS: [usize; 2] = [8, 4];
/// Pixels of all draws together: large images have many parts, and their losses scatter less.
const PIXELS: usize = 1 << 16;
/// Steps of Heun's method for a draw.
const STEPS: usize = 12;

/// Standard deviations of the prior's own losses above which samples are foreign to it.
pub const FOREIGN: f64 = 4.0;

/// How foreign samples are to the prior.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutOfDistribution {
    /// Noise levels, network unit.
    pub noise_levels: Vec<f64>,
    /// At each level the mean log denoising loss of the samples minus that of draws of the prior, over the standard
    /// deviation of the latter: about -2 to 2 for images that the prior knows.
    pub z: Vec<f64>,
    /// The largest of these.
    pub score: Option<f64>,
}

impl OutOfDistribution {
    /// Compares samples `[S, Z, Y, X]`, network unit, with draws of `prior`.
    ///
    /// # Errors
    /// Those of the prior.
    pub fn of(prior: &dyn Denoiser, samples: &Tensor, rng: &Rng, compute: &Compute) -> Result<Self> {
        let pixels = prior.shape().iter().product::<usize>().max(1);
        let count = (PIXELS / pixels).clamp(DRAWS[1], DRAWS[0]);
        let own = draw::draws(prior, count, STEPS, &mut rng.stream("draws", 0), compute)?;
        let kept = SAMPLES.min(samples.dim(0)?);
        let index: Vec<u32> =
            (0..kept).map(|i| ((2 * i + 1) * samples.dim(0).unwrap_or(0) / (2 * kept)) as u32).collect();
        let index = send(index, samples.device())?;
        let samples = samples.index_select(&index, 0)?.to_dtype(compute.dtype)?;
        let mut found = Self::default();
        for (number, level) in LEVELS.into_iter().enumerate() {
            let level = level * prior.data_std();
            let of = |images: &Tensor, name: &str| {
                log_losses(prior, images, level, &mut rng.stream(name, number as u64), compute)
            };
            let (own, theirs) = (of(&own, "own")?, of(&samples, "samples")?);
            let centre = mean(&own);
            let variance =
                own.iter().map(|loss| (loss - centre).powi(2)).sum::<f64>() / (own.len() - 1) as f64;
            let error = (variance * (1.0 + 1.0 / own.len() as f64)).sqrt().max(f64::MIN_POSITIVE);
            found.noise_levels.push(level);
            found.z.push((mean(&theirs) - centre) / error);
        }
        found.score = found.z.iter().copied().reduce(f64::max).filter(|score| score.is_finite());
        Ok(found)
    }

    /// True if the prior does not know such images.
    pub fn is_foreign(&self) -> bool {
        self.score.is_some_and(|score| score > FOREIGN)
    }
}

/// ln |x - D(x + s n, s)|^2 per pixel of every image, mean over +n and -n.
fn log_losses(
    prior: &dyn Denoiser,
    images: &Tensor,
    level: f64,
    rng: &mut Rng,
    compute: &Compute,
) -> Result<Vec<f64>> {
    let noise = (rng.normals(images.dims(), compute)? * level)?;
    let mut losses = vec![0.0; images.dim(0)?];
    for noisy in [(images + &noise)?, (images - &noise)?] {
        let error = (denoised(prior, &noisy, level)? - images)?.sqr()?.flatten_from(1)?;
        let error = to_host(&error.mean(1)?)?;
        losses.iter_mut().zip(error).for_each(|(loss, error)| *loss += 0.5 * error);
    }
    Ok(losses.into_iter().map(|loss| loss.max(f64::MIN_POSITIVE).ln()).collect())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prior::gaussian::Gaussian;

    /// A smooth random field against its own draws, white noise of the same variance, and a field ten times as strong.
    #[test]
    fn images_from_outside_the_prior_are_flagged() {
        let compute = Compute::cpu();
        let power = |f: f64| 16.0 / (1.0 + (f / 0.06).powi(2)).powf(1.5) + 1e-3;
        let prior = Gaussian::periodic([32, 32], power, &compute).unwrap();
        let score = |images: &Tensor| OutOfDistribution::of(&prior, images, &Rng::new(1), &compute).unwrap();
        let mut rng = Rng::new(2);
        let own = draw::draws(&prior, 4, 20, &mut rng, &compute).unwrap();
        let known = score(&own);
        assert!(known.score.unwrap() < 3.0 && !known.is_foreign(), "{known:?}");
        let white = (rng.normals(&[4, 1, 32, 32], &compute).unwrap() * prior.data_std()).unwrap();
        assert!(score(&white).is_foreign(), "{:?}", score(&white));
        assert!(score(&(own * 10.0).unwrap()).is_foreign());
    }
}
