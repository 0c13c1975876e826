//! Arrays of telescopes described in YAML, and the observations they would make.

use std::ops::RangeInclusive;

use rustfft::num_complex::Complex64;
use serde::Deserialize;

use super::{Observation, Station, Visibility};
use crate::{
    Error, Result,
    instrument::file,
    units::{self, Dimension, SPEED_OF_LIGHT},
};

/// Instruments that come with the program: name and YAML.
pub const EMBEDDED: [(&str, &str); 2] = [
    ("eht2017", include_str!("../../../instruments/eht2017.yaml")),
    ("ngeht", include_str!("../../../instruments/ngeht.yaml")),
];

/// Two-bit sampling keeps this fraction of the signal-to-noise ratio (Thompson, Moran & Swenson, Interferometry and
/// Synthesis in Radio Astronomy, chapter 8).
const QUANTISATION_EFFICIENCY: f64 = 0.88;

/// A telescope array, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// One sentence about it.
    pub summary: String,
    /// Observing frequency, Hz.
    pub frequency_hz: f64,
    /// Bandwidth, Hz.
    pub bandwidth_hz: f64,
    /// Integration time, s.
    pub integration: f64,
    /// Elevation below which a station does not observe, rad.
    pub minimum_elevation: f64,
    /// Stations; each has an SEFD.
    pub stations: Vec<Station>,
    /// Settings of a reconstruction that suit this array, in the layout of a run file.
    pub reconstruct: serde_json::Value,
}

/// What the YAML file holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArray {
    kind: Kind,
    summary: String,
    frequency: String,
    bandwidth: String,
    integration: String,
    minimum_elevation: String,
    stations: Vec<RawStation>,
    #[serde(default)]
    reconstruct: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Vlbi,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStation {
    code: String,
    /// For the reader of the file.
    #[serde(rename = "name")]
    _name: Option<String>,
    position: [f64; 3],
    sefd: String,
}

impl Array {
    /// The array of an embedded name, or of a YAML file.
    ///
    /// # Errors
    /// Neither a known name nor a readable file, or a description that cannot be true.
    pub fn find(name: &str) -> Result<Self> {
        Self::parse(&file::text(name)?, name)
    }

