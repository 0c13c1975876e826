//! `antumbra diagnose`: the checks of a finished run, made again.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::{
    Error, Result,
    reconstruction::{TrueImage, diagnose, summary},
    units::{self, Dimension},
};

/// Recompute fit, chain and truth checks of a run
#[derive(Debug, Args)]
pub(super) struct Diagnose {
    /// Run directory
    directory: PathBuf,
    /// Image that the data were simulated from
    #[arg(long)]
    truth: Option<PathBuf>,
    /// Total flux density that `simulate --flux` scaled this image to, for example `0.6 Jy`. Default: the image's own
    #[arg(long, requires = "truth")]
    flux: Option<String>,
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
        let flux =
            self.flux.as_ref().map(|flux| units::parse(flux, Dimension::Flux, "--flux")).transpose()?;
        let truth = self.truth.as_deref().map(|file| TrueImage { file, flux });
        let found = diagnose(&self.directory, truth.as_ref(), self.calibration.as_deref())?;
        let text = if self.json {
            serde_json::to_string_pretty(&found).map_err(|e| Error::config("--json", e.to_string()))? + "\n"
        } else {
            summary(&found)
        };
        super::print(&text);
        Ok(if found.warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}
