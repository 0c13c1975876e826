//! `antumbra simulate`: synthetic data of an image, with the coverage and noise of a real file or of an array.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    Error, Result,
    instrument::vlbi::{
        Observation,
        array::{Array, Schedule, Source},
        fourier::Pulse,
        gains::{GainModel, GainSpreads, PhaseGains, SkyModel, simulate},
    },
    io::{
        image::{self, SkyImage},
        uvfits,
    },
    rng::Rng,
    units::{self, Dimension},
};

/// Synthetic data of an image: coverage and noise of a real file (--like) or of an array (--instrument).
///
/// Visibilities get random station gains and thermal noise, and baseline errors with --systematic. Phases are random but constant within a scan, as after
/// fringe fitting, so that the data can be scan-averaged; --phases stamp draws them anew at every time stamp.
#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// FITS image, eht-imaging text image, or run directory (its mean).
    image: PathBuf,
    /// UVFITS file whose coverage and sigmas are taken.
    #[arg(long, required_unless_present = "instrument", conflicts_with = "instrument")]
    like: Option<PathBuf>,
    /// Array that observes: a name of `antumbra instruments list` or a YAML file.
    #[arg(long)]
    instrument: Option<String>,
    /// Total flux density that the image is scaled to, for example `0.6 Jy`. Default: the image's own.
    #[arg(long, allow_hyphen_values = true)]
    flux: Option<String>,
    /// UVFITS file to write.
    #[arg(short, long)]
    output: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
    /// Seed of gains and noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Perfect stations.
    #[arg(long)]
    no_gains: bool,
    /// No thermal noise in the values; the sigmas stay.
    #[arg(long)]
    no_noise: bool,
    /// Standard deviation of a station's constant log amplitude gain.
    #[arg(long, default_value_t = 0.1)]
    gain_offset: f64,
    /// Standard deviation of a station's log amplitude gain from scan to scan.
    #[arg(long, default_value_t = 0.05)]
    gain_scatter: f64,
    /// Standard deviation of a baseline's error in each scan as a fraction, which does not cancel in closures.
    #[arg(long, default_value_t = 0.0)]
    systematic: f64,
    /// How long a station keeps its random phase.
    #[arg(long, value_enum, default_value = "scan")]
    phases: PhaseGains,
    /// Brightness between pixel centres.
    #[arg(long, value_enum, default_value = "triangle")]
    pulse: Pulse,
    /// With --instrument: begin of the first scan after 0h UTC.
    #[arg(long, default_value = "0 h")]
    start: String,
    /// With --instrument: time from the first to the end of the last scan.
    #[arg(long, default_value = "24 h")]
    duration: String,
    /// With --instrument: length of a scan.
    #[arg(long, default_value = "5 min")]
    scan: String,
    /// With --instrument: time from one scan's begin to the next one's.
    #[arg(long, default_value = "20 min")]
    interval: String,
}

impl Simulate {
    pub(super) fn run(&self) -> Result<ExitCode> {
        super::refuse_to_replace(&self.output, self.force)?;
        let mut image = image::read(&self.image)?;
        if let Some(flux) = &self.flux {
            image.scale_to(units::parse(flux, Dimension::Flux, "--flux")?)?;
        }
        let coverage = self.coverage(&image)?;
        let pixels: Vec<f64> = image.pixels.iter().copied().collect();
        let model = SkyModel { pixels: &pixels, grid: &image.grid, pulse: self.pulse };
        let rng = Rng::new(self.seed);
        let simulated = simulate(&coverage, model, &self.gains()?, !self.no_noise, &rng)?;
        uvfits::write_observation(&simulated, &self.output)?;
        println!(
            "{}: {} visibilities of {} ({:.4} Jy) on {} stations, seed {}",
            self.output.display(),
            simulated.visibilities.len(),
            simulated.source,
            image.total_flux(),
            simulated.stations.len(),
            self.seed
        );
        Ok(ExitCode::SUCCESS)
    }

    fn gains(&self) -> Result<GainModel> {
        let spreads = [
            ("--gain-offset", self.gain_offset),
            ("--gain-scatter", self.gain_scatter),
            ("--systematic", self.systematic),
        ];
        for (place, value) in spreads {
            if !(0.0..=3.0).contains(&value) {
                return Err(Error::config(place, format!("{value} is not between 0 and 3")));
            }
        }
        let systematic = self.systematic;
        Ok(match self.no_gains {
            true => GainModel { systematic, ..GainModel::NONE },
            false => GainModel {
                amplitudes: GainSpreads {
                    offset: self.gain_offset,
                    scatter: self.gain_scatter,
                    ..GainSpreads::NONE
                },
                phases: self.phases,
                systematic,
            },
        })
    }

    /// An observation whose values are to be replaced. The source keeps the image's name, if it has one.
    fn coverage(&self, image: &SkyImage) -> Result<Observation> {
        let mut coverage = match (&self.like, &self.instrument) {
            (Some(file), _) => uvfits::read_observation(file)?,
            (None, Some(name)) => self.observe(&Array::find(name)?, image)?,
            (None, None) => return Err(Error::config("--like", "name a UVFITS file, or an --instrument")),
        };
        if !image.sky.source.trim().is_empty() {
            coverage.source = image.sky.source.clone();
        }
        Ok(coverage)
    }

    fn observe(&self, array: &Array, image: &SkyImage) -> Result<Observation> {
        let time = |text: &str, place: &str| -> Result<f64> {
            let value = units::parse(text, Dimension::Time, place)?;
            match (0.0..=7.0 * 86400.0).contains(&value) {
                true => Ok(value),
                false => Err(Error::config(place, format!("`{text}` is not between 0 and a week"))),
            }
        };
        let schedule = Schedule {
            start: time(&self.start, "--start")?,
            duration: time(&self.duration, "--duration")?,
            scan: time(&self.scan, "--scan")?,
            interval: time(&self.interval, "--interval")?,
        };
        if schedule.interval <= 0.0 || schedule.scan <= 0.0 {
            return Err(Error::config("--interval", "scan and interval must be longer than 0 s"));
        }
        let source = Source {
            name: image.sky.source.clone(),
            ra_deg: image.sky.ra_deg,
            dec_deg: image.sky.dec_deg,
            mjd: image.sky.mjd.floor(),
        };
        array.observe(&source, &schedule)
    }
}
