//! The stripes of one angle, and how many frames show them.

use std::f64::consts::{PI, TAU};

use serde::{Deserialize, Serialize};

use super::Profile;
use crate::{Error, Result};

/// Raw frames of one image: all phases of the first angle, then those of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Directions of the stripes.
    pub angles: usize,
    /// Shifts of the stripes per direction.
    pub phases: usize,
}

impl Layout {
    /// Number of raw frames.
    pub fn frames(&self) -> usize {
        self.angles.saturating_mul(self.phases)
    }

    /// Refuses another number of frames, and layouts that tell no pattern.
    ///
    /// # Errors
    /// No angle, less than 3 phases, or `found` frames that are not angles x phases.
    pub fn check(&self, found: usize) -> Result<()> {
        let Self { angles, phases } = *self;
        let refuse = |problem: String| Err(Error::config("microscope.sim", problem));
        if angles == 0 || phases < 3 {
            return refuse(format!(
                "{angles} angles x {phases} phases; 1 angle and 3 phases are the least that tell a pattern"
            ));
        }
        if found != self.frames() {
            return refuse(format!(
                "{angles} angles x {phases} phases are {} frames, the data have {found}; correct the setting or the file",
                self.frames()
            ));
        }
        Ok(())
    }
}

/// Stripes of one angle: frame p is lit by intensity_p profile(r) (1 + contrast cos(2 pi frequency . r + phase_p)), with r in
/// metres from the centre of the first camera pixel.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    /// Wave vector over 2 pi along Y and X, 1/m; Y is not negative.
    pub frequency: [f64; 2],
    /// Depth of modulation, 0 to 1.
    pub contrast: f64,
    /// Phase of each frame, radians.
    pub phases: Vec<f64>,
    /// Brightness of each frame; all frames of a data set have the mean 1.
    pub intensities: Vec<f64>,
    /// Where in the field of view the angle's light is brighter.
    pub profile: Profile,
    /// Strength of the stripes in the data over the median strength of others with a similar period.
    pub significance: f64,
}

impl Pattern {
    /// Distance between stripes, m.
    pub fn period(&self) -> f64 {
        1.0 / self.frequency[0].hypot(self.frequency[1])
    }

    /// Direction of the wave vector from the X axis towards the Y axis, radians from 0 to pi.
    pub fn angle(&self) -> f64 {
        self.frequency[0].atan2(self.frequency[1]).rem_euclid(PI)
    }

    /// Illumination of frame `frame` at a place, m along Y and X.
    pub fn illumination(&self, frame: usize, [y, x]: [f64; 2]) -> f64 {
        let turns = self.frequency[0] * y + self.frequency[1] * x;
        let stripes = 1.0 + self.contrast * (TAU * turns + self.phases[frame]).cos();
        self.intensities[frame] * self.profile.at([y, x]) * stripes
    }
}
