//! `antumbra plot`: publication figures of a run directory or of a data file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Error, Result, config,
    features::{RingPosterior, ring::Search},
    instrument::vlbi::{
        average::{Average, average},
        problem::Vlbi,
    },
    io::{cube::Frame, cube_hdf5, uvfits},
    manifest::read_json,
    plot::{self, Beam, Figure, Format, RunFigures, Traces, report},
    reconstruction,
    units::{self, Dimension},
};

/// Publication figures of a run directory or of a data file.
///
/// A run's figures are drawn again from its samples and records, and the report is written anew. A data file gives
/// its (u, v) coverage, amplitudes, closure phases and dirty image.
#[derive(Debug, Args)]
pub(super) struct Plot {
    /// Run directory, or UVFITS file.
    input: PathBuf,
    /// File formats.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "png,svg,pdf")]
    format: Vec<Format>,
    /// Where the figures go. Default: `figures` in the run directory, or in the current one.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Averaging in time of a data file.
    #[arg(long, value_enum, default_value = "scan")]
    average: Average,
    /// Field of view of a data file's dirty image.
    #[arg(long, default_value = "160 uas")]
    fov: String,
}

/// What figures need of a run's `config.yaml`.
#[derive(Deserialize)]
struct Settings {
    data: PathBuf,
    #[serde(default)]
    vlbi: Vlbi,
}

impl Plot {
    /// Draws the figures and prints their paths.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub(super) fn run(&self) -> Result<ExitCode> {
        let is_run = self.input.is_dir();
        let figures = if is_run { self.of_run()? } else { self.of_data()? };
        let home = if is_run { self.input.as_path() } else { Path::new("") };
        let output = self.output.clone().unwrap_or_else(|| home.join("figures"));
        for path in plot::save(&figures, &output, &self.format)? {
            super::print(&format!("{}\n", path.display()));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn of_data(&self) -> Result<Vec<Figure>> {
        let observation = average(&uvfits::read_observation(&self.input)?, self.average);
        plot::data_figures(&observation, units::parse(&self.fov, Dimension::Angle, "--fov")?)
    }

    fn of_run(&self) -> Result<Vec<Figure>> {
        let file = |name: &str| self.input.join(name);
        let cube = cube_hdf5::read(&file("posterior.h5"))?;
        if let Frame::Microscope(_) = cube.frame {
            return reconstruction::draw(&self.input);
        }
        let config = file("config.yaml");
        let settings: Settings = serde_json::from_value(config::read_yaml(&config)?)
            .map_err(|error| Error::format(&config, "settings", error.to_string()))?;
        let observation = settings.vlbi.fitted(&uvfits::read_observation(&settings.data)?)?;
        let diagnostics: Option<Value> = optional(&file("diagnostics.json"))?;
        let rhat = diagnostics.as_ref().and_then(|values| values.get("rhat_max")?.as_f64());
        let figures = RunFigures {
            cube: &cube,
            observation: &observation,
            pulse: settings.vlbi.pulse,
            beam: Beam::default(),
            ring: &RingPosterior::measure(&cube, &Search::default()),
            traces: &Traces { rhat, ..Traces::read(&file("metrics.jsonl"))? },
        };
        let figures = figures.draw()?;
        if let (Some(diagnostics), Some(manifest)) = (diagnostics, optional(&file("manifest.json"))?) {
            report::write(&diagnostics, &manifest, &figures, &file("report.html"))?;
        }
        Ok(figures)
    }
}

/// A JSON file that an unfinished run lacks.
fn optional<T: serde::de::DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    match fs::exists(file) {
        Ok(true) => read_json(file).map(Some),
        Ok(false) => Ok(None),
        Err(error) => Err(Error::io(file, error)),
    }
}
