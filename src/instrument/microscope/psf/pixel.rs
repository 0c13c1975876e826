//! The camera pixel that a measured response holds: on a finer grid its block sums would hold it once more.

use rustfft::num_complex::Complex64;

use super::Psf;
use crate::tensor::fft::Fft2;

/// Least share of a spatial frequency that a camera pixel passes and that is taken for known: that of the pixel's own Nyquist
/// frequency is 0.64, the noise of a measurement lies beyond.
const LEAST: f64 = 0.5;

/// `psf`, which holds pixels of `held` metres along Y and X, as if it held voxels of its own grid: its transfer function times
/// sinc(f pitch) / sinc(f held) along each axis whose pitch is the smaller one, so that sums over blocks of voxels that fill a pixel
/// hold that pixel once. Negative values are set to 0; the sum is 1.
pub fn narrowed(psf: &Psf, held: [f64; 2]) -> Psf {
    let (grid, mut values) = (psf.grid, psf.values.clone());
    let [_, rows, columns] = grid.shape;
    let gains = |axis: usize| -> Vec<f64> {
        let (count, pitch, held) = (grid.shape[axis], grid.pitch[axis], held[axis - 1]);
        let frequency = |index: usize| index.min(count - index) as f64 / (count as f64 * pitch);
        let gain = |f: f64| if pitch < held { sinc(f * pitch) / sinc(f * held).max(LEAST) } else { 1.0 };
        (0..count).map(|index| gain(frequency(index))).collect()
    };
    let (down, across) = (gains(1), gains(2));
    let transform = Fft2::new([rows, columns]);
    let parts = (rows * columns) as f64;
    for mut plane in values.outer_iter_mut() {
        let mut modes: Vec<Complex64> = plane.iter().map(|value| Complex64::from(*value)).collect();
        transform.forward(&mut modes);
        for (index, mode) in modes.iter_mut().enumerate() {
            *mode *= down[index / columns] * across[index % columns] / parts;
        }
        transform.inverse(&mut modes);
        plane.iter_mut().zip(modes).for_each(|(value, mode)| *value = mode.re.max(0.0));
    }
    let total = values.sum();
    if total > 0.0 {
        values /= total;
    }
    Psf { grid, values }
}

/// What a pixel of width 1 passes of a spatial frequency.
fn sinc(f: f64) -> f64 {
    let x = std::f64::consts::PI * f;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        grid::Grid,
        instrument::microscope::{Optics, psf::Recipe},
    };
    use ndarray::Array3;

    const HELD: f64 = 65e-9;
    const SIDE: usize = 65;

    /// Sums over blocks of `factor` x `factor` voxels that begin at every voxel.
    fn block_sums(values: &Array3<f64>, factor: usize) -> Array3<f64> {
        Array3::from_shape_fn((1, SIDE - factor, SIDE - factor), |(_, y, x)| {
            (0..factor * factor).map(|i| values[[0, y + i / factor, x + i % factor]]).sum()
        })
    }

    /// A camera of the same pixels measures the block sums of a computed response around a point; taken for the response on voxels of
    /// half a pixel, narrowed, and summed over blocks again they are the same. Without narrowing the pixel counts twice.
    #[test]
    fn block_sums_of_a_measured_response_hold_the_pixel_once() {
        let grid = Grid { shape: [1, SIDE, SIDE], pitch: [HELD, HELD / 3.0, HELD / 3.0] };
        let exact = Recipe::new(Optics::matched(1.3, 1.515, 525e-9)).psf(&grid).unwrap().values;
        let exact = &exact / exact.sum();
        let held = block_sums(&exact, 3);
        let mut measured = Array3::zeros(grid.shape);
        // The block around a voxel begins one voxel before it.
        held.indexed_iter().for_each(|((_, y, x), value)| measured[[0, y + 1, x + 1]] = *value);
        measured /= measured.sum();
        let psf = Psf { grid, values: measured.clone() };
        let peak = held.iter().fold(0.0, |m: f64, v| m.max(*v));
        let worst = |values: &Array3<f64>| {
            let sums = block_sums(values, 3);
            sums.iter().zip(&held).map(|(a, b)| (a - b).abs() / peak).fold(0.0, f64::max)
        };
        let (once, twice) = (worst(&narrowed(&psf, [HELD; 2]).values), worst(&measured));
        println!("largest difference {once:.4} of the peak, {twice:.4} with the pixel counted twice");
        assert!(once < 0.01 && twice > 5.0 * once, "{once} {twice}");
    }

    #[test]
    fn a_response_on_the_pixels_that_it_holds_stays() {
        let grid = Grid { shape: [1, 9, 9], pitch: [HELD; 3] };
        let values = Array3::from_shape_fn((1, 9, 9), |(_, y, x)| {
            1.0 / (1.0 + y.abs_diff(4) as f64 + x.abs_diff(4) as f64)
        });
        let psf = Psf { grid, values: &values / values.sum() };
        let found = narrowed(&psf, [HELD; 2]).values;
        assert!(found.iter().zip(&psf.values).all(|(a, b)| (a - b).abs() < 1e-12));
    }
}
