//! A part of the field of view, cut out once everything is measured that the whole field tells better.

use ndarray::{Array3, ArrayView3, s};
use serde::{Deserialize, Serialize};

use super::sim::Pattern;
use crate::{Error, Result};

/// A rectangle of camera pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crop {
    /// Rows above it.
    pub top: usize,
    /// Columns to the left of it.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Crop {
    /// The whole of an image.
    pub fn whole([height, width]: [usize; 2]) -> Self {
        Self { top: 0, left: 0, height, width }
    }

    /// Refuses a part that does not lie in an image of `rows` x `columns` pixels.
    ///
    /// # Errors
    /// No pixels, or pixels outside.
    pub fn check(&self, [rows, columns]: [usize; 2]) -> Result<()> {
        let fits = |before: usize, size: usize, all: usize| {
            size > 0 && before.checked_add(size).is_some_and(|end| end <= all)
        };
        if fits(self.top, self.height, rows) && fits(self.left, self.width, columns) {
            return Ok(());
        }
        let Self { top, left, height, width } = self;
        let problem = format!(
            "{height} x {width} pixels from row {top} and column {left} do not lie in {rows} x {columns} pixels"
        );
        Err(Error::config("microscope.crop", problem))
    }

    /// This part of images `[Z, Y, X]` in which it lies.
    pub fn of(&self, images: ArrayView3<f64>) -> Array3<f64> {
        let (rows, columns) = (self.top..self.top + self.height, self.left..self.left + self.width);
        images.slice(s![.., rows, columns]).to_owned()
    }

    /// Stripes with their phases and places counted from the first pixel of this part, of `pitch` metres (Y, X).
    pub fn stripes(&self, pattern: &Pattern, pitch: [f64; 2]) -> Pattern {
        let [y, x] = [self.top as f64 * pitch[0], self.left as f64 * pitch[1]];
        let turns = std::f64::consts::TAU * (pattern.frequency[0] * y + pattern.frequency[1] * x);
        let phases = pattern.phases.iter().map(|phase| (phase + turns).rem_euclid(std::f64::consts::TAU));
        Pattern { phases: phases.collect(), profile: pattern.profile.from([y, x]), ..pattern.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::microscope::sim::Profile;

    #[test]
    fn stripes_of_a_part_light_it_as_those_of_the_whole_do() {
        let crop = Crop { top: 5, left: 11, height: 4, width: 3 };
        let pitch = [60e-9, 65e-9];
        let whole = Pattern {
            frequency: [2.1e6, -4.4e6],
            contrast: 0.6,
            phases: vec![0.3, 2.0, 4.5],
            intensities: vec![1.0, 0.9, 1.1],
            profile: Profile::new([1e-7, 2e-7], [1e-6, 1e-6], vec![1.0, 0.2, -0.1]),
            significance: 9.0,
        };
        let part = crop.stripes(&whole, pitch);
        for frame in 0..3 {
            let lit = part.illumination(frame, [2.0 * pitch[0], 1.0 * pitch[1]]);
            let expected = whole.illumination(frame, [7.0 * pitch[0], 12.0 * pitch[1]]);
            assert!((lit - expected).abs() < 1e-9, "{lit} {expected}");
        }
    }

    #[test]
    fn parts_outside_are_refused_and_those_inside_are_cut() {
        let images = Array3::from_shape_fn((2, 6, 8), |(z, y, x)| (100 * z + 10 * y + x) as f64);
        let crop = Crop { top: 2, left: 3, height: 2, width: 4 };
        assert!(crop.check([6, 8]).is_ok());
        let cut = crop.of(images.view());
        assert_eq!((cut.dim(), cut[[1, 1, 3]]), ((2, 2, 4), 136.0));
        for wrong in
            [Crop { height: 5, ..crop }, Crop { width: 0, ..crop }, Crop { left: usize::MAX, ..crop }]
        {
            let message = wrong.check([6, 8]).unwrap_err().to_string();
            assert!(message.contains("microscope.crop") && message.contains("6 x 8"), "{message}");
        }
    }
}
