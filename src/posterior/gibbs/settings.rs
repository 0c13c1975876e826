//! Settings of split Gibbs sampling and the fall of its coupling.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, posterior::restart::Restart};

/// Settings of [`super::Gibbs`]. Levels are in units of the prior's standard deviation per pixel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GibbsSettings {
    /// Largest number of times that r falls. The run ends earlier, after a whole cycle, once it has enough draws.
    pub cycles: usize,
    /// Cycles after each that begins at the start images which only go back to `reheat_level`, from where the chains are that are left.
    /// Draws of cycles that begin anew are nearly independent, which those within a cycle are not.
    pub reheats: usize,
    /// First r of a reheated cycle.
    pub reheat_level: f64,
    /// Smallest r at which a reheated cycle balances what its noise does to data that are ratios or phases; the draws of cycles
    /// that begin anew are left out then. See [`crate::instrument::Likelihood::balanced`].
    pub balance_level: f64,
    /// Smallest r at which chains live on half as many pixels along each side, if the prior knows a coarser one: a round costs a
    /// quarter there. Without, they never do.
    pub coarse_level: Option<f64>,
    /// Rounds of a cycle in which the coupling r falls; see [`GibbsSettings::level`].
    pub anneal: usize,
    /// Share of these rounds after which ln r falls slowest. Where it does, modes part: early, at a large r, they do so while the prior
    /// still lets all of an image change.
    pub linger: f64,
    /// Rounds of a cycle at the final r; the first quarter is burn-in.
    pub rounds: usize,
    /// Draws kept of each chain in a cycle, evenly spaced over the rounds after burn-in.
    pub draws: usize,
    /// First r of a cycle: large enough for chains to forget where they start.
    pub start_level: f64,
    /// Final r, below what the data resolve: data noise grows by r in quadrature, chains move by about r a round.
    /// Scan-averaged closures of a bright source tell 1/40 from 1/80.
    pub final_level: f64,
    /// Denoiser evaluations of one draw of x given z.
    pub denoise: usize,
    /// Largest number of leapfrog steps of one trajectory.
    pub leaps: usize,
    /// Trajectories of the first round of a cycle; their number falls linearly to 1. Only a large r lets them pass from
    /// one solution of the data to another.
    pub trajectories: usize,
    /// Whether z moves by kinetic Langevin steps, `denoise` of them a round, in place of the two draws in all rounds of a cycle but its
    /// first. Not where z is drawn at once.
    pub kinetic: bool,
    /// Acceptance that the step sizes are adapted to, until burn-in ends.
    pub acceptance: f64,
    /// What becomes of chains in a wrong mode.
    pub restart: Restart,
}

impl Default for GibbsSettings {
    fn default() -> Self {
        Self {
            cycles: 96,
            reheats: 3,
            reheat_level: 3.0,
            balance_level: 0.25,
            coarse_level: None,
            anneal: 108,
            linger: 0.39,
            rounds: 4,
            draws: 1,
            start_level: 24.0,
            final_level: 0.012,
            denoise: 5,
            leaps: 128,
            trajectories: 4,
            kinetic: true,
            acceptance: 0.8,
            restart: Restart { level: 2.0, ..Restart::default() },
        }
    }
}

/// Where in its cycle a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Round of a whole fall.
    pub(super) round: usize,
    /// Whether it is the first of its cycle.
    pub(super) begins: bool,
    /// Whether the cycle goes on at `reheat_level` from where the last one's chains ended, or else begins at the start images.
    pub(super) reheated: bool,
}

/// Largest of the counts whose products are numbers of rounds.
const MOST: usize = 1_000_000;

/// How much slower than on average ln r falls where it lingers, and faster half a fall away from there.
const LINGER: f64 = 0.6;

impl GibbsSettings {
    /// Fraction of a cycle's fall that the given round has reached.
    fn time(&self, round: usize) -> f64 {
        if self.anneal == 0 { 1.0 } else { (round as f64 / self.anneal as f64).min(1.0) }
    }

    pub(super) fn trajectories_in(&self, round: usize) -> usize {
        1 + (self.trajectories.saturating_sub(1) as f64 * (1.0 - self.time(round))).round() as usize
    }

    /// Level of the given round of a cycle: a geometric fall that lingers.
    pub(super) fn level(&self, round: usize) -> f64 {
        let (time, late) = (self.time(round), TAU * (self.linger - 0.5));
        let fallen = time + LINGER * ((TAU * time - late).sin() + late.sin()) / TAU;
        self.start_level * (self.final_level / self.start_level).powf(fallen)
    }

    /// Whether chains live on the pixels of a coarser prior, if there is one, in the given round of a cycle. Draws never do.
    pub(super) fn is_coarse(&self, round: usize) -> bool {
        round < self.anneal && self.coarse_level.is_some_and(|smallest| self.level(round) >= smallest)
    }

    /// Whether the round after `finished` ones has no z to go on from: the first of a cycle, or of those on the pixels of another
    /// prior, if there is a `coarser` one.
    pub(super) fn is_fresh(&self, finished: usize, coarser: bool) -> bool {
        let Place { round, begins, .. } = self.place(finished);
        begins || coarser && self.is_coarse(round) != self.is_coarse(round - 1)
    }

