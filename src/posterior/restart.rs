//! The rule for chains in a wrong mode: found by their fit, restarted from the others while there is time.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::diagnostics::{below_better_half, margin};
use crate::{Result, instrument::Problem, rng::Rng, tensor::to_host, transfer::Transfer};

/// The rule for chains in a wrong mode, for example a wrong turn of a closure phase.
///
/// A chain is lost when its log likelihood, averaged over recent steps, lies more than `threshold` sqrt(M/2) nats,
/// and more than 8, below the median of the better half of the chains (M data; sqrt(M/2) is the scatter of a log
/// likelihood within one mode). Split Gibbs sampling counts those of
/// all cycles, and judges its draws by the cycles that came after them too. During annealing, after its first fifth and while the noise level is above `level`, a
/// lost chain restarts from a copy of a chain that is not, as in sequential Monte Carlo, and the copies part again.
/// Copies made later would stay alike: split Gibbs sampling gives such chains up until its next cycle, Langevin
/// dynamics keeps them among the draws and counts them in the metric `lost`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Restart {
    /// Distance below the better half, units of sqrt(M/2) nats.
    pub threshold: f64,
    /// Smallest noise level at which chains are replaced, units of the prior's standard deviation.
    pub level: f64,
    /// Steps between two checks.
    pub every: usize,
}

impl Default for Restart {
    fn default() -> Self {
        Self { threshold: 2.0, level: 0.055, every: 5 }
    }
}

impl Restart {
    /// Whether `step` of the `anneal` steps of a fall asks for a check.
    pub(crate) fn due(&self, step: usize, anneal: usize) -> bool {
        step > anneal / 5 && step.is_multiple_of(self.every.max(1))
    }
}

/// Weight of the latest step in a chain's running fit.
const RECENT: f64 = 0.3;

/// Running log likelihood of every chain.
#[derive(Debug, Clone)]
pub(crate) struct Fits(Vec<f64>);

impl Fits {
    /// Chains of which nothing is known yet.
    pub(crate) fn new(chains: usize) -> Self {
        Self(vec![f64::NAN; chains])
    }

    /// Takes in the log likelihoods `[K]` of one step; returns their mean.
    pub(crate) fn observe(&mut self, log_likelihood: &Tensor) -> Result<f64> {
        let now = to_host(log_likelihood)?;
        for (fit, now) in self.0.iter_mut().zip(&now) {
            *fit = if fit.is_finite() { *fit + RECENT * (now - *fit) } else { *now };
        }
        Ok(now.iter().sum::<f64>() / now.len() as f64)
    }

    /// Fit of each chain.
    pub(crate) fn values(&self) -> &[f64] {
        &self.0
    }

    /// The chain that fits best.
    pub(crate) fn best(&self) -> usize {
        (0..self.0.len()).max_by(|&a, &b| self.0[a].total_cmp(&self.0[b])).unwrap_or(0)
    }

    /// Which chains are lost.
    pub(crate) fn lost(&self, rule: &Restart, problem: &Problem) -> Vec<bool> {
        below_better_half(&self.0, margin(problem, rule.threshold))
    }

    /// Chain i continues with the fit of chain `sources[i]`.
    pub(crate) fn copy_from(&mut self, sources: &[usize]) {
        self.0 = sources.iter().map(|&i| self.0[i]).collect();
    }

    /// For a checkpoint.
    pub(crate) fn state(&self) -> Result<Tensor> {
        Ok(Tensor::new(self.0.as_slice(), &Device::Cpu)?)
    }

    /// Continues from [`Fits::state`].
    pub(crate) fn restore(&mut self, state: &Tensor) -> Result<()> {
        self.0 = to_host(state)?;
        Ok(())
    }
}

/// Number of marked chains, as a metric.
pub(crate) fn count(lost: &[bool]) -> f64 {
    lost.iter().filter(|lost| **lost).count() as f64
}

/// For each chain the chain it continues: itself, or for a lost one another, all of them used equally often.
pub(crate) fn replacements(lost: &[bool], rng: &mut Rng) -> Vec<usize> {
    let good: Vec<usize> = (0..lost.len()).filter(|&i| !lost[i]).collect();
    let mut next = rng.below(good.len());
    let replace = |i: usize| {
        if !lost[i] || good.is_empty() {
            return i;
        }
        next += 1;
        good[next % good.len()]
    };
    (0..lost.len()).map(replace).collect()
}

/// Chains as a tensor of indices on the device of `like`.
pub(crate) fn index(sources: &[usize], like: &Tensor) -> Result<Tensor> {
    let index: Vec<u32> = sources.iter().map(|&i| i as u32).collect();
    Ok(Tensor::from_vec(index, sources.len(), &Device::Cpu)?.transfer(like.device())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_chains_are_shared_out_over_the_others() {
        let sources = replacements(&[false, true, true, false, true], &mut Rng::new(2));
        assert_eq!((sources[0], sources[3]), (0, 3));
        let copies = [1, 2, 4].map(|i| sources[i]);
        assert!(copies.iter().all(|&i| i == 0 || i == 3) && copies.contains(&0) && copies.contains(&3));
        assert_eq!(replacements(&[true, true], &mut Rng::new(2)), [0, 1]);
    }

    #[test]
    fn fits_follow_recent_steps() {
        let mut fits = Fits::new(2);
        let observe =
            |fits: &mut Fits, values: [f64; 2]| fits.observe(&Tensor::new(&values, &Device::Cpu).unwrap());
        assert_eq!(observe(&mut fits, [-10.0, -20.0]).unwrap(), -15.0);
        observe(&mut fits, [-20.0, -20.0]).unwrap();
        assert_eq!(fits.0, [-13.0, -20.0]);
    }
}
