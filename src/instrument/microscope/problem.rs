//! From a stack's numbers to the posterior's problem: domain, point-spread function, background and noise model.

use std::sync::Arc;

use ndarray::{Array3, ArrayView3, Axis};
use serde::{Deserialize, Serialize};

pub use super::noise_model::NoiseModel;
use super::{
    Crop, Domain, Field, Microscope, Psf, Widefield,
    background::{self, Shape},
    domain::reach,
    noise_model::{Noise, Part},
    sim::{self, Layout, Pattern, Structured},
};
use crate::{
    Error, Result,
    compute::Compute,
    grid::Grid,
    instrument::{Forward, Problem},
    prior::Scaling,
};

/// Settings of a microscope's problem, section `microscope` of a run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Object voxels per camera pixel along Y and X.
    pub factor: usize,
    /// Noise model.
    pub noise: NoiseModel,
    /// Background in the unit of the data; estimated where it is not given.
    pub background: Option<f64>,
    /// Shape of an estimated background.
    pub background_shape: Shape,
    /// Fraction of the light of a source at the edge of the field of view that the object's border must be able to explain,
    /// if 2.5 um are enough for it.
    pub border: f64,
    /// Raw frames under structured illumination; an evenly lit stack if absent.
    pub sim: Option<Layout>,
    /// The part of the field of view that is reconstructed; noise, background and stripes are measured in all of it.
    pub crop: Option<Crop>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            factor: 2,
            noise: NoiseModel::default(),
            background: None,
            background_shape: Shape::default(),
            border: 0.98,
            sim: None,
            crop: None,
        }
    }
}

/// A problem with what was assumed on the way.
pub struct Prepared {
    /// The posterior's problem; images are light per object voxel in the unit of the data.
    pub problem: Problem,
    /// Object against camera.
    pub domain: Domain,
    /// The point-spread function on the object's pitch.
    pub psf: Psf,
    /// The data in `unit` as they are fitted, one plane or raw frame after the other; what is left out is filled in.
    pub values: Vec<f64>,
    /// Background per camera pixel in the unit of the data.
    pub background: Vec<f64>,
    /// Stripes of each angle, measured in the data; none of an evenly lit stack.
    pub patterns: Vec<Pattern>,
    /// Which noise model was used and why.
    pub noise: String,
    /// `photo-electrons`, or `counts` where the camera is not described.
    pub unit: &'static str,
    /// The noise model with its numbers.
    pub(super) model: Noise,
}

