//! Simulators of training images: what each prior believes, written as a distribution that can be drawn from.

pub mod blackhole;
pub mod organelle;
mod range;

pub use range::Range;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A simulator with its settings, chosen by `name`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum SimulatorSettings {
    /// Accretion flows around black holes and simple sources.
    Blackhole(Box<blackhole::Settings>),
    /// Structures of cells under a fluorescence microscope.
    Organelle(Box<organelle::Settings>),
}

impl Default for SimulatorSettings {
    fn default() -> Self {
        Self::Blackhole(Box::default())
    }
}

/// Draws training images; image `index` depends on the settings, the seed and the index only.
#[derive(Debug, Clone)]
pub enum Simulator {
    /// Of accretion flows.
    Blackhole(Box<blackhole::Simulator>),
    /// Of cells.
    Organelle(Box<organelle::Simulator>),
}

impl SimulatorSettings {
    /// What the images show, for the prior's card.
    pub fn words(&self) -> &'static str {
        match self {
            Self::Blackhole(_) => {
                "simulated: accretion flows around Kerr holes, rings, crescents, disks, Gaussians, jets"
            }
            Self::Organelle(_) => {
                "simulated: microtubules, actin, endoplasmic reticulum, coated pits, vesicles, points, mitochondria, nuclei, mixtures"
            }
        }
    }

    /// The simulator of images with `pixels` x `pixels` pixels.
    ///
    /// # Errors
    /// Settings out of range, by name.
    pub fn build(&self, pixels: usize, seed: u64) -> Result<Simulator> {
        Ok(match self {
            Self::Blackhole(settings) => {
                Simulator::Blackhole(Box::new(blackhole::Simulator::new(*settings.clone(), pixels, seed)?))
            }
            Self::Organelle(settings) => {
                Simulator::Organelle(Box::new(organelle::Simulator::new(*settings.clone(), pixels, seed)?))
            }
        })
    }
}

/// What lies at quantile `quantile` in [0, 1) of a table of shares, which are normalised to a sum of one.
fn choose<K: Copy, const N: usize>(table: [(f64, K); N], quantile: f64) -> K {
    let mut left = quantile * table.iter().map(|(share, _)| share).sum::<f64>();
    for (share, kind) in table {
        if left < share {
            return kind;
        }
        left -= share;
    }
    // Rounding left a rest.
    table[0].1
}

/// Refuses a number of pixels along a side that no simulator draws.
fn check_side(pixels: usize) -> Result<()> {
    if (8..=1024).contains(&pixels) {
        return Ok(());
    }
    Err(Error::config("pixels", format!("{pixels} pixels; use 8 to 1024, for example 64")))
}

impl Simulator {
    /// Image `index`, row-major, in the unit of the prior's card.
    pub fn image(&self, index: u64) -> Vec<f64> {
        match self {
            Self::Blackhole(simulator) => simulator.image(index),
            Self::Organelle(simulator) => simulator.image(index),
        }
    }
}