    /// Reads and checks YAML; `name` stands for it in errors.
    ///
    /// # Errors
    /// A missing or unknown key, a quantity without its unit, or a value that cannot be true.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let raw: RawArray =
            serde_yaml::from_str(text).map_err(|error| Error::config(name, error.to_string()))?;
        let Kind::Vlbi = raw.kind;
        let quantity = |text: &str, dimension, key: &str, range: RangeInclusive<f64>, unit: &str| {
            let place = format!("{name}: {key}");
            let value = units::parse(text, dimension, &place)?;
            match range.contains(&value) {
                true => Ok(value),
                false => Err(Error::config(
                    place,
                    format!("`{text}` cannot be; {:e} to {:e} {unit} can", range.start(), range.end()),
                )),
            }
        };
        let frequency_hz = quantity(&raw.frequency, Dimension::Frequency, "frequency", 1e7..=3e12, "Hz")?;
        let station = |(index, raw): (usize, RawStation)| -> Result<Station> {
            let key = format!("stations[{index}].sefd");
            let sefd = quantity(&raw.sefd, Dimension::Flux, &key, 1e-3..=1e9, "Jy")?;
            Ok(Station { code: raw.code, position: raw.position, sefd: Some(sefd) })
        };
        let array = Self {
            summary: raw.summary,
            reconstruct: raw.reconstruct.into(),
            frequency_hz,
            bandwidth_hz: quantity(
                &raw.bandwidth,
                Dimension::Frequency,
                "bandwidth",
                1.0..=frequency_hz,
                "Hz",
            )?,
            integration: quantity(&raw.integration, Dimension::Time, "integration", 1e-3..=3600.0, "s")?,
            minimum_elevation: quantity(
                &raw.minimum_elevation,
                Dimension::Angle,
                "minimum_elevation",
                0.0..=1.5,
                "rad",
            )?,
            stations: raw.stations.into_iter().enumerate().map(station).collect::<Result<_>>()?,
        };
        array.check_stations(name)?;
        Ok(array)
    }

    fn check_stations(&self, name: &str) -> Result<()> {
        /// Distance of the Earth's surface from its centre, m: sea level at the pole to the top of Chimborazo.
        const SURFACE: RangeInclusive<f64> = 6.35e6..=6.39e6;
        if !(2..=255).contains(&self.stations.len()) {
            return Err(Error::config(
                format!("{name}: stations"),
                format!("{} stations; 2 to 255 make an array that UVFITS can hold", self.stations.len()),
            ));
        }
        for (index, station) in self.stations.iter().enumerate() {
            let place = |key: &str| format!("{name}: stations[{index}].{key}");
            let radius = station.position.iter().map(|x| x * x).sum::<f64>().sqrt();
            if !SURFACE.contains(&radius) {
                let problem = format!(
                    "{:.1} km from the Earth's centre; write geocentric X, Y, Z in metres",
                    radius / 1e3
                );
                return Err(Error::config(place("position"), problem));
            }
            if station.code.is_empty() || station.code.len() > 8 || !station.code.is_ascii() {
                return Err(Error::config(
                    place("code"),
                    format!("`{}`: use 1 to 8 ASCII letters", station.code),
                ));
            }
            if self.stations[..index].iter().any(|other| other.code == station.code) {
                return Err(Error::config(place("code"), format!("`{}` is there twice", station.code)));
            }
        }
        Ok(())
    }

    /// Thermal noise of one Stokes I visibility, Jy per real component: sqrt(S1 S2 / (2 bandwidth time)) / 0.88 for one
    /// hand, and both hands averaged.
    fn thermal_noise(&self, a: &Station, b: &Station) -> f64 {
        let product = a.sefd.unwrap_or_default() * b.sefd.unwrap_or_default();
        (product / (4.0 * self.bandwidth_hz * self.integration)).sqrt() / QUANTISATION_EFFICIENCY
    }

    /// The visibilities, all of value zero, that the array would measure of a source following `schedule`.
    ///
    /// # Errors
    /// The source is never above the elevation limit of two stations.
    pub fn observe(&self, source: &Source, schedule: &Schedule) -> Result<Observation> {
        let mut visibilities = Vec::new();
        for time in schedule.times(self.integration) {
            let sky = Sky::new(source, source.mjd + time / 86400.0);
            let up = |station: &Station| sky.elevation(station.position) >= self.minimum_elevation;
            let visible: Vec<usize> = (0..self.stations.len()).filter(|&s| up(&self.stations[s])).collect();
            for (i, &a) in visible.iter().enumerate() {
                for &b in &visible[i + 1..] {
                    let stations = [&self.stations[a], &self.stations[b]];
                    let [u, v] = sky.uv(stations[0].position, stations[1].position, self.frequency_hz);
                    visibilities.push(Visibility {
                        time,
                        integration: self.integration,
                        stations: [a, b],
                        u,
                        v,
                        value: Complex64::ZERO,
                        sigma: self.thermal_noise(stations[0], stations[1]),
                    });
                }
            }
        }
        if visibilities.is_empty() {
            return Err(Error::config(
                "--instrument",
                format!("{} is never above the elevation limit of two stations at once", source.name),
            ));
        }
        Ok(Observation {
            source: source.name.clone(),
            ra_deg: source.ra_deg,
            dec_deg: source.dec_deg,
            frequency_hz: self.frequency_hz,
            bandwidth_hz: self.bandwidth_hz,
            mjd: source.mjd,
            stations: self.stations.clone(),
            visibilities,
        })
    }
}

/// What is observed, and on which day.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Name.
    pub name: String,
    /// Right ascension (J2000), degrees.
    pub ra_deg: f64,
    /// Declination (J2000), degrees.
    pub dec_deg: f64,
    /// Modified Julian date of 0h UTC, days.
    pub mjd: f64,
}

/// When is observed: scans of equal length at equal intervals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// First scan, seconds after 0h UTC.
    pub start: f64,
    /// Time from the first to the end of the last scan, s.
    pub duration: f64,
    /// Length of a scan, s.
    pub scan: f64,
    /// Time from one scan's begin to the next one's, s.
    pub interval: f64,
}

