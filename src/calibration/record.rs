//! What is kept of a replicate: functionals of the truth and of every draw, one JSON object a line.

use serde::{Deserialize, Serialize};

/// A number that is read off an image, or off an image and the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Functional {
    /// Its name, the unit at the end.
    pub name: String,
    /// How it is compared.
    pub kind: Kind,
}

impl Functional {
    /// A functional by name and kind.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self { name: name.into(), kind }
    }
}

/// How values of a functional are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A number.
    Scalar,
    /// An angle in degrees, compared around the circle.
    Angle,
    /// Brightness of a blurred pixel, judged only where it is on source.
    Pixel,
    /// How well an image fits the data, without which draws of the prior would pass, or the prior.
    Fit,
}

/// Functionals of one truth and of the draws of its posterior; null where an image does not have one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replicate {
    /// What was measured, F of them.
    pub functionals: Vec<Functional>,
    /// Of the truth `[F]`.
    pub truth: Vec<Option<f32>>,
    /// Of the draws `[F][S]`.
    pub draws: Vec<Vec<Option<f32>>>,
    /// Of an image that depends on the data alone `[F]`: the reference point of TARP.
    pub reference: Vec<Option<f32>>,
    /// Chain of each draw `[S]`.
    pub chain: Vec<u32>,
}

impl Replicate {
    /// Number of chains.
    pub fn chains(&self) -> usize {
        self.chain.iter().collect::<std::collections::BTreeSet<_>>().len()
    }

    /// True if all arrays fit together.
    pub fn is_whole(&self) -> bool {
        let count = self.functionals.len();
        count == self.truth.len()
            && count == self.draws.len()
            && count == self.reference.len()
            && self.draws.iter().all(|draws| draws.len() == self.chain.len())
            && !self.chain.is_empty()
    }
}

/// One line of `replicates.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// SHA-256 of the settings that all replicates of a calibration share.
    pub setup: String,
    /// Seed of the campaign.
    pub seed: u64,
    /// Number of the replicate: truth, data and solver draw from the stream of seed and number.
    pub replicate: u64,
    /// Wall-clock time.
    pub seconds: f64,
    /// Why the replicate failed.
    pub error: Option<String>,
    /// What it gave if it did not fail.
    pub result: Option<Replicate>,
}
