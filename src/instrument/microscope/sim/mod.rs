//! Structured illumination: raw frames under shifted stripes as one data set.

mod correlation;
pub mod estimate;
pub mod forward;
pub mod pattern;
mod phases;
mod pool;
pub mod profile;
mod spectra;

pub use estimate::estimate;
pub use forward::Structured;
pub use pattern::{Layout, Pattern};
pub use profile::Profile;
