//! Fluorescence microscopes: optics, point-spread functions, forward model, camera noise.

pub mod background;
pub mod convolve;
pub mod crop;
pub mod description;
pub mod domain;
#[cfg(test)]
pub(crate) mod example;
pub mod forward;
pub mod held_out;
pub mod likelihood;
mod masked;
pub mod noise;
mod noise_model;
pub mod optics;
pub mod problem;
pub mod psf;
pub mod sim;

pub use convolve::Convolution;
pub use crop::Crop;
pub use description::Microscope;
pub use domain::Domain;
pub use forward::{Field, Widefield};
pub use optics::Optics;
pub use psf::Psf;
