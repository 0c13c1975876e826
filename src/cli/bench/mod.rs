//! `antumbra bench`: measurements of speed and quality, each with the table that it writes.

mod passes;
mod posterior;
mod reach;
mod run;
mod scaling;
mod series;
mod table;

use std::process::ExitCode;

use clap::Subcommand;

use crate::Result;

/// Arguments of `antumbra bench`.
#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    Run(Box<run::Run>),
    Scaling(scaling::Scaling),
    Posterior(posterior::Posterior),
    Passes(passes::Passes),
}

impl Bench {
    /// Runs the measurement.
    ///
    /// # Errors
    /// Those of the measurement.
    pub(super) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Run(command) => command.run(),
            Self::Scaling(command) => command.run(),
            Self::Posterior(command) => command.run(),
            Self::Passes(command) => command.run(),
        }
    }
}
