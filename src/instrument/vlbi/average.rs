//! Scans, averaging over them, and the noise that thermal errors do not tell of.

use std::{collections::BTreeMap, ops::Range};

use rustfft::num_complex::Complex64;
use serde::{Deserialize, Serialize};

use super::{Observation, Visibility};

/// Time stamps closer than this are one: files store the time of day in single precision, good to milliseconds.
pub const TIME_TOLERANCE: f64 = 0.1;
/// A longer gap between time stamps starts a new scan, seconds (eht-imaging's 0.0165 h).
pub const SCAN_GAP: f64 = 0.0165 * 3600.0;

/// How visibilities are averaged in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Average {
    /// As they are in the file.
    None,
    /// One visibility per baseline and scan, weighted by inverse variance, with the scan's common time stamp.
    #[default]
    Scan,
    /// As eht-imaging 1.3 does: unweighted mean, stamped with the first time of that baseline in the scan, so that
    /// baselines which start late fall out of the closures. For comparison.
    EhtimScan,
}

/// Index ranges of visibilities that share a time stamp.
pub fn time_stamps(observation: &Observation) -> Vec<Range<usize>> {
    runs(&observation.visibilities, |first, _, next| next.time - first.time > TIME_TOLERANCE)
}

/// Index ranges of the scans: stretches without a gap longer than [`SCAN_GAP`].
pub fn scans(observation: &Observation) -> Vec<Range<usize>> {
    runs(&observation.visibilities, |_, previous, next| next.time - previous.time > SCAN_GAP)
}

/// Splits a time-ordered list where `splits(first of the run, previous, next)` says so.
fn runs(
    visibilities: &[Visibility],
    splits: impl Fn(&Visibility, &Visibility, &Visibility) -> bool,
) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for next in 1..=visibilities.len() {
        let ends = match (&visibilities[start..next], visibilities.get(next)) {
            ([first, .., previous], Some(next)) => splits(first, previous, next),
            ([only], Some(next)) => splits(only, only, next),
            _ => true,
        };
        if ends {
            ranges.push(start..next);
            start = next;
        }
    }
    ranges
}

/// The observation averaged over scans as `average` says.
pub fn average(observation: &Observation, average: Average) -> Observation {
    let mut averaged = observation.clone();
    if average == Average::None {
        return averaged;
    }
    averaged.visibilities.clear();
    for scan in scans(observation) {
        let scan = &observation.visibilities[scan];
        let mut baselines: BTreeMap<[usize; 2], Vec<&Visibility>> = BTreeMap::new();
        for visibility in scan {
            baselines.entry(visibility.stations).or_default().push(visibility);
        }
        let (Some(first), Some(last)) = (scan.first(), scan.last()) else { continue };
        let middle = 0.5 * (first.time + last.time);
        averaged.visibilities.extend(baselines.values().filter_map(|baseline| match average {
            Average::EhtimScan => mean(baseline, |_| 1.0, None),
            _ => mean(baseline, |visibility| visibility.sigma.powi(-2), Some(middle)),
        }));
    }
    averaged.visibilities.sort_by(|a, b| a.time.total_cmp(&b.time).then(a.stations.cmp(&b.stations)));
    averaged
}

/// Weighted mean of one baseline's visibilities; without a `time` the stamp of the first one.
fn mean(
    baseline: &[&Visibility],
    weight: impl Fn(&Visibility) -> f64,
    time: Option<f64>,
) -> Option<Visibility> {
    let mut mean = Visibility {
        time: time.unwrap_or(baseline.first()?.time),
        integration: 0.0,
        u: 0.0,
        v: 0.0,
        value: Complex64::ZERO,
        sigma: 0.0,
        ..**baseline.first()?
    };
    let (mut weights, mut variance) = (0.0, 0.0);
    for visibility in baseline {
        let weight = weight(visibility);
        weights += weight;
        variance += (weight * visibility.sigma).powi(2);
        mean.integration += visibility.integration;
        mean.u += weight * visibility.u;
        mean.v += weight * visibility.v;
        mean.value += weight * visibility.value;
    }
    mean.u /= weights;
    mean.v /= weights;
    mean.value /= weights;
    mean.sigma = variance.sqrt() / weights;
    Some(mean)
}

/// Adds `fraction` of the amplitude to each sigma in quadrature: sigma^2 + (f |V|)^2.
///
/// It stands for what thermal noise does not hold: polarisation leakage, residual phase drifts within a scan. Apply it
/// after averaging, because it does not average down.
pub fn add_systematic(observation: &mut Observation, fraction: f64) {
    for visibility in &mut observation.visibilities {
        visibility.sigma = visibility.sigma.hypot(fraction * visibility.value.norm());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::vlbi::Station;

    fn observation(rows: &[(f64, [usize; 2], f64, f64)]) -> Observation {
        let station = |code: &str| Station { code: code.into(), position: [0.0; 3], sefd: None };
        let visibility = |&(time, stations, value, sigma): &(f64, [usize; 2], f64, f64)| Visibility {
            time,
            integration: 10.0,
            stations,
            u: value * 1e9,
            v: 0.0,
            value: Complex64::new(value, 0.0),
            sigma,
        };
        Observation {
            source: "TEST".into(),
            ra_deg: 0.0,
            dec_deg: 0.0,
            frequency_hz: 230e9,
            bandwidth_hz: 2e9,
            mjd: 57848.0,
            stations: vec![station("AA"), station("AP"), station("LM")],
            visibilities: rows.iter().map(visibility).collect(),
        }
    }

    #[test]
    fn a_scan_ends_at_a_gap_of_a_minute() {
        let data = observation(&[
            (0.0, [0, 1], 1.0, 0.1),
            (0.002, [0, 2], 1.0, 0.1),
            (59.0, [0, 1], 1.0, 0.1),
            (119.0, [0, 1], 1.0, 0.1),
        ]);
        assert_eq!(time_stamps(&data), [0..2, 2..3, 3..4]);
        assert_eq!(scans(&data), [0..3, 3..4]);
    }

    #[test]
    fn averages_weigh_by_variance_and_share_the_stamp() {
        let data = observation(&[
            (0.0, [0, 1], 1.0, 0.1),
            (10.0, [0, 1], 2.0, 0.2),
            (10.0, [0, 2], 5.0, 0.3),
            (20.0, [0, 2], 7.0, 0.3),
        ]);
        let scan = average(&data, Average::Scan).visibilities;
        assert_eq!(scan.len(), 2);
        assert!(scan.iter().all(|v| v.time == 10.0), "{scan:?}");
        assert!((scan[0].value.re - 1.2).abs() < 1e-12, "(1 * 100 + 2 * 25) / 125");
        assert!((scan[0].sigma - 125f64.sqrt().recip()).abs() < 1e-12);
        let ehtim = average(&data, Average::EhtimScan).visibilities;
        assert_eq!([ehtim[0].time, ehtim[1].time], [0.0, 10.0]);
        assert!((ehtim[0].value.re - 1.5).abs() < 1e-12);
        assert!((ehtim[0].sigma - 0.05f64.sqrt() / 2.0).abs() < 1e-12);
    }

    #[test]
    fn systematic_noise_adds_in_quadrature() {
        let mut data = observation(&[(0.0, [0, 1], 4.0, 0.3)]);
        add_systematic(&mut data, 0.1);
        assert!((data.visibilities[0].sigma - 0.5).abs() < 1e-12);
    }
}
