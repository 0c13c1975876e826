//! How well chains fit at the rounds where lost ones are looked for, over all cycles.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use crate::{
    Result,
    posterior::{Draws, diagnostics::better_half, solver::TensorMap},
    tensor::to_host,
};

/// Names in a checkpoint.
const SEEN: &str = "gibbs.seen";
const BORDERS: &str = "gibbs.borders";
const DRAWN: &str = "gibbs.drawn_fits";

/// Fits of all chains of all cycles, and of the draws they left.
///
/// The first cycles know few other chains, so what they take for a good fit may turn out to be a bad one: draws are judged
/// once more beside all cycles when they are asked for.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// By round of a cycle.
    seen: BTreeMap<usize, Vec<f64>>,
    /// Fit below which a chain is lost, by round.
    borders: BTreeMap<usize, f64>,
    /// Round and fit of each draw, by its time and chain.
    drawn: BTreeMap<[usize; 2], (usize, f64)>,
}

impl Pool {
    /// Takes in the fits of chains at `round`; returns which of them are lost: more than `margin` below the better half.
    pub(super) fn judge(&mut self, round: usize, fits: &[f64], margin: f64) -> Vec<bool> {
        let seen = self.seen.entry(round).or_default();
        seen.extend(fits);
        let border = better_half(seen) - margin;
        self.borders.insert(round, border);
        fits.iter().map(|fit| *fit < border).collect()
    }

    /// Notes that `chain` left a draw at `round`, whose time is `time`.
    pub(super) fn draw(&mut self, round: usize, time: usize, chain: usize, fit: f64) {
        self.drawn.insert([time, chain], (round, fit));
    }

    fn is_good(&self, &(round, fit): &(usize, f64)) -> bool {
        self.borders.get(&round).is_none_or(|border| fit >= *border)
    }

    /// Number of draws that are good beside all cycles.
    pub(super) fn good_draws(&self) -> usize {
        self.drawn.values().filter(|draw| self.is_good(draw)).count()
    }

    /// Those of `draws` that are good beside all cycles. The best chain of all is never lost, so some are.
    pub(super) fn good(&self, draws: &Draws) -> Result<Draws> {
        let is_good = |&i: &usize| {
            self.drawn.get(&[draws.time[i], draws.chain[i]]).is_none_or(|draw| self.is_good(draw))
        };
        let good: Vec<usize> = (0..draws.len()).filter(is_good).collect();
        draws.select(&good)
    }

    /// For a checkpoint.
    pub(super) fn save(&self, state: &mut TensorMap) -> Result<()> {
        let seen =
            self.seen.iter().flat_map(|(&round, fits)| fits.iter().map(move |&fit| [round as f64, fit]));
        put(state, SEEN, seen.collect())?;
        put(state, BORDERS, self.borders.iter().map(|(&round, &border)| [round as f64, border]).collect())?;
        let drawn =
            self.drawn.iter().map(|(key, (round, fit))| [key[0] as f64, key[1] as f64, *round as f64, *fit]);
        put(state, DRAWN, drawn.collect())
    }

    /// Continues from what [`Pool::save`] left.
    pub(super) fn restore(state: &mut TensorMap) -> Result<Self> {
        let mut pool = Self::default();
        for [round, fit] in take(state, SEEN)? {
            pool.seen.entry(round as usize).or_default().push(fit);
        }
        pool.borders =
            take(state, BORDERS)?.into_iter().map(|[round, border]| (round as usize, border)).collect();
        for [time, chain, round, fit] in take(state, DRAWN)? {
            pool.draw(round as usize, time as usize, chain as usize, fit);
        }
        Ok(pool)
    }
}

/// Puts rows under `name`; nothing if there are none.
fn put<const N: usize>(state: &mut TensorMap, name: &str, rows: Vec<[f64; N]>) -> Result<()> {
    if !rows.is_empty() {
        state.insert(name.into(), Tensor::from_vec(rows.concat(), ((), N), &Device::Cpu)?);
    }
    Ok(())
}

/// Takes what [`put`] left.
fn take<const N: usize>(state: &mut TensorMap, name: &str) -> Result<Vec<[f64; N]>> {
    let Some(rows) = state.remove(name) else { return Ok(Vec::new()) };
    Ok(to_host(&rows)?.as_chunks::<N>().0.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Compute;

    /// The first cycle takes its only fit for good; beside those of the second it is lost, and so is its draw.
    #[test]
    fn draws_are_judged_by_later_cycles_too() {
        let mut pool = Pool::default();
        assert_eq!(pool.judge(5, &[-90.0, -95.0], 20.0), [false, false]);
        pool.draw(5, 5, 0, -90.0);
        pool.draw(5, 5, 1, -95.0);
        assert_eq!(pool.good_draws(), 2);
        assert_eq!(pool.judge(5, &[-10.0, -12.0, -99.0], 20.0), [false, false, true]);
        pool.draw(5, 11, 0, -10.0);
        let images = Compute::cpu().tensor(vec![1.0, 2.0, 3.0], &[3, 1, 1, 1]).unwrap();
        let draws = Draws::all(&[
            Draws::together(images.narrow(0, 0, 2).unwrap(), &[0, 1], 5),
            Draws::together(images.narrow(0, 2, 1).unwrap(), &[0], 11),
        ])
        .unwrap();
        let mut state = TensorMap::new();
        pool.save(&mut state).unwrap();
        for pool in [pool, Pool::restore(&mut state).unwrap()] {
            assert_eq!(pool.good_draws(), 1);
            assert_eq!(pool.good(&draws).unwrap().time, [11]);
        }
    }
}
