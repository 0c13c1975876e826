//! The noise of a camera some of whose pixels are left out of the fit.

use candle_core::{Tensor, bail};

use super::{held_out::Blocks, likelihood::Noise};
use crate::{instrument::Measured, rng::Rng};

/// A noise model in which left-out pixels weigh nothing. In place of their data it holds what lies around them, so that
/// nothing that looks at the data, not even a classical deconvolution, finds what was left out.
#[derive(Debug)]
pub(super) struct Masked<N> {
    noise: N,
    blocks: Blocks,
    /// Weight of each pixel, 1 or 0.
    weights: Vec<f64>,
}

impl<N: Noise> Masked<N> {
    /// The noise of a camera without the pixels of `blocks`, which are some of its data.
    pub(super) fn new(noise: N, blocks: &Blocks) -> Self {
        let noise = noise.with_data(blocks.filled(noise.data().to_vec()));
        Self { noise, blocks: blocks.clone(), weights: blocks.weights() }
    }

    fn is_fitted(&self, index: usize) -> bool {
        self.weights[index] > 0.0
    }
}

impl<N: Noise> Noise for Masked<N> {
    const NAME: &'static str = N::NAME;

    fn data(&self) -> &[f64] {
        self.noise.data()
    }

    fn count(&self) -> usize {
        (0..self.weights.len()).filter(|&index| self.is_fitted(index)).count()
    }

    fn log_prob(&self, index: usize, expected: f64) -> (f64, f64) {
        if self.is_fitted(index) { self.noise.log_prob(index, expected) } else { (0.0, 0.0) }
    }

    fn maps(&self) -> Vec<&[f64]> {
        let mut maps = self.noise.maps();
        maps.push(&self.weights);
        maps
    }

    fn of_tensor(&self, expected: &Tensor, maps: &[Tensor]) -> candle_core::Result<Tensor> {
        let Some((weights, maps)) = maps.split_last() else { bail!("{} has no weights", Self::NAME) };
        self.noise.of_tensor(expected, maps)?.broadcast_mul(weights)
    }

    fn information(&self, index: usize, expected: f64) -> f64 {
        if self.is_fitted(index) { self.noise.information(index, expected) } else { 0.0 }
    }

    fn variance(&self, index: usize, expected: f64) -> f64 {
        if self.is_fitted(index) { self.noise.variance(index, expected) } else { f64::INFINITY }
    }

    fn residual(&self, index: usize, expected: f64) -> f64 {
        if self.is_fitted(index) { self.noise.residual(index, expected) } else { 0.0 }
    }

    fn draw(&self, index: usize, expected: f64, rng: &mut Rng) -> f64 {
        self.noise.draw(index, expected, rng)
    }

    fn with_data(&self, data: Vec<f64>) -> Self {
        Self::new(self.noise.with_data(data), &self.blocks)
    }

    fn measured(&self) -> Option<Measured> {
        let Measured { values, mut sigmas } = self.noise.measured()?;
        for (sigma, weight) in sigmas.iter_mut().zip(&self.weights) {
            if *weight == 0.0 {
                *sigma = f64::INFINITY;
            }
        }
        Some(Measured { values, sigmas })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compute::Compute,
        instrument::{
            Likelihood,
            density::{Data, Density},
            microscope::likelihood::{FixedGaussian, GrowingGaussian, Pixels, ShiftedPoisson},
        },
        tensor::{to_host, value_and_gradient},
    };

    const SHAPE: [usize; 3] = [2, 9, 10];
    const PIXELS: usize = 180;

