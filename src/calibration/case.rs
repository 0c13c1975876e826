//! One functional through all replicates: truths and draws as numbers that can be ranked.

use super::{
    record::{Kind, Replicate},
    thinning::kept,
};
use crate::posterior::truth::ON_SOURCE;

/// A truth with the draws of its posterior.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Index of the replicate.
    pub replicate: usize,
    /// Value of the truth.
    pub truth: f64,
    /// Values of the draws.
    pub draws: Vec<f64>,
}

impl Case {
    /// Mean of the draws.
    pub fn mean(&self) -> f64 {
        self.draws.iter().sum::<f64>() / self.draws.len().max(1) as f64
    }
}

/// The cases of a functional, among `count` draws of each replicate.
///
/// A truth without a value gives no case, and draws without one are left out: given that the truth has a value, its rank
/// among those that have one is uniform. Angles become offsets from the circular mean of truth and draws, pixels count
/// where their mean over truth and draws exceeds a tenth of that of the brightest pixel: neither tells the truth from a draw.
pub fn cases(replicates: &[&Replicate], functional: usize, count: usize) -> Vec<Case> {
    let case = |(index, replicate): (usize, &&Replicate)| {
        let kind = replicate.functionals.get(functional)?.kind;
        if kind == Kind::Pixel && !is_on_source(replicate, functional) {
            return None;
        }
        let truth = f64::from(replicate.truth[functional]?);
        let draws = &replicate.draws[functional];
        let draws: Vec<f64> =
            kept(draws.len(), count).into_iter().filter_map(|i| draws[i]).map(f64::from).collect();
        let case = Case { replicate: index, truth, draws };
        (!case.draws.is_empty()).then(|| if kind == Kind::Angle { around(case) } else { case })
    };
    replicates.iter().enumerate().filter_map(case).collect()
}

fn is_on_source(replicate: &Replicate, functional: usize) -> bool {
    let level = |i: usize| {
        let values = replicate.draws[i].iter().chain([&replicate.truth[i]]).flatten();
        let (sum, count) = values.fold((0.0, 0.0), |(sum, count), v| (sum + f64::from(*v), count + 1.0));
        sum / count
    };
    let pixels = replicate.functionals.iter().enumerate().filter(|(_, f)| f.kind == Kind::Pixel);
    let brightest = pixels.map(|(i, _)| level(i)).fold(f64::NEG_INFINITY, f64::max);
    level(functional) > ON_SOURCE * brightest
}

/// Degrees as offsets from their circular mean, -180 to 180.
fn around(case: Case) -> Case {
    let angles = || case.draws.iter().chain([&case.truth]).map(|angle| angle.to_radians());
    let (sine, cosine) = angles().fold((0.0, 0.0), |(s, c), a| (s + a.sin(), c + a.cos()));
    let centre = sine.atan2(cosine).to_degrees();
    let offset = |angle: f64| (angle - centre + 180.0).rem_euclid(360.0) - 180.0;
    Case { truth: offset(case.truth), draws: case.draws.iter().map(|angle| offset(*angle)).collect(), ..case }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::Functional;

    fn replicate(kind: Kind, truth: Option<f32>, draws: &[Option<f32>]) -> Replicate {
        Replicate {
            functionals: vec![Functional::new("a", kind), Functional::new("b", Kind::Pixel)],
            truth: vec![truth, Some(10.0)],
            draws: vec![draws.to_vec(), vec![Some(10.0); draws.len()]],
            reference: vec![None, None],
            chain: vec![0; draws.len()],
        }
    }

    #[test]
    fn angles_are_compared_around_the_circle() {
        let one = replicate(Kind::Angle, Some(359.0), &[Some(1.0), Some(357.0)]);
        let cases = cases(&[&one], 0, 2);
        let ordered = [cases[0].draws[1], cases[0].truth, cases[0].draws[0]];
        for (found, exact) in ordered.into_iter().zip([-2.0, 0.0, 2.0]) {
            assert!((found - exact).abs() < 1e-4, "{cases:?}");
        }
    }

    #[test]
    fn missing_values_and_dark_pixels_give_no_case() {
        let missing = replicate(Kind::Scalar, None, &[Some(1.0)]);
        let partly = replicate(Kind::Scalar, Some(2.0), &[None, Some(1.0)]);
        let found = cases(&[&missing, &partly], 0, 2);
        assert_eq!(found, [Case { replicate: 1, truth: 2.0, draws: vec![1.0] }]);
        let dark = replicate(Kind::Pixel, Some(0.4), &[Some(0.8), Some(0.3)]);
        let bright = replicate(Kind::Pixel, Some(3.0), &[Some(0.8), Some(0.3)]);
        assert_eq!(cases(&[&dark, &bright], 0, 2).len(), 1);
    }
}
