//! Stacks as the subject of reconstructions: one for every channel and time point.

mod brightness;
mod channel;
mod frames;
mod optics;
mod resolution;
mod settings;

use std::path::{Path, PathBuf};

use ndarray::Array3;

pub(super) use brightness::settle;
pub(super) use resolution::resolve;
pub use settings::StackSettings;

use self::{
    channel::{Channel, View},
    optics::Seen,
};
use super::{Prepared, Settings};
use crate::{
    Error, Result,
    compute::Compute,
    grid::Grid,
    instrument::{
        microscope::{
            self, Crop,
            held_out::{BLOCK, LeftOut},
            problem::stripes,
            sim::Pattern,
        },
        richardson_lucy::{ITERATIONS, richardson_lucy},
    },
    io::{
        cube::MicroscopeFrame,
        cube_hdf5, cube_tiff,
        stack::{Container, Stack},
    },
    prior::{Denoiser, Scaling, card::Prior, positive::Positive, tiled::Tiled},
    rng::Rng,
};

/// The settings of each reconstruction of a stack, times first: of one channel at one time, with its folder's name. A stack
/// of one image has no folders.
///
/// # Errors
/// A file that cannot be read, or channels or times that it does not have.
pub(super) fn split(settings: &Settings) -> Result<Vec<(Option<String>, Settings)>> {
    let shape = Stack::open(settings.data()?)?.metadata.shape;
    let channels = chosen(&settings.stack.channels, shape.channels, "stack.channels")?;
    let times = frames::times(shape, settings.microscope.sim)?;
    let times = chosen(&settings.stack.times, times, "stack.times")?;
    let several = channels.len() * times.len() > 1;
    let mut all = Vec::new();
    for &time in &times {
        for &channel in &channels {
            let mut one = settings.clone();
            (one.stack.times, one.stack.channels) = (vec![time], vec![channel]);
            all.push((several.then(|| format!("time-{time}-channel-{channel}")), one));
        }
    }
    Ok(all)
}

/// Chosen numbers from 1 to `count`, all of them if none is named.
fn chosen(named: &[usize], count: usize, place: &str) -> Result<Vec<usize>> {
    if let Some(wrong) = named.iter().find(|number| !(1..=count).contains(*number)) {
        return Err(Error::config(place, format!("{wrong} is not between 1 and {count}")));
    }
    Ok(if named.is_empty() { (1..=count).collect() } else { named.to_vec() })
}

/// The stripes that structured illumination left in each chosen channel at the first chosen time, with the channel's number.
///
/// # Errors
/// Settings without structured illumination, a file with another number of frames, or frames without stripes.
pub fn patterns(settings: &Settings) -> Result<Vec<(usize, Vec<Pattern>)>> {
    let mut found = Vec::new();
    for (_, part) in split(settings)? {
        let input = Input::read(&part)?;
        if found.iter().all(|(channel, _)| *channel != input.number) {
            let recorded = input.recorded.mapv(f64::from);
            let patterns = stripes(recorded.view(), input.pitch, &input.seen.microscope, &part.microscope)?;
            found.push((input.number, patterns));
        }
    }
    Ok(found)
}

/// One channel at one time, with the microscope it was seen through.
struct Input {
    /// Planes or raw frames `[Z, Y, X]`.
    recorded: Array3<f32>,
    /// Voxels of the camera along Z, Y, X, m.
    pitch: [f64; 3],
    seen: Seen,
    channel: crate::io::stack::Channel,
    /// The channel's number, counted from 1.
    number: usize,
}

impl Input {
    fn read(settings: &Settings) -> Result<Self> {
        let mut stack = Stack::open(settings.data()?)?;
        let (&[time], &[number]) = (&settings.stack.times[..], &settings.stack.channels[..]) else {
            return Err(Error::config("stack.channels", "one channel and one time make a reconstruction"));
        };
        let sim = settings.microscope.sim;
        let recorded = frames::volume(&mut stack, time - 1, number - 1, sim)?;
        let metadata = &stack.metadata;
        let channel = metadata.channels[number - 1].clone();
        let mut seen = optics::seen(settings, metadata, &channel)?;
        let planes = if sim.is_some() { 1 } else { recorded.dim().0 };
        let pitch = settings.stack.pitch(metadata.voxel, seen.microscope.pixel, planes)?;
        let grid = Grid { shape: recorded.dim().into(), pitch };
        seen.assumptions.extend(seen.microscope.recipe.optics.check_sampling(&grid, "data")?);
        Ok(Self { recorded, pitch, seen, channel, number })
    }
}

