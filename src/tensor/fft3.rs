//! Fourier transforms of real volumes in host memory.

use std::{ops::Range, sync::Arc};

use rayon::prelude::*;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use rustfft::{Fft, FftNum, FftPlanner, num_complex::Complex, num_traits::Zero};

use super::parallel::parts;

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

    /// The half spectrum of a volume, whose values are lost. Rows and planes that are zero, as padding is, cost nothing.
    pub fn forward(&self, volume: &mut [T]) -> Vec<Complex<T>> {
        let mut spectrum = vec![Complex::new(T::zero(), T::zero()); self.spectrum()];
        let rows = volume.par_chunks_mut(self.shape[2]).zip(spectrum.par_chunks_mut(self.columns()));
        rows.filter(|(row, _)| row.iter().any(|value| !value.is_zero())).for_each(|(row, modes)| {
            // Fails only for rows of another length, which the chunks exclude.
            let _ = self.rows.0.process(row, modes);
        });
        if self.shape[1] > 1 {
            let planes = spectrum.par_chunks_mut(self.shape[1] * self.columns());
            let lit = planes.filter(|plane| plane.iter().any(|mode| !mode.is_zero()));
            lit.for_each(|plane| transform_columns(&self.forward[1], plane, self.shape[1]));
        }
        transform_columns(&self.forward[0], &mut spectrum, self.shape[0]);
        spectrum
    }

    /// The volume of a half spectrum, whose values are lost.
    pub fn inverse(&self, spectrum: &mut [Complex<T>]) -> Vec<T> {
        self.inverse_within(spectrum, 0..self.shape[0], 0..self.shape[1])
    }

    /// These planes and rows of the volume of a half spectrum, whose values are lost; zeros elsewhere.
    pub fn inverse_within(
        &self,
        spectrum: &mut [Complex<T>],
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Vec<T> {
        transform_columns(&self.inverse[0], spectrum, self.shape[0]);
        let mut volume = vec![T::zero(); self.volume()];
        let norm = T::from_f64(1.0 / self.volume() as f64).unwrap_or_else(T::one);
        let [_, height, width] = self.shape;
        let last = self.columns() - 1;
        let wanted = spectrum
            .par_chunks_mut(height * self.columns())
            .zip(volume.par_chunks_mut(height * width))
            .skip(planes.start)
            .take(planes.len());
        wanted.for_each(|(plane, values)| {
            transform_columns(&self.inverse[1], plane, height);
            let lines = plane.par_chunks_mut(self.columns()).zip(values.par_chunks_mut(width));
            lines.skip(rows.start).take(rows.len()).for_each(|(modes, row)| {
                // Rounding leaves imaginary parts where a real row has none; the transform insists on zero.
                modes[0].im = T::zero();
                if width.is_multiple_of(2) {
                    modes[last].im = T::zero();
                }
                let _ = self.rows.1.process(modes, row);
                row.iter_mut().for_each(|value| *value = *value * norm);
            });
        });
        volume
    }
}

/// Transforms each column of a row-major matrix with `rows` rows.
fn transform_columns<T: FftNum>(fft: &Arc<dyn Fft<T>>, matrix: &mut [Complex<T>], rows: usize) {
    /// Numbers that are gathered at a time: what the cache holds, in long pieces of rows that lie far apart.
    const GATHERED: usize = 1 << 14;
    if rows < 2 {
        return;
    }
    let block = (GATHERED / rows).clamp(8, 128);
    let columns = matrix.len() / rows;
    let zeros = |count: usize| vec![Complex::new(T::zero(), T::zero()); count];
    let buffers = || (zeros(block * rows), zeros(fft.get_inplace_scratch_len()));
    parts(matrix, columns, block).into_par_iter().for_each_init(buffers, |(lines, scratch), mut pieces| {
        let lines = &mut lines[..pieces[0].len() * rows];
        for (row, piece) in pieces.iter().enumerate() {
            lines
                .iter_mut()
                .skip(row)
                .step_by(rows)
                .zip(piece.iter())
                .for_each(|(line, value)| *line = *value);
        }
        fft.process_with_scratch(lines, scratch);
        for (row, piece) in pieces.iter_mut().enumerate() {
            piece
                .iter_mut()
                .zip(lines.iter().skip(row).step_by(rows))
                .for_each(|(value, line)| *value = *line);
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
            let part = fft.inverse_within(&mut spectrum.clone(), 1..shape[0], 0..shape[1] - 1);
            let back = fft.inverse(&mut spectrum);
            assert!(back.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-13));
            for (i, value) in part.iter().enumerate() {
                let [plane, row] = [i / shape[2] / shape[1], i / shape[2] % shape[1]];
                let wanted = plane >= 1 && row + 1 < shape[1];
                assert_eq!(*value, if wanted { back[i] } else { 0.0 }, "{shape:?} {i}");
            }
        }
    }

    #[test]
    fn smooth_lengths_have_small_factors() {
        assert_eq!([1, 11, 97, 121, 512, 1025].map(smooth_length), [1, 12, 98, 125, 512, 1029]);
    }
}
