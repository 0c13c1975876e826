//! Where a truth lies among posterior draws: the rank of simulation-based calibration.
//!
//! Source: Talts, Betancourt, Simpson, Vehtari & Gelman 2018, "Validating Bayesian inference algorithms with
//! simulation-based calibration".

use crate::rng::Rng;

/// Position of `truth` among `draws` on 0 to 1: (rank + v) / (L + 1) with v uniform, and ties in random order.
///
/// If truth and draws are exchangeable given the data it is uniform, for every number L of draws and for every functional,
/// also a discrete one.
pub fn position(truth: f64, draws: &[f64], rng: &mut Rng) -> f64 {
    let below = draws.iter().filter(|draw| **draw < truth).count() as f64;
    let equal = draws.iter().filter(|draw| **draw == truth).count() as f64;
    (below + (equal + 1.0) * rng.uniform()) / (draws.len() as f64 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_count_the_draws_below() {
        let mut rng = Rng::new(1);
        for (truth, rank) in [(-1.0, 0.0), (1.5, 2.0), (9.0, 4.0)] {
            let position = position(truth, &[0.0, 1.0, 2.0, 3.0], &mut rng);
            assert!((rank..=rank + 1.0).contains(&(5.0 * position)), "{truth}: {position}");
        }
    }

    /// A functional that is always 0 says nothing, and its ranks are uniform.
    #[test]
    fn ties_are_broken_at_random() {
        let mut rng = Rng::new(2);
        let mean = (0..2000).map(|_| position(0.0, &[0.0; 9], &mut rng)).sum::<f64>() / 2000.0;
        assert!((mean - 0.5).abs() < 0.03, "{mean}");
    }
}
