//! The kinds of network that a prior card can name.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Denoiser,
    song::{SongArchitecture, SongUNet},
    unet::{Architecture, UNet},
};
use crate::{Result, compute::Compute};

/// Shape of a prior's network; the fields tell which kind it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Network {
    /// What `antumbra train` makes.
    UNet(Architecture),
    /// What others have trained, see `antumbra priors import`.
    Song(SongArchitecture),
}

impl Network {
    /// Refuses sizes that do not fit together.
    ///
    /// # Errors
    /// [`crate::Error::Config`] under `architecture`.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::UNet(architecture) => architecture.validate(),
            Self::Song(architecture) => architecture.validate(),
        }
    }

    /// Image side in pixels.
    pub fn pixels(&self) -> usize {
        match self {
            Self::UNet(architecture) => architecture.pixels,
            Self::Song(architecture) => architecture.pixels,
        }
    }

    /// Smallest and largest noise level, network unit.
    pub fn noise_range(&self) -> (f64, f64) {
        match self {
            Self::UNet(architecture) => architecture.noise_range,
            Self::Song(architecture) => architecture.noise_range,
        }
    }

    /// The denoiser with these weights.
    ///
    /// # Errors
    /// Tensors that do not fit.
    pub fn build(&self, tensors: BTreeMap<String, Tensor>, compute: &Compute) -> Result<Box<dyn Denoiser>> {
        Ok(match self {
            Self::UNet(architecture) => Box::new(UNet::fixed(architecture.clone(), tensors, compute)?),
            Self::Song(architecture) => Box::new(SongUNet::fixed(architecture.clone(), tensors, compute)?),
        })
    }
}
