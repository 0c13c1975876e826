//! Numbers that scientists read off images, each with its posterior.

pub mod blurred;
pub mod filament;
pub mod noise;
pub(crate) mod polar;
mod posterior;
pub mod ring;
pub mod rings;

pub(crate) use posterior::sky_images;
pub use posterior::{Interval, RingPosterior};
