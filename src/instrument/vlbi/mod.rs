//! Very-long-baseline interferometers: stations, visibilities, closures.

pub mod observation;

pub use observation::{Observation, Station, Visibility};
