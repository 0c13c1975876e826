//! How evenly the stripes of an angle light the field of view, and what lies behind its frames.

use nalgebra::{DMatrix, DVector};
use ndarray::{Array2, ArrayView2, ArrayView3, Axis, s};

use super::Pattern;
use crate::{Error, Result};

/// Side of the blocks whose means are compared, pixels: many stripes long.
const BLOCK: usize = 16;
/// Largest degree of a profile.
const DEGREE: usize = 3;
/// Blocks that each coefficient needs.
const BLOCKS_EACH: usize = 4;

/// Brightness over the field of view relative to its mean: a polynomial of the place.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Middle of the field along Y and X, m from the centre of the first camera pixel.
    centre: [f64; 2],
    /// Half the field along Y and X, m.
    half: [f64; 2],
    /// Of powers x^i y^j of places from -1 to 1, see [`powers`].
    coefficients: Vec<f64>,
}

impl Profile {
    /// The same light everywhere.
    pub fn even() -> Self {
        Self::new([0.0; 2], [1.0; 2], vec![1.0])
    }

    /// A polynomial over a field of which `centre` is the middle and `half` half the size, m along Y and X: `coefficients` are
    /// those of 1, y, y^2, .., x, x y, .. up to one degree, of places from -1 to 1.
    pub fn new(centre: [f64; 2], half: [f64; 2], coefficients: Vec<f64>) -> Self {
        Self { centre, half, coefficients }
    }

    /// Brightness at a place, m along Y and X; beyond the field that of its edge.
    pub fn at(&self, place: [f64; 2]) -> f64 {
        let degree = (0..).find(|degree| terms(*degree) >= self.coefficients.len()).unwrap_or(0);
        let relative =
            [0, 1].map(|axis| ((place[axis] - self.centre[axis]) / self.half[axis]).clamp(-1.0, 1.0));
        powers(degree, relative).iter().zip(&self.coefficients).map(|(power, c)| power * c).sum()
    }

    /// The same light with places counted from `origin`.
    pub fn from(&self, origin: [f64; 2]) -> Self {
        Self { centre: [0, 1].map(|axis| self.centre[axis] - origin[axis]), ..self.clone() }
    }
}

/// Number of powers up to a degree.
fn terms(degree: usize) -> usize {
    (degree + 1) * (degree + 2) / 2
}

/// x^i y^j with i + j up to `degree`, j running first.
fn powers(degree: usize, [y, x]: [f64; 2]) -> Vec<f64> {
    let power = |base: f64, exponent: usize| base.powi(exponent as i32);
    (0..=degree).flat_map(|i| (0..=degree - i).map(move |j| power(x, i) * power(y, j))).collect()
}

/// Gives each angle's pattern its profile and frames their brightness, and returns the background of each frame.
///
/// `background` is that of the mean of the raw frames `[F, Y, X]`, per pixel or one value; pixels are `pitch` metres large
/// (Y, X). An angle's mean is taken for profile x light + background of the angle, where the mean of all frames shows the
/// light: illumination differs from angle to angle, and frames are often scaled one by one.
///
/// # Errors
/// Frames so different that they cannot show one object.
pub fn measure(
    frames: ArrayView3<f64>,
    pitch: [f64; 2],
    background: &[f64],
    patterns: &mut [Pattern],
) -> Result<Vec<f64>> {
    let (_, rows, columns) = frames.dim();
    let behind = |y: usize, x: usize| background[if background.len() == 1 { 0 } else { y * columns + x }];
    let Some(mean) = frames.mean_axis(Axis(0)) else { return Ok(Vec::new()) };
    let light = Array2::from_shape_fn((rows, columns), |(y, x)| mean[[y, x]] - behind(y, x));
    let half = [rows, columns].map(|count| 0.5 * count as f64).into_iter().zip(pitch).map(|(n, p)| n * p);
    let half: Vec<f64> = half.collect();
    let centre = [half[0] - 0.5 * pitch[0], half[1] - 0.5 * pitch[1]];
    let field = Profile::new(centre, [half[0], half[1]], Vec::new());
    let place = |y: f64, x: f64| [y * pitch[0], x * pitch[1]];
    let mut found = Vec::new();
    let mut first = 0;
    for pattern in patterns {
        let own = frames.slice(s![first..first + pattern.phases.len(), .., ..]);
        first += pattern.phases.len();
        let Some(shown) = own.mean_axis(Axis(0)) else { continue };
        let coefficients = fit(light.view(), shown.view(), &field, &place);
        let uneven = Profile { coefficients, ..field.clone() };
        let lit = Array2::from_shape_fn((rows, columns), |(y, x)| uneven.at(place(y as f64, x as f64)));
        let level = lit.mean().unwrap_or_default();
        if !(lit.iter().all(|value| *value > 0.0) && level.is_finite()) {
            let problem = "the frames of one angle are lit so differently from the others that they cannot show one object; check their order";
            return Err(Error::config("microscope.sim", problem));
        }
        let scaled = uneven.coefficients.iter().map(|c| c / level).collect();
        pattern.profile = Profile { coefficients: scaled, ..uneven };
        let usual = pattern.intensities.iter().sum::<f64>() / pattern.intensities.len() as f64;
        let mean_light = (&lit * &light).mean().unwrap_or_default();
        for (frame, intensity) in own.outer_iter().zip(&mut pattern.intensities) {
            *intensity /= usual;
            found.push(frame.mean().unwrap_or_default() - *intensity * mean_light);
            *intensity *= level;
        }
    }
    Ok(found)
}

