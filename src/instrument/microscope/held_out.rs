//! Camera pixels that the image is not fitted to: blocks on the dark squares of a chessboard.

use std::{ops::Range, sync::Arc};

use candle_core::{Device, Tensor};

use super::{noise_model::Part, problem::Prepared};
use crate::{
    Error, Result,
    instrument::{Likelihood, held_out::Foretold},
    rng::Rng,
    tensor::to_host,
};

/// Sides of a block along planes (or raw frames), rows and columns, camera pixels. Across it is twice as wide as the
/// image of a point in pixels of wavelength / (4 NA): what its middle shows, the pixels beside it do not.
pub const BLOCK: [usize; 3] = [1, 4, 4];

/// Blocks of camera pixels that are left out of the fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocks {
    /// Planes or raw frames, rows, columns of the data.
    shape: [usize; 3],
    /// Where each block lies, counted in blocks along each axis.
    places: Vec<[usize; 3]>,
}

impl Blocks {
    /// Blocks of data of `shape` (planes or raw frames, rows, columns), which `rng` chooses until they hold the
    /// `fraction` of all pixels. No two share a side, in a plane or with the next one: each has data around it.
    ///
    /// # Errors
    /// A fraction that is not between 0 and 1/2, or data so small that nothing would be left to fit.
    pub fn choose(shape: [usize; 3], fraction: f64, rng: &mut Rng) -> Result<Self> {
        if !(fraction > 0.0 && fraction < 0.5) {
            let problem = format!("{fraction} is not a fraction between 0 and 0.5; write for example 0.02");
            return Err(Error::config(PLACE, problem));
        }
        let all = shape.iter().product::<usize>();
        let [planes, rows, columns] = [0, 1, 2].map(|axis| shape[axis].div_ceil(BLOCK[axis]));
        let squares = (0..planes * rows * columns)
            .map(|square| [square / (rows * columns), square / columns % rows, square % columns]);
        let mut dark: Vec<[usize; 3]> =
            squares.filter(|place| place.iter().sum::<usize>().is_multiple_of(2)).collect();
        let (mut places, mut count) = (Vec::new(), 0);
        while (count as f64) < fraction * all as f64 && !dark.is_empty() {
            let place = dark.swap_remove(rng.below(dark.len()));
            count += pixels(shape, place, 0).count();
            places.push(place);
        }
        if count == all {
            let [_, rows, columns] = BLOCK;
            let problem =
                format!("leaves nothing of a single block of {rows} x {columns} pixels to fit; set it to 0");
            return Err(Error::config(PLACE, problem));
        }
        Ok(Self { shape, places })
    }

    /// The pixels, in ascending order.
    pub fn pixels(&self) -> Vec<usize> {
        let mut all: Vec<usize> =
            self.places.iter().flat_map(|place| pixels(self.shape, *place, 0)).collect();
        all.sort_unstable();
        all
    }

    /// 0 for pixels that are left out, 1 for all others.
    pub(super) fn weights(&self) -> Vec<f64> {
        let mut weights = vec![1.0; self.shape.iter().product()];
        self.pixels().into_iter().for_each(|pixel| weights[pixel] = 0.0);
        weights
    }

    /// `data` of all pixels in which each block has the mean of the fitted pixels that touch it.
    pub(super) fn filled(&self, mut data: Vec<f64>) -> Vec<f64> {
        let weights = self.weights();
        for place in &self.places {
            let (mut sum, mut count) = (0.0, 0.0);
            for pixel in pixels(self.shape, *place, 1).filter(|pixel| weights[*pixel] > 0.0) {
                (sum, count) = (sum + data[pixel], count + 1.0);
            }
            for pixel in pixels(self.shape, *place, 0) {
                data[pixel] = sum / count;
            }
        }
        data
    }
}

const PLACE: &str = "stack.hold_out";

/// The pixels of the block at `place`, as far as data of this shape reach, with `more` of them on every side.
fn pixels(shape: [usize; 3], place: [usize; 3], more: usize) -> impl Iterator<Item = usize> {
    let [planes, rows, columns]: [Range<usize>; 3] = [0, 1, 2].map(|axis| {
        let start = place[axis] * BLOCK[axis];
        start.saturating_sub(more)..(start + BLOCK[axis] + more).min(shape[axis])
    });
    let [_, height, width] = shape;
    planes.flat_map(move |z| {
        let columns = columns.clone();
        rows.clone().flat_map(move |y| columns.clone().map(move |x| (z * height + y) * width + x))
    })
}

/// What was left out of the fit.
pub struct LeftOut {
    /// Places in the data, ascending.
    pixels: Vec<usize>,
    /// The likelihood of these data alone.
    likelihood: Arc<dyn Likelihood>,
}

