//! Conformal scaling: by how much draws must be spread about their mean until intervals hold as many truths as they claim.
//!
//! Source: Vovk, Gammerman & Shafer 2005, "Algorithmic Learning in a Random World" (split conformal prediction). It mends the
//! width of intervals, not their shape, and no correlations.

use ndarray::{Array3, Array4, Axis, RemoveAxis};
use serde::{Deserialize, Serialize};

use super::{case::Case, coverage::MASSES};
use crate::quantile::quantile;

/// Factors for one functional.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// Mass of the intervals.
    pub mass: f64,
    /// Factor about the mean: above 1 the raw intervals are too narrow. None if too few replicates tell one.
    pub factor: Option<f64>,
    /// Coverage of the scaled intervals on replicates that the factor was not learned from: each half by the other's.
    pub held_out: Option<f64>,
}

/// Scalings for the judged masses.
pub fn scalings(cases: &[Case]) -> Vec<Scaling> {
    MASSES.map(|mass| scaling(cases, mass)).to_vec()
}

fn scaling(cases: &[Case], mass: f64) -> Scaling {
    let scores: Vec<f64> = cases.iter().filter_map(|case| needed(case, mass)).collect();
    let half = |rest: usize| scores.iter().copied().skip(rest).step_by(2).collect::<Vec<f64>>();
    let halves = [half(0), half(1)];
    let covered = |learn: &[f64], test: &[f64]| {
        let factor = factor(learn, mass)?;
        Some(test.iter().filter(|score| **score <= factor).count() as f64)
    };
    let held_out = covered(&halves[0], &halves[1])
        .zip(covered(&halves[1], &halves[0]))
        .map(|(a, b)| (a + b) / scores.len() as f64);
    Scaling { mass, factor: factor(&scores, mass), held_out }
}

/// Factor about the mean at which the interval of `mass` just holds the truth.
fn needed(case: &Case, mass: f64) -> Option<f64> {
    let mean = case.mean();
    let side = if case.truth >= mean { 0.5 + 0.5 * mass } else { 0.5 - 0.5 * mass };
    let reach = (quantile(&mut case.draws.clone(), side) - mean).abs();
    (reach > 0.0).then(|| (case.truth - mean).abs() / reach)
}

/// The ceil((n + 1) mass)-th smallest of n scores; none if there are not as many.
fn factor(scores: &[f64], mass: f64) -> Option<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = ((sorted.len() + 1) as f64 * mass).ceil() as usize;
    sorted.get(place.checked_sub(1)?).copied()
}

/// Samples `[S, Z, Y, X]` after scaling by `factor` about their mean, pixel by pixel.
pub fn scaled(samples: &Array4<f32>, factor: f64) -> Array4<f32> {
    let mean = samples.mapv(f64::from).mean_axis(Axis(0));
    let mean = mean.unwrap_or_else(|| Array3::zeros(samples.raw_dim().remove_axis(Axis(0))));
    let mut scaled = samples.clone();
    for mut sample in scaled.outer_iter_mut() {
        sample
            .zip_mut_with(&mean, |value, mean| *value = (mean + factor * (f64::from(*value) - mean)) as f32);
    }
    scaled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn narrow_draws_are_widened_by_what_they_lack() {
        let mut rng = Rng::new(9);
        let mut case = || {
            let draws = (0..400).map(|_| 0.5 * rng.normal()).collect();
            Case { replicate: 0, truth: rng.normal(), draws }
        };
        let cases: Vec<Case> = (0..2000).map(|_| case()).collect();
        for scaling in scalings(&cases) {
            assert!((scaling.factor.unwrap() - 2.0).abs() < 0.12, "{scaling:?}");
            assert!((scaling.held_out.unwrap() - scaling.mass).abs() < 0.02, "{scaling:?}");
        }
        assert_eq!(scalings(&cases[..5])[1].factor, None, "five replicates do not tell a 95 % interval");
    }

    #[test]
    fn scaling_keeps_the_mean() {
        let samples = Array4::from_shape_vec((3, 1, 1, 2), vec![1.0, 0.0, 2.0, 0.0, 6.0, 3.0]).unwrap();
        let scaled: Vec<f32> = scaled(&samples, 2.0).into_iter().collect();
        assert_eq!(scaled, [-1.0, -1.0, 1.0, -1.0, 9.0, 5.0]);
    }
}
