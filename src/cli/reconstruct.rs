//! `antumbra reconstruct`: sample the posterior; write cube, diagnostics, figures, manifest.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::progress::Progress;
use crate::{
    Error, Result,
    config::{self, Layers},
    instrument::{
        file::{self, Kind},
        microscope::Microscope,
        vlbi::array::Array,
    },
    io::stack::recognise,
    reconstruction::{self, Directory, Reconstruction, Settings},
};

/// Sample the posterior; write cube, diagnostics, figures and manifest
#[derive(Debug, Args)]
pub(super) struct Reconstruct {
    /// Data file, or a run file (YAML) that names one
    input: PathBuf,
    /// Run directory [default: runs/<name of the data file>]
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Instrument by name or file; its settings go below the run file's
    #[arg(long)]
    instrument: Option<String>,
    /// Prior by name or weights file
    #[arg(long)]
    prior: Option<String>,
    /// Solver by name
    #[arg(long)]
    solver: Option<String>,
    /// Number of posterior samples
    #[arg(long)]
    samples: Option<u64>,
    /// Seed of all random numbers
    #[arg(long)]
    seed: Option<u64>,
    /// auto, cpu or cuda:N
    #[arg(long)]
    device: Option<String>,
    /// Number of threads; 0 means all cores
    #[arg(short = 'j', long)]
    threads: Option<u64>,
    /// Any setting by its dotted path, for example solver.correction.gibbs.rounds=200; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
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
    /// Draw no figures
    #[arg(long)]
    no_plots: bool,
    /// Voxel size of a stack along Z, Y, X, or Y, X, for example "200 nm,65 nm,65 nm" [default: the file's]
    #[arg(long, value_delimiter = ',')]
    voxel: Vec<String>,
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
        self.check_free(&directory)?;
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

    /// The settings that suit the kind of data.
    fn defaults(&self, run_file: Option<&Value>) -> Result<Settings> {
        let named = run_file.and_then(|run| run.get("data")).and_then(Value::as_str).map(Path::new);
        let data = if run_file.is_some() { named } else { Some(self.input.as_path()) };
        Ok(match data.map(recognise).transpose()?.flatten() {
            Some(_) => Settings::for_stacks(),
            None => Settings::default(),
        })
    }

    /// Defaults < instrument < run file < environment < `--set` < flags.
    fn layers(&self) -> Result<Layers> {
        let run_file = is_yaml(&self.input).then(|| config::read_yaml(&self.input)).transpose()?;
        let mut layers = Layers::defaults(&self.defaults(run_file.as_ref())?)?;
        let named = run_file.as_ref().and_then(|run| run.get("instrument")).and_then(Value::as_str);
        if let Some(name) = self.instrument.as_deref().or(named) {
            layers.merge(settings_of(name)?, name);
        }
        if let Some(run) = run_file {
            layers.merge(run, &self.input.display().to_string());
        } else {
            layers.merge(json!({ "data": self.input }), "command line");
        }
        layers.merge_environment(std::env::vars())?;
        // The choice of a solver comes before the settings of it.
        if let Some(name) = &self.solver {
            layers.merge(json!({ "solver": { "name": name } }), "flag");
        }
        for setting in &self.set {
            let (key, value) = setting.split_once('=').ok_or_else(|| {
                Error::config("--set", format!("`{setting}` is not KEY=VALUE, for example seed=2"))
            })?;
            layers.set(key, value, "--set")?;
        }
        layers.merge(self.flags(), "flag");
        Ok(layers)
    }

    fn flags(&self) -> Value {
        let mut flags = Map::new();
        let mut put = |name: &str, value: Option<Value>| value.map(|value| flags.insert(name.into(), value));
        put("instrument", self.instrument.as_ref().map(|name| json!(name)));
        put("prior", self.prior.as_ref().map(|name| json!(name)));
        put("samples", self.samples.map(|count| json!(count)));
        put("seed", self.seed.map(|seed| json!(seed)));
        put("device", self.device.as_ref().map(|name| json!(name)));
        put("threads", self.threads.map(|count| json!(count)));
        put("plots", self.no_plots.then_some(json!(false)));
        let mut stack = Map::new();
        if !self.voxel.is_empty() {
            stack.insert("voxel".into(), json!(self.voxel));
        }
        if self.imagej {
            stack.insert("imagej".into(), json!(true));
        }
        if !stack.is_empty() {
            flags.insert("stack".into(), Value::Object(stack));
        }
        Value::Object(flags)
    }

    fn directory(&self, settings: &Settings) -> Result<PathBuf> {
        if let Some(directory) = &self.output {
            return Ok(directory.clone());
        }
        let data = settings.data.as_deref().ok_or_else(|| Error::config("data", "no data file; name one"))?;
        Ok(Path::new("runs").join(data.file_stem().unwrap_or_default()))
    }

    /// Refuses to write over an earlier run without `--force` or `--resume`.
    fn check_free(&self, directory: &Path) -> Result<()> {
        if Directory::is_used(directory) && !self.force && !self.resume {
            let problem =
                format!("{} holds a run; add --resume, --force, or another -o", directory.display());
            return Err(Error::config("-o", problem));
        }
        Ok(())
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

/// Settings that suit an instrument, in the layout of a run file.
pub(super) fn settings_of(instrument: &str) -> Result<Value> {
    Ok(match file::kind(&file::text(instrument)?, instrument)? {
        Kind::Widefield => Microscope::find(instrument)?.reconstruct,
        Kind::Vlbi => Array::find(instrument)?.reconstruct,
    })
}

fn is_yaml(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}
