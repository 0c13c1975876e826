//! The posterior engine: solvers, the one loop that runs them, and the checks of their output.

pub mod alignment;
mod arrangement;
pub mod beds;
mod catalogue;
pub mod chains;
mod convergence;
pub mod covariance;
pub mod curvature;
pub mod diagnostics;
mod draws;
pub mod gibbs;
pub mod hmc;
mod kinetic;
pub mod langevin;
pub mod modes;
pub mod out_of_distribution;
pub mod ppm;
mod resampling;
pub mod restart;
pub mod rivals;
pub mod run;
mod sequence;
pub mod solver;
pub mod step_sizes;
mod thinning;
pub mod truth;

pub use catalogue::{Correction, CorrectionSettings, Entry, SolverSettings, StartSettings, catalogue};
pub use convergence::Convergence;
pub use draws::Draws;
pub use sequence::{Continue, PriorDraws, Sequence};
pub use solver::{Solver, Step};
