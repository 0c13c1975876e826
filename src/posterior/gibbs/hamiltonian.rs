//! Hamiltonian steps of z under the coupling N(z; x, r^2 I) of a round.

use candle_core::Tensor;

use super::cycle::{Cycle, Moved, Round, Tuning};
use crate::{
    Result,
    instrument::Seen,
    posterior::hmc::{self, Point, Reference, Target},
    rng::Rng,
};

/// Further trajectories of a cycle's first round that may go into finding step sizes.
const FINDING: usize = 16;

/// The coupling of one round, in the coordinates that are seen.
pub(super) struct Coupling<'a> {
    pub(super) seen: &'a Seen,
    pub(super) round: Round,
}

impl Coupling<'_> {
    /// The z of all chains after so many trajectories of at most so many leaps, `counts`, its other pixels or directions drawn too.
    pub(super) fn moved(
        &self,
        cycle: &mut Cycle,
        last: Option<Tensor>,
        counts: [usize; 2],
        target: &mut Target,
        rng: &mut Rng,
    ) -> Result<Moved> {
        let centre = self.seen.coordinates(&cycle.x)?;
        let start = match last {
            Some(last) => self.narrowed(self.seen.coordinates(&last)?, &centre)?,
            None => centre.clone(),
        };
        let mut point = Point::new(start, target)?;
        let reference = Reference::Gaussian { centre, width: self.round.level };
        let ([trajectories, leaps], tuning) = (counts, self.round.tuning);
        let (mut acceptance, mut done, mut tried) = (0.0, 0, 0);
        while done < trajectories && tried < trajectories + FINDING {
            let outcome = hmc::draw(target, &reference, &point, &cycle.steps, leaps, rng)?;
            match tuning {
                Tuning::Found => cycle.steps.find(&outcome),
                Tuning::Adapted => cycle.steps.adapt(&outcome),
                Tuning::Kept => {}
            }
            acceptance = outcome.acceptance.iter().sum::<f64>() / outcome.acceptance.len() as f64;
            point = outcome.point;
            tried += 1;
            // A cycle's first step sizes are a guess: chains that do not move with them would remember their start.
            done += usize::from(tuning != Tuning::Found || acceptance > 0.5 * cycle.steps.target());
        }
        let z = self.seen.completed(&point.position, &cycle.x, self.round.level, rng)?;
        let metrics = vec![("acceptance", acceptance), ("step_size", cycle.steps.median())];
        Ok(Moved { z, clean: None, log_density: point.log_density, metrics })
    }

    /// The last round's z, as near to x as this coupling lets it be.
    fn narrowed(&self, last: Tensor, centre: &Tensor) -> Result<Tensor> {
        if self.round.fall == 1.0 || matches!(self.seen, Seen::Subspace(_)) {
            return Ok(last);
        }
        Ok((centre + ((last - centre)? * self.round.fall)?)?)
    }
}
