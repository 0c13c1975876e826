//! How well samples foretell data that they were not fitted to.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Likelihood;
use crate::{Result, tensor::to_host};

/// How well samples foretell the data of one product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Foretold {
    /// Number of data.
    pub count: usize,
    /// Mean chi-square per datum over the samples: about 1 plus twice the square of their spread over the noise, if
    /// the spread is right.
    pub mean: f64,
    /// Mean square of data minus mean prediction over noise and spread together: 1 if the spread is right.
    pub predictive: f64,
    /// Chi-square per datum of each sample.
    pub per_sample: Vec<f64>,
}

impl Foretold {
    /// Of the data of `likelihood`, given what samples predict of each, `[S, M]`; nothing without data or samples, or
    /// where data are not measured one by one with noise of known variance.
    ///
    /// # Errors
    /// A prediction of another shape.
    pub fn of(likelihood: &dyn Likelihood, predicted: &Tensor) -> Result<Option<Self>> {
        let (Some(values), Some(variances)) = (likelihood.values(), likelihood.variances(predicted)?) else {
            return Ok(None);
        };
        let (predicted, variances) = (to_host(predicted)?, to_host(&variances)?);
        let of_samples = |all: &[f64], datum: usize| -> Vec<f64> {
            all.chunks_exact(values.len()).map(|sample| sample[datum]).collect()
        };
        let datum = |(index, value): (usize, &f64)| {
            let differences: Vec<f64> =
                of_samples(&predicted, index).iter().map(|predicted| value - predicted).collect();
            Datum::new(&differences, &of_samples(&variances, index), |difference| difference)
        };
        Ok(Self::together(&values.iter().enumerate().map(datum).collect::<Vec<_>>()))
    }

    /// Of all data of one product; nothing without data or samples.
    pub(super) fn together(data: &[Datum]) -> Option<Self> {
        let count = data.len();
        let samples = data.first()?.squares.len();
        let chi2 = |sample: usize| data.iter().map(|datum| datum.squares[sample]).sum::<f64>() / count as f64;
        let per_sample: Vec<f64> = (0..samples).map(chi2).collect();
        (samples > 0).then(|| Self {
            count,
            mean: per_sample.iter().sum::<f64>() / samples as f64,
            predictive: data.iter().map(|datum| datum.pull).sum::<f64>() / count as f64,
            per_sample,
        })
    }
}

/// How far one datum lies from what samples predict.
pub(super) struct Datum {
    /// Square of the difference over the noise, of each sample.
    squares: Vec<f64>,
    /// Square of the mean difference over noise and spread together.
    pull: f64,
}

impl Datum {
    /// Of the `differences` of the datum and each sample's prediction, with noise of these `variances` around each;
    /// `wrapped` brings a difference of phases back to half a turn.
    pub(super) fn new(differences: &[f64], variances: &[f64], wrapped: impl Fn(f64) -> f64) -> Self {
        let count = differences.len().max(1) as f64;
        // Differences around the first one, so that phases near half a turn have a mean.
        let first = differences.first().copied().unwrap_or(0.0);
        let around: Vec<f64> = differences.iter().map(|difference| wrapped(difference - first)).collect();
        let mean = around.iter().sum::<f64>() / count;
        let spread = around.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let noise = variances.iter().sum::<f64>() / count;
        let squares = differences.iter().zip(variances).map(|(difference, noise)| difference.powi(2) / noise);
        Self { squares: squares.collect(), pull: wrapped(first + mean).powi(2) / (noise + spread) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compute::Compute,
        instrument::{
            density::Data,
            microscope::likelihood::{FixedGaussian, Noise, Pixels, ShiftedPoisson},
        },
        rng::Rng,
    };

    const DATA: usize = 4000;
    const SAMPLES: usize = 200;

    /// Data of this noise whose expected values, and the samples of them, are independent draws of N(40, 6^2).
    fn of_exact_samples(noise: impl Noise) -> Foretold {
        let (mut rng, mut photons) = (Rng::new(5), Rng::new(6));
        let drawn = (0..DATA).map(|index| noise.draw(index, 40.0 + 6.0 * rng.normal(), &mut photons));
        let data: Vec<f64> = drawn.collect();
        let predicted = (0..SAMPLES * DATA).map(|_| 40.0 + 6.0 * rng.normal()).collect();
        let predicted = Compute::cpu_f64().tensor(predicted, &[SAMPLES, DATA]).unwrap();
        let likelihood = Data::new(Pixels::new(noise.with_data(data), &[]).unwrap());
        Foretold::of(&likelihood, &predicted).unwrap().unwrap()
    }

    /// Data scatter about a sample by the noise and twice the spread, about the mean of many by noise and spread.
    #[test]
    fn samples_of_the_posterior_foretell_with_their_own_spread() {
        let gaussian = of_exact_samples(FixedGaussian { data: vec![0.0; DATA], sigma: vec![3.0] });
        assert_eq!((gaussian.count, gaussian.per_sample.len()), (DATA, SAMPLES));
        assert!((gaussian.mean / 9.0 - 1.0).abs() < 0.05, "{}", gaussian.mean);
        assert!((gaussian.predictive - 1.0).abs() < 0.1, "{}", gaussian.predictive);
        let poisson = of_exact_samples(ShiftedPoisson { data: vec![0.0; DATA], read_variance: vec![2.0] });
        assert!((poisson.predictive - 1.0).abs() < 0.1, "{}", poisson.predictive);
    }
}
