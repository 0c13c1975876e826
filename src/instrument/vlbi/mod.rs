//! Very-long-baseline interferometers: stations, visibilities, closures.

pub mod average;
pub mod closure;
pub mod fourier;
pub mod likelihood;
pub mod observation;
pub mod problem;
pub mod statistics;

pub use observation::{Observation, Station, Visibility};
