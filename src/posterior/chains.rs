//! Convergence of Markov chains: rank-normalised split R-hat and effective sample sizes (Vehtari et al. 2021,
//! "Rank-normalization, folding, and localization: an improved R-hat").
//!
//! All functions take one scalar functional as chains of successive draws, of any length: those of fewer than 4 draws
//! are left out, and the variances between and within chains are those of a one-way layout with unequal groups, which
//! for equally long chains are the published ones. They return NaN where no chain is left or draws are constant.

use rustfft::num_complex::Complex64;

use crate::{quantile::quantile, tensor::fft::Fft2};

type Chains = [Vec<f64>];

/// R-hat: the larger of the values of the rank-normalised draws and of their folded distances from the median.
pub fn rhat(chains: &Chains) -> f64 {
    split(chains).map_or(f64::NAN, |halves| folded_rhat(&halves))
}

/// The same of groups without an order, which are not split: the draws that all chains made at the same time.
pub fn rhat_of_groups(groups: &Chains) -> f64 {
    let groups: Vec<Vec<f64>> = groups.iter().filter(|group| group.len() >= LEAST).cloned().collect();
    let usable = groups.len() > 1 && groups.iter().flatten().all(|v| v.is_finite());
    if usable { folded_rhat(&groups) } else { f64::NAN }
}

fn folded_rhat(chains: &Chains) -> f64 {
    let middle = quantile(&mut chains.concat(), 0.5);
    let folded: Vec<Vec<f64>> =
        chains.iter().map(|chain| chain.iter().map(|v| (v - middle).abs()).collect()).collect();
    plain_rhat(&normal_scores(chains)).max(plain_rhat(&normal_scores(&folded)))
}

/// Effective sample size for the centre of the distribution.
pub fn ess_bulk(chains: &Chains) -> f64 {
    split(chains).map_or(f64::NAN, |halves| ess(&normal_scores(&halves)))
}

/// Effective sample size for the 5 % and 95 % quantiles: the smaller of the two.
pub fn ess_tail(chains: &Chains) -> f64 {
    let Some(halves) = split(chains) else { return f64::NAN };
    let below = |probability: f64| {
        let limit = quantile(&mut halves.concat(), probability);
        let indicators = |chain: &Vec<f64>| chain.iter().map(|v| f64::from(u8::from(*v <= limit))).collect();
        ess(&halves.iter().map(indicators).collect::<Vec<_>>())
    };
    below(0.05).min(below(0.95))
}

/// Draws of a chain that counts.
const LEAST: usize = 4;

/// First and last half of every chain that counts.
fn split(chains: &Chains) -> Option<Vec<Vec<f64>>> {
    if chains.iter().flatten().any(|v| !v.is_finite()) {
        return None;
    }
    let halves = |c: &Vec<f64>| [c[..c.len() / 2].to_vec(), c[c.len().div_ceil(2)..].to_vec()];
    let halves: Vec<Vec<f64>> = chains.iter().filter(|chain| chain.len() >= LEAST).flat_map(halves).collect();
    (!halves.is_empty()).then_some(halves)
}

/// Normal quantiles of the fractional ranks (r - 3/8) / (S + 1/4) over all chains; ties share their mean rank.
fn normal_scores(chains: &Chains) -> Vec<Vec<f64>> {
    let values = chains.concat();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut scores = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let ties = order[start..].iter().take_while(|&&i| values[i] == values[order[start]]).count();
        let rank = start as f64 + (ties as f64 + 1.0) / 2.0;
        for &i in &order[start..start + ties] {
            scores[i] = normal_quantile((rank - 0.375) / (values.len() as f64 + 0.25));
        }
        start += ties;
    }
    let mut rest = scores.into_iter();
    chains.iter().map(|chain| rest.by_ref().take(chain.len()).collect()).collect()
}