impl Schedule {
    /// Middle of each integration, s.
    fn times(&self, integration: f64) -> Vec<f64> {
        let steps = |length: f64, step: f64| (length / step + 1e-9).floor() as usize;
        let in_scan = steps(self.scan.min(self.interval), integration).max(1);
        let scans = steps((self.duration - self.scan).max(0.0), self.interval) + 1;
        (0..scans)
            .flat_map(|scan| (0..in_scan).map(move |k| (scan as f64, k as f64)))
            .map(|(scan, k)| self.start + scan * self.interval + (k + 0.5) * integration)
            .collect()
    }
}

type Vector = [f64; 3];

/// The direction of a source seen from the turning Earth.
///
/// The hour angle is Greenwich mean sidereal time (Aoki et al. 1982) minus the catalogue's right ascension, as in the
/// EHT's own files: precession and nutation are left out.
#[derive(Debug)]
pub struct Sky {
    /// Unit vectors to the source, east and north of it, in the frame that turns with the Earth.
    axes: [Vector; 3],
}

impl Sky {
    /// At a UTC date, modified Julian days.
    pub fn new(source: &Source, mjd: f64) -> Self {
        let days = mjd - 51544.5;
        let sidereal = 280.460_618_37 + 360.985_647_366_29 * days;
        let (sin, cos) = (source.ra_deg - sidereal).to_radians().sin_cos();
        let (sin_dec, cos_dec) = source.dec_deg.to_radians().sin_cos();
        Self {
            axes: [
                [cos_dec * cos, cos_dec * sin, sin_dec],
                [-sin, cos, 0.0],
                [-sin_dec * cos, -sin_dec * sin, cos_dec],
            ],
        }
    }

    /// Elevation of the source at a geocentric position, rad; the vertical is taken from the Earth's centre.
    pub fn elevation(&self, position: Vector) -> f64 {
        let radius = dot(position, position).sqrt();
        (dot(position, self.axes[0]) / radius).clamp(-1.0, 1.0).asin()
    }

    /// u and v of the baseline from `b` to `a`, wavelengths.
    pub fn uv(&self, a: Vector, b: Vector, frequency_hz: f64) -> [f64; 2] {
        let baseline: Vector = std::array::from_fn(|k| a[k] - b[k]);
        let wavelength = SPEED_OF_LIGHT / frequency_hz;
        [dot(baseline, self.axes[1]) / wavelength, dot(baseline, self.axes[2]) / wavelength]
    }
}

fn dot(a: Vector, b: Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_arrays_are_sound() {
        for (name, _) in EMBEDDED {
            assert!(Array::find(name).unwrap().stations.len() > 7);
        }
    }

    #[test]
    fn impossible_arrays_are_refused_with_their_place() {
        let (_, text) = EMBEDDED[0];
        for (from, to, place) in [
            ("227.0707 GHz", "227.0707", "frequency"),
            ("1.856 GHz", "999 GHz", "bandwidth"),
            ("2225060.8136, -5440059.59994", "2225.06, -5440.05", "stations[0].position"),
            ("74 Jy", "-74 Jy", "stations[0].sefd"),
            ("code: AP", "code: AA", "stations[1].code"),
            ("kind: vlbi", "kind: vlbi\ncolour: red", "colour"),
        ] {
            let error = Array::parse(&text.replace(from, to), "x.yaml").unwrap_err().to_string();
            assert!(error.contains(place) && error.contains("x.yaml"), "{error}");
        }
    }

    #[test]
    fn a_source_at_the_pole_stays_at_its_height() {
        let source = Source { name: "P".into(), ra_deg: 0.0, dec_deg: 90.0, mjd: 57848.0 };
        let station = [4.0e6, 0.0, 4.95e6];
        let heights: Vec<f64> =
            (0..4).map(|k| Sky::new(&source, 57848.0 + 0.25 * k as f64).elevation(station)).collect();
        assert!(heights.iter().all(|height| (height - heights[0]).abs() < 1e-12), "{heights:?}");
    }
}
