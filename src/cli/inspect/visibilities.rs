//! What a UVFITS file holds.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::Result;
use crate::instrument::vlbi::statistics::{Counts, Statistics};
use crate::instrument::vlbi::{Observation, Station};
use crate::io::uvfits::{self, UvData, calendar_date};

/// Counts, noise, stations and scans as tables or JSON.
pub(super) fn describe(path: &Path, json: bool) -> Result<String> {
    let data = uvfits::read(path)?;
    let observation = data.observation(path)?;
    let statistics = Statistics::of(&observation);
    Ok(if json {
        format!("{:#}\n", as_json(&data, &observation, &statistics))
    } else {
        as_tables(&data, &observation, &statistics)
    })
}

fn hands(data: &UvData) -> Vec<String> {
    data.hands.iter().map(|hand| format!("{hand:?}")).collect()
}

fn as_json(data: &UvData, observation: &Observation, statistics: &Statistics) -> Value {
    let counts = &statistics.counts;
    json!({
        "kind": "visibilities",
        "source": observation.source,
        "ra_deg": observation.ra_deg,
        "dec_deg": observation.dec_deg,
        "frequency_hz": observation.frequency_hz,
        "bandwidth_hz": observation.bandwidth_hz,
        "mjd": observation.mjd,
        "polarization": hands(data),
        "ifs": data.ifs(),
        "channels": data.channels(),
        "stations": observation.stations.iter().map(|station| &station.code).collect::<Vec<_>>(),
        "baselines": statistics.baselines,
        "visibilities": counts.visibilities,
        "closure_phases": counts.closure_phases,
        "log_closure_amplitudes": counts.log_closure_amplitudes,
        "scan_averaged": statistics.scan_averaged,
        "uv_max_lambda": statistics.uv_range[1],
        "uv_min_lambda": statistics.uv_range[0],
        "time_stamps": statistics.time_stamps,
        "scans": statistics.scans.len(),
        "median_sigma_jy": statistics.sigma[1],
    })
}

fn as_tables(data: &UvData, observation: &Observation, statistics: &Statistics) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |line: String| writeln!(text, "{line}").unwrap_or_default();
    summary(data, observation, statistics)
        .into_iter()
        .for_each(|(name, value)| line(format!("{name:<16}{value}")));
    line(String::new());
    line(format!(
        "{:<10}{:>16}{:>16}{:>16}{:>12}{:>14}",
        "station", "X m", "Y m", "Z m", "SEFD Jy", "visibilities"
    ));
    for (station, count) in observation.stations.iter().zip(&statistics.per_station) {
        let [x, y, z] = station.position;
        let sefd = station.sefd.map_or("-".to_string(), |sefd| format!("{sefd:.0}"));
        line(format!("{:<10}{x:>16.3}{y:>16.3}{z:>16.3}{sefd:>12}{count:>14}", station.code));
    }
    line(String::new());
    line(format!("{:<6}{:<22}{:>14}  {}", "scan", "UTC", "visibilities", "stations"));
    for (index, scan) in statistics.scans.iter().enumerate() {
        let codes: Vec<_> =
            scan.stations.iter().map(|&station| code(&observation.stations, station)).collect();
        let times = format!("{} - {}", clock(scan.start), clock(scan.end));
        line(format!("{:<6}{times:<22}{:>14}  {}", index + 1, scan.visibilities, codes.join(" ")));
    }
    text
}

fn summary(data: &UvData, observation: &Observation, statistics: &Statistics) -> Vec<(&'static str, String)> {
    let closures = |counts: &Counts| {
        format!(
            "{} visibilities, {} closure phases, {} log closure amplitudes (minimal sets)",
            counts.visibilities, counts.closure_phases, counts.log_closure_amplitudes
        )
    };
    let millijansky = |[low, median, high]: [f64; 3]| {
        format!("{:.3} / {:.3} / {:.3} mJy (least, median, most)", low * 1e3, median * 1e3, high * 1e3)
    };
    let [shortest, longest] = statistics.uv_range;
    vec![
        ("kind", "visibilities (UVFITS)".to_string()),
        ("source", observation.source.clone()),
        ("direction", format!("RA {:.6} deg, Dec {:+.6} deg", observation.ra_deg, observation.dec_deg)),
        ("date", format!("{} (MJD {})", calendar_date(observation.mjd), observation.mjd)),
        (
            "frequency",
            format!(
                "{:.6} GHz, bandwidth {:.3} MHz ({} IF x {} channel)",
                observation.frequency_hz * 1e-9,
                observation.bandwidth_hz * 1e-6,
                data.ifs(),
                data.channels()
            ),
        ),
        ("polarization", hands(data).join(" ")),
        (
            "sampling",
            format!(
                "{} baselines, {} time stamps, {} scans",
                statistics.baselines,
                statistics.time_stamps,
                statistics.scans.len()
            ),
        ),
        ("as stored", closures(&statistics.counts)),
        ("scan-averaged", closures(&statistics.scan_averaged)),
        ("uv distance", format!("{:.4} Mlambda to {:.4} Glambda", shortest * 1e-6, longest * 1e-9)),
        ("amplitude", millijansky(statistics.amplitude)),
        ("thermal noise", millijansky(statistics.sigma)),
    ]
}

fn code(stations: &[Station], index: usize) -> &str {
    stations.get(index).map_or("?", |station| station.code.as_str())
}

/// `00:46:05` for seconds since 0h; hours go on beyond 24 on later days.
fn clock(seconds: f64) -> String {
    let whole = seconds.round() as i64;
    format!("{:02}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
}
