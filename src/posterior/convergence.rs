//! How well chains agree, and how many independent draws theirs are worth.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{chains, draws::Draws};
use crate::{
    Result,
    instrument::Problem,
    tensor::{by_parts, to_host},
};

/// Blocks along each side of the image in which pixels are averaged before chains are compared.
const BLOCKS: usize = 8;

/// Pixels whose log likelihood a thread of the CPU computes at a time.
const PART: usize = 1 << 15;

/// The worst of all functionals: the sum over all pixels, means of blocks, and the log likelihood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Convergence {
    /// Largest R-hat, between chains, between the draws that all chains made at the same time, and between joined runs.
    pub rhat_max: Option<f64>,
    /// Smallest effective sample size for the centre of a distribution.
    pub ess_bulk_min: Option<f64>,
    /// The same for its 5 % and 95 % quantiles.
    pub ess_tail_min: Option<f64>,
}

impl Convergence {
    /// Of `draws` with these log likelihoods.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn of(draws: &Draws, log_likelihood: &[f64]) -> Result<Self> {
        let (samples, z, y, x) = draws.images.dims4()?;
        let mut checked = functionals(&draws.images.reshape((samples, z * y, x))?)?;
        checked.push(log_likelihood.to_vec());
        let mut found = Self::default();
        for values in &checked {
            let by_chain = draws.by_chain(values);
            let rhat = chains::rhat(&by_chain)
                .max(chains::rhat_of_groups(&draws.by_time(values)))
                .max(chains::rhat_of_groups(&draws.by_run(values)));
            let (bulk, tail) = (chains::ess_bulk(&by_chain), chains::ess_tail(&by_chain));
            if rhat.is_finite() && bulk.is_finite() {
                found.rhat_max = Some(found.rhat_max.map_or(rhat, |largest| largest.max(rhat)));
                found.ess_bulk_min = Some(found.ess_bulk_min.map_or(bulk, |smallest| smallest.min(bulk)));
            }
            if tail.is_finite() {
                found.ess_tail_min = Some(found.ess_tail_min.map_or(tail, |smallest| smallest.min(tail)));
            }
        }
        Ok(found)
    }

    /// The same, with the log likelihoods of `problem`.
    ///
    /// # Errors
    /// Images of another shape, or those of the problem.
    pub fn under(problem: &Problem, draws: &Draws) -> Result<Self> {
        let [values] = by_parts(&draws.images, PART, |x| Ok([problem.log_likelihood(x)?]))?;
        Self::of(draws, &to_host(&values)?)
    }

    /// Independent draws that all these are worth, in the centre and in the tails; 0 where it is not known.
    pub fn effective(&self) -> f64 {
        match (self.ess_bulk_min, self.ess_tail_min) {
            (Some(bulk), Some(tail)) => bulk.min(tail),
            _ => 0.0,
        }
    }
}

/// The functionals on which chains are compared, besides the log likelihood: the sum over all pixels, and the means of
/// 8 x 8 blocks (fewer in small images) where the mean image exceeds a tenth of its largest block above its darkest.
///
/// `samples` is `[S, rows, columns]`; the answer holds S values for each functional.
///
/// # Errors
/// Those of the tensor library.
fn functionals(samples: &Tensor) -> Result<Vec<Vec<f64>>> {
    let (count, rows, columns) = samples.dims3()?;
    let pixels = to_host(samples)?;
    let (down, across) = (rows.div_ceil(BLOCKS).max(1), columns.div_ceil(BLOCKS).max(1));
    let wide = columns.div_ceil(across);
    let blocks = wide * rows.div_ceil(down);
    let mut sums = vec![vec![0.0; count]; blocks + 1];
    for (sample, image) in pixels.chunks(rows * columns).enumerate() {
        for (i, value) in image.iter().enumerate() {
            sums[i / columns / down * wide + i % columns / across][sample] += value;
            sums[blocks][sample] += value;
        }
    }
    let means: Vec<f64> = sums[..blocks].iter().map(|values| values.iter().sum::<f64>()).collect();
    let (dark, bright) =
        means.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    let mut kept: Vec<Vec<f64>> = (0..blocks)
        .filter(|&i| means[i] - dark > 0.1 * (bright - dark))
        .map(|i| std::mem::take(&mut sums[i]))
        .collect();
    kept.extend(sums.pop());
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Compute;

    #[test]
    fn functionals_are_block_means_on_source_and_the_total() {
        // One bright block of 2 x 2 pixels in a 16 x 16 image, the same in both samples but for a factor.
        let mut image = vec![0.0; 512];
        for (sample, value) in [(0, 1.0), (1, 3.0)] {
            for pixel in [(4, 6), (4, 7), (5, 6), (5, 7)] {
                image[sample * 256 + pixel.0 * 16 + pixel.1] = value;
            }
        }
        let samples = Compute::cpu().tensor(image, &[2, 16, 16]).unwrap();
        assert_eq!(functionals(&samples).unwrap(), vec![vec![4.0, 12.0], vec![4.0, 12.0]]);
    }
}
