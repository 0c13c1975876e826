//! Posterior samplers of the literature behind the same interface as Principled Posterior Matching, for comparison.
//!
//! Each file names its source. All work in the convention x_s = x + s n of [`Denoiser`]; what was published for
//! variance-preserving diffusions is rescaled, which leaves the continuous process as it is.

pub mod afdps;
pub mod blind_dps;
pub mod daps;
pub mod davi;
pub mod ddip;
pub mod ddnm;
pub mod ddrm;
pub mod descent;
pub mod diffpir;
pub mod diffusion;
pub mod dps;
pub mod eps;
pub mod flow;
pub mod fps;
pub mod guidance;
pub mod mcgdiff;
pub mod moment_matching;
pub mod pigdm;
pub mod pmc;
pub mod red_diff;
pub mod rlsd;
pub mod sds;
pub mod tds;

use std::fmt::Debug;

use crate::{
    Result,
    compute::Compute,
    instrument::Problem,
    posterior::{Entry, Solver},
    prior::Denoiser,
    rng::Rng,
};

/// What a solver is built for.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The data.
    pub problem: &'a Problem,
    /// The prior.
    pub prior: &'a dyn Denoiser,
    /// For what is drawn before the first step.
    pub rng: &'a Rng,
    /// Where tensors live.
    pub compute: &'a Compute,
}

/// The settings of a rival.
pub trait Rival: Debug {
    /// How `antumbra solvers list` shows it.
    fn entry(&self) -> Entry;

    /// Number of chains or particles.
    fn chains(&mut self) -> &mut usize;

    /// The solver.
    ///
    /// # Errors
    /// Settings that cannot work, or the name of the capability that problem or prior lack.
    fn build(&self, given: &Given) -> Result<Box<dyn Solver>>;
}
