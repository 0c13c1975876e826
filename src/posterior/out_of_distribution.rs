//! Are the samples images that the prior knows? Their denoising loss against what the denoiser expects of it.
//!
//! The denoiser of a prior errs by as much as it is unsure: given z = x + s n, the mean of |x - D(z)|^2 over the prior is that of
//! the posterior variance s^2 tr dD/dz (Tweedie's formula, second order; Efron 2011). Where an image holds what the prior does
//! not know, the error is larger than that, at the noise levels that hide it. The ratio does not depend on how much there is to see,
//! which the loss by itself does: an image with few structures is easy to denoise even where they are strange.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    compute::Compute,
    posterior::chains::{mean, variance},
    prior::{Denoiser, draw, reverse::denoised},
    rng::Rng,
    tensor::to_host,
};

/// Noise levels in standard deviations of the prior's images.
const LEVELS: [f64; 4] = [0.1, 0.3, 1.0, 3.0];
/// Samples that are looked at, evenly spaced, and draws of the prior.
const SAMPLES: usize = 4;
const DRAWS: usize = 8;
/// Tiles that are looked at of samples, and draws of the prior, where images are cut into tiles: these differ more.
const TILES: usize = 64;
/// Smallest loss that counts, in units of the mean one of the prior's draws: in empty images both losses are nearly nothing.
const LEAST: f64 = 0.01;
/// Steps of Heun's method for a draw.
const STEPS: usize = 12;

/// Standard deviations of the prior's own losses above which samples are foreign to it.
pub const FOREIGN: f64 = 4.0;

/// How foreign samples are to the prior.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutOfDistribution {
    /// Noise levels, network unit.
    pub noise_levels: Vec<f64>,
    /// At each level the mean log ratio of the samples' denoising loss to the expected one, minus that of draws of the prior,
    /// over the standard deviation of the latter: about -2 to 2 for images that the prior knows.
    pub z: Vec<f64>,
    /// The largest of these.
    pub score: Option<f64>,
}

