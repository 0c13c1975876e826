//! Scores of draws against the truth: what a calibrated posterior must reach on average.

use serde::{Deserialize, Serialize};

use super::case::Case;
use crate::posterior::truth::crps;

/// A mean score and what it would be if truths were draws of their posteriors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Mean over replicates.
    pub mean: f64,
    /// Half the mean distance between two draws.
    pub expected: f64,
}

/// Fair continuous ranked probability score: mean |x - t| - mean |x - x'| / 2; nothing without two draws.
pub fn continuous_ranked(cases: &[Case]) -> Option<Score> {
    let scores = cases.iter().filter(|case| case.draws.len() > 1).map(|case| {
        let mut sorted = case.draws.clone();
        sorted.sort_by(f64::total_cmp);
        let distance = sorted.iter().map(|draw| (draw - case.truth).abs()).sum::<f64>() / sorted.len() as f64;
        let score = crps(&sorted, case.truth);
        Score { mean: score, expected: distance - score }
    });
    mean(scores)
}

/// Energy score of feature vectors, E|X - t| - E|X - X'| / 2 (Gneiting & Raftery 2007, eq. 22), of each truth with its draws.
pub fn energy(cases: &[(Vec<f64>, Vec<Vec<f64>>)]) -> Option<Score> {
    let scores = cases.iter().filter(|(_, draws)| draws.len() > 1).map(|(truth, draws)| {
        let to_truth = draws.iter().map(|draw| distance(draw, truth)).sum::<f64>() / draws.len() as f64;
        let pairs = draws.iter().enumerate().flat_map(|(i, a)| draws[..i].iter().map(|b| distance(a, b)));
        let half = pairs.sum::<f64>() / (draws.len() * (draws.len() - 1)) as f64;
        Score { mean: to_truth - half, expected: half }
    });
    mean(scores)
}

/// Euclidean distance.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

fn mean(scores: impl Iterator<Item = Score>) -> Option<Score> {
    let (mut sum, mut count) = (Score::default(), 0.0);
    for score in scores {
        sum.mean += score.mean;
        sum.expected += score.expected;
        count += 1.0;
    }
    (count > 0.0).then(|| Score { mean: sum.mean / count, expected: sum.expected / count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// CRPS of N(0, 1) over its own draws is 1/sqrt(pi); the energy score in 3 dimensions half the mean distance
    /// of two draws, which is 2 sqrt(2) / sqrt(2 pi) sqrt(2).
    #[test]
    fn scores_of_normal_draws() {
        let mut rng = Rng::new(6);
        let (mut cases, mut vectors) = (Vec::new(), Vec::new());
        for _ in 0..2000 {
            let draws = (0..20).map(|_| rng.normal()).collect();
            cases.push(Case { replicate: 0, truth: rng.normal(), draws });
            let mut vector = || (0..3).map(|_| rng.normal()).collect::<Vec<f64>>();
            vectors.push((vector(), (0..20).map(|_| vector()).collect()));
        }
        let exact = std::f64::consts::PI.powf(-0.5);
        let found = continuous_ranked(&cases).unwrap();
        assert!((found.mean - exact).abs() < 0.03 && (found.expected - exact).abs() < 0.01, "{found:?}");
        let exact = 2.0 * exact;
        let found = energy(&vectors).unwrap();
        assert!((found.mean - exact).abs() < 0.03 && (found.expected - exact).abs() < 0.02, "{found:?}");
        assert!(energy(&[]).is_none());
    }
}
