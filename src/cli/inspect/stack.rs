//! What a microscope stack holds.

use std::path::Path;

use serde_json::{Value, json};

use crate::Result;
use crate::cli::settings::settings_of;
use crate::config::Layers;
use crate::features::noise::{self, Noise};
use crate::instrument::microscope::sim::Pattern;
use crate::io::stack::{Metadata, Stack};
use crate::reconstruction::{
    Settings,
    stack::{described, patterns},
};

/// Planes of each channel that the noise is estimated from, evenly spaced in the first time point.
const NOISE_PLANES: usize = 8;
/// Pixels of a plane beyond which it is not read only for its noise.
const LARGEST_PLANE: usize = 1 << 26;

/// Header and noise as a table or JSON; with an instrument of structured illumination also the stripes.
pub(super) fn describe(path: &Path, instrument: Option<&str>, json: bool) -> Result<String> {
    let mut stack = Stack::open(path)?;
    let noise = noise(&mut stack)?;
    let metadata = &stack.metadata;
    let stripes = instrument.map_or(Ok(Vec::new()), |instrument| stripes(path, instrument))?;
    Ok(if json {
        let mut value = as_json(metadata, &noise);
        value["stripes"] =
            stripes.iter().map(|(channel, patterns)| stripes_json(*channel, patterns)).collect();
        format!("{value:#}\n")
    } else {
        as_table(metadata, &noise) + &stripes_table(&stripes)
    })
}

/// The stripes in each channel, if the instrument's settings tell structured illumination.
fn stripes(path: &Path, instrument: &str) -> Result<Vec<(usize, Vec<Pattern>)>> {
    let mut layers = Layers::defaults(&Settings::default())?;
    layers.merge(settings_of(instrument)?, instrument);
    layers.merge(json!({ "data": path, "instrument": instrument }), "command line");
    let settings: Settings = layers.resolve()?;
    if settings.microscope.sim.is_some() { patterns(&settings) } else { Ok(Vec::new()) }
}

fn stripes_json(channel: usize, patterns: &[Pattern]) -> Value {
    let angle = |pattern: &Pattern| {
        let phases = pattern.phases.iter().map(|phase| phase.to_degrees()).collect::<Vec<_>>();
        json!({
            "period_nm": pattern.period() * 1e9,
            "angle_deg": pattern.angle().to_degrees(),
            "contrast": pattern.contrast,
            "phases_deg": phases,
            "intensities": pattern.intensities,
            "significance": pattern.significance,
        })
    };
    json!({ "channel": channel, "angles": patterns.iter().map(angle).collect::<Vec<_>>() })
}

fn stripes_table(stripes: &[(usize, Vec<Pattern>)]) -> String {
    let lines = stripes.iter().flat_map(|(channel, patterns)| {
        patterns.iter().enumerate().map(move |(angle, pattern)| {
            let place = format!("channel {channel}, angle {}", angle + 1);
            format!("{:<16}{place}: {}\n", "stripes", described(pattern))
        })
    });
    lines.collect()
}

/// Noise of each channel, where its planes are large enough to tell and small enough to read.
fn noise(stack: &mut Stack) -> Result<Vec<Option<Noise>>> {
    let shape = stack.metadata.shape;
    if shape.y.saturating_mul(shape.x) > LARGEST_PLANE {
        return Ok(vec![None; shape.channels]);
    }
    let count = shape.z.min(NOISE_PLANES);
    let channel = |channel: usize| {
        let planes = (0..count).map(|i| stack.plane(0, channel, (2 * i + 1) * shape.z / (2 * count)));
        let planes = planes.collect::<Result<Vec<_>>>()?;
        Ok(noise::estimate(&planes.iter().map(|plane| plane.view()).collect::<Vec<_>>()))
    };
    (0..shape.channels).map(channel).collect()
}

fn as_json(metadata: &Metadata, noise: &[Option<Noise>]) -> Value {
    let level = |of: fn(&Noise) -> f64| noise.iter().map(|noise| noise.as_ref().map(of)).collect::<Vec<_>>();
    let names = metadata.channels.iter().map(|channel| &channel.name).collect::<Vec<_>>();
    let wavelengths =
        metadata.channels.iter().map(|channel| channel.emission.map(|emission| tidy(emission, 1e9)));
    json!({
        "kind": "stack",
        "format": metadata.format,
        "axes": "TCZYX",
        "shape": metadata.shape.sizes(),
        "dtype": metadata.sample.name(),
        "voxel_um": metadata.voxel.map(|pitch| pitch.map(|pitch| tidy(pitch, 1e6))),
        "channels": names,
        "time_points": metadata.shape.time,
        "wavelength_nm": wavelengths.collect::<Vec<_>>(),
        "numerical_aperture": metadata.numerical_aperture,
        "refractive_index": metadata.refractive_index,
        "noise_estimate": level(|noise| noise.sigma),
        "noise_dark": level(|noise| noise.dark),
        "noise_bright": level(|noise| noise.bright),
        "remarks": metadata.remarks,
    })
}

fn as_table(metadata: &Metadata, noise: &[Option<Noise>]) -> String {
    let shape = metadata.shape;
    let number = |value: Option<f64>| value.map_or("unknown".into(), |value| value.to_string());
    let pitch = metadata.voxel.map(|pitch| number(pitch.map(|pitch| tidy(pitch, 1e6))));
    let mut lines = vec![
        ("kind", format!("stack ({})", metadata.format)),
        (
            "shape",
            format!(
                "{} time points, {} channels, {} planes of {} x {} pixels (TCZYX)",
                shape.time, shape.channels, shape.z, shape.y, shape.x
            ),
        ),
        ("values", metadata.sample.to_string()),
        ("voxel", format!("{} x {} x {} um (z, y, x)", pitch[0], pitch[1], pitch[2])),
        ("aperture", format!("NA {}", number(metadata.numerical_aperture))),
        ("immersion", format!("refractive index {}", number(metadata.refractive_index))),
    ];
    for (index, (channel, noise)) in metadata.channels.iter().zip(noise).enumerate() {
        let name = channel.name.clone().unwrap_or_else(|| "without a name".into());
        let emission = match channel.emission {
            Some(emission) => format!("emission {} nm", tidy(emission, 1e9)),
            None => "emission wavelength unknown".into(),
        };
        let noise = noise.map_or("noise not estimated".into(), |noise| {
            format!(
                "noise {:.4} ({:.4} in dark, {:.4} in bright parts)",
                noise.sigma, noise.dark, noise.bright
            )
        });
        lines.push(("channel", format!("{}: {name}, {emission}, {noise}", index + 1)));
    }
    lines.extend(metadata.remarks.iter().map(|remark| ("remark", remark.clone())));
    lines.iter().map(|(name, value)| format!("{name:<16}{value}\n")).collect()
}

/// `value` in a unit of which there are `per_metre` in a metre, without the last digits that the conversion makes up.
fn tidy(value: f64, per_metre: f64) -> f64 {
    const DIGITS: f64 = 1e9;
    (value * per_metre * DIGITS).round() / DIGITS
}
