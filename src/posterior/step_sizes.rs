//! How long the steps of Hamiltonian trajectories are.

use candle_core::{Device, Tensor};

use super::hmc::Outcome;
use crate::{Error, Result, tensor::to_host};

/// Step sizes of all chains, each adapted towards a target acceptance.
#[derive(Debug, Clone)]
pub struct StepSizes {
    log: Vec<f64>,
    target: f64,
    largest: f64,
}

/// Change of ln(step) per unit of missed acceptance.
const GAIN: f64 = 0.4;

/// Error, nats, of a trajectory of far too short steps (with steps of the right size one in fifty is as exact by chance), and
/// the growth of ln(step) then.
const EXACT: f64 = 0.02;
const LEAP: f64 = 0.4;

/// Error, nats, of a trajectory that is usually accepted, and the farthest change of ln(step) towards it.
const RIGHT: f64 = 0.3;
const FARTHEST: f64 = 1.0;

/// Steps may fall to exp(-RANGE) of the largest.
const RANGE: f64 = 14.0;

impl StepSizes {
    /// `chains` steps of size `first`, never above `largest`, adapted towards acceptance `target`.
    pub fn new(chains: usize, first: f64, largest: f64, target: f64) -> Self {
        Self { log: vec![first.min(largest).ln(); chains], target, largest }
    }

    /// Acceptance that they are adapted to.
    pub fn target(&self) -> f64 {
        self.target
    }

    /// Step of each chain.
    pub fn values(&self) -> Vec<f64> {
        self.log.iter().map(|log| log.exp()).collect()
    }

    /// Median over chains.
    pub fn median(&self) -> f64 {
        let mut sorted = self.values();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    /// Raises or lowers each chain's step by what its last trajectory did.
    pub fn adapt(&mut self, outcome: &Outcome) {
        let largest = self.largest.ln();
        for ((log, acceptance), error) in self.log.iter_mut().zip(&outcome.acceptance).zip(&outcome.error) {
            *log += if error.abs() < EXACT { LEAP } else { GAIN * (acceptance - self.target) };
            *log = log.clamp(largest - RANGE, largest);
        }
    }

    /// As [`StepSizes::adapt`], but quickly: a first guess may be wrong by orders of magnitude. The error of a trajectory of few
    /// steps grows with their square.
    pub fn find(&mut self, outcome: &Outcome) {
        let largest = self.largest.ln();
        for (log, error) in self.log.iter_mut().zip(&outcome.error) {
            let wanted = 0.5 * (RIGHT / error.abs()).ln();
            // Not a number is as wrong as a step can be.
            *log += if wanted.is_nan() { -FARTHEST } else { wanted.clamp(-FARTHEST, FARTHEST) };
            *log = log.clamp(largest - RANGE, largest);
        }
    }

    /// Shortens the steps of the marked chains by a fifth.
    pub fn shorten(&mut self, marked: &[bool]) {
        for (log, _) in self.log.iter_mut().zip(marked).filter(|(_, marked)| **marked) {
            *log += 0.8f64.ln();
        }
    }

    /// Chain i continues with the step of chain `sources[i]`.
    pub fn copy_from(&mut self, sources: &[usize]) {
        self.log = sources.iter().map(|&i| self.log[i]).collect();
    }

    /// Everything but the target acceptance, for a checkpoint.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn state(&self) -> Result<Tensor> {
        let values: Vec<f64> = self.log.iter().copied().chain([self.largest.ln()]).collect();
        Ok(Tensor::new(values, &Device::Cpu)?)
    }

    /// Continues from [`StepSizes::state`] of as many chains.
    ///
    /// # Errors
    /// A state of another number of chains.
    pub fn from_state(state: &Tensor, chains: usize, target: f64) -> Result<Self> {
        let mut log = to_host(state)?;
        match log.pop() {
            Some(largest) if log.len() == chains => Ok(Self { log, target, largest: largest.exp() }),
            _ => {
                let (expected, found) = (vec![chains + 1], state.dims().to_vec());
                Err(Error::Shape { what: "step sizes of the checkpoint", expected, found })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::posterior::hmc::Point;

    fn outcome(acceptance: Vec<f64>, error: Vec<f64>) -> Outcome {
        let nothing = Tensor::zeros(1, DType::F64, &Device::Cpu).unwrap();
        let [position, log_density, gradient, velocity] = [0; 4].map(|_| nothing.clone());
        Outcome { point: Point { position, log_density, gradient }, velocity, acceptance, error }
    }

    #[test]
    fn steps_approach_the_target_acceptance() {
        let mut steps = StepSizes::new(2, 0.1, 1.0, 0.8);
        for _ in 0..200 {
            let error: Vec<f64> = steps.values().iter().zip([2.0, 20.0]).map(|(s, c)| c * s).collect();
            steps.adapt(&outcome(error.iter().map(|error| (-error).exp()).collect(), error));
        }
        let ideal = -(0.8f64.ln());
        assert!((steps.values()[0] / (ideal / 2.0) - 1.0).abs() < 1e-3);
        assert!((steps.values()[1] / (ideal / 20.0) - 1.0).abs() < 1e-3);
    }

    /// Steps that are far too short say so by their exactness, however often they are accepted.
    #[test]
    fn far_too_short_steps_grow_fast() {
        let mut steps = StepSizes::new(3, 0.001, 0.5, 0.8);
        for _ in 0..10 {
            steps.adapt(&outcome(vec![1.0; 3], vec![1e-6, -1e-6, -1.0]));
        }
        let grown = steps.values();
        assert!(grown[0] > 0.05 && grown[1] > 0.05 && grown[2] < 0.003, "{grown:?}");
    }

    /// Steps that are far too long or short are found out by how wrong they are, also where that is not a number.
    #[test]
    fn first_steps_are_found_fast() {
        let mut steps = StepSizes::new(4, 0.05, 0.5, 0.8);
        for _ in 0..3 {
            steps.find(&outcome(vec![0.0; 4], vec![1e6, f64::NAN, 0.3, -1e-5]));
        }
        let found = steps.values();
        assert!(found[0] < 0.003 && found[1] < 0.003 && (found[2] / 0.05 - 1.0).abs() < 1e-9, "{found:?}");
        assert_eq!(found[3], 0.5);
    }
}