    /// What a fit sees of `noise` without blocks: log likelihood, slopes, information and data.
    fn seen(noise: impl Noise, blocks: &Blocks) -> Vec<f64> {
        let likelihood = Data::new(Pixels::from(Masked::new(noise, blocks)));
        let expected = (0..2 * PIXELS).map(|pixel| 4.0 + (pixel % 13) as f64).collect();
        let expected = Compute::cpu_f64().tensor(expected, &[2, PIXELS]).unwrap();
        let (value, slope) = likelihood.log_prob_and_gradient(&expected).unwrap();
        let information = likelihood.information(&expected).unwrap().unwrap();
        let [residuals, chi2] =
            [likelihood.residuals(&expected), likelihood.chi2(&expected)].map(Result::unwrap);
        let parts = [value, slope, information, residuals, chi2].map(|part| to_host(&part).unwrap());
        [parts.concat(), likelihood.values().unwrap()].concat()
    }

    /// Nothing that a fit sees depends on a left-out datum; all of it does on one that is fitted.
    fn forgets(noise: impl Noise) {
        let blocks = Blocks::choose(SHAPE, 0.2, &mut Rng::new(3)).unwrap();
        let weights = blocks.weights();
        let [left_out, fitted] =
            [0.0, 1.0].map(|wanted| weights.iter().position(|weight| *weight == wanted).unwrap());
        let changed = |index: usize| {
            let mut data = noise.data().to_vec();
            data[index] += 5.0;
            seen(noise.with_data(data), &blocks)
        };
        let before = seen(noise.with_data(noise.data().to_vec()), &blocks);
        assert_eq!(changed(left_out), before);
        assert_ne!(changed(fitted)[..2], before[..2]);
        // After the two log likelihoods come slopes and information, of both images each.
        assert_eq!(before[2 + left_out], 0.0);
        assert_eq!(before[2 + 2 * PIXELS + left_out], 0.0);
    }

    fn data() -> Vec<f64> {
        (0..PIXELS).map(|pixel| 3.0 + (pixel % 7) as f64).collect()
    }

    #[test]
    fn what_is_left_out_is_not_seen() {
        let sigma = (0..PIXELS).map(|pixel| 1.0 + 0.01 * pixel as f64).collect();
        forgets(FixedGaussian { data: data(), sigma });
        forgets(GrowingGaussian { data: data(), slope: vec![0.5], floor: vec![2.0], least: 0.1 });
        forgets(ShiftedPoisson { data: data(), read_variance: vec![2.0] });
    }

    /// Tensors leave out the same pixels, in log likelihood and slopes.
    #[test]
    fn tensors_and_numbers_agree() {
        let blocks = Blocks::choose(SHAPE, 0.2, &mut Rng::new(3)).unwrap();
        let noise = Masked::new(ShiftedPoisson { data: data(), read_variance: vec![2.0] }, &blocks);
        assert!(noise.count() < PIXELS);
        let pixels = Pixels::from(noise);
        let expected: Vec<f64> = (0..PIXELS).map(|pixel| 4.0 + (pixel % 13) as f64).collect();
        let tensor = Compute::cpu_f64().tensor(expected.clone(), &[1, PIXELS]).unwrap();
        let (value, slopes) = value_and_gradient(&tensor, |x| Ok(pixels.of_tensor(x)?.unwrap())).unwrap();
        let (exact, gradient) = pixels.log_prob(&expected);
        assert!((to_host(&value).unwrap()[0] / exact - 1.0).abs() < 1e-9);
        for (found, exact) in to_host(&slopes).unwrap().iter().zip(gradient) {
            assert!((found - exact).abs() < 1e-9, "{found} {exact}");
        }
    }

    /// New data are left out in the same places, and nothing was measured there.
    #[test]
    fn new_data_are_left_out_too() {
        let blocks = Blocks::choose(SHAPE, 0.1, &mut Rng::new(3)).unwrap();
        let noise = Masked::new(FixedGaussian { data: data(), sigma: vec![1.0] }, &blocks);
        let marked: Vec<f64> = blocks.weights().iter().map(|weight| 1e6 * (1.0 - weight)).collect();
        let measured = noise.with_data(marked).measured().unwrap();
        assert!(measured.values.iter().all(|value| *value == 0.0));
        let infinite = measured.sigmas.iter().filter(|sigma| sigma.is_infinite()).count();
        assert_eq!(infinite, PIXELS - noise.count());
    }
}
