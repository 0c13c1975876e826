//! The settings of a run from the command line, as the commands share them.

use std::path::Path;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    Error, Result,
    config::{self, Layers},
    instrument::{
        file::{self, Kind},
        microscope::Microscope,
        vlbi::array::Array,
    },
    io::stack::{Metadata, Stack, recognise},
    reconstruction::Settings,
};

/// What a run is made with.
#[derive(Debug, Args)]
pub(super) struct RunArguments {
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
    /// Leave data out of the fit and test the samples on them: a fraction (0.1), of visibilities also a station (AZ)
    /// or a baseline (AA-AZ)
    #[arg(long, value_name = "WHAT")]
    hold_out: Option<String>,
    /// Draw no figures
    #[arg(long)]
    no_plots: bool,
    /// Voxel size of a stack along Z, Y, X, or Y, X, for example "200 nm,65 nm,65 nm" [default: the file's]
    #[arg(long, value_delimiter = ',')]
    voxel: Vec<String>,
}

impl RunArguments {
    /// Settings for a data file, or for a run file (YAML) that names one: defaults < instrument < run file < environment <
    /// `--set` < flags.
    ///
    /// # Errors
    /// Files that cannot be read, or settings that are no settings.
    pub(super) fn layers(&self, input: &Path) -> Result<Layers> {
        let run_file = is_yaml(input).then(|| config::read_yaml(input)).transpose()?;
        let named = run_file.as_ref().and_then(|run| run.get("data")).and_then(Value::as_str).map(Path::new);
        let (mut layers, section) = match if run_file.is_some() { named } else { Some(input) } {
            Some(data) if recognise(data)?.is_some() => {
                let Metadata { shape, voxel, .. } = Stack::open(data)?.metadata;
                // What is known of the stack decides about the defaults of the rest.
                let least = Settings::for_stacks(usize::MAX, false);
                let told: Settings = self.above(&least, input, run_file.as_ref())?.resolve()?;
                let pitch = told.stack.known_pitch(voxel, None)?;
                let voxels = told.microscope.most_voxels([shape.z, shape.y, shape.x], pitch);
                let volume = shape.z > 1 && told.microscope.sim.is_none();
                (self.above(&Settings::for_stacks(voxels, volume), input, run_file.as_ref())?, "stack")
            }
            _ => (self.above(&Settings::default(), input, run_file.as_ref())?, "vlbi"),
        };
        if let Some(what) = &self.hold_out {
            let what = what.parse::<f64>().map_or_else(|_| json!(what), |fraction| json!(fraction));
            layers.merge(json!({ section: { "hold_out": what } }), "flag");
        }
        Ok(layers)
    }

    /// All layers above `defaults`.
    fn above(&self, defaults: &Settings, input: &Path, run_file: Option<&Value>) -> Result<Layers> {
        let mut layers = Layers::defaults(defaults)?;
        let named = run_file.and_then(|run| run.get("instrument")).and_then(Value::as_str);
        if let Some(name) = self.instrument.as_deref().or(named) {
            layers.merge(settings_of(name)?, name);
        }
        if let Some(run) = run_file {
            layers.merge(run.clone(), &input.display().to_string());
        } else {
            layers.merge(json!({ "data": input }), "command line");
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
        put("stack", (!self.voxel.is_empty()).then(|| json!({ "voxel": self.voxel })));
        Value::Object(flags)
    }
}

/// Settings that suit an instrument, in the layout of a run file.
///
/// # Errors
/// No such instrument.
pub(super) fn settings_of(instrument: &str) -> Result<Value> {
    Ok(match file::kind(&file::text(instrument)?, instrument)? {
        Kind::Widefield => Microscope::find(instrument)?.reconstruct,
        Kind::Vlbi => Array::find(instrument)?.reconstruct,
    })
}

fn is_yaml(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}
