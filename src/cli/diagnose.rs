//! `antumbra diagnose`: the checks of a finished run, made again.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::{
    Error, Result,
    reconstruction::{diagnose, summary},
};

/// Recompute fit, chain and truth checks of a run
#[derive(Debug, Args)]
pub(super) struct Diagnose {
    /// Run directory
    directory: PathBuf,
    /// Image that the data were simulated from
    #[arg(long)]
    truth: Option<PathBuf>,
    /// Directory of a calibration of the same set-up: its verdict becomes the run's, and the samples are written once
    /// more with the spread that it found
    #[arg(long, value_name = "DIR")]
    calibration: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Diagnose {
    /// Prints the checks; exit status 1 if one failed.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub(super) fn run(&self) -> Result<ExitCode> {
        let found = diagnose(&self.directory, self.truth.as_deref(), self.calibration.as_deref())?;
        let text = if self.json {
            serde_json::to_string_pretty(&found).map_err(|e| Error::config("--json", e.to_string()))? + "\n"
        } else {
            summary(&found)
        };
        super::print(&text);
        Ok(if found.warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}
