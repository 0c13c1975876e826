//! `antumbra merge`: several runs of one problem joined into one run directory.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::{
    Error, Result,
    reconstruction::{self, Directory},
};

/// Join runs of the same problem with different seeds; check all their chains together
#[derive(Debug, Args)]
pub(super) struct Merge {
    /// Run directories, finished
    #[arg(required = true, num_args = 2..)]
    directories: Vec<PathBuf>,
    /// Run directory of all of them together
    #[arg(short, long)]
    output: PathBuf,
    /// Number of threads; 0 means all cores
    #[arg(short = 'j', long, default_value_t = 0)]
    threads: usize,
    /// Replace what the run directory holds
    #[arg(long)]
    force: bool,
}

impl Merge {
    /// Runs the command; exit status 1 if a check failed.
    ///
    /// # Errors
    /// Runs that are not finished or not of the same problem, and files that cannot be read or written.
    pub(super) fn run(&self) -> Result<ExitCode> {
        if Directory::is_used(&self.output) && !self.force {
            let problem = format!("{} holds a run; add --force, or another -o", self.output.display());
            return Err(Error::config("-o", problem));
        }
        let merge = || reconstruction::merge(&self.directories, &self.output);
        let outcomes = super::on_threads(self.threads, merge)?;
        outcomes.iter().for_each(|outcome| super::print(&outcome.summary));
        Ok(ExitCode::from(u8::from(outcomes.iter().any(|outcome| !outcome.passed))))
    }
}