/// Inverse of the standard normal distribution function (Acklam's rational approximation, relative error 1.2e-9).
fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 6] = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 5] =
        [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416, 1.0];
    let polynomial = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, c| sum * x + c);
    if p < 0.02425 {
        let q = (-2.0 * p.ln()).sqrt();
        polynomial(&C, q) / polynomial(&D, q)
    } else if p <= 0.97575 {
        let q = p - 0.5;
        q * polynomial(&A, q * q) / polynomial(&B, q * q)
    } else {
        -normal_quantile(1.0 - p)
    }
}

/// Mean of all values; zero of none.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Unbiased variance of at least two values.
pub(crate) fn variance(values: &[f64]) -> f64 {
    let centre = mean(values);
    values.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)
}

/// Variance within chains, and the pooled estimate of the marginal variance: one-way analysis of variance with the
/// effective group size (N - sum n_i^2 / N) / (k - 1) of k unequal groups.
fn variances(chains: &Chains) -> (f64, f64) {
    let (groups, total) = (chains.len() as f64, chains.iter().map(Vec::len).sum::<usize>() as f64);
    let sum = |term: &dyn Fn(&[f64]) -> f64| chains.iter().map(|chain| term(chain)).sum::<f64>();
    let centre = sum(&|chain| chain.iter().sum()) / total;
    let squares = |chain: &[f64], centre: f64| chain.iter().map(|v| (v - centre).powi(2)).sum::<f64>();
    let size = (total - sum(&|chain| (chain.len() as f64).powi(2)) / total) / (groups - 1.0);
    let within = sum(&|chain| squares(chain, mean(chain))) / (total - groups);
    let between = sum(&|chain| chain.len() as f64 * (mean(chain) - centre).powi(2)) / (groups - 1.0) / size;
    (within, within * (size - 1.0) / size + between)
}

/// Square root of the ratio of pooled to within-chain variance.
fn plain_rhat(chains: &Chains) -> f64 {
    let (within, pooled) = variances(chains);
    (pooled / within).sqrt()
}

/// Effective sample size by Geyer's initial monotone sequence over the chains' averaged autocorrelation.
fn ess(chains: &Chains) -> f64 {
    let length = chains.iter().map(Vec::len).max().unwrap_or(0);
    let total = chains.iter().map(Vec::len).sum::<usize>() as f64;
    let (within, pooled) = variances(chains);
    let covariance: Vec<Vec<f64>> = chains.iter().map(|chain| autocovariance(chain)).collect();
    let correlation = |lag: usize| {
        let summed = |c: &Vec<f64>| c.len() as f64 * c.get(lag).copied().unwrap_or(0.0);
        let at_lag = covariance.iter().map(summed).sum::<f64>() / total;
        if lag == 0 { 1.0 } else { 1.0 - (within - at_lag) / pooled }
    };
    // Sums of neighbouring pairs are positive and fall with the lag; of the first that is not, a positive first
    // member counts once.
    let (mut time, mut last) = (-1.0, f64::INFINITY);
    for lag in (0..length.saturating_sub(1)).step_by(2) {
        let (first, second) = (correlation(lag), correlation(lag + 1));
        if first + second > 0.0 {
            last = last.min(first + second);
            time += 2.0 * last;
        } else {
            time += first.max(0.0);
            break;
        }
    }
    if pooled > 0.0 { total / time.max(1.0 / total.log10()) } else { f64::NAN }
}

