//! `antumbra solvers list`: the posterior samplers to choose from.

use std::process::ExitCode;

use clap::Subcommand;

use crate::{Error, Result, posterior::catalogue};

/// Arguments of `antumbra solvers`.
#[derive(Debug, Subcommand)]
pub(super) enum Solvers {
    /// Lists all solvers, the default first.
    List {
        /// Prints an array of objects.
        #[arg(long)]
        json: bool,
    },
}

impl Solvers {
    /// Prints the list to stdout.
    ///
    /// # Errors
    /// None that a user can cause.
    pub(super) fn run(self) -> Result<ExitCode> {
        let Self::List { json } = self;
        if json {
            let list = serde_json::to_string_pretty(&catalogue())
                .map_err(|error| Error::config("solvers", error.to_string()))?;
            println!("{list}");
        } else {
            for entry in catalogue() {
                println!("{:<16} {} (needs {})", entry.name, entry.summary, entry.needs.join(", "));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
