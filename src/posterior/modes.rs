//! Which kinds of image the samples show, and how often.

use candle_core::Tensor;
use rustfft::num_complex::Complex64;
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    tensor::{fft::Fft2, to_host},
};

/// Correlation of block-averaged images from which on they are of one kind.
const ALIKE: f64 = 0.6;
/// Blocks along each side of the image in which pixels are averaged first.
const BLOCKS: usize = 16;
/// Shift in blocks up to which images are moved onto each other.
const SHIFT: usize = 2;
/// Samples that are compared, evenly spaced.
const MOST: usize = 256;

/// The kinds of image among the samples, the most frequent first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Modes {
    /// Each kind.
    pub modes: Vec<Mode>,
    /// Chains that show more than one kind: without any, the weights are those with which chains started.
    pub mixing_chains: usize,
}

/// One kind of image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mode {
    /// Fraction of the samples.
    pub weight: f64,
    /// Number of chains that show it.
    pub chains: usize,
}

impl Modes {
    /// Groups samples `[S, Z, Y, X]`, planes summed, by their correlation, small shifts allowed: the two groups of
    /// largest mean correlation are joined as long as it exceeds 0.6 (average linkage).
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn of(samples: &Tensor, chain: &[usize]) -> Result<Self> {
        let (count, _, rows, columns) = samples.dims4()?;
        let kept: Vec<usize> = (0..count.min(MOST)).map(|i| i * count / count.min(MOST)).collect();
        let pixels = to_host(&samples.sum(1)?)?;
        let plan = Fft2::new([BLOCKS, BLOCKS]);
        let spectra: Vec<Vec<Complex64>> = kept
            .iter()
            .map(|&i| spectrum(&pixels[i * rows * columns..(i + 1) * rows * columns], [rows, columns], &plan))
            .collect();
        let groups = joined(&spectra, &plan);
        let mut modes: Vec<(Mode, Vec<usize>)> = groups
            .into_iter()
            .map(|group| {
                let mut chains: Vec<usize> =
                    group.iter().filter_map(|&i| chain.get(kept[i]).copied()).collect();
                chains.sort_unstable();
                chains.dedup();
                let weight = group.len() as f64 / kept.len() as f64;
                (Mode { weight, chains: chains.len() }, chains)
            })
            .collect();
        modes.sort_by(|(a, _), (b, _)| b.weight.total_cmp(&a.weight));
        let mut shown: Vec<usize> = modes.iter().flat_map(|(_, chains)| chains.clone()).collect();
        shown.sort_unstable();
        let distinct = shown.chunk_by(|a, b| a == b).filter(|same| same.len() > 1).count();
        Ok(Self { modes: modes.into_iter().map(|(mode, _)| mode).collect(), mixing_chains: distinct })
    }
}

/// Fourier transform of the block means of an image `[rows, columns]`, of zero mean and unit norm.
fn spectrum(image: &[f64], [rows, columns]: [usize; 2], plan: &Fft2<f64>) -> Vec<Complex64> {
    let mut blocks = vec![0.0; BLOCKS * BLOCKS];
    for (i, value) in image.iter().enumerate() {
        blocks[i / columns * BLOCKS / rows * BLOCKS + i % columns * BLOCKS / columns] += value;
    }
    let mean = blocks.iter().sum::<f64>() / blocks.len() as f64;
    let norm = blocks.iter().map(|block| (block - mean).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    let mut modes: Vec<Complex64> =
        blocks.iter().map(|block| Complex64::from((block - mean) / norm)).collect();
    plan.forward(&mut modes);
    modes
}

/// Largest correlation of two images over small shifts.
fn correlation(a: &[Complex64], b: &[Complex64], plan: &Fft2<f64>) -> f64 {
    let mut product: Vec<Complex64> = a.iter().zip(b).map(|(a, b)| a * b.conj()).collect();
    plan.inverse(&mut product);
    let near = |i: usize| i.min(BLOCKS - i) <= SHIFT;
    let small = (0..product.len()).filter(|i| near(i / BLOCKS) && near(i % BLOCKS));
    // The transforms are unitary: a product of two of them lacks the root of their size.
    small.map(|i| product[i].re).fold(f64::NEG_INFINITY, f64::max) * BLOCKS as f64
}

/// Groups of average linkage.
fn joined(spectra: &[Vec<Complex64>], plan: &Fft2<f64>) -> Vec<Vec<usize>> {
    let count = spectra.len();
    let mut groups: Vec<Vec<usize>> = (0..count).map(|i| vec![i]).collect();
    let mut alike = vec![vec![f64::NEG_INFINITY; count]; count];
    for i in 0..count {
        for j in 0..i {
            let value = correlation(&spectra[i], &spectra[j], plan);
            (alike[i][j], alike[j][i]) = (value, value);
        }
    }
    loop {
        let pairs = (0..groups.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        let Some((i, j)) = pairs.max_by(|a, b| alike[a.0][a.1].total_cmp(&alike[b.0][b.1])) else { break };
        if alike[i][j] < ALIKE {
            break;
        }
        let [a, b] = [i, j].map(|k| groups[k].len() as f64);
        let means: Vec<f64> =
            alike[i].iter().zip(&alike[j]).map(|(to_i, to_j)| (a * to_i + b * to_j) / (a + b)).collect();
        alike.iter_mut().zip(&means).for_each(|(row, mean)| row[j] = *mean);
        alike[j] = means;
        alike[j][j] = f64::NEG_INFINITY;
        let merged = groups.swap_remove(i);
        groups[j].extend(merged);
        // The last group takes the place of the one that is gone.
        alike.swap_remove(i);
        alike.iter_mut().for_each(|row| {
            row.swap_remove(i);
        });
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compute::Compute, rng::Rng};

    /// Rings and blobs with noise, moved by a pixel or two.
    fn samples(kinds: &[bool]) -> Tensor {
        let mut rng = Rng::new(3);
        let mut values = Vec::new();
        for &ring in kinds {
            let shift = 2.0 * rng.normal();
            for i in 0..64 * 64 {
                let (y, x) = ((i / 64) as f64 - 31.5 - shift, (i % 64) as f64 - 31.5);
                let centre = if ring { 14.0 } else { 0.0 };
                values.push((-0.5 * ((y.hypot(x) - centre) / 4.0).powi(2)).exp() + 0.05 * rng.normal());
            }
        }
        Compute::cpu().tensor(values, &[kinds.len(), 1, 64, 64]).unwrap()
    }

    #[test]
    fn kinds_are_told_apart_and_counted() {
        let kinds: Vec<bool> = (0..40).map(|i| i % 4 != 3).collect();
        let split: Vec<usize> = kinds.iter().map(|ring| usize::from(!ring)).collect();
        let found = Modes::of(&samples(&kinds), &split).unwrap();
        assert_eq!(found.modes, [Mode { weight: 0.75, chains: 1 }, Mode { weight: 0.25, chains: 1 }]);
        assert_eq!(found.mixing_chains, 0);
        let mixed: Vec<usize> = (0..40).map(|i| i / 20).collect();
        assert_eq!(Modes::of(&samples(&kinds), &mixed).unwrap().mixing_chains, 2);
    }

    #[test]
    fn one_kind_is_one_mode() {
        let found = Modes::of(&samples(&[true; 12]), &[0; 12]).unwrap();
        assert_eq!(found.modes, [Mode { weight: 1.0, chains: 1 }]);
    }
}
