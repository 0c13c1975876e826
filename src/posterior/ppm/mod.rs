//! Principled Posterior Matching: variational inference whose divergence from the prior is exact.

mod amortized;
pub mod annealing;
pub mod auxiliary;
mod family;
mod generator;
pub mod loss;
mod mixture;
mod particles;
mod plateau;
mod settings;
mod stage;

pub use amortized::{Amortized, AmortizedSettings};
pub use generator::GeneratorSettings;
pub use mixture::MixtureSettings;
pub use settings::{AuxiliarySettings, AuxiliaryWeights, Distance, FamilySettings, PpmSettings};
pub use stage::Ppm;
