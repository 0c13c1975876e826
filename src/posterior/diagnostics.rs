//! What `diagnostics.json` says of a run: convergence of the chains, fit of every sample, truth where it is known.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{convergence::Convergence, draws::Draws, modes::Modes, out_of_distribution::OutOfDistribution};
use crate::{
    Result,
    features::Interval,
    instrument::{Problem, held_out::Foretold},
    quantile::quantile,
    tensor::to_host,
};

/// Samples that pass through the instrument together.
const BATCH: usize = 64;

/// R-hat above which chains are said to disagree (calibrated runs reach 1.01; 1.1 is the limit of use).
pub const RHAT_LIMIT: f64 = 1.1;

/// Distance below the better half of the chains, in units of sqrt(M/2) nats for M data, from which a chain is lost.
pub const LOST: f64 = 4.0;

/// Nats below the better half within which no chain is lost, however few the data.
const LEAST_MARGIN: f64 = 8.0;

/// The checks of a run, in the layout of `diagnostics.json`; what is missing is null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Diagnostics {
    /// Number of samples.
    pub samples: usize,
    /// Number of chains that drew them.
    pub chains: usize,
    /// How well the chains agree, and what their draws are worth.
    #[serde(flatten)]
    pub convergence: Convergence,
    /// Lower bound on KL(q || p) of the variational stage, nats.
    pub kl_bound: Option<f64>,
    /// Chi-square per datum by data product.
    pub chi2: BTreeMap<String, Fit>,
    /// Posterior of image features by name, the unit at the name's end.
    pub features: BTreeMap<String, Interval>,
    /// The kinds of image that the samples show.
    pub modes: Option<Modes>,
    /// Fraction of the samples that show a feature, by its name, for example `ring`.
    pub occupancy: BTreeMap<String, f64>,
    /// Data that were left out of the fit, by data product; null if none were.
    pub held_out: Option<BTreeMap<String, Foretold>>,
    /// How foreign the samples are to the prior.
    pub out_of_distribution: Option<OutOfDistribution>,
    /// Comparison with a known image.
    pub truth: Truth,
    /// Whether a simulation-based calibration of this set-up passed; null if none was made, false too where `biased` says
    /// that none could.
    pub calibrated: Option<bool>,
    /// Why the samples do not stand for the posterior whatever the checks say, if the settings ask for something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub biased: Option<String>,
    /// What the user must know, in words.
    pub warnings: Vec<String>,
}

/// Fit of the samples to one data product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Number of data.
    pub count: usize,
    /// Mean over samples.
    pub mean: f64,
    /// Chi-square per datum of each sample.
    pub per_sample: Vec<f64>,
}

/// Comparison of the samples with a known image, see [`super::truth`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Truth {
    /// Peak signal-to-noise ratio of the posterior mean, dB.
    pub psnr_db: Option<f64>,
    /// Structural similarity of the posterior mean.
    pub ssim: Option<f64>,
    /// Fraction of on-source pixels whose central 68 % interval holds the truth.
    pub coverage_68: Option<f64>,
    /// The same for 95 %.
    pub coverage_95: Option<f64>,
    /// Fair continuous ranked probability score, mean over on-source pixels, image unit.
    pub crps: Option<f64>,
}

impl Diagnostics {
    /// Convergence and fit of `draws`, network unit.
    ///
    /// # Errors
    /// Images of another shape, or those of the problem.
    pub fn of(problem: &Problem, draws: &Draws) -> Result<Self> {
        let (chi2, likelihood) = fit(problem, &draws.images)?;
        let mut found = Self {
            samples: draws.len(),
            chains: draws.chains(),
            convergence: Convergence::of(draws, &likelihood)?,
            chi2,
            modes: Some(Modes::of(&draws.images, &draws.chain)?),
            ..Self::default()
        };
        found.warn(&lost(problem, &draws.by_chain(&likelihood)));
        Ok(found)
    }

    /// Takes in how foreign the samples are to the prior.
    pub fn compare_with_prior(&mut self, found: OutOfDistribution) {
        if let Some(score) = found.score.filter(|_| found.is_foreign()) {
            self.warnings.push(format!(
                "the prior does not know such images: their denoising loss lies {score:.1} standard deviations above that of its own"
            ));
        }
        self.out_of_distribution = Some(found);
    }

    /// Says so if the samples are worth fewer independent ones than `wanted`.
    pub fn hold_against(&mut self, wanted: f64) {
        let found = self.convergence.effective();
        if found < wanted {
            self.warnings.push(format!(
                "the samples are worth {found:.0} independent ones, fewer than the {wanted:.0} that were asked for; give the solver more cycles"
            ));
        }
    }

