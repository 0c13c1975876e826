//! How often central intervals hold the truth, and how often they may by chance.

use serde::{Deserialize, Serialize};

use super::binomial::{band, cumulative, two_sided};

/// Masses of the intervals that are judged.
pub const MASSES: [f64; 2] = [0.68, 0.95];
/// Probability with which a count of the right probability leaves its band.
const ALPHA: f64 = 0.05;

/// Coverage of the central intervals of one mass.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Mass that the intervals claim.
    pub mass: f64,
    /// Fraction of truths inside.
    pub inside: f64,
    /// Fractions between which intervals of the claimed mass lie with 95 % probability.
    pub band: [f64; 2],
    /// Two-sided probability of a count as far from the claimed one.
    pub p: f64,
}

impl Coverage {
    /// Of truths at `positions` (0 to 1) among their draws; each is one trial.
    ///
    /// The interval between the quantiles (1 - mass) / 2 and (1 + mass) / 2 holds a truth whose position lies between them,
    /// so that a finite number of draws makes it neither wider nor narrower.
    pub fn of(positions: &[f64], mass: f64) -> Self {
        let (count, inside) = (positions.len(), count_inside(positions, mass));
        let table = cumulative(count, mass);
        let fraction = |k: usize| k as f64 / count.max(1) as f64;
        Self {
            mass,
            inside: fraction(inside),
            band: band(&table, ALPHA).map(fraction),
            p: two_sided(&table, inside),
        }
    }

    /// Of several truths in each replicate, which are not independent: replicates are the trials, and the band is that of
    /// the mean of their fractions, from their scatter.
    pub fn of_groups(groups: &[Vec<f64>], mass: f64) -> Option<Self> {
        let fractions: Vec<f64> = groups
            .iter()
            .filter(|group| !group.is_empty())
            .map(|group| count_inside(group, mass) as f64 / group.len() as f64)
            .collect();
        let count = fractions.len() as f64;
        if fractions.len() < 2 {
            return None;
        }
        let inside = fractions.iter().sum::<f64>() / count;
        let variance = fractions.iter().map(|f| (f - inside).powi(2)).sum::<f64>() / (count - 1.0);
        // Replicates that all agree still leave the error of a binomial count of one truth each.
        let error = (variance / count).sqrt().max(1.0 / count);
        let p = libm::erfc((inside - mass).abs() / error / std::f64::consts::SQRT_2);
        let reach = 1.96 * error;
        Some(Self { mass, inside, band: [(mass - reach).max(0.0), (mass + reach).min(1.0)], p })
    }

    /// The fraction lies inside its band.
    pub fn agrees(&self) -> bool {
        (self.band[0]..=self.band[1]).contains(&self.inside)
    }
}

fn count_inside(positions: &[f64], mass: f64) -> usize {
    positions.iter().filter(|position| (2.0 * (**position - 0.5)).abs() <= mass).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn uniform_positions_are_covered_as_claimed() {
        let positions: Vec<f64> = (0..200).map(|k| (k as f64 + 0.5) / 200.0).collect();
        for mass in MASSES {
            let found = Coverage::of(&positions, mass);
            assert!((found.inside - mass).abs() < 1e-9 && found.agrees() && found.p > 0.9, "{found:?}");
        }
        // scipy.stats.binom.ppf([0.025, 0.975], 200, 0.68) is 123, 149.
        assert_eq!(Coverage::of(&positions, 0.68).band, [0.615, 0.745]);
        let narrow: Vec<f64> = positions.iter().map(|u| 0.5 + 1.3 * (u - 0.5)).collect();
        assert!(!Coverage::of(&narrow, 0.68).agrees());
    }

    /// Ten equal truths in each replicate are worth one.
    #[test]
    fn groups_count_as_one_replicate_each() {
        let mut rng = Rng::new(4);
        let groups: Vec<Vec<f64>> = (0..100).map(|_| vec![rng.uniform(); 10]).collect();
        let grouped = Coverage::of_groups(&groups, 0.68).unwrap();
        let single = Coverage::of(&groups.iter().map(|g| g[0]).collect::<Vec<_>>(), 0.68);
        assert!((grouped.inside - single.inside).abs() < 1e-12);
        let width = |c: &Coverage| c.band[1] - c.band[0];
        assert!((width(&grouped) / width(&single) - 1.0).abs() < 0.15, "{grouped:?} {single:?}");
        assert!(Coverage::of_groups(&[], 0.68).is_none());
    }
}