/// Autocovariance at all lags with divisor n, through a zero-padded Fourier transform.
fn autocovariance(chain: &[f64]) -> Vec<f64> {
    let (centre, padded) = (mean(chain), (2 * chain.len()).next_power_of_two());
    let plan = Fft2::new([1, padded]);
    let mut modes = vec![Complex64::ZERO; padded];
    for (mode, value) in modes.iter_mut().zip(chain) {
        mode.re = value - centre;
    }
    plan.forward(&mut modes);
    for mode in &mut modes {
        *mode = Complex64::new(mode.norm_sqr() * (padded as f64).sqrt(), 0.0);
    }
    plan.inverse(&mut modes);
    modes[..chain.len()].iter().map(|mode| mode.re / chain.len() as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Stationary first-order autoregressive chains with unit variance around `offset` times the chain's index.
    fn autoregressive(chains: usize, length: usize, correlation: f64, offset: f64) -> Vec<Vec<f64>> {
        let mut rng = Rng::new(17);
        let mut chain = |index: usize| {
            let mut value = rng.normal();
            (0..length)
                .map(|_| {
                    value = correlation * value + (1.0 - correlation * correlation).sqrt() * rng.normal();
                    value + offset * index as f64
                })
                .collect()
        };
        (0..chains).map(&mut chain).collect()
    }

    /// The mean of an AR(1) series with correlation c has effective size n (1 - c) / (1 + c).
    #[test]
    fn effective_size_of_autoregressive_chains() {
        for correlation in [0.0, 0.5, 0.9, -0.3] {
            let chains = autoregressive(8, 4000, correlation, 0.0);
            let exact = 32000.0 * (1.0 - correlation) / (1.0 + correlation);
            let found = ess_bulk(&chains);
            assert!((found / exact - 1.0).abs() < 0.12, "correlation {correlation}: {found}, exact {exact}");
            assert!(rhat(&chains) < 1.01, "{}", rhat(&chains));
        }
    }

    /// Two unit-variance groups of chains 2 apart: pooled variance 1 + 1 (m/(m-1)) over 1.
    #[test]
    fn chains_in_different_places_are_found() {
        let mut chains = autoregressive(8, 2000, 0.0, 0.0);
        for chain in &mut chains[..4] {
            chain.iter_mut().for_each(|v| *v += 2.0);
        }
        let halves = split(&chains).unwrap();
        assert!((plain_rhat(&halves) - (1.0f64 + 16.0 / 15.0).sqrt()).abs() < 0.02);
        assert!(rhat(&chains) > 1.3);
        assert!(ess_bulk(&chains) < 30.0);
        // Same centre, different widths: only the folded draws differ.
        let mut widths = autoregressive(8, 2000, 0.0, 0.0);
        for chain in &mut widths[..4] {
            chain.iter_mut().for_each(|v| *v *= 4.0);
        }
        let halves = split(&widths).unwrap();
        assert!(plain_rhat(&normal_scores(&halves)) < 1.02 && rhat(&widths) > 1.2);
    }

    /// The values of ArviZ 0.17 (`rhat`, `ess` bulk and tail) on deterministic chains.
    #[test]
    fn agrees_with_arviz() {
        let value = |chain: usize, i: usize| {
            let (c, t) = (chain as f64, i as f64);
            (1.7 * t + c).sin() + (0.13 * t * t + 2.0 * c).cos() + 0.3 * (0.05 * t + c).sin() + 0.1 * c
        };
        let chains: Vec<Vec<f64>> = (0..4).map(|c| (0..100).map(|i| value(c, i)).collect()).collect();
        let found = [rhat(&chains), ess_bulk(&chains), ess_tail(&chains)];
        for (found, arviz) in
            found.into_iter().zip([1.01298197270309, 439.74823529891114, 413.35774301426466])
        {
            assert!((found / arviz - 1.0).abs() < 1e-6, "{found}, ArviZ {arviz}");
        }
    }

    #[test]
    fn too_few_or_constant_draws_give_no_number() {
        assert!(rhat(&[vec![1.0, 2.0, 3.0]]).is_nan());
        assert!(rhat(&[vec![1.0; 8], vec![1.0; 8]]).is_nan());
        assert!(ess_bulk(&[vec![1.0; 8], vec![1.0; 8]]).is_nan());
        assert!(ess_tail(&[]).is_nan());
    }

    #[test]
    fn normal_quantiles() {
        for (p, z) in [(0.5, 0.0), (0.975, 1.959963984540054), (0.001, -3.090232306167813)] {
            assert!((normal_quantile(p) - z).abs() < 1e-8);
        }
    }
}
