//! `antumbra reconstruct`: sample the posterior; write cube, diagnostics, figures, manifest.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{progress::Progress, settings::RunArguments};
use crate::{
    Error, Result,
    config::Layers,
    reconstruction::{self, Directory, Reconstruction, Settings},
};

/// Sample the posterior; write cube, diagnostics, figures and manifest
#[derive(Debug, Args)]
pub(super) struct Reconstruct {
    #[command(flatten)]
    run: RunArguments,
    /// Run directory [default: runs/<name of the data file>]
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Continue an interrupted run from its checkpoint
    #[arg(long)]
    resume: bool,
    /// Say what would be done and stop
    #[arg(long)]
    dry_run: bool,
    /// Print every setting with its origin and stop
    #[arg(long)]
    print_config: bool,
    /// Replace what the run directory holds
    #[arg(long, conflicts_with = "resume")]
    force: bool,
    /// Write an ImageJ hyperstack besides OME-TIFF
    #[arg(long)]
    imagej: bool,
}

impl Reconstruct {
    /// Runs the command.
    ///
    /// # Errors
    /// Settings, files or computations that fail.
    pub(super) fn run(&self) -> Result<ExitCode> {
        let layers = self.layers()?;
        if self.print_config {
            super::print(&layers.describe());
            return Ok(ExitCode::SUCCESS);
        }
        let settings: Settings = layers.resolve()?;
        super::on_threads(settings.threads, || self.reconstruct(&settings))
    }

    fn reconstruct(&self, settings: &Settings) -> Result<ExitCode> {
        let directory = self.directory(settings)?;
        let parts = reconstruction::split(settings)?;
        if self.dry_run {
            return describe(parts);
        }
        super::refuse_to_mix(&directory, self.force || self.resume)?;
        let stop = super::stop_on_interrupt()?;
        let (mut passed, mut folders) = (true, Vec::new());
        for (name, part) in parts {
            let folder = name.map_or(directory.clone(), |name| directory.join(name));
            let reconstruction = prepare(part)?;
            let resume = self.resume && Directory::is_used(&folder);
            let outcome = reconstruction.run(&folder, resume, &stop, &mut Progress::new())?;
            super::print(&outcome.summary);
            passed &= outcome.passed;
            folders.push(folder);
        }
        reconstruction::finish(settings, &folders, &directory)?;
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    fn layers(&self) -> Result<Layers> {
        let mut layers = self.run.layers()?;
        if self.imagej {
            layers.merge(json!({ "stack": { "imagej": true } }), "flag");
        }
        Ok(layers)
    }

    fn directory(&self, settings: &Settings) -> Result<PathBuf> {
        if let Some(directory) = &self.output {
            return Ok(directory.clone());
        }
        let data = settings.data.as_deref().ok_or_else(|| Error::config("data", "no data file; name one"))?;
        Ok(Path::new("runs").join(data.file_stem().unwrap_or_default()))
    }
}

/// Reads data and prior and says what was assumed.
fn prepare(settings: Settings) -> Result<Reconstruction> {
    let reconstruction = Reconstruction::prepare(settings)?;
    for assumption in &reconstruction.assumptions {
        super::note(&format!("assumed: {assumption}"));
    }
    Ok(reconstruction)
}

/// Says what a run would do; all channels and times are treated like the first.
fn describe(parts: Vec<(Option<String>, Settings)>) -> Result<ExitCode> {
    let count = parts.len();
    if let Some((_, first)) = parts.into_iter().next() {
        let times = if count > 1 { format!("{count} times ") } else { String::new() };
        super::print(&format!("{times}{}\n", prepare(first)?.describe()));
    }
    Ok(ExitCode::SUCCESS)
}
