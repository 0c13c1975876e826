//! Very-long-baseline interferometers: stations, visibilities, closures.

pub mod array;
pub mod average;
pub mod closure;
pub mod fourier;
pub mod gains;
pub mod held_out;
pub mod likelihood;
pub mod observation;
pub mod problem;
pub mod products;
pub mod replica;
pub mod stations;
pub mod statistics;

pub use observation::{Observation, Station, Visibility};
pub use problem::Vlbi;