/// The problem of recorded numbers `[Z, Y, X]` on camera pixels of `pitch` metres (Z, Y, X); under structured illumination
/// the raw frames of one plane stand in place of the planes.
///
/// `prior` maps the network's unit to light per object voxel; sizes of the object along Y and X are multiples of
/// `multiple`. With a described camera all is in photo-electrons, otherwise in the numbers recorded.
///
/// # Errors
/// Settings or data that cannot be, a noise model that needs a described camera, or no device memory.
pub fn problem(
    recorded: ArrayView3<f64>,
    pitch: [f64; 3],
    microscope: &Microscope,
    settings: &Settings,
    (prior, multiple): (Scaling, usize),
    compute: &Compute,
) -> Result<Prepared> {
    if !(0.5..1.0).contains(&settings.border) {
        let problem = format!("{} cannot be; 0.5 to below 1 can", settings.border);
        return Err(Error::config("microscope.border", problem));
    }
    let data = recorded.mapv(|value| microscope.camera.map_or(value, |camera| camera.electrons(value)));
    let (_, rows, columns) = data.dim();
    let crop = settings.crop.unwrap_or(Crop::whole([rows, columns]));
    crop.check([rows, columns])?;
    let values = crop.of(data.view());
    let camera = camera(values.dim(), settings);
    let grid = response_grid(camera, pitch, settings.factor, microscope);
    let psf = microscope.response(&grid, [pitch[1], pitch[2]])?;
    let mut patterns = match settings.sim {
        Some(_) => stripes(data.view(), pitch, microscope, settings)?,
        None => Vec::new(),
    };
    let (reach, most) = (reach(&psf, settings.border), border(camera[0], psf.grid.pitch));
    let margin = [0, 1, 2].map(|axis| reach[axis].min(most[axis]));
    let domain = Domain::new(camera, pitch, settings.factor, margin, multiple)?;
    let model = Noise::choose(settings.noise, data.view(), pitch, microscope, settings.sim.is_some())?;
    let noise = model.reason();
    // Frames of one plane have the background of their mean, whose noise is smaller.
    let frames = (data.dim().0 / camera[0]) as f64;
    let even =
        if frames > 1.0 { data.mean_axis(Axis(0)).map(|mean| mean.insert_axis(Axis(0))) } else { None };
    let even = even.as_ref().unwrap_or(&data).view();
    let background = match (settings.background, microscope.camera) {
        (Some(given), _) => vec![given],
        (None, Some(camera)) => dark_light(even, camera.read_noise, frames, settings.background_shape)?,
        (None, None) => background::estimate(even, model.dark() / frames.sqrt(), settings.background_shape)?,
    };
    let frames_above = match settings.sim {
        Some(_) => {
            let pitch = [pitch[1], pitch[2]];
            Some(above_mean(sim::profile::measure(data.view(), pitch, &background, &mut patterns)?))
        }
        None => None,
    };
    let background = match Array3::from_shape_vec(even.dim(), background.clone()) {
        Ok(map) => crop.of(map.view()).into_iter().collect(),
        Err(_) => background,
    };
    let values: Vec<f64> = values.into_iter().collect();
    let forward: Arc<dyn Forward> = match frames_above {
        Some(frames_above) => {
            let lit: Vec<Pattern> =
                patterns.iter().map(|pattern| crop.stripes(pattern, [pitch[1], pitch[2]])).collect();
            // Frame after frame.
            let background: Vec<f64> = frames_above
                .iter()
                .flat_map(|above| background.iter().map(move |value| value + above))
                .collect();
            Arc::new(Structured::new(&psf, &domain, &background, &lit, compute)?)
        }
        None => {
            let field = Field { flat_field: Vec::new(), background: background.clone() };
            Arc::new(Widefield::new(&psf, &domain, &field, compute)?)
        }
    };
    Ok(Prepared {
        problem: Problem {
            forward,
            likelihoods: vec![model.likelihood(values.clone(), Part::All)?],
            scaling: prior,
        },
        domain,
        psf,
        values,
        background,
        patterns,
        noise,
        unit: if microscope.camera.is_some() { "photo-electrons" } else { "counts" },
        model,
    })
}

/// Camera pixels of one image: raw frames share theirs.
fn camera((planes, rows, columns): (usize, usize, usize), settings: &Settings) -> [usize; 3] {
    [if settings.sim.is_some() { 1 } else { planes }, rows, columns]
}

/// The stripes in raw frames `[F, Y, X]` on camera pixels of `pitch` metres (Z, Y, X).
///
/// # Errors
/// Settings without structured illumination, another number of frames, or frames without stripes.
pub fn stripes(
    frames: ArrayView3<f64>,
    pitch: [f64; 3],
    microscope: &Microscope,
    settings: &Settings,
) -> Result<Vec<Pattern>> {
    let Some(layout) = settings.sim else {
        return Err(Error::config("microscope.sim", "is not set; write for example {angles: 3, phases: 3}"));
    };
    layout.check(frames.dim().0)?;
    let grid = response_grid(camera(frames.dim(), settings), pitch, settings.factor, microscope);
    let psf = microscope.response(&grid, [pitch[1], pitch[2]])?;
    let cut_off = microscope.recipe.optics.cut_off();
    sim::estimate(frames, [pitch[1], pitch[2]], (&psf, settings.factor), cut_off, &layout)
}