    /// Rounds of a whole fall.
    pub(super) fn whole(&self) -> usize {
        self.anneal + self.rounds
    }

    /// Round of a whole fall at which a reheated one begins.
    fn reheated(&self) -> usize {
        (0..self.anneal).find(|&round| self.level(round) <= self.reheat_level).unwrap_or(self.anneal)
    }

    /// Rounds of all cycles.
    pub(super) fn steps(&self) -> usize {
        let whole = self.cycles.div_ceil(1 + self.reheats);
        whole * self.whole() + (self.cycles - whole) * (self.whole() - self.reheated())
    }

    /// Where the round after `finished` ones of all cycles is.
    pub(super) fn place(&self, finished: usize) -> Place {
        let (whole, reheated) = (self.whole(), self.reheated());
        let short = whole - reheated;
        let round = finished % (whole + self.reheats * short);
        match round.checked_sub(whole) {
            None => Place { round, begins: round == 0, reheated: false },
            Some(later) => {
                let later = later % short;
                Place { round: reheated + later, begins: later == 0, reheated: true }
            }
        }
    }

    /// Whether there are reheated cycles whose likelihood is to be balanced, where it can be.
    pub(super) fn balances(&self) -> bool {
        self.reheats.min(self.cycles - 1) > 0 && self.balance_level <= self.level(self.reheated())
    }

    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// The first wrong setting.
    pub(super) fn validate(&self) -> Result<()> {
        let wrong = |place: &str, problem: &str| Err(Error::config(place, problem));
        if self.cycles == 0 {
            return wrong("cycles", "must be at least 1");
        }
        let counts = [
            ("cycles", self.cycles),
            ("reheats", self.reheats),
            ("anneal", self.anneal),
            ("rounds", self.rounds),
        ];
        if let Some((place, _)) = counts.iter().find(|(_, count)| *count > MOST) {
            return wrong(place, "must be at most 1000000");
        }
        if self.reheat_level.is_nan() || self.reheat_level <= 0.0 {
            return wrong("reheat_level", "must be positive; use 3");
        }
        if self.balance_level.is_nan() || self.balance_level < 0.0 {
            return wrong(
                "balance_level",
                "must not be negative; use 0.25, or more than reheat_level for no balance",
            );
        }
        if self.coarse_level.is_some_and(|smallest| smallest.is_nan() || smallest <= 0.0) {
            return wrong("coarse_level", "must be positive; use 2.5, or null for never");
        }
        if !(0.0..=1.0).contains(&self.linger) {
            return wrong("linger", "must lie between 0 and 1; use 0.39");
        }
        if self.rounds < self.draws || self.draws == 0 {
            return wrong("draws", "must be between 1 and rounds");
        }
        if !(self.final_level > 0.0 && self.final_level <= self.start_level) {
            return wrong("final_level", "must be positive and not above start_level");
        }
        if !(0.0..1.0).contains(&self.acceptance) {
            return wrong("acceptance", "must lie between 0 and 1; use 0.8");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reheated_cycles_begin_at_their_level() {
        let settings = GibbsSettings { cycles: 4, reheats: 2, ..GibbsSettings::default() };
        assert!(settings.balances());
        assert!(!GibbsSettings { cycles: 1, ..settings.clone() }.balances());
        assert!(!GibbsSettings { balance_level: 4.0, ..settings.clone() }.balances());
        let mut begun = Vec::new();
        let mut last = (0, f64::INFINITY);
        for finished in 0..settings.steps() {
            let Place { round, begins, reheated } = settings.place(finished);
            let level = settings.level(round);
            match (begins, reheated) {
                (true, false) => assert_eq!(round, 0),
                (true, true) => assert!((2.5..=3.0).contains(&level), "{level}"),
                (false, _) => {
                    assert!(round == last.0 + 1 && level <= last.1, "{round} {level} after {last:?}");
                    assert_eq!(begun.last(), Some(&reheated), "{finished}");
                }
            }
            if begins {
                begun.push(reheated);
            }
            last = (round, level);
        }
        assert_eq!(begun, [false, true, true, false]);
        assert_eq!(last.0, settings.anneal + settings.rounds - 1);
        let next = Place { round: settings.reheated(), begins: true, reheated: true };
        assert_eq!(settings.place(settings.steps()), next);
    }

    /// Without a fall there is nothing to leave out.
    #[test]
    fn cycles_without_a_fall_are_whole() {
        let settings = GibbsSettings { cycles: 3, anneal: 0, rounds: 5, ..GibbsSettings::default() };
        assert_eq!(settings.steps(), 15);
        assert_eq!(settings.place(5), Place { round: 0, begins: true, reheated: true });
    }

    #[test]
    fn counts_that_would_overflow_are_refused() {
        let settings = GibbsSettings { reheats: usize::MAX, ..GibbsSettings::default() };
        assert!(settings.validate().unwrap_err().to_string().contains("reheats"));
        let settings = GibbsSettings { anneal: usize::MAX, ..GibbsSettings::default() };
        assert!(settings.validate().unwrap_err().to_string().contains("anneal"));
    }
}
