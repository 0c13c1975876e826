//! Settings of a reconstruction: what `config.yaml` holds.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, instrument::vlbi::Vlbi, posterior::SolverSettings};

/// The prior of a run that names none.
const DEFAULT_PRIOR: &str = "blackhole64";

/// Settings of a reconstruction; every field has a default but `data`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Data file.
    pub data: Option<PathBuf>,
    /// Name or file of an instrument whose settings are the lowest layer above the defaults.
    pub instrument: Option<String>,
    /// Name or weights file of the prior.
    pub prior: String,
    /// Posterior sampler and its settings.
    pub solver: SolverSettings,
    /// How visibilities become a likelihood.
    pub vlbi: Vlbi,
    /// Number of posterior samples in the cube.
    pub samples: usize,
    /// Seed of all random numbers.
    pub seed: u64,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Number of threads; 0 means all cores.
    pub threads: usize,
    /// Draw figures.
    pub plots: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: None,
            instrument: None,
            prior: DEFAULT_PRIOR.into(),
            solver: SolverSettings::default(),
            vlbi: Vlbi::default(),
            samples: 256,
            seed: 1,
            device: "auto".into(),
            threads: 0,
            plots: true,
        }
    }
}

impl Settings {
    /// Refuses values that no run can have.
    ///
    /// # Errors
    /// The first such value, by its path.
    pub fn validate(&self) -> Result<()> {
        if self.samples == 0 {
            return Err(Error::config("samples", "0 samples; use 64 or more"));
        }
        if self.samples > 100_000 {
            return Err(Error::config("samples", format!("{} samples; at most 100000", self.samples)));
        }
        Ok(())
    }
}
