//! Principled Posterior Matching: variational inference whose divergence from the prior is exact.

pub mod annealing;
pub mod auxiliary;
pub mod loss;
mod particles;
mod settings;

pub use particles::Ppm;
pub use settings::{AuxiliarySettings, AuxiliaryWeights, PpmSettings};
