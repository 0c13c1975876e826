//! `antumbra instruments`: the instruments that are known, and whether a description is sound.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    Result,
    instrument::vlbi::array::{Array, EMBEDDED},
};

/// List, show and check instruments.
#[derive(Debug, Args)]
pub(super) struct Instruments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The instruments that come with the program.
    List {
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
    /// What an instrument is.
    Show {
        /// Name or YAML file.
        instrument: String,
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
    /// Whether a description can be read and can be true.
    Check {
        /// Name or YAML file.
        instrument: String,
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Instruments {
    pub(super) fn run(&self) -> Result<ExitCode> {
        match &self.action {
            Action::List { json } => list(*json),
            Action::Show { instrument, json } => show(instrument, &Array::find(instrument)?, *json),
            Action::Check { instrument, json } => check(instrument, &Array::find(instrument)?, *json),
        }
        .map(|()| ExitCode::SUCCESS)
    }
}

fn list(json: bool) -> Result<()> {
    let arrays: Vec<(&str, Array)> =
        EMBEDDED.iter().map(|(name, text)| Ok((*name, Array::parse(text, name)?))).collect::<Result<_>>()?;
    if json {
        println!("{}", Value::Array(arrays.iter().map(|(name, array)| describe(name, array)).collect()));
    } else {
        arrays.iter().for_each(|(name, array)| println!("{name:<12}{}", array.summary));
    }
    Ok(())
}

fn show(name: &str, array: &Array, json: bool) -> Result<()> {
    if json {
        println!("{}", describe(name, array));
        return Ok(());
    }
    println!("{name}: {}", array.summary);
    println!("frequency    {:.4} GHz", array.frequency_hz / 1e9);
    println!("bandwidth    {:.4} GHz", array.bandwidth_hz / 1e9);
    println!("integration  {} s", array.integration);
    println!("elevation    above {:.1} deg", array.minimum_elevation.to_degrees());
    println!("{:<9}{:>16}{:>16}{:>16}{:>12}", "station", "X (m)", "Y (m)", "Z (m)", "SEFD (Jy)");
    for station in &array.stations {
        let [x, y, z] = station.position;
        let sefd = station.sefd.map_or("-".into(), |sefd| format!("{sefd:.0}"));
        println!("{:<9}{x:>16.2}{y:>16.2}{z:>16.2}{sefd:>12}", station.code);
    }
    Ok(())
}

fn check(name: &str, array: &Array, json: bool) -> Result<()> {
    if json {
        println!("{}", json!({ "name": name, "ok": true, "stations": array.stations.len() }));
    } else {
        println!("{name}: sound, {} stations", array.stations.len());
    }
    Ok(())
}

fn describe(name: &str, array: &Array) -> Value {
    let stations = array.stations.iter().map(
        |station| json!({ "code": station.code, "position_m": station.position, "sefd_jy": station.sefd }),
    );
    json!({
        "name": name,
        "summary": array.summary,
        "kind": "vlbi",
        "needs": "an image with source coordinates, or UVFITS data",
        "frequency_hz": array.frequency_hz,
        "bandwidth_hz": array.bandwidth_hz,
        "integration_s": array.integration,
        "minimum_elevation_deg": array.minimum_elevation.to_degrees(),
        "stations": stations.collect::<Vec<_>>(),
    })
}
