//! The posterior engine: solvers, the one loop that runs them, and the checks of their output.

pub mod gibbs;
pub mod hmc;
pub mod langevin;
pub mod run;
pub mod solver;
mod thinning;

pub use solver::{Solver, Step};
