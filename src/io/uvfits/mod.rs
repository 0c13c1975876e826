//! UVFITS: random-groups visibilities with their antenna and frequency tables (AIPS memo 117).

mod antennas;
mod axes;
mod date;
mod frequencies;
mod parameters;
mod read;
mod stokes;
mod write;

use std::path::Path;

use ndarray::Array4;
use rustfft::num_complex::Complex64;

use crate::Result;
use crate::instrument::vlbi::{Observation, Station};

pub use axes::Hand;
pub use date::calendar_date;
pub use read::read;

/// Everything in a UVFITS file that imaging needs, hands, IFs and channels kept apart.
#[derive(Debug, Clone, PartialEq)]
pub struct UvData {
    /// Source name.
    pub source: String,
    /// Right ascension of the phase centre, degrees.
    pub ra_deg: f64,
    /// Declination of the phase centre, degrees.
    pub dec_deg: f64,
    /// Modified Julian date of 0h UTC of the first day, days.
    pub mjd: f64,
    /// Correlation products along the last axis of `values`.
    pub hands: Vec<Hand>,
    /// Centre frequency of every channel, Hz, `[setup][IF][channel]`.
    pub frequencies: Vec<Vec<Vec<f64>>>,
    /// Width of one channel, Hz.
    pub channel_width: f64,
    /// Stations of all antenna tables, in their order.
    pub stations: Vec<Station>,
    /// One record per baseline and time, in the order of the file.
    pub records: Vec<Record>,
    /// Visibilities, Jy, `[record, IF, channel, hand]`.
    pub values: Array4<Complex64>,
    /// Weights, Jy^-2: 1/sigma^2 of the real, and of the imaginary, part. Zero where there is no data.
    pub weights: Array4<f64>,
}

/// One baseline at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record {
    /// Time since 0h UTC of `mjd`, seconds.
    pub time: f64,
    /// Integration time, seconds; zero where the file does not say.
    pub integration: f64,
    /// Indices of the two stations, in the order of the file.
    pub stations: [usize; 2],
    /// Baseline components u, v, w, light-seconds.
    pub uvw: [f64; 3],
    /// Index of the frequency setup.
    pub setup: usize,
}

impl UvData {
    /// Number of IFs.
    pub fn ifs(&self) -> usize {
        self.values.dim().1
    }

    /// Number of channels of each IF.
    pub fn channels(&self) -> usize {
        self.values.dim().2
    }

    /// Mean of the channels' centre frequencies, Hz.
    pub fn frequency(&self) -> f64 {
        let all = || self.frequencies.iter().flatten().flatten();
        all().sum::<f64>() / all().count().max(1) as f64
    }

    /// Sum of the channels' widths, Hz.
    pub fn bandwidth(&self) -> f64 {
        self.channel_width * (self.ifs() * self.channels()) as f64
    }
}

/// Reads a UVFITS file and forms Stokes I visibilities averaged over IFs and channels.
///
/// # Errors
/// See [`read`] and [`UvData::observation`].
pub fn read_observation(path: &Path) -> Result<Observation> {
    read(path)?.observation(path)
}

/// Writes Stokes I visibilities as a UVFITS file, RR and LL both holding I.
///
/// # Errors
/// See [`UvData::write`].
pub fn write_observation(observation: &Observation, path: &Path) -> Result<()> {
    UvData::from_observation(observation).write(path)
}
