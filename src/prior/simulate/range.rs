//! Ranges that simulators draw from.

use crate::rng::Rng;

/// A closed range [low, high], written `[low, high]` in YAML.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Range(pub f64, pub f64);

impl Range {
    /// A uniform draw.
    pub fn uniform(self, rng: &mut Rng) -> f64 {
        self.0 + (self.1 - self.0) * rng.uniform()
    }

    /// A draw with uniform logarithm.
    pub fn log_uniform(self, rng: &mut Rng) -> f64 {
        (self.0.ln() + (self.1.ln() - self.0.ln()) * rng.uniform()).exp()
    }
}
