//! Tests of accuracy with random points (TARP): calibration of whole feature vectors.
//!
//! Source: Lemos, Coogan, Hezaveh & Perreault-Levasseur 2023, "Sampling-based accuracy testing of posterior estimators for
//! general inference". Reference points that do not depend on the data cannot tell a posterior from the prior.

use super::{energy::distance, rank::position};
use crate::rng::Rng;

/// One replicate: truth, draws and a reference point that may depend on the data but on neither of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Points {
    /// Features of the truth.
    pub truth: Vec<f64>,
    /// Features of the draws.
    pub draws: Vec<Vec<f64>>,
    /// Features of the reference point.
    pub reference: Vec<f64>,
}

impl Points {
    /// Position of the truth among the draws by distance from the reference, uniform on 0 to 1 if calibrated.
    pub fn position(&self, rng: &mut Rng) -> f64 {
        let from = |point: &Vec<f64>| distance(point, &self.reference);
        let draws: Vec<f64> = self.draws.iter().map(from).collect();
        position(from(&self.truth), &draws, rng)
    }
}

/// Credibility a against the fraction of truths inside the region of mass a, at the given values of a.
pub fn curve(positions: &[f64], masses: impl Iterator<Item = f64>) -> Vec<[f64; 2]> {
    let inside = |mass: f64| positions.iter().filter(|position| **position < mass).count() as f64;
    masses.map(|mass| [mass, inside(mass) / positions.len().max(1) as f64]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::uniformity::Uniformity;

    /// x ~ N(0, I), y = x + n with as much noise: the posterior is N(y/2, I/2). The reference is y.
    fn p_value(draw: impl Fn(f64, &mut Rng) -> f64, reference: impl Fn(f64, &mut Rng) -> f64) -> f64 {
        let mut rng = Rng::new(7);
        let positions: Vec<f64> = (0..200)
            .map(|_| {
                let truth: Vec<f64> = (0..3).map(|_| rng.normal()).collect();
                let data: Vec<f64> = truth.iter().map(|x| x + rng.normal()).collect();
                let draws = (0..99).map(|_| data.iter().map(|y| draw(*y, &mut rng)).collect()).collect();
                let reference = data.iter().map(|y| reference(*y, &mut rng)).collect();
                Points { truth, draws, reference }.position(&mut rng)
            })
            .collect();
        Uniformity::new(200, &mut Rng::new(8)).p_value(&positions)
    }

    #[test]
    fn exact_posteriors_pass_and_others_do_not() {
        let half = 0.5_f64.sqrt();
        let exact = |y: f64, rng: &mut Rng| 0.5 * y + half * rng.normal();
        let data = |y: f64, _: &mut Rng| y;
        assert!(p_value(exact, data) > 0.05);
        assert!(p_value(|y, rng| 0.5 * y + 0.6 * half * rng.normal(), data) < 0.001, "over-confident");
        assert!(p_value(|_, rng| rng.normal(), data) < 0.001, "prior");
        assert!(p_value(|_, rng| rng.normal(), |_, rng| rng.normal()) > 0.05, "blind without the data");
    }

    #[test]
    fn the_curve_counts_positions_below() {
        assert_eq!(
            curve(&[0.1, 0.4, 0.6, 0.9], [0.0, 0.5, 1.0].into_iter()),
            [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]
        );
    }
}
