//! The coupling N(z; x, r^2 I) that a round draws z under, and where its chains begin.

use std::sync::Arc;

use candle_core::Tensor;

use crate::{
    Result,
    instrument::Seen,
    posterior::{
        hmc::{Point, Reference, Target, climb},
        metric::Metric,
    },
    tensor::compute_of,
};

/// Most steps of the first climb of a cycle: chains that began far from the data would first fall, and reject what they gain.
const CLIMB: usize = 48;

/// The coupling of one round, in the coordinates that are seen.
pub(super) struct Coupling<'a> {
    seen: &'a Seen,
    /// x.
    centre: Tensor,
    /// r.
    level: f64,
    /// Where it is known how much the data say.
    metric: Option<Arc<Metric>>,
}

impl<'a> Coupling<'a> {
    /// That of width `level` about images `x` `[B, Z, Y, X]`.
    pub(super) fn new(seen: &'a Seen, x: &Tensor, level: f64) -> Result<Self> {
        let metric = match seen {
            Seen::Informed(information) => Some(Arc::new(Metric::new(information, level, &compute_of(x))?)),
            Seen::Pixels | Seen::Subspace(_) => None,
        };
        Ok(Self { seen, centre: seen.coordinates(x)?, level, metric })
    }

    pub(super) fn reference(&self) -> Reference {
        let (centre, metric) = (self.centre.clone(), self.metric.clone());
        Reference::Gaussian { centre, width: self.level, metric }
    }

    /// The first z of a cycle.
    pub(super) fn first(&self, target: &mut Target) -> Result<Point> {
        let start = Point::new(self.centre.clone(), target)?;
        match self.metric {
            Some(_) => climb(target, &self.reference(), start, CLIMB),
            None => Ok(start),
        }
    }

    /// The last round's z, as near to x as this coupling lets it be: its width is `fall` of the last one's.
    pub(super) fn next(&self, last: Point, fall: f64, target: &mut Target) -> Result<Point> {
        if fall == 1.0 || matches!(self.seen, Seen::Subspace(_)) {
            return Ok(last);
        }
        let offset = (last.position - &self.centre)?;
        let offset = match &self.metric {
            Some(metric) => metric.narrowed(&offset, fall)?,
            None => (offset * fall)?,
        };
        Point::new((&self.centre + offset)?, target)
    }
}
