//! Numbers that scientists read off images, each with its posterior.

mod polar;
mod posterior;
pub mod ring;

pub use posterior::{Interval, RingPosterior};
