//! The pixel grid that an image lives on.

use crate::{Error, Result};

/// Shape and pitch of an image, axes Z, Y, X.
///
/// On the sky Z is 1, row 0 is north, column 0 is east, the phase centre lies at the centre of the array
/// (between pixels for even sizes) and `pitch` is in radians. For a stack `pitch` is in metres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Number of voxels along Z, Y, X.
    pub shape: [usize; 3],
    /// Voxel size along Z, Y, X; radians on the sky, metres in a stack.
    pub pitch: [f64; 3],
}

impl Grid {
    /// A square sky image of `pixels` x `pixels` over a field of view in radians.
    ///
    /// # Errors
    /// No pixels, or a field of view that is not positive and finite.
    pub fn sky(pixels: usize, field_of_view: f64) -> Result<Self> {
        if pixels == 0 {
            return Err(Error::config("grid.pixels", "0 pixels; use 64"));
        }
        if !(field_of_view.is_finite() && field_of_view > 0.0) {
            return Err(Error::config("grid.fov", "must be positive, for example 160 uas"));
        }
        let pitch = field_of_view / pixels as f64;
        Ok(Self { shape: [1, pixels, pixels], pitch: [pitch; 3] })
    }

    /// Number of voxels.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True for a grid without voxels.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Angular offsets of the columns east of the phase centre, radians: (nx/2 - 1/2 - j) pitch.
    pub fn east(&self) -> Vec<f64> {
        offsets(self.shape[2], self.pitch[2])
    }

    /// Angular offsets of the rows north of the phase centre, radians: (ny/2 - 1/2 - i) pitch.
    pub fn north(&self) -> Vec<f64> {
        offsets(self.shape[1], self.pitch[1])
    }
}

fn offsets(count: usize, pitch: f64) -> Vec<f64> {
    (0..count).map(|i| (count as f64 / 2.0 - 0.5 - i as f64) * pitch).collect()
}