    fn warn(&mut self, lost: &[bool]) {
        if let Some(rhat) = self.convergence.rhat_max.filter(|rhat| *rhat > RHAT_LIMIT) {
            self.warnings.push(format!(
                "chains disagree: R-hat {rhat:.3} is above {RHAT_LIMIT}; run longer before trusting the spread"
            ));
        }
        let count = lost.iter().filter(|lost| **lost).count();
        if count > 0 {
            self.warnings.push(format!(
                "{count} of {} chains fit much worse than the others and are part of the samples",
                lost.len()
            ));
        }
    }
}

/// Chi-square by data product and the log likelihood of every sample `[S, Z, Y, X]`.
fn fit(problem: &Problem, samples: &Tensor) -> Result<(BTreeMap<String, Fit>, Vec<f64>)> {
    let mut per_sample = vec![Vec::new(); problem.likelihoods.len()];
    let mut log_likelihood = Vec::new();
    let count = samples.dim(0)?;
    for start in (0..count).step_by(BATCH) {
        let predicted = problem.predict(&samples.narrow(0, start, BATCH.min(count - start))?)?;
        let mut total = vec![0.0; predicted.dim(0)?];
        for (likelihood, values) in problem.likelihoods.iter().zip(&mut per_sample) {
            values.extend(to_host(&likelihood.chi2(&predicted)?)?);
            for (total, value) in total.iter_mut().zip(to_host(&likelihood.log_prob(&predicted)?)?) {
                *total += value;
            }
        }
        log_likelihood.extend(total);
    }
    let named = problem.likelihoods.iter().zip(per_sample).map(|(likelihood, per_sample)| {
        let mean = per_sample.iter().sum::<f64>() / per_sample.len() as f64;
        (likelihood.name().to_string(), Fit { count: likelihood.count(), mean, per_sample })
    });
    Ok((named.collect(), log_likelihood))
}

/// Which chains fit much worse than the others: mean log likelihood more than [`LOST`] sqrt(M/2) nats (and 8)
/// below the median of the better half.
fn lost(problem: &Problem, log_likelihood: &[Vec<f64>]) -> Vec<bool> {
    let means: Vec<f64> =
        log_likelihood.iter().map(|chain| chain.iter().sum::<f64>() / chain.len() as f64).collect();
    below_better_half(&means, margin(problem, LOST))
}

/// `threshold` times the scatter of a log likelihood within one mode, sqrt(M/2) nats for M data, and at least 8 nats:
/// with few data the log likelihood has long tails that belong to the posterior.
pub(crate) fn margin(problem: &Problem, threshold: f64) -> f64 {
    let data: usize = problem.likelihoods.iter().map(|likelihood| likelihood.count()).sum();
    (threshold * (data as f64 / 2.0).sqrt()).max(LEAST_MARGIN)
}

/// Which values lie more than `margin` below the median of their better half.
pub(crate) fn below_better_half(values: &[f64], margin: f64) -> Vec<bool> {
    let border = better_half(values) - margin;
    values.iter().map(|value| *value < border).collect()
}

/// Median of the better half of `values`.
pub(crate) fn better_half(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted.truncate(values.len().div_ceil(2));
    quantile(&mut sorted, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_values_lie_below_the_better_half() {
        let lost = |values: &[f64]| below_better_half(values, 20.0);
        assert_eq!(lost(&[-10.0, -12.0, -50.0, -11.0]), [false, false, true, false]);
        assert_eq!(lost(&[-10.0]), [false]);
        // Even if most chains are lost, the better half decides.
        assert_eq!(lost(&[-10.0, -90.0, -12.0, -90.0, -90.0]), [false, true, false, true, true]);
    }

    /// The names of the contract, and null for what is missing.
    #[test]
    fn json_has_the_layout_of_the_contract() {
        let json = serde_json::to_value(Diagnostics::default()).unwrap();
        let names: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "samples",
            "chains",
            "rhat_max",
            "ess_bulk_min",
            "ess_tail_min",
            "kl_bound",
            "chi2",
            "features",
            "modes",
            "occupancy",
            "held_out",
            "out_of_distribution",
            "truth",
            "calibrated",
            "warnings",
        ];
        assert_eq!(names, expected);
        assert!(json["rhat_max"].is_null() && json["truth"]["coverage_68"].is_null());
    }
}
