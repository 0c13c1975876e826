//! The position of a source whose data leave it free.

use candle_core::Tensor;

use crate::{Result, rng::Rng, transfer::Transfer};

/// Where images of such a source are put: their centroid is Gaussian along each axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// Mean towards the first row and the first column, fields of view from the centre.
    pub mean: [f64; 2],
    /// Standard deviation, fields of view.
    pub sigma: f64,
}

impl Position {
    /// Moves every image `[B, Z, Y, X]` by whole pixels, around the edges, to a centroid drawn from this distribution.
    /// `brightness` are the same images, zero where they are dark; what is negative in them does not count.
    ///
    /// # Errors
    /// Images of another number of dimensions.
    pub fn draw(&self, images: &Tensor, brightness: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let (batch, _, rows, columns) = images.dims4()?;
        let mut moved = Vec::with_capacity(batch);
        for index in 0..batch {
            let light: Vec<f32> = brightness
                .get(index)?
                .sum(0)?
                .flatten_all()?
                .to_dtype(candle_core::DType::F32)?
                .read_list()?;
            let at = centroid(&light, columns);
            let target = [rows, columns].map(|side| (side as f64 - 1.0) / 2.0);
            let shift = [0, 1].map(|axis| {
                let side = [rows, columns][axis] as f64;
                let drawn = self.mean[axis] + self.sigma * rng.normal();
                (target[axis] - drawn * side - at[axis].unwrap_or(target[axis])).round() as i32
            });
            moved.push(images.narrow(0, index, 1)?.roll(shift[0], 2)?.roll(shift[1], 3)?);
        }
        Ok(Tensor::cat(&moved, 0)?)
    }
}

/// Mean row and column of the light; none in the dark.
fn centroid(light: &[f32], columns: usize) -> [Option<f64>; 2] {
    let (mut total, mut sums) = (0.0, [0.0; 2]);
    for (i, light) in light.iter().enumerate().filter(|(_, light)| **light > 0.0) {
        let light = f64::from(*light);
        total += light;
        sums[0] += light * (i / columns) as f64;
        sums[1] += light * (i % columns) as f64;
    }
    sums.map(|sum| (total > 0.0).then(|| sum / total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Compute;

    #[test]
    fn a_point_goes_where_it_is_drawn() {
        let mut values = vec![-0.5; 2 * 8 * 16];
        values[3 * 16 + 1] = 2.0;
        values[128 + 5 * 16 + 9] = 2.0;
        let images = Compute::cpu().tensor(values, &[2, 1, 8, 16]).unwrap();
        let brightness = (&images + 0.5).unwrap();
        let fixed = Position { mean: [0.25, -0.125], sigma: 0.0 };
        let moved = fixed.draw(&images, &brightness, &mut Rng::new(1)).unwrap();
        // Row 3.5 - 2 rounds to 2 (half away from zero), column 7.5 + 2 to 10.
        let place = |index: usize| {
            let values: Vec<f32> = moved.get(index).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            values.iter().position(|v| *v == 2.0).map(|i| [i / 16, i % 16])
        };
        for index in 0..2 {
            let [row, column] = place(index).unwrap();
            assert!((row as f64 - 1.5).abs() <= 0.5 && (column as f64 - 9.5).abs() <= 0.5, "{row} {column}");
        }
        let spread = Position { mean: [0.0; 2], sigma: 0.1 };
        let mut rng = Rng::new(2);
        let columns: Vec<f64> = (0..400)
            .map(|_| {
                let moved = spread.draw(&images, &brightness, &mut rng).unwrap();
                let values: Vec<f32> = moved.get(0).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                (values.iter().position(|v| *v == 2.0).unwrap() % 16) as f64 - 7.5
            })
            .collect();
        let std = (columns.iter().map(|c| c * c).sum::<f64>() / 400.0).sqrt();
        assert!((std - 1.6).abs() < 0.2, "{std}");
    }
}
