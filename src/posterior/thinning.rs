//! Which states of a set of chains are kept as draws.

use candle_core::Tensor;

use crate::{Error, Result};

/// Keeps `draws` states of every chain, evenly spaced over the steps `first..end`, the last one included.
#[derive(Debug, Clone)]
pub(crate) struct Thinning {
    first: usize,
    end: usize,
    draws: usize,
    kept: Vec<Tensor>,
}

impl Thinning {
    /// Of the steps up to `end` keeps `draws`, none before step `first` unless there are too few.
    pub(crate) fn new(first: usize, end: usize, draws: usize) -> Self {
        Self { first: first.min(end.saturating_sub(draws)), end, draws, kept: Vec::new() }
    }

    /// First step of which a state may be kept.
    pub(crate) fn first(&self) -> usize {
        self.first
    }

    /// Offers the state `[K, Z, Y, X]` after `step`.
    pub(crate) fn offer(&mut self, step: usize, state: &Tensor) {
        let due = |steps: usize| steps * self.draws / (self.end - self.first).max(1);
        if step >= self.first && due(step + 1 - self.first) > due(step - self.first) {
            self.kept.push(state.clone());
        }
    }

    /// Draws so far `[K, draws, Z, Y, X]`.
    ///
    /// # Errors
    /// None was kept yet.
    pub(crate) fn draws(&self) -> Result<Tensor> {
        if self.kept.is_empty() {
            return Err(Error::config(
                "solver",
                "has no draws before its burn-in ends; let it run to the end",
            ));
        }
        Ok(Tensor::stack(&self.kept, 1)?)
    }

    /// True if at least one state was kept.
    pub(crate) fn has_draws(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Continues with the `draws` of a checkpoint.
    ///
    /// # Errors
    /// A tensor without a draw axis.
    pub(crate) fn restore(&mut self, draws: Option<Tensor>) -> Result<()> {
        self.kept.clear();
        let Some(draws) = draws else { return Ok(()) };
        for i in 0..draws.dim(1)? {
            self.kept.push(draws.narrow(1, i, 1)?.squeeze(1)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_evenly_spaced_and_end_with_the_last_step() {
        let mut thinning = Thinning::new(10, 30, 4);
        for step in 0..30u32 {
            thinning.offer(step as usize, &Tensor::new(&[step], &candle_core::Device::Cpu).unwrap());
        }
        assert_eq!(thinning.draws().unwrap().to_vec2::<u32>().unwrap(), vec![vec![14, 19, 24, 29]]);
        assert_eq!(Thinning::new(29, 30, 4).first(), 26);
    }
}
