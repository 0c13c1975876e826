//! The light behind the object: a constant or a smooth surface, estimated from the darkest parts of the data.

use nalgebra::{DMatrix, DVector};
use ndarray::{Array2, ArrayView2, ArrayView3, s};

use crate::{Error, Result};

/// How the background varies over the field of view.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// The same everywhere.
    #[default]
    Constant,
    /// A plane.
    Plane,
    /// A polynomial of second degree.
    Quadratic,
    /// What follows the darkest parts of each tile: light from out of focus, which a prior of sharp structures does not know.
    Local,
}

impl Shape {
    /// Values of the shape's functions at a place of the field of view, from -1 to 1 along Y and X.
    fn functions(self, y: f64, x: f64) -> Vec<f64> {
        match self {
            Self::Constant | Self::Local => vec![1.0],
            Self::Plane => vec![1.0, y, x],
            Self::Quadratic => vec![1.0, y, x, y * y, y * x, x * x],
        }
    }
}

/// Side of the tiles whose dark ends the surface is fitted to, pixels.
const TILE: usize = 16;
/// Fraction of a tile's pixels that are taken for background.
const DARK: f64 = 0.1;
/// Height above the surface up to which tiles are background, in units of the noise, of which the mean of the darkest tenth of 256
/// pixels scatters by a fifth. More would take in the halo of what is bright.
const NEAR: f64 = 0.4;
/// Rounds in which tiles above the surface are left out.
const ROUNDS: usize = 20;

/// The background of data `[Z, Y, X]` with noise of standard deviation `sigma`, `[Z, Y, X]` as a flat list: the same in all planes,
/// for out-of-focus light is the object's, unless it is [`Shape::Local`].
///
/// Each tile of a plane offers the mean of its darkest tenth, raised by what the noise takes from such a mean; the surface is
/// fitted by least squares to all tiles, then to those that lie below it or near it, again and again. (Begun with the darkest
/// tiles, which may all lie on one side, a curved surface may never find the others.) Where structures fill every tile the
/// estimate is too high: give the background then.
///
/// # Errors
/// Data without pixels or with values that are no numbers.
pub fn estimate(data: ArrayView3<f64>, sigma: f64, shape: Shape) -> Result<Vec<f64>> {
    if data.is_empty() || data.iter().any(|value| !value.is_finite()) {
        return Err(Error::config("data", "holds no pixels, or values that are no numbers"));
    }
    let (planes, rows, columns) = data.dim();
    let levels: Vec<Array2<f64>> = data.outer_iter().map(|plane| levels(plane, sigma)).collect();
    if shape == Shape::Local {
        return Ok(levels.iter().flat_map(|levels| followed(levels, [rows, columns])).collect());
    }
    let place = |index: f64, count: usize| 2.0 * (index + 0.5) / count as f64 - 1.0;
    let tiles = levels.iter().flat_map(|levels| levels.indexed_iter()).map(|((down, across), level)| {
        let functions =
            shape.functions(place(centre(down, rows), rows), place(centre(across, columns), columns));
        (*level, functions)
    });
    let coefficients = fit(&tiles.collect::<Vec<_>>(), sigma)?;
    let value = |y: usize, x: usize| {
        let functions = shape.functions(place(y as f64, rows), place(x as f64, columns));
        functions.iter().zip(&coefficients).map(|(f, c)| f * c).sum()
    };
    let plane: Vec<f64> = (0..rows * columns).map(|i| value(i / columns, i % columns)).collect();
    Ok(plane.repeat(planes))
}

/// Middle of tile `index` along an axis of `count` pixels.
fn centre(index: usize, count: usize) -> f64 {
    (index * TILE + ((index + 1) * TILE).min(count) - 1) as f64 / 2.0
}

/// The mean of the darkest tenth of each tile, raised by what the noise takes from it.
fn levels(plane: ArrayView2<f64>, sigma: f64) -> Array2<f64> {
    let (rows, columns) = plane.dim();
    let raised = sigma * lowest_share(DARK);
    Array2::from_shape_fn((rows.div_ceil(TILE), columns.div_ceil(TILE)), |(down, across)| {
        let (top, left) = (down * TILE, across * TILE);
        let (bottom, right) = ((top + TILE).min(rows), (left + TILE).min(columns));
        let mut values: Vec<f64> = plane.slice(s![top..bottom, left..right]).iter().copied().collect();
        values.sort_by(f64::total_cmp);
        let dark = ((values.len() as f64 * DARK).ceil() as usize).max(1);
        values[..dark].iter().sum::<f64>() / dark as f64 + raised
    })
}

/// The levels of tiles, each the mean with its neighbours, as a surface that is linear between the tiles' middles.
fn followed(levels: &Array2<f64>, [rows, columns]: [usize; 2]) -> Vec<f64> {
    let (down, across) = levels.dim();
    let near = |index: usize, count: usize| index.saturating_sub(1)..(index + 2).min(count);
    let smooth = Array2::from_shape_fn((down, across), |(i, j)| {
        let around = levels.slice(s![near(i, down), near(j, across)]);
        around.sum() / around.len() as f64
    });
    // Tiles on both sides of a pixel, and its share of the way from one to the other.
    let between = |pixel: usize, tiles: usize, count: usize| {
        let after = (0..tiles).find(|&tile| centre(tile, count) >= pixel as f64).unwrap_or(tiles - 1);
        let before = after.saturating_sub(1);
        let [from, to] = [before, after].map(|tile| centre(tile, count));
        (before, after, ((pixel as f64 - from) / (to - from).max(1.0)).clamp(0.0, 1.0))
    };
    let value = |y: usize, x: usize| {
        let ((above, below, v), (left, right, u)) = (between(y, down, rows), between(x, across, columns));
        let row = |tile: usize| (1.0 - u) * smooth[[tile, left]] + u * smooth[[tile, right]];
        (1.0 - v) * row(above) + v * row(below)
    };
    (0..rows * columns).map(|i| value(i / columns, i % columns)).collect()
}