/// Coefficients of the profile with which `light` explains `shown` best, up to a constant, by least squares of block means.
fn fit(
    light: ArrayView2<f64>,
    shown: ArrayView2<f64>,
    field: &Profile,
    place: &dyn Fn(f64, f64) -> [f64; 2],
) -> Vec<f64> {
    let blocks = |image: ArrayView2<f64>| -> Vec<([f64; 2], f64)> {
        let (rows, columns) = image.dim();
        let starts =
            |count: usize| (0..(count / BLOCK).max(1)).map(move |block| (block * BLOCK, BLOCK.min(count)));
        let block = |(top, height): (usize, usize), (left, width): (usize, usize)| {
            let part = image.slice(s![top..top + height, left..left + width]);
            let middle = |start: usize, size: usize| start as f64 + 0.5 * (size as f64 - 1.0);
            (place(middle(top, height), middle(left, width)), part.mean().unwrap_or_default())
        };
        starts(rows).flat_map(|y| starts(columns).map(move |x| (y, x))).map(|(y, x)| block(y, x)).collect()
    };
    let (lights, shown) = (blocks(light), blocks(shown));
    let degree = (0..=DEGREE).rev().find(|degree| BLOCKS_EACH * (terms(*degree) + 1) <= lights.len());
    let Some(degree) = degree else { return vec![1.0] };
    let count = terms(degree) + 1;
    let matrix = DMatrix::from_row_iterator(
        lights.len(),
        count,
        lights.iter().flat_map(|(at, light)| {
            let relative = [0, 1].map(|axis| (at[axis] - field.centre[axis]) / field.half[axis]);
            let of_light =
                powers(degree, relative).into_iter().map(|power| power * light).collect::<Vec<_>>();
            of_light.into_iter().chain([1.0])
        }),
    );
    let values = DVector::from_iterator(shown.len(), shown.iter().map(|(_, value)| *value));
    match matrix.svd(true, true).solve(&values, 1e-12) {
        Ok(solution) => solution.iter().take(count - 1).copied().collect(),
        Err(_) => vec![1.0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One light under two angles of their own profiles, brightness and backgrounds is taken apart again.
    #[test]
    fn profiles_and_backgrounds_are_found() {
        let (pitch, size) = ([2e-7, 1e-7], (96, 128));
        let half = [0.5 * 96.0 * pitch[0], 0.5 * 128.0 * pitch[1]];
        let centre = [half[0] - 0.5 * pitch[0], half[1] - 0.5 * pitch[1]];
        // Slopes of opposite signs: the mean over the angles is even.
        let profile = |sign: f64| Profile::new(centre, half, vec![1.0, 0.2 * sign, -0.1 * sign]);
        let truth = [profile(1.0), profile(-1.0)];
        let (intensities, dark) =
            ([[0.9, 1.0, 1.1], [1.1, 1.0, 0.9]], [[40.0, 10.0, 70.0], [-30.0, 20.0, 10.0]]);
        let light =
            |y: usize, x: usize| 50.0 + 30.0 * (0.3 * y as f64).sin() * (0.11 * x as f64).cos() + y as f64;
        let frames = ndarray::Array3::from_shape_fn((6, size.0, size.1), |(f, y, x)| {
            let at = [y as f64 * pitch[0], x as f64 * pitch[1]];
            intensities[f / 3][f % 3] * truth[f / 3].at(at) * light(y, x) + dark[f / 3][f % 3]
        });
        let mut patterns = [0, 1].map(|angle: usize| Pattern {
            frequency: [1e6, 0.0],
            contrast: 0.5,
            phases: vec![0.0; 3],
            intensities: intensities[angle].to_vec(),
            profile: Profile::even(),
            significance: 9.0,
        });
        let level = dark.iter().flatten().sum::<f64>() / 6.0;
        let found = measure(frames.view(), pitch, &[level], &mut patterns).unwrap();
        for (frame, background) in found.iter().enumerate() {
            let (angle, phase) = (frame / 3, frame % 3);
            assert!((background - dark[angle][phase]).abs() < 0.5, "{frame}: {background}");
            assert!((patterns[angle].intensities[phase] - intensities[angle][phase]).abs() < 0.01);
        }
        for at in [[0.0, 0.0], centre, [1e-5, 1.2e-5]] {
            let (found, exact) = (patterns[0].profile.at(at), truth[0].at(at));
            assert!((found - exact).abs() < 0.01, "{at:?}: {found} {exact}");
        }
    }

    #[test]
    fn beyond_the_field_its_edge_goes_on() {
        let profile = Profile::new([1.0, 2.0], [1.0, 2.0], vec![1.0, 0.5, 0.25]);
        assert_eq!(profile.at([1.0, 2.0]), 1.0);
        assert_eq!(profile.at([2.0, 4.0]), profile.at([9.0, 9.0]));
        assert_eq!(profile.from([0.5, 1.0]).at([0.5, 1.0]), 1.0);
    }
}
