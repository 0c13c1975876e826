//! Fourier transforms of real volumes in host memory.

use std::sync::Arc;

use rayon::prelude::*;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use rustfft::{Fft, FftNum, FftPlanner, num_complex::Complex};

/// Planned transform of real volumes Z, Y, X to their half spectrum Z, Y, X/2 + 1, without factors in front:
/// F_k = sum_n f_n exp(-2 pi i k.n / shape). [`RealFft3::inverse`] undoes it.
pub struct RealFft3<T: FftNum> {
    shape: [usize; 3],
    rows: (Arc<dyn RealToComplex<T>>, Arc<dyn ComplexToReal<T>>),
    forward: [Arc<dyn Fft<T>>; 2],
    inverse: [Arc<dyn Fft<T>>; 2],
}

impl<T: FftNum> std::fmt::Debug for RealFft3<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealFft3").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl<T: FftNum> RealFft3<T> {
    /// Plans transforms of volumes of `shape`, of which no size is zero.
    pub fn new(shape: [usize; 3]) -> Self {
        let shape = shape.map(|size| size.max(1));
        let mut planner = RealFftPlanner::new();
        let rows = (planner.plan_fft_forward(shape[2]), planner.plan_fft_inverse(shape[2]));
        let mut planner = FftPlanner::new();
        let forward = [shape[0], shape[1]].map(|size| planner.plan_fft_forward(size));
        let inverse = [shape[0], shape[1]].map(|size| planner.plan_fft_inverse(size));
        Self { shape, rows, forward, inverse }
    }

    /// Length of a volume.
    pub fn volume(&self) -> usize {
        self.shape.iter().product()
    }

    /// Length of a half spectrum.
    pub fn spectrum(&self) -> usize {
        self.shape[0] * self.shape[1] * self.columns()
    }

    fn columns(&self) -> usize {
        self.shape[2] / 2 + 1
    }

    /// The half spectrum of a volume, whose values are lost.
    pub fn forward(&self, volume: &mut [T]) -> Vec<Complex<T>> {
        let mut spectrum = vec![Complex::new(T::zero(), T::zero()); self.spectrum()];
        let rows = volume.par_chunks_mut(self.shape[2]).zip(spectrum.par_chunks_mut(self.columns()));
        rows.for_each(|(row, modes)| {
            // Fails only for rows of another length, which the chunks exclude.
            let _ = self.rows.0.process(row, modes);
        });
        self.along_columns(&self.forward, &mut spectrum);
        spectrum
    }

    /// The volume of a half spectrum, whose values are lost.
    pub fn inverse(&self, spectrum: &mut [Complex<T>]) -> Vec<T> {
        self.along_columns(&self.inverse, spectrum);
        let mut volume = vec![T::zero(); self.volume()];
        let norm = T::from_f64(1.0 / self.volume() as f64).unwrap_or_else(T::one);
        let last = self.columns() - 1;
        let even = self.shape[2].is_multiple_of(2);
        let rows = volume.par_chunks_mut(self.shape[2]).zip(spectrum.par_chunks_mut(self.columns()));
        rows.for_each(|(row, modes)| {
            // Rounding leaves imaginary parts where a real row has none; the transform insists on zero.
            modes[0].im = T::zero();
            if even {
                modes[last].im = T::zero();
            }
            let _ = self.rows.1.process(modes, row);
            row.iter_mut().for_each(|value| *value = *value * norm);
        });
        volume
    }

    fn along_columns(&self, [z, y]: &[Arc<dyn Fft<T>>; 2], spectrum: &mut [Complex<T>]) {
        let plane = self.shape[1] * self.columns();
        if self.shape[1] > 1 {
            spectrum.chunks_mut(plane).for_each(|plane| transform_columns(y, plane, self.shape[1]));
        }
        if self.shape[0] > 1 {
            transform_columns(z, spectrum, self.shape[0]);
        }
    }
}

/// Transforms each column of a row-major matrix with `rows` rows.
fn transform_columns<T: FftNum>(fft: &Arc<dyn Fft<T>>, matrix: &mut [Complex<T>], rows: usize) {
    /// Columns that are gathered at a time.
    const BLOCK: usize = 16;
    let columns = matrix.len() / rows;
    let zero = Complex::new(T::zero(), T::zero());
    let mut turned = vec![zero; matrix.len()];
    turned.par_chunks_mut(BLOCK * rows).enumerate().for_each(|(block, lines)| {
        let count = lines.len() / rows;
        for row in 0..rows {
            let from = row * columns + block * BLOCK;
            for (column, value) in matrix[from..from + count].iter().enumerate() {
                lines[column * rows + row] = *value;
            }
        }
        fft.process(lines);
    });
    matrix.par_chunks_mut(columns).enumerate().for_each(|(row, values)| {
        for (column, value) in values.iter_mut().enumerate() {
            *value = turned[column * rows + row];
        }
    });
}

/// The smallest length from `length` on that has no prime factor above 7.
pub fn smooth_length(length: usize) -> usize {
    let is_smooth = |n: &usize| {
        let mut rest = *n;
        for prime in [2, 3, 5, 7] {
            while rest.is_multiple_of(prime) {
                rest /= prime;
            }
        }
        rest == 1
    };
    (length.max(1)..).find(is_smooth).unwrap_or(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn spectra_follow_their_definition_and_are_undone() {
        for shape in [[1, 4, 6], [3, 5, 7], [2, 1, 8], [4, 6, 1]] {
            let mut rng = Rng::new(1);
            let fft = RealFft3::<f64>::new(shape);
            let values: Vec<f64> = (0..fft.volume()).map(|_| rng.normal()).collect();
            let mut spectrum = fft.forward(&mut values.clone());
            let columns = shape[2] / 2 + 1;
            for (k, found) in spectrum.iter().enumerate() {
                let mode = [k / columns / shape[1], k / columns % shape[1], k % columns];
                let expected: Complex<f64> = values
                    .iter()
                    .enumerate()
                    .map(|(n, value)| {
                        let voxel = [n / shape[2] / shape[1], n / shape[2] % shape[1], n % shape[2]];
                        let turns: f64 = (0..3).map(|a| (mode[a] * voxel[a]) as f64 / shape[a] as f64).sum();
                        Complex::from_polar(*value, -std::f64::consts::TAU * turns)
                    })
                    .sum();
                assert!((found - expected).norm() < 1e-11, "{shape:?} {mode:?}");
            }
            let back = fft.inverse(&mut spectrum);
            assert!(back.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-13));
        }
    }

    #[test]
    fn smooth_lengths_have_small_factors() {
        assert_eq!([1, 11, 97, 121, 512, 1025].map(smooth_length), [1, 12, 98, 125, 512, 1029]);
    }
}
