//! When the objective of matching has come to rest.

use candle_core::{Device, Tensor};

use crate::{
    Result,
    posterior::chains::{mean, variance},
    tensor::to_host,
};

/// The objective's values since the likelihood has its full weight, noisy from step to step.
#[derive(Debug, Clone, Default)]
pub(super) struct Plateau {
    /// Steps over which it is averaged.
    patience: usize,
    /// The latest, for two averages.
    values: Vec<f64>,
}

impl Plateau {
    /// Averages over `patience` steps.
    pub(super) fn new(patience: usize) -> Self {
        Self { patience, values: Vec::new() }
    }

    /// Takes in the value of one more step. Whether the last average is not lower than the one before by more than the standard
    /// error of their difference.
    pub(super) fn is_reached(&mut self, value: f64) -> bool {
        self.values.push(value);
        let Some(surplus) = self.values.len().checked_sub(2 * self.patience) else { return false };
        self.values.drain(..surplus);
        let (before, last) = self.values.split_at(self.patience);
        let error = ((variance(before) + variance(last)) / self.patience as f64).sqrt();
        mean(before) - mean(last) <= error
    }

    /// For a checkpoint.
    pub(super) fn state(&self) -> Result<Tensor> {
        Ok(Tensor::new(self.values.as_slice(), &Device::Cpu)?)
    }

    /// Continues from [`Plateau::state`].
    pub(super) fn restore(&mut self, state: &Tensor) -> Result<()> {
        self.values = to_host(state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// A fall from 100 to 0 with scatter 1: seen as long as it is faster than the scatter of its averages.
    #[test]
    fn the_end_of_a_fall_is_found_through_its_scatter() {
        for seed in 0..20 {
            let (mut plateau, mut rng) = (Plateau::new(20), Rng::new(seed));
            let objective = |step: usize| 100.0 * (-(step as f64) / 25.0).exp();
            let found = (0..400).find(|&step| plateau.is_reached(objective(step) + rng.normal())).unwrap();
            assert!((60..200).contains(&found), "seed {seed}: {found}");
        }
    }

    #[test]
    fn a_resumed_plateau_goes_on() {
        let (mut whole, mut first) = (Plateau::new(3), Plateau::new(3));
        let values = [9.0, 7.0, 8.0, 5.0, 4.0, 3.0, 3.5, 3.4, 3.5];
        let reached: Vec<bool> = values.iter().map(|value| whole.is_reached(*value)).collect();
        values[..4].iter().for_each(|value| assert!(!first.is_reached(*value)));
        let mut second = Plateau::new(3);
        second.restore(&first.state().unwrap()).unwrap();
        let later: Vec<bool> = values[4..].iter().map(|value| second.is_reached(*value)).collect();
        assert_eq!(later, reached[4..]);
        assert!(!reached[5] && reached[8]);
    }
}
