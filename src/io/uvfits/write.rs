//! Writing UVFITS as eht-imaging, Difmap, AIPS and CASA read it.

use std::path::Path;

use ndarray::{Array4, Axis};
use rustfft::num_complex::Complex64;

use super::date::{calendar_date, sidereal_degrees};
use super::{Hand, Record, UvData};
use crate::instrument::vlbi::average::SCAN_GAP;
use crate::instrument::vlbi::{Observation, Visibility};
use crate::io::atomic;
use crate::io::fits::{Column, FitsWriter, Key, Values};
use crate::{Error, Result};

const DAY: f64 = 86_400.0;
/// Julian date of modified Julian date 0.
const MJD_ZERO: f64 = 2_400_000.5;
/// Largest station number of baseline = 256 a + b, and of 2048 a + b + 65536.
const STATIONS: [usize; 2] = [255, 2047];
/// Degrees that the Earth turns in a day.
const DEGREES_PER_DAY: f64 = 360.985_647_366_29;
/// The array that AIPS and CASA know; EHT files carry it too.
const ARRAY: &str = "VLBA";

/// Random parameters of a group; the two dates add up to the Julian date.
const PARAMETERS: [&str; 8] =
    ["UU---SIN", "VV---SIN", "WW---SIN", "BASELINE", "DATE", "DATE", "INTTIM", "FREQSEL"];

impl UvData {
    /// Stokes I visibilities as RR and LL that both hold I, each with sqrt(2) times its noise, as the EHT does.
    pub fn from_observation(observation: &Observation) -> Self {
        let rows = &observation.visibilities;
        let frequency = observation.frequency_hz;
        let record = |row: &Visibility| Record {
            time: row.time,
            integration: row.integration,
            stations: row.stations,
            uvw: [row.u / frequency, row.v / frequency, 0.0],
            setup: 0,
        };
        let shape = (rows.len(), 1, 1, 2);
        Self {
            source: observation.source.clone(),
            ra_deg: observation.ra_deg,
            dec_deg: observation.dec_deg,
            mjd: observation.mjd,
            hands: vec![Hand::RR, Hand::LL],
            frequencies: vec![vec![vec![frequency]]],
            channel_width: observation.bandwidth_hz,
            stations: observation.stations.clone(),
            records: rows.iter().map(record).collect(),
            values: Array4::from_shape_fn(shape, |(row, ..)| rows[row].value),
            weights: Array4::from_shape_fn(shape, |(row, ..)| 0.5 * rows[row].sigma.powi(-2)),
        }
    }

