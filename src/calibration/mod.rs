//! Simulation-based calibration: do truths lie among posterior draws as draws among themselves?
//!
//! A set-up is run on many data sets simulated from truths of its own prior. `docs/calibration.md` says what is measured and
//! what passes.

pub mod binomial;
pub mod campaign;
pub mod case;
pub mod conformal;
pub mod coverage;
pub mod energy;
pub mod holm;
pub mod rank;
pub mod record;
pub mod report;
pub mod rule;
pub mod spread;
pub mod tarp;
pub mod thinning;
pub mod uniformity;

#[cfg(test)]
pub(crate) mod bed;

pub use campaign::{Plan, Source};
pub use record::{Functional, Kind, Record, Replicate};
pub use report::{Report, judge};
