//! `antumbra instruments`: the instruments that are known, and whether a description is sound.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    Result,
    instrument::{
        file::{self, Kind},
        microscope::Microscope,
        vlbi::array::Array,
    },
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
            Action::Show { instrument, json } => Instrument::find(instrument)?.show(instrument, *json),
            Action::Check { instrument, json } => Instrument::find(instrument)?.check(instrument, *json),
        }
        .map(|()| ExitCode::SUCCESS)
    }
}

/// A described instrument of any kind.
enum Instrument {
    Array(Array),
    Microscope(Box<Microscope>),
}

impl Instrument {
    fn find(name: &str) -> Result<Self> {
        Self::parse(&file::text(name)?, name)
    }

    fn parse(text: &str, name: &str) -> Result<Self> {
        Ok(match file::kind(text, name)? {
            Kind::Vlbi => Self::Array(Array::parse(text, name)?),
            Kind::Widefield => Self::Microscope(Box::new(Microscope::parse(text, name)?)),
        })
    }

    fn summary(&self) -> &str {
        match self {
            Self::Array(array) => &array.summary,
            Self::Microscope(microscope) => &microscope.summary,
        }
    }

    fn describe(&self, name: &str) -> Value {
        match self {
            Self::Array(array) => describe(name, array),
            Self::Microscope(microscope) => describe_microscope(name, microscope),
        }
    }

    fn show(&self, name: &str, json: bool) -> Result<()> {
        match self {
            _ if json => {
                println!("{}", self.describe(name));
                Ok(())
            }
            Self::Array(array) => show(name, array),
            Self::Microscope(microscope) => show_microscope(name, microscope),
        }
    }

    fn check(&self, name: &str, json: bool) -> Result<()> {
        match self {
            Self::Array(array) => check(name, array, json),
            Self::Microscope(microscope) => check_microscope(name, microscope, json),
        }
    }
}

fn list(json: bool) -> Result<()> {
    let parsed = |(name, text)| Ok((name, Instrument::parse(text, name)?));
    let instruments: Vec<(&str, Instrument)> = file::embedded().map(parsed).collect::<Result<_>>()?;
    if json {
        let values = instruments.iter().map(|(name, instrument)| instrument.describe(name)).collect();
        println!("{}", Value::Array(values));
    } else {
        instruments.iter().for_each(|(name, instrument)| println!("{name:<22}{}", instrument.summary()));
    }
    Ok(())
}

fn show(name: &str, array: &Array) -> Result<()> {
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

fn show_microscope(name: &str, microscope: &Microscope) -> Result<()> {
    let optics = &microscope.recipe.optics;
    println!("{name}: {}", microscope.summary);
    println!("emission            {:.1} nm", optics.wavelength * 1e9);
    println!("numerical aperture  {}", optics.numerical_aperture);
    println!("immersion index     {}", optics.immersion.index);
    println!("sample index        {}", optics.sample_index);
    println!(
        "coverslip           {:.1} um, index {}",
        optics.coverslip.thickness * 1e6,
        optics.coverslip.index
    );
    println!("depth               {:.2} um", optics.depth * 1e6);
    println!("cut-off             {:.3} /um", optics.cut_off() * 1e-6);
    if let Some(pixel) = microscope.pixel {
        println!("pixel in the sample {:.1} nm", pixel * 1e9);
    }
    Ok(())
}

fn check_microscope(name: &str, microscope: &Microscope, json: bool) -> Result<()> {
    let warning = microscope.sampling(name)?;
    if json {
        println!("{}", json!({ "name": name, "ok": true, "warning": warning }));
    } else {
        println!("{name}: sound, cut-off {:.3} /um", microscope.recipe.optics.cut_off() * 1e-6);
        warning.iter().for_each(|warning| super::note(&format!("warning: {warning}")));
    }
    Ok(())
}

fn describe_microscope(name: &str, microscope: &Microscope) -> Value {
    let optics = &microscope.recipe.optics;
    json!({
        "name": name,
        "summary": microscope.summary,
        "kind": "widefield",
        "needs": "an image or a stack",
        "emission_nm": optics.wavelength * 1e9,
        "numerical_aperture": optics.numerical_aperture,
        "immersion_index": optics.immersion.index,
        "sample_index": optics.sample_index,
        "cut_off_per_um": optics.cut_off() * 1e-6,
        "pixel_nm": microscope.pixel.map(|pixel| pixel * 1e9),
    })
}