    /// Writes the file, whole or not at all. Numbers are rounded to single precision as the format demands.
    ///
    /// # Errors
    /// No records, more than 2047 stations, values that single precision cannot hold, hands that are not evenly coded,
    /// or a file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        if self.records.is_empty() {
            return Err(Error::format(path, "visibilities", "there are none to write"));
        }
        if self.stations.len() > STATIONS[1] {
            let problem = format!("{} stations; the format holds {}", self.stations.len(), STATIONS[1]);
            return Err(Error::format(path, "stations", problem));
        }
        atomic::replace(path, |temporary| {
            let mut file = FitsWriter::create(temporary)?;
            self.write_primary(&mut file, path)?;
            self.write_antennas(&mut file)?;
            self.write_frequencies(&mut file)?;
            self.write_scans(&mut file)?;
            file.close()
        })
    }

    fn write_primary(&self, file: &mut FitsWriter, path: &Path) -> Result<()> {
        let axes = [3, self.hands.len(), self.channels(), self.ifs(), 1, 1];
        file.groups(&axes, PARAMETERS.len(), self.records.len())?;
        self.write_source(file)?;
        for (index, (kind, value, step)) in self.axes(path)?.into_iter().enumerate() {
            let n = index + 2;
            file.key(&format!("CTYPE{n}"), Key::Text(kind))?;
            for (key, value) in [("CRVAL", value), ("CDELT", step), ("CRPIX", 1.0), ("CROTA", 0.0)] {
                file.key(&format!("{key}{n}"), Key::Number(value))?;
            }
        }
        for (index, name) in PARAMETERS.iter().enumerate() {
            let n = index + 1;
            file.key(&format!("PTYPE{n}"), Key::Text(name))?;
            file.key(&format!("PSCAL{n}"), Key::Number(1.0))?;
            file.key(&format!("PZERO{n}"), Key::Number(0.0))?;
        }
        file.history("AIPS SORT ORDER = 'TB'")?;
        file.history("AIPS WTSCAL = 1.0")?;
        for index in 0..self.records.len() {
            let (mut parameters, mut array) = (self.parameters(index), self.array(index));
            if parameters.iter().chain(&array).any(|value| !value.is_finite()) {
                let problem =
                    "a value is not finite in single precision; check its visibility, noise and u, v";
                return Err(Error::format(path, format!("visibility {}", index + 1), problem));
            }
            file.group(index, &mut parameters, &mut array)?;
        }
        Ok(())
    }

    /// Keywords of the source, the date and the units.
    fn write_source(&self, file: &mut FitsWriter) -> Result<()> {
        for (key, value) in [
            ("OBJECT", self.source.as_str()),
            ("TELESCOP", ARRAY),
            ("INSTRUME", ARRAY),
            ("OBSERVER", "EHT"),
            ("DATE-OBS", &calendar_date(self.mjd)),
            ("BUNIT", "JY"),
        ] {
            file.key(key, Key::Text(value))?;
        }
        for (key, value) in [
            ("BSCALE", 1.0),
            ("BZERO", 0.0),
            ("EPOCH", 2000.0),
            ("EQUINOX", 2000.0),
            ("OBSRA", self.ra_deg),
            ("OBSDEC", self.dec_deg),
            ("MJD", self.mjd),
        ] {
            file.key(key, Key::Number(value))?;
        }
        Ok(())
    }

    /// Type, value at pixel 1 and step of the axes after the first.
    fn axes(&self, path: &Path) -> Result<[(&'static str, f64, f64); 6]> {
        let codes: Vec<_> = self.hands.iter().map(|hand| hand.code()).collect();
        let step = codes.get(1).map_or(1, |second| second - codes[0]);
        if codes.windows(2).any(|pair| pair[1] - pair[0] != step) {
            let problem = format!("{:?} have no evenly spaced codes; leave hands out", self.hands);
            return Err(Error::format(path, "hands", problem));
        }
        let channels = &self.frequencies[0][0];
        let width = channels.get(1).map_or(self.channel_width, |second| second - channels[0]);
        Ok([
            ("COMPLEX", 1.0, 1.0),
            ("STOKES", codes[0] as f64, step as f64),
            ("FREQ", channels[0], width),
            ("IF", 1.0, 1.0),
            ("RA", self.ra_deg, 1.0),
            ("DEC", self.dec_deg, 1.0),
        ])
    }

    /// Random parameters of one record: light-seconds, baseline, Julian date in two parts, seconds, setup.
    fn parameters(&self, index: usize) -> Vec<f32> {
        let record = &self.records[index];
        let days = (record.time / DAY).floor();
        let [a, b] = record.stations.map(|station| station + 1);
        let baseline = if self.stations.len() <= STATIONS[0] { 256 * a + b } else { 2048 * a + b + 65_536 };
        let date = [self.mjd + days + MJD_ZERO, record.time / DAY - days];
        let rest = [record.integration, record.setup as f64 + 1.0];
        let all = record.uvw.into_iter().chain([baseline as f64]).chain(date).chain(rest);
        all.map(|value| value as f32).collect()
    }

    /// Real part, imaginary part and weight of every visibility of one record, hands fastest.
    fn array(&self, index: usize) -> Vec<f32> {
        let values = self.values.index_axis(Axis(0), index);
        let weights = self.weights.index_axis(Axis(0), index);
        let part = |(value, weight): (&Complex64, &f64)| [value.re as f32, value.im as f32, *weight as f32];
        values.iter().zip(weights.iter()).flat_map(part).collect()
    }

    fn write_antennas(&self, file: &mut FitsWriter) -> Result<()> {
        let count = self.stations.len();
        let width = self.stations.iter().map(|station| station.code.len()).fold(8, usize::max);
        let codes = self.stations.iter().map(|station| station.code.clone()).collect();
        let positions = self.stations.iter().flat_map(|station| station.position).collect();
        let sefds = self.stations.iter().map(|station| station.sefd.unwrap_or(0.0)).collect();
        let hand = |name: &str| Values::Text(1, vec![name.to_string(); count]);
        let zeros = |repeat: usize| Values::Single(repeat, vec![0.0; repeat * count]);
        let columns: [Column<'_>; 13] = [
            ("ANNAME", "", Values::Text(width, codes)),
            ("STABXYZ", "METERS", Values::Double(3, positions)),
            ("ORBPARM", "", Values::Double(0, Vec::new())),
            ("NOSTA", "", Values::Integer(1, (1..=count as i32).collect())),
            ("MNTSTA", "", Values::Integer(1, vec![0; count])),
            ("STAXOF", "METERS", zeros(1)),
            ("POLTYA", "", hand("R")),
            ("POLAA", "DEGREES", zeros(1)),
            ("POLCALA", "", zeros(3)),
            ("POLTYB", "", hand("L")),
            ("POLAB", "DEGREES", Values::Single(1, vec![90.0; count])),
            ("POLCALB", "", zeros(3)),
            ("SEFD", "JY", Values::Double(1, sefds)),
        ];
        file.table("AIPS AN", count, &columns)?;
        self.write_array(file)
    }

    /// Keywords of the antenna table: Earth's rotation, frame, polarisation.
    fn write_array(&self, file: &mut FitsWriter) -> Result<()> {
        for (key, value) in [
            ("ARRAYX", 0.0),
            ("ARRAYY", 0.0),
            ("ARRAYZ", 0.0),
            ("GSTIA0", sidereal_degrees(self.mjd)),
            ("DEGPDY", DEGREES_PER_DAY),
            ("FREQ", self.frequencies[0][0][0]),
            ("POLARX", 0.0),
            ("POLARY", 0.0),
            ("UT1UTC", 0.0),
            ("DATUTC", 0.0),
        ] {
            file.key(key, Key::Number(value))?;
        }
        for (key, value) in [
            ("RDATE", calendar_date(self.mjd).as_str()),
            ("TIMESYS", "UTC"),
            ("TIMSYS", "UTC"),
            ("ARRNAM", ARRAY),
            ("XYZHAND", "RIGHT"),
            ("FRAME", "ITRF"),
            ("POLTYPE", "APPROX"),
        ] {
            file.key(key, Key::Text(value))?;
        }
        for (key, value) in
            [("EXTVER", 1), ("NUMORB", 0), ("NO_IF", self.ifs() as i64), ("NOPCAL", 0), ("FREQID", 1)]
        {
            file.key(key, Key::Integer(value))?;
        }
        Ok(())
    }

    fn write_frequencies(&self, file: &mut FitsWriter) -> Result<()> {
        let (setups, ifs) = (self.frequencies.len(), self.ifs());
        let reference = self.frequencies[0][0][0];
        let offsets = self.frequencies.iter().flatten().map(|channels| channels[0] - reference).collect();
        let width = self.channel_width as f32;
        let total = width * self.channels() as f32;
        let same = |value: f32| Values::Single(ifs, vec![value; setups * ifs]);
        let upper = |channels: &Vec<f64>| if channels.last() >= channels.first() { 1 } else { -1 };
        let columns: [Column<'_>; 5] = [
            ("FRQSEL", "", Values::Integer(1, (1..=setups as i32).collect())),
            ("IF FREQ", "HZ", Values::Double(ifs, offsets)),
            ("CH WIDTH", "HZ", same(width)),
            ("TOTAL BANDWIDTH", "HZ", same(total)),
            ("SIDEBAND", "", Values::Integer(ifs, self.frequencies.iter().flatten().map(upper).collect())),
        ];
        file.table("AIPS FQ", setups, &columns)?;
        file.key("EXTVER", Key::Integer(1))?;
        file.key("NO_IF", Key::Integer(ifs as i64))
    }

    /// The index table, for records in order of time.
    fn write_scans(&self, file: &mut FitsWriter) -> Result<()> {
        if !self.records.is_sorted_by_key(|record| record.time) {
            return Ok(());
        }
        let scans: Vec<_> = self.records.chunk_by(|a, b| b.time - a.time <= SCAN_GAP).collect();
        let count = scans.len();
        let days = |part: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
            scans.iter().map(|scan| part(scan[0].time, scan[scan.len() - 1].time) / DAY).collect()
        };
        let mut ends = Vec::new();
        scans.iter().for_each(|scan| ends.push(ends.last().unwrap_or(&0) + scan.len() as i32));
        let starts = ends.iter().zip(&scans).map(|(end, scan)| end - scan.len() as i32 + 1).collect();
        let ones = || Values::Integer(1, vec![1; count]);
        let lengths = days(&|first, last| last - first).into_iter().map(|days| days as f32).collect();
        let columns: [Column<'_>; 7] = [
            ("TIME", "DAYS", Values::Double(1, days(&|first, last| 0.5 * (first + last)))),
            ("TIME INTERVAL", "DAYS", Values::Single(1, lengths)),
            ("SOURCE ID", "", ones()),
            ("SUBARRAY", "", ones()),
            ("FREQ ID", "", ones()),
            ("START VIS", "", Values::Integer(1, starts)),
            ("END VIS", "", Values::Integer(1, ends)),
        ];
        file.table("AIPS NX", count, &columns)?;
        file.key("EXTVER", Key::Integer(1))
    }
}