/// The background in photo-electrons of a camera with known read noise, whose shot noise is that of the background itself, in
/// the mean of so many frames.
fn dark_light(data: ArrayView3<f64>, read_noise: f64, frames: f64, shape: Shape) -> Result<Vec<f64>> {
    /// Each round brings the noise closer to that of the background found.
    const ROUNDS: usize = 6;
    let noise = |light: f64| ((read_noise.powi(2) + light) / frames).sqrt();
    let mut found = background::estimate(data, noise(0.0), shape)?;
    for _ in 0..ROUNDS {
        let light = found.iter().sum::<f64>() / found.len() as f64;
        found = background::estimate(data, noise(light.max(0.0)), shape)?;
    }
    Ok(found)
}

/// How far each value lies above their mean.
fn above_mean(values: Vec<f64>) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    values.into_iter().map(|value| value - mean).collect()
}

/// Widest response that is computed, m from the axis: beyond lies less than a hundredth of the light in focus. Farther beyond
/// the field of view no object is modelled either: its light is spread so widely that the background explains it.
const WIDEST: f64 = 2.5e-6;
/// The same beyond the defocused cone in stacks of several planes, and beyond their field of view and outermost planes.
const WIDEST_IN_STACKS: f64 = 1.5e-6;

fn widest(planes: usize) -> f64 {
    if planes > 1 { WIDEST_IN_STACKS } else { WIDEST }
}

/// Voxels of `pitch` metres along Z, Y, X that the object of so many planes goes on beyond them at most.
fn border(planes: usize, pitch: [f64; 3]) -> [usize; 3] {
    pitch.map(|pitch| (widest(planes) / pitch).ceil() as usize)
}

/// Voxels along Z, Y, X of stacks whose file does not tell, m.
const USUAL: [f64; 3] = [250e-9, 65e-9, 65e-9];

impl Settings {
    /// Number of object voxels at most of a stack of so many recorded planes or frames, rows and columns; `pitch` along Z, Y, X
    /// in metres, as far as it is known.
    pub fn most_voxels(&self, [planes, rows, columns]: [usize; 3], pitch: [Option<f64>; 3]) -> usize {
        let part = self.crop.unwrap_or(Crop::whole([rows, columns]));
        let camera = camera((planes, part.height, part.width), self);
        let known = [0, 1, 2].map(|axis| pitch[axis].filter(|pitch| *pitch > 0.0).unwrap_or(USUAL[axis]));
        let scale = [1, self.factor.max(1), self.factor.max(1)];
        let border = border(camera[0], [0, 1, 2].map(|axis| known[axis] / scale[axis] as f64));
        let size = |axis: usize| {
            // The response reaches from one end of the data to the other and no farther.
            let view = camera[axis].saturating_mul(scale[axis]);
            let farthest = if axis == 0 { view.saturating_sub(1) } else { view };
            view.saturating_add(border[axis].min(farthest).saturating_mul(2))
        };
        size(0).saturating_mul(size(1)).saturating_mul(size(2))
    }
}

/// The grid of the response on the object's pitch: all distances between planes of the stack, and across the light cone of
/// half the stack's height, but never more than the field of view.
fn response_grid(camera: [usize; 3], pitch: [f64; 3], factor: usize, microscope: &Microscope) -> Grid {
    let optics = &microscope.recipe.optics;
    let sin = (optics.aperture() / optics.sample_index).min(0.999);
    let cone = 0.5 * (camera[0] - 1) as f64 * pitch[0] * sin / (1.0 - sin * sin).sqrt();
    let factor = factor.max(1);
    let side = |axis: usize| {
        let step = pitch[axis] / factor as f64;
        let half = ((widest(camera[0]) + cone) / step).ceil() as usize;
        2 * half.min(camera[axis] * factor) + 1
    };
    Grid {
        shape: [2 * camera[0] - 1, side(1), side(2)],
        pitch: [pitch[0], pitch[1] / factor as f64, pitch[2] / factor as f64],
    }
}
