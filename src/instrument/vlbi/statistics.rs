//! Numbers that describe an observation: how much there is of what, and how noisy it is.

use serde::Serialize;

use super::average::{Average, average, scans, time_stamps};
use super::closure::{minimal_quadrangles, minimal_triangles};
use super::{Observation, Visibility};

/// Numbers of data; closures are counted in eht-imaging's minimal sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Visibilities.
    pub visibilities: usize,
    /// Closure phases.
    pub closure_phases: usize,
    /// Log closure amplitudes.
    pub log_closure_amplitudes: usize,
}

impl Counts {
    /// Counts the data of an observation as it is.
    pub fn of(observation: &Observation) -> Self {
        Self {
            visibilities: observation.visibilities.len(),
            closure_phases: minimal_triangles(observation).len(),
            log_closure_amplitudes: minimal_quadrangles(observation).len(),
        }
    }
}

/// Summary of an observation.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// Data as they are.
    pub counts: Counts,
    /// Data averaged over scans in eht-imaging's way.
    pub scan_averaged: Counts,
    /// Pairs of stations with data.
    pub baselines: usize,
    /// Distinct times.
    pub time_stamps: usize,
    /// First and last time of each scan, seconds since 0h UTC of the first day, and its stations.
    pub scans: Vec<Scan>,
    /// Shortest and longest baseline, wavelengths.
    pub uv_range: [f64; 2],
    /// Smallest, median and largest amplitude, Jy.
    pub amplitude: [f64; 3],
    /// Smallest, median and largest thermal noise per real component, Jy.
    pub sigma: [f64; 3],
    /// Number of visibilities of each station.
    pub per_station: Vec<usize>,
}

/// A stretch of time without long gaps.
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    /// Seconds since 0h UTC of the first day.
    pub start: f64,
    /// Seconds since 0h UTC of the first day.
    pub end: f64,
    /// Indices of the stations that take part.
    pub stations: Vec<usize>,
    /// Number of visibilities.
    pub visibilities: usize,
}

impl Statistics {
    /// Summarises an observation that holds visibilities.
    pub fn of(observation: &Observation) -> Self {
        let rows = &observation.visibilities;
        let uv = extremes(rows, |row| row.u.hypot(row.v));
        let per_station = (0..observation.stations.len())
            .map(|s| rows.iter().filter(|row| row.stations.contains(&s)).count());
        Self {
            counts: Counts::of(observation),
            scan_averaged: Counts::of(&average(observation, Average::EhtimScan)),
            baselines: distinct(rows.iter().map(|row| row.stations)).len(),
            time_stamps: time_stamps(observation).len(),
            scans: scans(observation).into_iter().filter_map(|range| Scan::of(&rows[range])).collect(),
            uv_range: [uv[0], uv[2]],
            amplitude: extremes(rows, |row| row.value.norm()),
            sigma: extremes(rows, |row| row.sigma),
            per_station: per_station.collect(),
        }
    }
}

impl Scan {
    fn of(rows: &[Visibility]) -> Option<Self> {
        Some(Self {
            start: rows.first()?.time,
            end: rows.last()?.time,
            stations: distinct(rows.iter().flat_map(|row| row.stations)),
            visibilities: rows.len(),
        })
    }
}

fn distinct<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    items.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// Smallest, median and largest value; zeros for no rows.
fn extremes(rows: &[Visibility], value: impl Fn(&Visibility) -> f64) -> [f64; 3] {
    let mut values: Vec<f64> = rows.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return [0.0; 3] };
    let middle = values.len() / 2;
    let median =
        if values.len() % 2 == 1 { values[middle] } else { 0.5 * (values[middle - 1] + values[middle]) };
    [*first, median, *last]
}
