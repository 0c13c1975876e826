//! One observation: stations and the Stokes I visibilities between them, as plain f64 data.

use rustfft::num_complex::Complex64;

/// A telescope of the array.
#[derive(Debug, Clone, PartialEq)]
pub struct Station {
    /// Code, for example `AA`.
    pub code: String,
    /// Geocentric position X, Y, Z, metres.
    pub position: [f64; 3],
    /// System equivalent flux density, Jy, where known.
    pub sefd: Option<f64>,
}

/// One Stokes I visibility: one baseline at one time, IFs and channels averaged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Visibility {
    /// Time since 0h UTC of the observation's `mjd`, seconds.
    pub time: f64,
    /// Integration time, seconds (not trustworthy in many files; never used as a weight).
    pub integration: f64,
    /// Indices of the two stations; u and v point from the second to the first.
    pub stations: [usize; 2],
    /// Baseline east component, wavelengths.
    pub u: f64,
    /// Baseline north component, wavelengths.
    pub v: f64,
    /// Visibility, Jy: sum of I exp(+2 pi i (u x + v y)), x east, y north.
    pub value: Complex64,
    /// Thermal noise of the real part, and of the imaginary part, Jy.
    pub sigma: f64,
}

/// Visibilities of one source, sorted by time, then by baseline in station order.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Source name.
    pub source: String,
    /// Right ascension, degrees.
    pub ra_deg: f64,
    /// Declination, degrees.
    pub dec_deg: f64,
    /// Reference frequency, Hz.
    pub frequency_hz: f64,
    /// Total bandwidth, Hz.
    pub bandwidth_hz: f64,
    /// Modified Julian date of 0h UTC of the first day, days.
    pub mjd: f64,
    /// Stations in the order of the antenna table.
    pub stations: Vec<Station>,
    /// Visibilities.
    pub visibilities: Vec<Visibility>,
}