impl Prepared {
    /// Leaves blocks of camera pixels out of the fit, which `rng` chooses until they hold the `fraction` of all data.
    /// Noise, background and stripes stay as all data told them.
    ///
    /// # Errors
    /// Those of [`Blocks::choose`].
    pub fn leave_out(&mut self, fraction: f64, rng: &mut Rng) -> Result<LeftOut> {
        let [_, rows, columns] = self.domain.camera;
        let planes = self.values.len() / (rows * columns);
        let blocks = Blocks::choose([planes, rows, columns], fraction, rng)?;
        let values = std::mem::take(&mut self.values);
        let likelihood = self.model.likelihood(values.clone(), Part::Only(&blocks))?;
        self.values = blocks.filled(values);
        let fitted = self.model.likelihood(self.values.clone(), Part::Without(&blocks))?;
        self.problem.likelihoods = vec![fitted];
        Ok(LeftOut { pixels: blocks.pixels(), likelihood })
    }
}

impl LeftOut {
    /// Number of data.
    pub fn count(&self) -> usize {
        self.pixels.len()
    }

    /// Name of the data product.
    pub fn name(&self) -> &'static str {
        self.likelihood.name()
    }

    /// The data of all pixels, of which `fitted` holds those that are fitted.
    pub fn restored(&self, mut fitted: Vec<f64>) -> Vec<f64> {
        let values = self.likelihood.values().into_iter().flatten();
        self.pixels.iter().zip(values).for_each(|(&pixel, value)| fitted[pixel] = value);
        fitted
    }

    /// How well samples foretell these data; `predicted` is what each of them gives all pixels, `[1, M]`.
    ///
    /// # Errors
    /// Those of the predictions.
    pub fn foretold(&self, predicted: impl Iterator<Item = Result<Tensor>>) -> Result<Option<Foretold>> {
        let (mut values, mut samples) = (Vec::new(), 0);
        for predicted in predicted {
            let all = to_host(&predicted?)?;
            values.extend(self.pixels.iter().map(|&pixel| all[pixel]));
            samples += 1;
        }
        let predicted = Tensor::from_vec(values, (samples, self.count()), &Device::Cpu)?;
        Foretold::of(self.likelihood.as_ref(), &predicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_the_fraction_and_share_no_side() {
        let shape = [2, 30, 41];
        for fraction in [0.02, 0.3] {
            let blocks = Blocks::choose(shape, fraction, &mut Rng::new(1)).unwrap();
            let (pixels, weights) = (blocks.pixels(), blocks.weights());
            let share = pixels.len() as f64 / 2460.0;
            assert!((fraction..fraction + 16.0 / 2460.0).contains(&share), "{share}");
            assert_eq!(weights.iter().filter(|weight| **weight == 0.0).count(), pixels.len());
            for [z, y, x] in &blocks.places {
                let next = [[z + 1, *y, *x], [*z, y + 1, *x], [*z, *y, x + 1]];
                assert!(next.iter().all(|place| !blocks.places.contains(place)));
            }
        }
        let again = |seed| Blocks::choose(shape, 0.1, &mut Rng::new(seed)).unwrap();
        assert!(again(1) == again(1) && again(1) != again(2));
    }

    /// A slope across the image is filled in by its mean over the block, and nothing else is touched.
    #[test]
    fn blocks_are_filled_from_around() {
        let shape = [1, 24, 24];
        let blocks = Blocks { shape, places: vec![[0, 2, 4]] };
        let data: Vec<f64> = (0..576).map(|pixel| (pixel % 24) as f64).collect();
        let mut spoilt = data.clone();
        blocks.pixels().into_iter().for_each(|pixel| spoilt[pixel] = f64::NAN);
        let filled = blocks.filled(spoilt);
        for (pixel, (found, before)) in filled.iter().zip(&data).enumerate() {
            let expected = if blocks.pixels().contains(&pixel) { 17.5 } else { *before };
            assert_eq!(*found, expected, "{pixel}");
        }
    }

    #[test]
    fn impossible_fractions_name_the_setting() {
        for (shape, fraction, expected) in [
            ([1, 32, 32], 0.7, "0.7"),
            ([1, 32, 32], -0.1, "-0.1"),
            ([1, 32, 32], f64::NAN, "NaN"),
            ([1, 4, 3], 0.1, "single block"),
        ] {
            let message = Blocks::choose(shape, fraction, &mut Rng::new(1)).unwrap_err().to_string();
            assert!(message.contains("stack.hold_out") && message.contains(expected), "{message}");
        }
    }
}
