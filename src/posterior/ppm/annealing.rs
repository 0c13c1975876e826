//! The weight of the likelihood while it rises, and the resampling of particles that keeps mode weights right.

use candle_core::Tensor;

use crate::{
    Result,
    posterior::{
        arrangement::alike,
        resampling::{effective_count, systematic_along},
    },
    rng::Rng,
};

/// Share of the particles that must count before they are resampled, and with which the first weight is chosen.
const EFFECTIVE_SHARE: f64 = 0.5;

/// Particle weights of sequential Monte Carlo along p(x) p(y|x)^w, w rising geometrically to 1 (Neal 2001; Del Moral
/// et al. 2006).
#[derive(Debug, Clone, PartialEq)]
pub struct Annealing {
    first: f64,
    steps: usize,
    /// Log weight of each particle relative to the present likelihood weight.
    pub log_weights: Vec<f64>,
}

impl Annealing {
    /// Rises to 1 within `steps` steps, from a first weight at which half of the prior draws with these log likelihoods
    /// still count. The particles carry the log weights of that first step.
    pub fn new(log_likelihoods: &[f64], steps: usize) -> Self {
        let first = match steps {
            0 => 1.0,
            _ => tempered(log_likelihoods, EFFECTIVE_SHARE * log_likelihoods.len() as f64),
        };
        Self { first, steps, log_weights: scaled(log_likelihoods, first) }
    }

    /// Rises to 1 within `steps` steps from `count` of the prior draws `images` with these log likelihoods, chosen at the
    /// largest weight at which so many count. Returns their indices; they are weighted alike.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn choosing(
        log_likelihoods: &[f64],
        images: &Tensor,
        count: usize,
        steps: usize,
        rng: &mut Rng,
    ) -> Result<(Self, Vec<usize>)> {
        let first = tempered(log_likelihoods, count as f64);
        let weights = scaled(log_likelihoods, first);
        let chosen = systematic_along(&alike(images)?, &weights, count, rng.uniform());
        Ok((Self { first, steps, log_weights: vec![0.0; count] }, chosen))
    }

    /// Continues with known values.
    pub fn resume(first: f64, steps: usize, log_weights: Vec<f64>) -> Self {
        Self { first, steps, log_weights }
    }

    /// Weight of the likelihood at the first step.
    pub fn first(&self) -> f64 {
        self.first
    }

    /// Weight of the likelihood at a step.
    pub fn weight(&self, step: usize) -> f64 {
        let remaining = 1.0 - (step as f64 / self.steps.max(1) as f64).min(1.0);
        self.first.powf(remaining)
    }

    /// Moves on to `step`: the particles `images` with these log likelihoods gain weight by the rise of the likelihood. Returns
    /// the indices of the particles that take the places of all, or none while enough of them count.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn advance(
        &mut self,
        step: usize,
        log_likelihoods: &[f64],
        images: &Tensor,
        rng: &mut Rng,
    ) -> Result<Option<Vec<usize>>> {
        if step > 0 {
            let rise = self.weight(step) - self.weight(step - 1);
            self.log_weights.iter_mut().zip(log_likelihoods).for_each(|(w, l)| *w += rise * l);
        }
        let count = self.log_weights.len();
        let counting = effective_count(&self.log_weights);
        let uniform = counting > (1.0 - 1e-9) * count as f64;
        let last = step == self.steps && !uniform;
        if counting > EFFECTIVE_SHARE * count as f64 && !last {
            return Ok(None);
        }
        let chosen = systematic_along(&alike(images)?, &self.log_weights, count, rng.uniform());
        self.log_weights = vec![0.0; count];
        Ok(Some(chosen))
    }
}

/// The largest weight up to 1 of these log likelihoods at which `count` of them still count.
fn tempered(log_likelihoods: &[f64], count: f64) -> f64 {
    if effective_count(log_likelihoods) >= count {
        return 1.0;
    }
    let (mut low, mut high) = (f64::MIN_POSITIVE.ln(), 0.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        let counting = effective_count(&scaled(log_likelihoods, f64::exp(middle)));
        if counting > count { low = middle } else { high = middle }
    }
    f64::exp(high)
}

fn scaled(values: &[f64], factor: f64) -> Vec<f64> {
    values.iter().map(|v| factor * v).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Compute;

    /// Images of one pixel, in the order of their values.
    fn row(count: usize) -> Tensor {
        let values = (0..count).map(|i| i as f64).collect();
        Compute::cpu_f64().tensor(values, &[count, 1, 1, 1]).unwrap()
    }

    #[test]
    fn likelihood_rises_from_half_the_particles_counting_to_full() {
        let log_likelihoods: Vec<f64> = (0..100).map(|i| -50.0 * f64::from(i)).collect();
        let annealing = Annealing::new(&log_likelihoods, 10);
        let counting = effective_count(&scaled(&log_likelihoods, annealing.weight(0)));
        assert!((counting - 50.0).abs() < 1e-6, "{counting}");
        assert!((0..12).all(|k| annealing.weight(k + 1) >= annealing.weight(k)));
        assert_eq!(annealing.weight(10), 1.0);
    }

    /// Two modes whose likelihoods differ by ln 3 have 3 to 1 of the chosen draws wherever they begin.
    #[test]
    fn chosen_draws_have_the_weights_of_the_likelihood() {
        let log_likelihoods: Vec<f64> =
            (0..800).map(|i| if i < 400 { 0.0 } else { -(3.0f64.ln()) }).collect();
        let (annealing, chosen) =
            Annealing::choosing(&log_likelihoods, &row(800), 100, 10, &mut Rng::new(1)).unwrap();
        let share = chosen.iter().filter(|i| **i < 400).count();
        assert_eq!((annealing.first(), chosen.len()), (1.0, 100));
        assert!((74..=76).contains(&share), "{share}");
    }

    #[test]
    fn resampled_weights_are_equal_at_full_likelihood() {
        let mut annealing = Annealing::new(&[0.0, -1.0, -3.0, -9.0], 2);
        let mut rng = Rng::new(1);
        for step in 0..3 {
            annealing.advance(step, &[0.0, -1.0, -3.0, -9.0], &row(4), &mut rng).unwrap();
        }
        assert_eq!(annealing.log_weights, [0.0; 4]);
    }
}
