//! Are numbers uniform on 0 to 1? Their distribution function against a simultaneous band, by simulation.
//!
//! Source: Säilynoja, Bürkner & Vehtari 2022, "Graphical test for discrete uniformity and its applications in
//! goodness-of-fit evaluation and multiple sample comparison".

use super::binomial::{band, cumulative, two_sided};
use crate::rng::Rng;

/// Simulated sets of uniform numbers.
const SIMULATIONS: usize = 10_000;
/// Number of intervals between the places at which the distribution function is compared.
const PLACES: usize = 100;

/// The test for a number of values: how far their distribution function strays from the diagonal by chance.
///
/// At each place z the number of values below z is binomial. The statistic is the smallest two-sided probability over
/// all places; a band of constant probability at all places holds the whole curve with the wanted probability.
#[derive(Debug, Clone)]
pub struct Uniformity {
    count: usize,
    /// Binomial distribution functions at the places k / K, k = 1 .. K - 1.
    places: Vec<Vec<f64>>,
    /// The statistic of uniform numbers, ascending.
    null: Vec<f64>,
}

impl Uniformity {
    /// The test of `count` values; `rng` simulates uniform ones.
    pub fn new(count: usize, rng: &mut Rng) -> Self {
        let places = (1..PLACES).map(|k| cumulative(count, k as f64 / PLACES as f64)).collect();
        let mut test = Self { count, places, null: Vec::new() };
        let mut null: Vec<f64> = (0..SIMULATIONS)
            .map(|_| test.statistic(&(0..count).map(|_| rng.uniform()).collect::<Vec<_>>()))
            .collect();
        null.sort_by(f64::total_cmp);
        test.null = null;
        test
    }

    /// Numbers of values below every place.
    fn below(&self, values: &[f64]) -> Vec<usize> {
        let mut counts = vec![0; PLACES];
        for value in values {
            counts[((value * PLACES as f64).max(0.0) as usize).min(PLACES - 1)] += 1;
        }
        let mut sum = 0;
        counts[..PLACES - 1]
            .iter()
            .map(|count| {
                sum += count;
                sum
            })
            .collect()
    }

    /// Smallest two-sided probability over the places.
    fn statistic(&self, values: &[f64]) -> f64 {
        let pairs = self.places.iter().zip(self.below(values));
        pairs.map(|(place, below)| two_sided(place, below)).fold(1.0, f64::min)
    }

    /// Probability that uniform numbers stray as far as `values`; not below 1/10001.
    pub fn p_value(&self, values: &[f64]) -> f64 {
        let found = self.statistic(values);
        // Equal statistics come out of equal sums; rounding must not tell them apart.
        let as_far = self.null.partition_point(|simulated| *simulated <= found * (1.0 + 1e-9));
        (as_far + 1) as f64 / (SIMULATIONS + 1) as f64
    }

    /// At each place z the lowest and highest fraction of values below it that a curve may have which stays inside
    /// everywhere with probability 1 - `alpha`.
    pub fn band(&self, alpha: f64) -> Vec<(f64, [f64; 2])> {
        let limit = self.null[((alpha * SIMULATIONS as f64) as usize).min(SIMULATIONS - 1)];
        let fraction = |k: usize| k as f64 / self.count.max(1) as f64;
        let at = |(index, place): (usize, &Vec<f64>)| {
            ((index + 1) as f64 / PLACES as f64, band(place, limit).map(fraction))
        };
        self.places.iter().enumerate().map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of uniform sets, 5 % leave the 95 % band; the p-value is uniform.
    #[test]
    fn uniform_numbers_stay_inside_as_often_as_promised() {
        let test = Uniformity::new(60, &mut Rng::new(1));
        let (mut rng, band) = (Rng::new(2), test.band(0.05));
        let (mut outside, mut small) = (0, 0);
        for _ in 0..2000 {
            let values: Vec<f64> = (0..60).map(|_| rng.uniform()).collect();
            let strays = band.iter().zip(test.below(&values)).any(|((_, [low, high]), below)| {
                let fraction = below as f64 / 60.0;
                fraction < *low || fraction > *high
            });
            outside += usize::from(strays);
            small += usize::from(test.p_value(&values) <= 0.05);
        }
        // Three standard deviations of a binomial count around 100; the statistic is discrete and errs to few.
        assert!((50..=130).contains(&outside) && (50..=130).contains(&small), "{outside} {small}");
    }

    #[test]
    fn other_distributions_are_found() {
        let test = Uniformity::new(200, &mut Rng::new(1));
        let mut rng = Rng::new(3);
        let mut of = |shape: fn(f64) -> f64| {
            let values: Vec<f64> = (0..200).map(|_| shape(rng.uniform())).collect();
            test.p_value(&values)
        };
        assert!(of(|u| u) > 0.01);
        assert!(of(|u| u.powf(1.5)) < 0.001, "shifted");
        assert!(of(|u| 0.5 + (u - 0.5) * 0.7) < 0.001, "too narrow");
        assert!(of(|u| if u < 0.5 { 2.0 * u * u } else { 1.0 - 2.0 * (1.0 - u).powi(2) }) < 0.001, "ends");
    }
}
