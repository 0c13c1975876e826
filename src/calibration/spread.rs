//! Spread against skill: is the posterior's standard deviation the size of the mean's error?
//!
//! Source: Fortin, Abaza, Anctil & Turcotte 2014, "Why should ensemble spread match the RMSE of the ensemble mean?".

use serde::{Deserialize, Serialize};

use super::case::Case;

/// Replicates in a bin.
const PER_BIN: usize = 25;

/// Spread and skill of one functional.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Root of the mean of (L + 1) / L times the variance of L draws.
    pub spread: f64,
    /// Root-mean-square error of the mean of the draws.
    pub skill: f64,
    /// Spread over skill: 1 if calibrated, below if over-confident.
    pub ratio: Option<f64>,
    /// The same of replicates binned by their spread, `[spread, skill]`.
    pub bins: Vec<[f64; 2]>,
}

impl Spread {
    /// Of truths with their draws; those of fewer than 2 draws do not count.
    pub fn of(cases: &[Case]) -> Self {
        let mut squares: Vec<[f64; 2]> = cases.iter().filter_map(squares).collect();
        squares.sort_by(|a, b| a[0].total_cmp(&b[0]));
        let [spread, skill] = root_mean(&squares);
        let bins = (squares.len() / PER_BIN).clamp(1, 8);
        let size = squares.len().div_ceil(bins).max(1);
        Self {
            spread,
            skill,
            ratio: (skill > 0.0).then(|| spread / skill),
            bins: squares.chunks(size).map(root_mean).collect(),
        }
    }
}

/// Corrected variance of the draws and squared error of their mean.
fn squares(case: &Case) -> Option<[f64; 2]> {
    let count = case.draws.len() as f64;
    if case.draws.len() < 2 {
        return None;
    }
    let mean = case.mean();
    let variance = case.draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Some([(count + 1.0) / count * variance, (case.truth - mean).powi(2)])
}

fn root_mean(squares: &[[f64; 2]]) -> [f64; 2] {
    [0, 1].map(|k| (squares.iter().map(|pair| pair[k]).sum::<f64>() / squares.len().max(1) as f64).sqrt())
}

/// Spread over skill of several functionals together, each in units of its own spread and skill; none without error.
pub fn joint(functionals: &[&Spread]) -> Option<f64> {
    let (mut spread, mut skill) = (0.0, 0.0);
    for one in functionals {
        let total = one.spread.powi(2) + one.skill.powi(2);
        if total > 0.0 {
            spread += one.spread.powi(2) / total;
            skill += one.skill.powi(2) / total;
        }
    }
    (skill > 0.0).then(|| (spread / skill).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn cases(width: f64, draws: usize) -> Vec<Case> {
        let mut rng = Rng::new(5);
        let mut case = |scale: f64| {
            let truth = scale * rng.normal();
            Case { replicate: 0, truth, draws: (0..draws).map(|_| width * scale * rng.normal()).collect() }
        };
        (0..4000).map(|k| case(if k % 2 == 0 { 1.0 } else { 3.0 })).collect()
    }

    /// Also with so few draws that their mean has an error of its own.
    #[test]
    fn the_ratio_is_that_of_the_widths() {
        for (width, draws) in [(1.0, 200), (1.0, 4), (0.6, 200)] {
            let found = Spread::of(&cases(width, draws));
            assert!((found.ratio.unwrap() / width - 1.0).abs() < 0.05, "{width} {draws}: {found:?}");
            assert!((joint(&[&found, &found]).unwrap() - found.ratio.unwrap()).abs() < 1e-12);
        }
    }

    #[test]
    fn bins_follow_the_spread() {
        let found = Spread::of(&cases(1.0, 100));
        assert_eq!(found.bins.len(), 8);
        for [spread, skill] in &found.bins {
            assert!((skill / spread - 1.0).abs() < 0.15, "{:?}", found.bins);
        }
        assert!(found.bins[0][0] < 1.2 && found.bins[7][0] > 2.5);
        assert_eq!(Spread::of(&[]).ratio, None);
    }
}
