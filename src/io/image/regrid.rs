//! A sky image on another pixel grid, its flux kept.

use ndarray::Array2;

use super::SkyImage;
use crate::grid::Grid;

impl SkyImage {
    /// The flux per pixel of `grid`, Jy, `[Y, X]`; both grids share the array's centre.
    ///
    /// Each pixel is a box of uniform brightness, so the flux inside the new field is kept exactly and what lies outside
    /// is lost.
    pub fn onto(&self, grid: &Grid) -> Array2<f64> {
        let share = |axis: usize| {
            overlaps(self.grid.shape[axis], self.grid.pitch[axis], grid.shape[axis], grid.pitch[axis])
        };
        share(1).dot(&self.pixels).dot(&share(2).t())
    }
}

/// Fraction of each of the `from` centred boxes that lies in each of the `to` boxes, `[to, from]`.
fn overlaps(from: usize, from_pitch: f64, to: usize, to_pitch: f64) -> Array2<f64> {
    let edge = |index: usize, count: usize, pitch: f64| (index as f64 - count as f64 / 2.0) * pitch;
    Array2::from_shape_fn((to, from), |(i, j)| {
        let low = edge(i, to, to_pitch).max(edge(j, from, from_pitch));
        let high = edge(i + 1, to, to_pitch).min(edge(j + 1, from, from_pitch));
        (high - low).max(0.0) / from_pitch
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::cube::SkyFrame;

    #[test]
    fn flux_and_centroid_survive_a_finer_and_a_coarser_grid() {
        let grid = Grid { shape: [1, 10, 8], pitch: [1e-11; 3] };
        let pixels = Array2::from_shape_fn((10, 8), |(y, x)| 1.0 + (y * 8 + x) as f64);
        let sky =
            SkyFrame { source: "test".into(), ra_deg: 0.0, dec_deg: 0.0, frequency_hz: 2.3e11, mjd: 57848.0 };
        let image = SkyImage { grid, pixels, sky, offset: [0.0; 2] };
        let row_moment = |image: &Array2<f64>, north: &[f64]| -> f64 {
            image.rows().into_iter().zip(north).map(|(row, north)| row.sum() * north).sum()
        };
        let before = row_moment(&image.pixels, &grid.north());
        for (side, pitch) in [(33, 0.4e-11), (7, 2.3e-11)] {
            let other = Grid { shape: [1, side, side], pitch: [pitch; 3] };
            let moved = image.onto(&other);
            assert!((moved.sum() / image.total_flux() - 1.0).abs() < 1e-12);
            if pitch < 1e-11 {
                // Boxes that are cut keep their centroid to within the new pixel.
                let after = row_moment(&moved, &other.north());
                assert!((after - before).abs() / image.total_flux() < 0.5 * pitch);
            }
        }
        for (same, pixel) in image.onto(&grid).iter().zip(&image.pixels) {
            assert!((same - pixel).abs() < 1e-12 * pixel);
        }
    }
}
