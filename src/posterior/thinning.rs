//! Which states of a set of chains are kept as draws.

use candle_core::Tensor;

use super::{draws::Draws, solver::TensorMap};
use crate::Result;

/// Keeps `draws` states of every chain, evenly spaced over the steps `first..end`, the last one included.
#[derive(Debug, Clone)]
pub(crate) struct Thinning {
    first: usize,
    end: usize,
    draws: usize,
    kept: Vec<Draws>,
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

    /// Whether the state after `step` is to be kept.
    pub(crate) fn is_due(&self, step: usize) -> bool {
        let due = |steps: usize| steps * self.draws / (self.end - self.first).max(1);
        step >= self.first && due(step + 1 - self.first) > due(step - self.first)
    }

    /// Keeps the state `[K, Z, Y, X]` of `chains` at `time`.
    pub(crate) fn keep(&mut self, state: &Tensor, chains: &[usize], time: usize) {
        self.kept.push(Draws::together(state.clone(), chains, time));
    }

    /// Draws so far.
    ///
    /// # Errors
    /// None was kept yet.
    pub(crate) fn draws(&self) -> Result<Draws> {
        Draws::all(&self.kept)
    }

    /// For a checkpoint of the solver `solver`.
    pub(crate) fn save(&self, solver: &str, state: &mut TensorMap) -> Result<()> {
        if self.kept.is_empty() { Ok(()) } else { self.draws()?.save(solver, state) }
    }

    /// Continues from what [`Thinning::save`] left.
    pub(crate) fn restore(&mut self, solver: &str, state: &mut TensorMap) -> Result<()> {
        self.kept = Draws::load(solver, state)?.into_iter().collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_evenly_spaced_and_end_with_the_last_step() {
        let thinning = Thinning::new(10, 30, 4);
        let due: Vec<usize> = (0..30).filter(|&step| thinning.is_due(step)).collect();
        assert_eq!(due, [14, 19, 24, 29]);
        assert_eq!(Thinning::new(29, 30, 4).first(), 26);
    }
}
