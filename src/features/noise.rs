//! Noise of an image from its finest spatial frequencies.

use ndarray::{ArrayView2, s};
use rayon::prelude::*;

use crate::quantile::quantile;

/// Fourth differences, normalised so that white noise keeps its variance.
const FOURTH_DIFFERENCE: [f64; 5] = {
    const NORM: f64 = 8.366_600_265_340_756; // sqrt(1 + 16 + 36 + 16 + 1)
    [1.0 / NORM, -4.0 / NORM, 6.0 / NORM, -4.0 / NORM, 1.0 / NORM]
};
/// Side of the blocks whose variance is taken, pixels.
const BLOCK: usize = 16;

/// Standard deviation of the noise, in the unit of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// In the median block.
    pub sigma: f64,
    /// In the darkest quarter of the blocks.
    pub dark: f64,
    /// In the brightest quarter of the blocks.
    pub bright: f64,
}

/// Estimates the noise of planes `[Y, X]`; `None` if they are smaller than one block.
///
/// Fourth differences along both axes pass the corners of the spectrum, |fx| and |fy| near half a cycle per pixel. They
/// lie beyond the cut-off of any image whose pixels are not larger than wavelength / (4 NA), so that what is left is
/// noise; in coarser images part of it is detail, and the estimate is an upper bound. The estimate is the square root
/// of the median over blocks of 16 x 16 pixels of their mean square, so that few blocks of fine detail do not matter.
/// Blocks without any variation (padding, saturation) are left out. Noise must be white from pixel to pixel: that of
/// filtered, resampled or deconvolved images is underestimated.
pub fn estimate(planes: &[ArrayView2<f32>]) -> Option<Noise> {
    let mut blocks: Vec<[f64; 2]> = planes.par_iter().flat_map_iter(|plane| blocks(*plane)).collect();
    if blocks.iter().any(|[_, variance]| *variance > 0.0) {
        blocks.retain(|[_, variance]| *variance > 0.0);
    }
    blocks.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let quarter = blocks.len().div_ceil(4);
    let sigma = |blocks: &[[f64; 2]]| {
        let mut variances: Vec<f64> = blocks.iter().map(|[_, variance]| *variance).collect();
        quantile(&mut variances, 0.5).sqrt()
    };
    (!blocks.is_empty()).then(|| Noise {
        sigma: sigma(&blocks),
        dark: sigma(&blocks[..quarter]),
        bright: sigma(&blocks[blocks.len() - quarter..]),
    })
}

/// Mean and noise variance of each block, without blocks that hold values that are not finite.
fn blocks(plane: ArrayView2<f32>) -> Vec<[f64; 2]> {
    const MARGIN: usize = FOURTH_DIFFERENCE.len() - 1;
    let (rows, columns) = plane.dim();
    let fits = |size: usize| size.saturating_sub(MARGIN) / BLOCK;
    let corners = (0..fits(rows)).flat_map(|i| (0..fits(columns)).map(move |j| [i * BLOCK, j * BLOCK]));
    let moments = corners.map(|[top, left]| {
        let part = plane.slice(s![top..top + BLOCK + MARGIN, left..left + BLOCK + MARGIN]).mapv(f64::from);
        let mean = part.mean().unwrap_or(f64::NAN);
        let across = |row: usize, column: usize| -> f64 {
            FOURTH_DIFFERENCE.iter().enumerate().map(|(k, weight)| weight * part[[row, column + k]]).sum()
        };
        let rows: Vec<Vec<f64>> =
            (0..BLOCK + MARGIN).map(|row| (0..BLOCK).map(|column| across(row, column)).collect()).collect();
        let difference = |row: usize, column: usize| -> f64 {
            FOURTH_DIFFERENCE.iter().zip(&rows[row..]).map(|(weight, values)| weight * values[column]).sum()
        };
        let squares: f64 = (0..BLOCK * BLOCK).map(|i| difference(i / BLOCK, i % BLOCK).powi(2)).sum();
        [mean, squares / (BLOCK * BLOCK) as f64]
    });
    moments.filter(|block| block.iter().all(|value| value.is_finite())).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::rng::Rng;

    /// White noise of level 3 on a smooth image, whose pattern is 100 times stronger.
    fn image(level: impl Fn(f64) -> f64) -> Array2<f32> {
        let mut rng = Rng::new(5);
        Array2::from_shape_fn((256, 200), |(y, x)| {
            let signal = 1000.0 + 300.0 * (0.3 * y as f64).sin() * (0.25 * x as f64).cos() + 2.0 * x as f64;
            (signal + level(x as f64) * rng.normal()) as f32
        })
    }

    #[test]
    fn noise_is_found_under_a_strong_pattern() {
        let noise = estimate(&[image(|_| 3.0).view()]).unwrap();
        assert!((noise.sigma / 3.0 - 1.0).abs() < 0.05, "{noise:?}");
    }

    #[test]
    fn bright_and_dark_parts_are_told_apart() {
        let noise = estimate(&[image(|x| 2.0 + 0.05 * x).view()]).unwrap();
        assert!(noise.dark < 5.0 && noise.bright > 8.0, "{noise:?}");
    }

    #[test]
    fn padding_and_missing_values_do_not_count() {
        let mut padded = image(|_| 3.0);
        padded.slice_mut(s![..180, ..]).fill(0.0);
        padded[[250, 3]] = f32::NAN;
        let noise = estimate(&[padded.view()]).unwrap();
        assert!((noise.sigma / 3.0 - 1.0).abs() < 0.1, "{noise:?}");
        assert_eq!(estimate(&[Array2::zeros((19, 40)).view()]), None);
        assert_eq!(estimate(&[Array2::zeros((40, 40)).view()]).unwrap().sigma, 0.0);
    }
}
