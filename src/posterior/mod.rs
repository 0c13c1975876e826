//! The posterior engine: solvers, the one loop that runs them, and the checks of their output.

pub mod run;
pub mod solver;

pub use solver::{Solver, Step};
