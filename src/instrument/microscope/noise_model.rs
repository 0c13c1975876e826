//! Which noise model a stack's likelihood has, and why.

use std::sync::Arc;

use ndarray::{ArrayView3, Axis};
use serde::{Deserialize, Serialize};

use super::{
    Microscope,
    held_out::Blocks,
    likelihood::{self, FixedGaussian, GrowingGaussian, Pixels, ShiftedPoisson},
    masked::Masked,
    noise::{NoiseEstimate, Verdict},
};
use crate::{
    Error, Result,
    instrument::{Likelihood, density::Data},
};

/// Which noise model is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseModel {
    /// Shifted Poisson if the camera is described, else what the frequencies above the cut-off say.
    #[default]
    Auto,
    /// Gaussian, the same for all pixels of a frame.
    Gaussian,
    /// Gaussian that grows with the signal.
    GrowingGaussian,
    /// Poisson with read noise; needs a described camera.
    ShiftedPoisson,
}

/// A noise model with its numbers.
pub(super) enum Noise {
    Fixed(Measured),
    Growing(Measured),
    /// With the variance of the read noise.
    Poisson(f64),
}

/// The noise of an unknown camera.
pub(super) struct Measured {
    /// In all of the data.
    all: NoiseEstimate,
    /// In parts of equally many data, one after the other: frames may have been scaled one by one.
    parts: Vec<NoiseEstimate>,
}

impl Measured {
    /// Measures data `[Z, Y, X]` on camera pixels of `pitch` metres (Z, Y, X), if `apart` plane by plane.
    fn new(data: ArrayView3<f64>, pitch: [f64; 3], microscope: &Microscope, apart: bool) -> Result<Self> {
        let measure = |data: ArrayView3<f64>| {
            NoiseEstimate::measure(data, [pitch[1], pitch[2]], microscope.recipe.optics.cut_off())
        };
        let all = measure(data)?;
        let parts = match apart {
            true => data.axis_chunks_iter(Axis(0), 1).map(measure).collect::<Result<_>>()?,
            false => vec![all.clone()],
        };
        Ok(Self { all, parts })
    }

    /// What `value` is for each of `count` data, or the one for all.
    fn each(&self, count: usize, value: impl Fn(&NoiseEstimate) -> f64) -> Vec<f64> {
        match &self.parts[..] {
            [one] => vec![value(one)],
            parts => parts.iter().flat_map(|part| vec![value(part); count / parts.len()]).collect(),
        }
    }
}

impl Noise {
    /// The model that is asked for; `frames` of structured illumination may each have a noise of their own.
    ///
    /// # Errors
    /// A model that needs a described camera, or data whose noise cannot be measured.
    pub(super) fn choose(
        model: NoiseModel,
        data: ArrayView3<f64>,
        pitch: [f64; 3],
        microscope: &Microscope,
        frames: bool,
    ) -> Result<Self> {
        let measured = || Measured::new(data, pitch, microscope, frames);
        Ok(match (model, microscope.camera) {
            (NoiseModel::Auto | NoiseModel::ShiftedPoisson, Some(camera)) => {
                Self::Poisson(camera.read_noise.powi(2))
            }
            (NoiseModel::ShiftedPoisson, None) => {
                let problem = "shifted-poisson needs the camera's conversion_gain, offset and read_noise in the instrument file";
                return Err(Error::config("microscope.noise", problem));
            }
            (NoiseModel::Gaussian, _) => Self::Fixed(measured()?),
            (NoiseModel::GrowingGaussian, _) => Self::Growing(measured()?),
            (NoiseModel::Auto, None) => {
                let measured = measured()?;
                match measured.all.verdict() {
                    Verdict::Fixed => Self::Fixed(measured),
                    Verdict::Growing => Self::Growing(measured),
                }
            }
        })
    }

    /// Standard deviation of the noise in the dark parts of the data, or that of the read noise where it is known.
    pub(super) fn dark(&self) -> f64 {
        match self {
            Self::Fixed(measured) => measured.all.sigma,
            Self::Growing(measured) => measured.all.dark(),
            Self::Poisson(variance) => variance.sqrt(),
        }
    }

    /// Model and reason in words.
    pub(super) fn reason(&self) -> String {
        let measured = match self {
            Self::Poisson(variance) => {
                let read = variance.sqrt();
                return format!(
                    "Poisson noise with read noise of {read:.2} e-, because the camera is described"
                );
            }
            Self::Fixed(measured) | Self::Growing(measured) => measured,
        };
        let sigmas = measured.parts.iter().map(|part| part.sigma);
        let (low, high) =
            sigmas.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), s| (low.min(s), high.max(s)));
        let apart = if measured.parts.len() > 1 {
            format!(", {low:.4} to {high:.4} frame by frame")
        } else {
            String::new()
        };
        measured.all.reason() + &apart
    }

    /// The likelihood of a part of `data`, which lie frame after frame.
    ///
    /// # Errors
    /// Data that the model cannot describe.
    pub(super) fn likelihood(&self, data: Vec<f64>, part: Part) -> Result<Arc<dyn Likelihood>> {
        let count = data.len();
        let data = part.of(data);
        match self {
            Self::Fixed(measured) => {
                let sigma = part.of(measured.each(count, |frame| frame.sigma));
                part.likelihood(FixedGaussian { data, sigma })
            }
            Self::Growing(measured) => {
                let darkest = measured.parts.iter().filter_map(|frame| frame.groups.first());
                let least = darkest.map(|group| group[1]).fold(f64::INFINITY, f64::min);
                part.likelihood(GrowingGaussian {
                    data,
                    slope: part.of(measured.each(count, |frame| frame.line.slope)),
                    floor: part.of(measured.each(count, |frame| frame.line.intercept)),
                    least: if least.is_finite() { least } else { 1.0 },
                })
            }
            Self::Poisson(variance) => {
                part.likelihood(ShiftedPoisson { data, read_variance: vec![*variance] })
            }
        }
    }
}

/// Which of the data a likelihood is of.
pub(super) enum Part<'a> {
    /// All.
    All,
    /// Those outside of the blocks; predictions are of all.
    Without(&'a Blocks),
    /// Those in the blocks; predictions are of them alone.
    Only(&'a Blocks),
}

impl Part<'_> {
    /// The values of a map, one per pixel or one for all, that the noise of this part has.
    fn of(&self, map: Vec<f64>) -> Vec<f64> {
        match self {
            Self::Only(blocks) if map.len() > 1 => {
                blocks.pixels().into_iter().map(|pixel| map[pixel]).collect()
            }
            _ => map,
        }
    }

    /// The likelihood of data with this noise.
    fn likelihood(&self, noise: impl likelihood::Noise) -> Result<Arc<dyn Likelihood>> {
        Ok(match self {
            Self::All | Self::Only(_) => Arc::new(Data::new(Pixels::new(noise, &[])?)),
            Self::Without(blocks) => Arc::new(Data::new(Pixels::new(Masked::new(noise, blocks), &[])?)),
        })
    }
}
