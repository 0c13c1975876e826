//! `antumbra inspect`: what a file holds.

mod stack;
mod visibilities;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::Result;
use crate::io::stack::recognise;

/// What a file holds: kind, shape, units, stations, scans, noise.
#[derive(Debug, clap::Args)]
pub(super) struct Inspect {
    /// UVFITS file or microscope stack; a dataset of an HDF5 file is named as `file.h5:/path`.
    data: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Microscope by name or file; where its settings tell structured illumination (`microscope.sim`), the stripes are
    /// measured.
    #[arg(long)]
    instrument: Option<String>,
}

impl Inspect {
    /// Runs the command.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn run(&self) -> Result<ExitCode> {
        let text = match recognise(&self.data)? {
            Some(_) => stack::describe(&self.data, self.instrument.as_deref(), self.json)?,
            None => visibilities::describe(&self.data, self.json)?,
        };
        super::print(&text);
        Ok(ExitCode::SUCCESS)
    }
}
