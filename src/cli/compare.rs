//! `antumbra compare`: how well a given image fits a data set, per data product.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use crate::{
    Result,
    instrument::vlbi::{
        Vlbi,
        average::Average,
        fourier::Pulse,
        products::{Fit, Fits, model_visibilities},
    },
    io::{image, uvfits},
};

/// Fit of a given image to a data set, per data product.
///
/// Reduced chi-square by eht-imaging's definitions: complex visibilities, debiased amplitudes, and the minimal sets of
/// closure phases and log closure amplitudes, over all baselines of the file and with its thermal noise.
#[derive(Debug, Args)]
pub(super) struct Compare {
    /// FITS image, eht-imaging text image, or run directory (its mean).
    image: PathBuf,
    /// UVFITS file.
    data: PathBuf,
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
    /// Averaging in time before the comparison.
    #[arg(long, value_enum, default_value = "none")]
    average: Average,
    /// Systematic noise as a fraction of each amplitude, added after averaging.
    #[arg(long, default_value_t = 0.0)]
    systematic: f64,
    /// Brightness between pixel centres.
    #[arg(long, value_enum, default_value = "triangle")]
    pulse: Pulse,
}

impl Compare {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let image = image::read(&self.image)?;
        let observation = uvfits::read_observation(&self.data)?;
        let settings = Vlbi { average: self.average, systematic: self.systematic, ..Vlbi::default() };
        let prepared = settings.prepare(&observation)?;
        let pixels: Vec<f64> = image.pixels.iter().copied().collect();
        let fits = Fits::new(&prepared, &model_visibilities(&prepared, &pixels, &image.grid, self.pulse)?);
        if self.json {
            println!("{}", self.report(&fits, image.total_flux()));
        } else {
            self.print(&fits, image.total_flux());
        }
        Ok(ExitCode::SUCCESS)
    }

    fn report(&self, fits: &Fits, flux: f64) -> serde_json::Value {
        json!({
            "image": self.image,
            "data": self.data,
            "average": self.average,
            "systematic": self.systematic,
            "pulse": self.pulse,
            "image_flux_jy": flux,
            "chi2": fits,
        })
    }

    fn print(&self, fits: &Fits, flux: f64) {
        println!("{} ({flux:.4} Jy) against {}", self.image.display(), self.data.display());
        println!("{:<24}{:>14}{:>10}", "product", "chi2", "count");
        let row = |name: &str, fit: Option<Fit>| match fit {
            Some(Fit { chi2, count }) => println!("{name:<24}{chi2:>14.6}{count:>10}"),
            None => println!("{name:<24}{:>14}{:>10}", "-", 0),
        };
        row("visibility", fits.visibility);
        row("amplitude", fits.amplitude);
        row("closure phase", fits.closure_phase);
        row("log closure amplitude", fits.log_closure_amplitude);
    }
}
