//! Calibrated posterior images from interferometer files and microscope stacks.
//!
//! An instrument turns a file into a [`instrument::Problem`]; a [`prior::Denoiser`] says what images
//! look like; a [`posterior::Solver`] draws images that agree with both. `docs/conventions.md` fixes signs,
//! axes and units, `docs/methods.md` numbers the equations that the code cites.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod calibration;
pub mod cli;
pub mod compute;
pub mod config;
pub mod ensemble;
pub mod error;
pub mod features;
pub mod grid;
pub mod instrument;
pub mod io;
pub mod manifest;
pub mod memory;
pub mod plot;
pub mod posterior;
pub mod prior;
pub mod quantile;
pub mod reconstruction;
pub mod rng;
pub mod tensor;
pub mod transfer;
pub mod units;

pub use error::{Error, Result};