/// How far the mean of the lowest `share` of normal draws lies below zero, standard deviations: phi(q)/share.
fn lowest_share(share: f64) -> f64 {
    // The quantile by bisection of the error function.
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if 0.5 * (1.0 + libm::erf(middle / 2f64.sqrt())) < share { low = middle } else { high = middle }
    }
    (-0.5 * low * low).exp() / (std::f64::consts::TAU.sqrt() * share)
}

/// Coefficients of the surface through the tiles that are background.
fn fit(tiles: &[(f64, Vec<f64>)], sigma: f64) -> Result<Vec<f64>> {
    let unknowns = tiles.first().map_or(1, |(_, functions)| functions.len());
    let mut chosen: Vec<&(f64, Vec<f64>)> = tiles.iter().collect();
    let mut coefficients = vec![0.0; unknowns];
    for _ in 0..ROUNDS {
        if chosen.len() < unknowns {
            let problem = "too few dark tiles for this surface; use a constant background or give it";
            return Err(Error::config("microscope.background", problem));
        }
        let matrix = DMatrix::from_fn(chosen.len(), unknowns, |row, column| chosen[row].1[column]);
        let values = DVector::from_iterator(chosen.len(), chosen.iter().map(|(value, _)| *value));
        let solution =
            matrix.svd(true, true).solve(&values, 1e-10).map_err(|e| Error::config("background", e))?;
        coefficients = solution.iter().copied().collect();
        let height =
            |functions: &[f64]| -> f64 { functions.iter().zip(&coefficients).map(|(f, c)| f * c).sum() };
        chosen =
            tiles.iter().filter(|(value, functions)| *value <= height(functions) + NEAR * sigma).collect();
    }
    Ok(coefficients)
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::rng::Rng;

    /// Filaments of 300 on a tilted background with noise of 5.
    fn data(tilt: f64, seed: u64) -> Array3<f64> {
        let mut rng = Rng::new(seed);
        Array3::from_shape_fn((1, 128, 96), |(_, y, x)| {
            let filament = |slope: f64, offset: f64| {
                let distance = y as f64 - slope * x as f64 - offset;
                300.0 * (-0.5 * (distance / 2.0).powi(2)).exp()
            };
            let background = 100.0 + tilt * (2.0 * (y as f64 + 0.5) / 128.0 - 1.0);
            background + filament(0.5, 20.0) + filament(-0.3, 90.0) + 5.0 * rng.normal()
        })
    }

    #[test]
    fn constant_and_tilted_backgrounds_are_found_beside_structures() {
        for (tilt, shape) in [(0.0, Shape::Constant), (20.0, Shape::Plane), (20.0, Shape::Quadratic)] {
            for seed in 0..12 {
                let found = estimate(data(tilt, seed).view(), 5.0, shape).unwrap();
                for (i, value) in found.iter().enumerate() {
                    let y = (i / 96) as f64;
                    let expected = 100.0 + tilt * (2.0 * (y + 0.5) / 128.0 - 1.0);
                    assert!((value - expected).abs() < 2.5, "{shape:?} {seed}, row {y}: {value} {expected}");
                }
            }
        }
    }

    /// Light that differs from plane to plane is that of structures out of focus.
    #[test]
    fn out_of_focus_light_is_not_background() {
        let mut rng = Rng::new(4);
        let haze = [0.0, 12.0, 40.0, 20.0];
        let stack = Array3::from_shape_fn((4, 64, 64), |(z, y, x)| {
            let bright = if z == 2 && y.abs_diff(30) < 6 && x.abs_diff(30) < 6 { 500.0 } else { 0.0 };
            100.0 + haze[z] + bright + 3.0 * rng.normal()
        });
        let found = estimate(stack.view(), 3.0, Shape::Constant).unwrap();
        assert_eq!(found.len(), stack.len());
        assert!(found.iter().all(|value| (value - 100.0).abs() < 0.5), "{}", found[0]);
    }

    /// Haze that falls from 60 to 20 along X under filaments a tile apart, with noise.
    #[test]
    fn a_local_background_follows_haze_and_not_filaments() {
        let mut rng = Rng::new(7);
        let haze = |x: usize| 20.0 + 40.0 * (1.0 - x as f64 / 127.0).powi(2);
        let data = Array3::from_shape_fn((1, 96, 128), |(_, y, x)| {
            let filament = if y % 16 == 5 { 200.0 } else { 0.0 };
            haze(x) + filament + 2.0 * rng.normal()
        });
        let found = estimate(data.view(), 2.0, Shape::Local).unwrap();
        for (i, found) in found.into_iter().enumerate() {
            let x = i % 128;
            // Beyond the middle of the outermost tiles the surface is level.
            if (24..104).contains(&x) {
                assert!((found - haze(x)).abs() < 2.5, "{x}: {found}, {}", haze(x));
            }
        }
    }

    #[test]
    fn normal_tails_have_their_mean() {
        // phi(1.2816) / 0.1
        assert!((lowest_share(0.1) - 1.754_98).abs() < 1e-4);
    }

    #[test]
    fn data_without_numbers_are_refused() {
        assert!(estimate(Array3::from_elem((1, 4, 4), f64::NAN).view(), 1.0, Shape::Constant).is_err());
        assert!(estimate(Array3::zeros((1, 0, 4)).view(), 1.0, Shape::Constant).is_err());
    }
}