/// Reads one channel at one time and sets up its problem and prior.
pub(super) fn prepare(settings: &Settings, found: &Prior, compute: &Compute) -> Result<Prepared> {
    if settings.vlbi.hold_out.is_some() {
        let problem = "leaves out baselines, of which a stack has none; set stack.hold_out instead";
        return Err(Error::config("vlbi.hold_out", problem));
    }
    let data = settings.data()?;
    let Input { recorded, pitch, seen, channel, .. } = Input::read(settings)?;
    let network = found.network(compute)?;
    let (_, rows, columns) = recorded.dim();
    let part = settings.microscope.crop.unwrap_or(Crop::whole([rows, columns]));
    let multiple = multiple(part, settings.microscope.factor, network.as_ref());
    let mut prepared = microscope::problem::problem(
        recorded.mapv(f64::from).view(),
        pitch,
        &seen.microscope,
        &settings.microscope,
        (found.scaling(), multiple),
        compute,
    )?;
    let left_out = leave_out(settings, &mut prepared)?;
    let classical =
        richardson_lucy(prepared.problem.forward.as_ref(), &prepared.values, ITERATIONS, compute)?;
    let brightness = match settings.stack.brightness {
        Some(given) if given.is_finite() && given > 0.0 => given,
        Some(given) => {
            let problem = format!("{given} cannot be; it is light per voxel, or leave it out");
            return Err(Error::config("stack.brightness", problem));
        }
        None => brightness::of_classical(&classical)?,
    };
    let mut assumptions = seen.assumptions;
    assumptions.extend(assumed(settings, &prepared, left_out.as_ref()));
    let mut problem = prepared.problem;
    let card = found.scaling();
    problem.scaling = Scaling { unit: brightness * card.unit, dark: card.dark };
    let shape = prepared.domain.object.shape;
    let tile = Positive::new(network, card.dark);
    let prior = Tiled::new(Box::new(tile), shape, settings.stack.overlap, compute)?;
    let name = data.file_stem().unwrap_or_default().to_string_lossy();
    let frame = MicroscopeFrame {
        source: name.strip_suffix(".ome").unwrap_or(&name).into(),
        channel: crate::io::stack::Channel {
            emission: Some(seen.microscope.recipe.optics.wavelength),
            ..channel
        },
        numerical_aperture: Some(seen.microscope.recipe.optics.numerical_aperture),
        refractive_index: Some(seen.microscope.recipe.optics.immersion.index),
    };
    let optics = seen.microscope.recipe.optics;
    let view = View { domain: prepared.domain, unit: prepared.unit, psf: prepared.psf, optics };
    let (values, background) = (prepared.values, prepared.background);
    let subject = Box::new(Channel::new(frame, view, values, background, classical, left_out)?);
    Ok(Prepared { subject, problem, prior: Box::new(prior), assumptions })
}

/// Leaves those camera pixels out of the fit that the settings ask for, if they ask for any.
fn leave_out(settings: &Settings, prepared: &mut microscope::problem::Prepared) -> Result<Option<LeftOut>> {
    let fraction = settings.stack.hold_out;
    if fraction == 0.0 {
        return Ok(None);
    }
    let mut rng = Rng::new(settings.seed).stream("hold out", 0);
    prepared.leave_out(fraction, &mut rng).map(Some)
}

/// What was taken for granted, for the user to check.
fn assumed(
    settings: &Settings,
    prepared: &microscope::problem::Prepared,
    left_out: Option<&LeftOut>,
) -> Vec<String> {
    let nanometres = prepared.domain.object.pitch.map(|pitch| pitch * 1e9);
    let mut said = vec![
        format!("object voxels of {:.1} x {:.1} x {:.1} nm", nanometres[0], nanometres[1], nanometres[2]),
        prepared.noise.clone(),
        format!("background {}", of_background(&prepared.background, prepared.unit)),
        format!("prior {}", settings.prior),
    ];
    let patterns = prepared.patterns.iter().enumerate();
    said.extend(
        patterns.map(|(angle, pattern)| format!("stripes of angle {}: {}", angle + 1, described(pattern))),
    );
    if prepared.unit == "counts" {
        said.push("the camera is not described, so light is in the file's counts".into());
    }
    let [_, rows, columns] = BLOCK;
    said.extend(left_out.map(|left_out| {
        let [held, all] = [left_out.count(), prepared.values.len()];
        format!("{held} of {all} data are left out of the fit, in blocks of {rows} x {columns} pixels")
    }));
    said
}

/// The stripes of one angle in words.
pub fn described(pattern: &Pattern) -> String {
    let phases: Vec<String> =
        pattern.phases.iter().map(|phase| format!("{:.1}", phase.to_degrees())).collect();
    format!(
        "period {:.2} nm at {:.2} degrees, contrast {:.3}, phases {} degrees, {:.1} times the median of other periods",
        pattern.period() * 1e9,
        pattern.angle().to_degrees(),
        pattern.contrast,
        phases.join(", "),
        pattern.significance
    )
}

/// Of which number the object's sizes are multiples, so that a tile fits into it.
fn multiple(part: Crop, factor: usize, tile: &dyn Denoiser) -> usize {
    let [_, height, width] = tile.shape();
    if part.height.saturating_mul(factor) < height || part.width.saturating_mul(factor) < width {
        height.max(width)
    } else {
        2
    }
}

fn of_background(background: &[f64], unit: &str) -> String {
    let (low, high) = background
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)));
    if high - low < 1e-6 * high.abs() {
        format!("of {low:.4} {unit} a pixel")
    } else {
        format!("of {low:.4} to {high:.4} {unit} a pixel")
    }
}

/// Writes the summaries of all reconstructions of a stack, found in `folders`, as channels and times of one file.
///
/// # Errors
/// A run that is not finished, or a file that cannot be written.
pub(super) fn assemble(settings: &Settings, folders: &[PathBuf], root: &Path) -> Result<()> {
    let read = |folder: &PathBuf| cube_hdf5::read(&folder.join("posterior.h5"));
    let cubes = folders.iter().map(read).collect::<Result<Vec<_>>>()?;
    let shape = Stack::open(settings.data()?)?.metadata.shape;
    let times = frames::times(shape, settings.microscope.sim)?;
    let times = chosen(&settings.stack.times, times, "stack.times")?.len();
    cube_tiff::write_summaries(&cubes, times, Container::Ome, &root.join("posterior.ome.tif"))?;
    if settings.stack.imagej {
        cube_tiff::write_summaries(&cubes, times, Container::ImageJ, &root.join("posterior.tif"))?;
    }
    Ok(())
}