impl OutOfDistribution {
    /// Compares samples `[S, Z, Y, X]`, network unit, with draws of `prior`; tile by tile where it cuts images into tiles, whose
    /// losses each scatter as those of the draws.
    ///
    /// # Errors
    /// Those of the prior.
    pub fn of(prior: &dyn Denoiser, samples: &Tensor, rng: &Rng, compute: &Compute) -> Result<Self> {
        let tile = prior.tile();
        let (prior, count) = match &tile {
            Some(tile) => (tile.as_ref(), [TILES, TILES]),
            None => (prior, [DRAWS, SAMPLES]),
        };
        let samples = parts(samples, prior.shape(), count[1])?.to_dtype(compute.dtype)?;
        let own = draw::draws(prior, count[0], STEPS, &mut rng.stream("draws", 0), compute)?;
        let mut found = Self::default();
        for (number, level) in LEVELS.into_iter().enumerate() {
            let level = level * prior.data_std();
            let of = |images: &Tensor, name: &str| {
                losses(prior, images, level, &mut rng.stream(name, number as u64), compute)
            };
            let (own, theirs) = (of(&own, "own")?, of(&samples, "samples")?);
            let least = least(&own);
            let ratios =
                |losses: &[Loss]| losses.iter().map(|loss| loss.log_ratio(least)).collect::<Vec<_>>();
            let (own, theirs) = (ratios(&own), ratios(&theirs));
            let centre = mean(&own);
            let error = (variance(&own) * (1.0 + 1.0 / own.len() as f64)).sqrt().max(f64::MIN_POSITIVE);
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

/// At most `count` parts of the given shape of images `[S, Z, Y, X]`, evenly spaced over the images and in them.
fn parts(images: &Tensor, shape: [usize; 3], count: usize) -> Result<Tensor> {
    let fits = [0, 1, 2].map(|axis| (images.dims()[axis + 1] / shape[axis].max(1)).max(1));
    let places = images.dim(0)? * fits.iter().product::<usize>();
    let count = count.min(places);
    let part = |index: usize| -> Result<Tensor> {
        let place = (2 * index + 1) * places / (2 * count);
        let mut left = place;
        let mut part = images.clone();
        for axis in [2, 1, 0] {
            part = part.narrow(axis + 1, left % fits[axis] * shape[axis], shape[axis])?;
            left /= fits[axis];
        }
        Ok(part.narrow(0, left, 1)?)
    };
    Ok(Tensor::cat(&(0..count).map(part).collect::<Result<Vec<_>>>()?, 0)?.contiguous()?)
}

/// ln of the denoising loss of each image `[S, Z, Y, X]`, network unit, over the expected one, mean over noise levels: on average about
/// nothing for draws of the prior, more for images that it does not know.
///
/// # Errors
/// Those of the prior.
pub fn log_losses(prior: &dyn Denoiser, images: &Tensor, rng: &Rng, compute: &Compute) -> Result<Vec<f64>> {
    let images = images.to_dtype(compute.dtype)?;
    let count = images.dim(0)?;
    let size = draw::batch_size(prior.shape(), &compute.device);
    let mut sums = vec![0.0; count];
    for (number, level) in LEVELS.into_iter().enumerate() {
        let (level, mut rng) = (level * prior.data_std(), rng.stream("losses", number as u64));
        let mut all = Vec::with_capacity(count);
        for start in (0..count).step_by(size) {
            let part = images.narrow(0, start, size.min(count - start))?;
            all.extend(losses(prior, &part, level, &mut rng, compute)?);
        }
        let least = least(&all);
        for (sum, loss) in sums.iter_mut().zip(all) {
            *sum += loss.log_ratio(least) / LEVELS.len() as f64;
        }
    }
    Ok(sums)
}

/// The denoising loss per pixel of one image.
struct Loss {
    /// |x - D(x + s n)|^2, mean over n and -n.
    found: f64,
    /// s^2 tr dD/dz, estimated by s n (D(x + s n) - D(x - s n)) / 2.
    expected: f64,
}

/// The smallest loss that counts beside these.
fn least(losses: &[Loss]) -> f64 {
    LEAST * mean(&losses.iter().map(|loss| loss.found).collect::<Vec<_>>())
}

impl Loss {
    /// ln of found over expected; both count at least `least`.
    fn log_ratio(&self, least: f64) -> f64 {
        ((self.found + least) / (self.expected.max(0.0) + least)).max(f64::MIN_POSITIVE).ln()
    }
}

fn losses(
    prior: &dyn Denoiser,
    images: &Tensor,
    level: f64,
    rng: &mut Rng,
    compute: &Compute,
) -> Result<Vec<Loss>> {
    let noise = (rng.normals(images.dims(), compute)? * level)?;
    let above = denoised(prior, &(images + &noise)?, level)?;
    let below = denoised(prior, &(images - &noise)?, level)?;
    let per_image = |values: Tensor| to_host(&values.flatten_from(1)?.mean(1)?);
    let found = per_image((((&above - images)?.sqr()? + (&below - images)?.sqr()?)? * 0.5)?)?;
    let expected = per_image(((noise * (above - below)?)? * 0.5)?)?;
    Ok(found.into_iter().zip(expected).map(|(found, expected)| Loss { found, expected }).collect())
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
        let losses = |images: &Tensor| mean(&log_losses(&prior, images, &Rng::new(1), &compute).unwrap());
        assert!(losses(&own).abs() < 0.1 && losses(&white) > 0.5, "{} {}", losses(&own), losses(&white));
        assert!(score(&(own * 10.0).unwrap()).is_foreign());
    }

    #[test]
    fn parts_come_from_all_over_the_images() {
        let numbers: Vec<f32> = (0..2 * 2 * 4 * 6).map(|i| i as f32).collect();
        let images = Tensor::from_vec(numbers, (2, 2, 4, 6), &candle_core::Device::Cpu).unwrap();
        let first = |count: usize| -> Vec<f32> {
            let parts = parts(&images, [1, 2, 3], count).unwrap();
            assert_eq!(parts.dims()[1..], [1, 2, 3]);
            parts.narrow(2, 0, 1).unwrap().narrow(3, 0, 1).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let all = [0, 3, 12, 15].map(|corner| corner as f32);
        let expected: Vec<f32> =
            (0..4).flat_map(|plane| all.map(|corner| corner + 24.0 * plane as f32)).collect();
        assert_eq!(first(100), expected);
        assert_eq!(first(2), [expected[4], expected[12]]);
        let whole = parts(&images, [2, 4, 6], 2).unwrap();
        assert_eq!(to_host(&whole).unwrap(), to_host(&images).unwrap());
    }
}
