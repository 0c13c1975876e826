//! What a round works with: problem and prior on the finest pixels or, while the coupling hides detail, on half as many along each side.

use std::fmt;

use candle_core::Tensor;

use crate::{
    Result,
    instrument::{Problem, Seen},
    prior::{Coarser, Denoiser},
};

/// A problem as the chains of some rounds see it. Known from the first of these rounds on.
pub(super) struct View {
    /// The problem of the coarser prior's images; none for that of the finest pixels.
    coarse: Option<Problem>,
    seen: Seen,
}

/// Problem and prior of a round.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) problem: &'a Problem,
    pub(super) seen: &'a Seen,
    pub(super) prior: &'a dyn Denoiser,
    /// The coupling r, network unit.
    pub(super) level: f64,
    /// The same on the finest pixels, in their network unit.
    pub(super) finest: f64,
    /// Whether other rounds have other pixels.
    pub(super) coarsens: bool,
}

impl View {
    /// What the data see of images like `mean` `[1, Z, Y, X]`, network unit of the prior.
    pub(super) fn of(problem: &Problem, coarser: Option<Coarser>, mean: &Tensor) -> Result<Self> {
        Ok(match coarser {
            None => Self { coarse: None, seen: problem.seen(mean)? },
            Some(coarser) => {
                let problem = problem.coarser(coarser.scaling)?;
                let seen = problem.seen(&coarser.halved(mean)?)?;
                Self { coarse: Some(problem), seen }
            }
        })
    }

    /// The scene of a round whose coupling is `finest` on the finest pixels; `coarser` for rounds of the coarser prior.
    pub(super) fn scene<'a>(
        &'a self,
        problem: &'a Problem,
        prior: &'a dyn Denoiser,
        coarser: Option<Coarser<'a>>,
        finest: f64,
    ) -> Scene<'a> {
        Scene {
            problem: self.coarse.as_ref().unwrap_or(problem),
            seen: &self.seen,
            prior: coarser.map_or(prior, |coarser| coarser.prior),
            level: coarser.map_or(finest, |coarser| coarser.level(finest)),
            finest,
            coarsens: prior.coarser().is_some(),
        }
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("coarse", &self.coarse.is_some()).field("seen", &self.seen).finish()
    }
}
