//! `antumbra reconstruct`: sample the posterior; write cube, diagnostics, figures, manifest.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, atomic::AtomicBool};

use clap::Args;
use serde_json::json;

use super::{
    array::{self, Share},
    progress::Progress,
    settings::RunArguments,
};
use crate::{
    Error, Result,
    config::Layers,
    ensemble::{self, Ensemble},
    reconstruction::{self, Directory, Reconstruction, Settings},
};

/// Sample the posterior; write cube, diagnostics, figures and manifest
#[derive(Debug, Args)]
pub(super) struct Reconstruct {
    /// Data files, or run files (YAML) that name one
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Run directory; of several files, the folder of their run directories [default: runs/<name of the data file>]
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Independent runs of each file, with seeds seed, seed + 1, ... in folders shard-1, shard-2, ...; `merge` joins them
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    shards: u64,
    /// Make only share I of N of all these runs; without a value, the share of this task of a Slurm job array
    #[arg(long, value_name = "I/N", num_args = 0..=1, default_missing_value = array::FROM_SLURM)]
    array: Option<String>,
    #[command(flatten)]
    run: RunArguments,
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
        if self.print_config {
            for input in &self.inputs {
                super::print(&self.layers(input)?.describe());
            }
            return Ok(ExitCode::SUCCESS);
        }
        let ensemble = ensemble::world()?;
        let done = self.reconstruct_all(ensemble.as_ref());
        if let (Some(ensemble), Err(error)) = (&ensemble, &done) {
            if is_first(Some(ensemble)) || !matches!(error, Error::Interrupted) {
                super::note(&format!("error: process {}: {error}", ensemble.rank()));
            }
            // Where all stop together, each ends by itself; otherwise the others would wait for this one for ever.
            if !matches!(error, Error::Interrupted) {
                ensemble.abandon(error.exit_code());
            }
            return Ok(ExitCode::from(if is_first(Some(ensemble)) { error.exit_code() } else { 0 }));
        }
        done
    }

    fn reconstruct_all(&self, ensemble: Option<&Arc<dyn Ensemble>>) -> Result<ExitCode> {
        let tasks = self.tasks()?;
        let stop = super::stop_on_interrupt()?;
        let mut status = 0;
        for task in &tasks {
            let outcome =
                super::on_threads(task.settings.threads, || self.reconstruct(task, &stop, ensemble));
            status = status.max(match outcome {
                Ok(passed) => u8::from(!passed),
                // Of several runs, one that fails does not keep the others from being made.
                Err(error)
                    if ensemble.is_none() && tasks.len() > 1 && !matches!(error, Error::Interrupted) =>
                {
                    super::note(&format!("error: {}: {error}", task.folder.display()));
                    error.exit_code()
                }
                Err(error) => return Err(error),
            });
        }
        Ok(ExitCode::from(status))
    }

    /// Folders of the runs that fall to this process.
    ///
    /// # Errors
    /// Settings that fail.
    pub(super) fn folders(&self) -> Result<Vec<PathBuf>> {
        Ok(self.tasks()?.into_iter().map(|task| task.folder).collect())
    }

    /// The runs that fall to this process.
    fn tasks(&self) -> Result<Vec<Task>> {
        let mut tasks = Vec::new();
        for input in &self.inputs {
            let settings: Settings = self.layers(input)?.resolve()?;
            let folder = self.directory(input, &settings)?;
            for shard in 0..self.shards {
                let settings = Settings { seed: settings.seed.wrapping_add(shard), ..settings.clone() };
                let of_shard = || folder.join(format!("shard-{}", shard + 1));
                let folder = if self.shards > 1 { of_shard() } else { folder.clone() };
                if tasks.iter().any(|task: &Task| task.folder == folder) {
                    let problem = format!("two runs would go to {}; rename a file", folder.display());
                    return Err(Error::config("-o", problem));
                }
                tasks.push(Task { settings, folder });
            }
        }
        let Some(share) = self.array.as_deref().map(Share::named).transpose()? else { return Ok(tasks) };
        let count = tasks.len();
        let tasks = share.of(tasks);
        super::note(&format!("{share}: {} of {count} runs", tasks.len()));
        Ok(tasks)
    }

    /// Makes one run; true if it passed all checks.
    fn reconstruct(
        &self,
        Task { settings, folder: directory }: &Task,
        stop: &AtomicBool,
        ensemble: Option<&Arc<dyn Ensemble>>,
    ) -> Result<bool> {
        let first = is_first(ensemble);
        let parts = reconstruction::split(settings)?;
        if self.dry_run {
            if first {
                describe(parts)?;
            }
            return Ok(true);
        }
        if first {
            super::refuse_to_mix(directory, self.force || self.resume)?;
        }
        let (mut passed, mut folders) = (true, Vec::new());
        for (name, part) in parts {
            let folder = name.map_or(directory.clone(), |name| directory.join(name));
            let mut reconstruction = Reconstruction::prepare(part)?;
            reconstruction.ensemble = ensemble.cloned();
            // A run that was lost before its first checkpoint starts again.
            let resume = self.resume && Directory::is_resumable(&folder);
            if !first {
                reconstruction.take_part(&folder, resume, stop)?;
                continue;
            }
            assumed(&reconstruction);
            let outcome = reconstruction.run(&folder, resume, stop, &mut Progress::new())?;
            super::print(&outcome.summary);
            passed &= outcome.passed;
            folders.push(folder);
        }
        if first {
            reconstruction::finish(settings, &folders, directory)?;
        }
        Ok(passed)
    }

    fn layers(&self, input: &Path) -> Result<Layers> {
        let mut layers = self.run.layers(input)?;
        if self.imagej {
            layers.merge(json!({ "stack": { "imagej": true } }), "flag");
        }
        Ok(layers)
    }

    /// Where the runs of one input go.
    fn directory(&self, input: &Path, settings: &Settings) -> Result<PathBuf> {
        let several = self.inputs.len() > 1;
        match &self.output {
            Some(output) if !several => Ok(output.clone()),
            output => {
                let named = if several { input } else { settings.data()? };
                let root = output.as_deref().unwrap_or(Path::new("runs"));
                Ok(root.join(named.file_stem().unwrap_or_default()))
            }
        }
    }
}

/// One run: its settings and its directory.
struct Task {
    settings: Settings,
    folder: PathBuf,
}

/// Whether this process keeps the records and talks to the user.
fn is_first(ensemble: Option<&Arc<dyn Ensemble>>) -> bool {
    ensemble.is_none_or(|ensemble| ensemble.rank() == 0)
}

/// Says what was assumed.
fn assumed(reconstruction: &Reconstruction) {
    for assumption in &reconstruction.assumptions {
        super::note(&format!("assumed: {assumption}"));
    }
}

/// Says what a run would do; all channels and times are treated like the first.
fn describe(parts: Vec<(Option<String>, Settings)>) -> Result<()> {
    let count = parts.len();
    if let Some((_, first)) = parts.into_iter().next() {
        let times = if count > 1 { format!("{count} times ") } else { String::new() };
        let reconstruction = Reconstruction::prepare(first)?;
        assumed(&reconstruction);
        super::print(&format!("{times}{}\n", reconstruction.describe()));
    }
    Ok(())
}
