//! Brightness at arbitrary places of a sky image: cubic upsampling once, bilinear look-ups after.

use ndarray::{Array2, ArrayView2};

use crate::grid::Grid;

/// Upsampling factor; the error of bilinear look-ups falls with its square.
const FACTOR: usize = 4;

/// A sky image that can be read between its pixels.
pub(crate) struct Interpolated {
    values: Array2<f64>,
    /// Offsets of the first column's and row's centre, east and north, radians.
    corner: [f64; 2],
    /// Distance of the upsampled points east and north, radians.
    pitch: [f64; 2],
}

impl Interpolated {
    /// Upsamples an image `[Y, X]` (row 0 = north, column 0 = east) with Catmull-Rom splines.
    pub(crate) fn new(image: ArrayView2<f64>, grid: &Grid) -> Self {
        let rows = upsampled_rows(image);
        let values = upsampled_rows(rows.t()).reversed_axes();
        let corner = [grid.east().first().copied(), grid.north().first().copied()];
        Self {
            values,
            corner: corner.map(|offset| offset.unwrap_or(0.0)),
            pitch: [grid.pitch[2], grid.pitch[1]].map(|pitch| pitch / FACTOR as f64),
        }
    }

    /// Brightness at an offset east and north of the phase centre, radians; 0 outside the pixel centres.
    pub(crate) fn at(&self, east: f64, north: f64) -> f64 {
        let (ny, nx) = self.values.dim();
        let x = (self.corner[0] - east) / self.pitch[0];
        let y = (self.corner[1] - north) / self.pitch[1];
        let inside = x >= 0.0 && y >= 0.0 && x < nx as f64 - 1.0 && y < ny as f64 - 1.0;
        if !inside {
            return 0.0;
        }
        let (column, row) = (x as usize, y as usize);
        let (fx, fy) = (x - column as f64, y - row as f64);
        let value = |i: usize, j: usize| self.values[[row + i, column + j]];
        let upper = value(0, 0) + fx * (value(0, 1) - value(0, 0));
        let lower = value(1, 0) + fx * (value(1, 1) - value(1, 0));
        upper + fy * (lower - upper)
    }

    /// Brightness along the ray from `centre` at position angle `angle` (east of north) at each radius.
    pub(crate) fn ray<'a>(
        &'a self,
        centre: [f64; 2],
        angle: f64,
        radii: &'a [f64],
    ) -> impl Iterator<Item = f64> + 'a {
        let (sin, cos) = angle.sin_cos();
        radii.iter().map(move |r| self.at(centre[0] + r * sin, centre[1] + r * cos))
    }
}

/// Catmull-Rom upsampling along the rows; the ends are continued with their last value.
fn upsampled_rows(image: ArrayView2<f64>) -> Array2<f64> {
    let (ny, nx) = image.dim();
    let last = nx.saturating_sub(1);
    Array2::from_shape_fn((ny, FACTOR * last + 1), |(row, column)| {
        let (j, step) = (column / FACTOR, column % FACTOR);
        let value = |offset: isize| image[[row, j.saturating_add_signed(offset).min(last)]];
        if step == 0 {
            return value(0);
        }
        let t = step as f64 / FACTOR as f64;
        let [a, b, c, d] = [value(-1), value(0), value(1), value(2)];
        b + 0.5 * t * (c - a + t * (2.0 * a - 5.0 * b + 4.0 * c - d + t * (3.0 * (b - c) + d - a)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quadratic_surface_is_followed_between_pixels() {
        let grid = Grid { shape: [1, 12, 10], pitch: [1.0, 2.0, 3.0] };
        let surface = |x: f64, y: f64| 3.0 + 0.5 * x - 0.2 * y + 0.01 * x * x - 0.02 * x * y;
        let (east, north) = (grid.east(), grid.north());
        let image = Array2::from_shape_fn((12, 10), |(i, j)| surface(east[j], north[i]));
        let interpolated = Interpolated::new(image.view(), &grid);
        for (x, y) in [(0.0, 0.0), (4.2, -3.1), (-6.6, 5.9)] {
            assert!((interpolated.at(x, y) - surface(x, y)).abs() < 0.01, "at ({x}, {y})");
        }
        assert_eq!(interpolated.at(100.0, 0.0), 0.0);
    }
}
