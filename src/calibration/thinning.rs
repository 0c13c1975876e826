//! How many of the draws of a set-up are as good as independent.

use super::record::Replicate;
use crate::{posterior::chains::ess_bulk, quantile::quantile};

/// Number of draws of a replicate that ranks are taken among.
///
/// Correlated draws lie in clumps, and a truth lies too often outside of all clumps. For every functional the median of
/// the effective sample size over the replicates is taken, and of these medians the smallest, because that of a single
/// replicate with short chains is noisy. Chains too short to tell (below 4 draws) are taken for one draw each, as many as the
/// median replicate has. Replicates with fewer draws than that give all of theirs.
pub fn effective(replicates: &[&Replicate]) -> usize {
    let functionals = replicates.first().map_or(0, |replicate| replicate.functionals.len());
    let median = |functional: usize| {
        let sizes = replicates.iter().map(|replicate| size(replicate, functional));
        let mut sizes: Vec<f64> = sizes.filter(|size| size.is_finite()).collect();
        quantile(&mut sizes, 0.5)
    };
    let smallest = (0..functionals).map(median).filter(|size| size.is_finite()).fold(f64::INFINITY, f64::min);
    let drawn = replicates.iter().map(|replicate| replicate.chain.len()).max().unwrap_or(0);
    let mut chains: Vec<f64> = replicates.iter().map(|replicate| replicate.chains() as f64).collect();
    let independent = if smallest.is_finite() { smallest } else { quantile(&mut chains, 0.5) };
    if drawn > 0 { (independent as usize).clamp(1, drawn) } else { 0 }
}

/// Effective sample size of one functional; NaN where draws are constant or missing.
fn size(replicate: &Replicate, functional: usize) -> f64 {
    let values = &replicate.draws[functional];
    let mut chains: Vec<Vec<f64>> = Vec::new();
    let mut last = None;
    for (chain, value) in replicate.chain.iter().zip(values) {
        let Some(value) = value else { return f64::NAN };
        if last != Some(chain) {
            chains.push(Vec::new());
        }
        last = Some(chain);
        if let Some(chain) = chains.last_mut() {
            chain.push(f64::from(*value));
        }
    }
    ess_bulk(&chains)
}

/// `count` of `drawn` draws, as evenly spaced as they come.
pub fn kept(drawn: usize, count: usize) -> Vec<usize> {
    let count = count.clamp(1, drawn.max(1));
    (0..count).map(|i| (i + 1) * drawn / count).filter_map(|end| end.checked_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        calibration::{Functional, Kind},
        rng::Rng,
    };

    fn replicate(correlation: f64, seed: u64) -> Replicate {
        let mut rng = Rng::new(seed);
        let mut value = 0.0;
        let draws = (0..400).map(|step| {
            let keep = if step % 100 == 0 { 0.0 } else { correlation };
            value = keep * value + (1.0_f64 - keep * keep).sqrt() * rng.normal();
            Some(value as f32)
        });
        Replicate {
            functionals: vec![Functional::new("a", Kind::Scalar)],
            truth: vec![Some(0.0)],
            draws: vec![draws.collect()],
            reference: vec![None],
            chain: (0..400).map(|step| step / 100).collect(),
        }
    }

    /// An autoregressive chain of correlation 0.8 has (1 - 0.8) / (1 + 0.8) effective draws for each.
    #[test]
    fn correlated_draws_are_thinned_by_their_correlation() {
        for (correlation, exact) in [(0.0, 400.0), (0.8, 44.0)] {
            let replicates: Vec<Replicate> = (0..30).map(|seed| replicate(correlation, seed)).collect();
            let found = effective(&replicates.iter().collect::<Vec<_>>());
            assert!((found as f64 / exact - 1.0).abs() < 0.25, "{correlation}: {found}");
        }
    }

    #[test]
    fn chains_too_short_to_tell_leave_one_draw_each() {
        let mut short = replicate(0.0, 1);
        short.draws[0].truncate(9);
        short.chain = [0, 0, 0, 1, 1, 1, 2, 2, 2].to_vec();
        assert_eq!(effective(&[&short]), 3);
        assert_eq!(kept(9, 3), [2, 5, 8]);
        assert_eq!(kept(2, 5), [0, 1]);
    }
}
