//! The cross-correlation of two spectra at shifts that need not be whole.

use std::f64::consts::TAU;

use rustfft::num_complex::Complex64;

use crate::tensor::fft::Fft2;

/// C(s) = sum over q of conj(a(q)) b(q + s), with frequencies q and shifts s in steps of the spectra.
///
/// It is the Fourier transform of the product of both images, on a grid twice as fine so that shifts do not wrap around.
pub(super) struct Correlation {
    shape: [usize; 2],
    product: Vec<Complex64>,
}

impl Correlation {
    /// Correlates spectra of `shape` Y, X, frequency 0 first.
    pub(super) fn new(a: &[Complex64], b: &[Complex64], shape: [usize; 2]) -> Self {
        let product = finer(a, shape).iter().zip(finer(b, shape)).map(|(a, b)| a.conj() * b).collect();
        Self { shape: shape.map(|count| 2 * count), product }
    }

    /// Shape Y, X of [`Correlation::all`].
    pub(super) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// C at all whole shifts, 0 first, then rising, then the negative ones.
    pub(super) fn all(&self) -> Vec<Complex64> {
        let mut modes = self.product.clone();
        Fft2::new(self.shape).forward(&mut modes);
        let norm = (self.product.len() as f64).sqrt();
        modes.iter().map(|mode| mode * norm).collect()
    }

    /// C at one shift along Y and X.
    pub(super) fn at(&self, shift: [f64; 2]) -> Complex64 {
        let wave = |axis: usize| -> Vec<Complex64> {
            let step = -TAU * shift[axis] / self.shape[axis] as f64;
            (0..self.shape[axis]).map(|index| Complex64::cis(step * index as f64)).collect()
        };
        let (down, across) = (wave(0), wave(1));
        let row =
            |row: &[Complex64]| -> Complex64 { row.iter().zip(&across).map(|(p, wave)| p * wave).sum() };
        self.product.chunks_exact(self.shape[1]).zip(&down).map(|(values, wave)| row(values) * wave).sum()
    }
}

/// The value between whole shifts of a smooth function of `shape` Y, X, linearly along both axes.
pub(super) fn between(values: &[f64], [rows, columns]: [usize; 2], shift: [f64; 2]) -> f64 {
    let below = shift.map(f64::floor);
    let corner = |down: f64, across: f64| {
        let y = (below[0] + down).rem_euclid(rows as f64) as usize;
        let x = (below[1] + across).rem_euclid(columns as f64) as usize;
        let share = |axis: usize, up: f64| 1.0 - (shift[axis] - below[axis] - up).abs();
        share(0, down) * share(1, across) * values[y * columns + x]
    };
    corner(0.0, 0.0) + corner(0.0, 1.0) + corner(1.0, 0.0) + corner(1.0, 1.0)
}

/// Signed frequency of an index of `count`.
pub(super) fn signed(index: usize, count: usize) -> i64 {
    if 2 * index < count { index as i64 } else { index as i64 - count as i64 }
}

/// The image of a spectrum on a grid twice as fine.
fn finer(spectrum: &[Complex64], [rows, columns]: [usize; 2]) -> Vec<Complex64> {
    let mut modes = vec![Complex64::ZERO; 4 * rows * columns];
    for (index, mode) in spectrum.iter().enumerate() {
        let y = signed(index / columns, rows).rem_euclid(2 * rows as i64) as usize;
        let x = signed(index % columns, columns).rem_euclid(2 * columns as i64) as usize;
        modes[y * 2 * columns + x] = *mode;
    }
    Fft2::new([2 * rows, 2 * columns]).inverse(&mut modes);
    modes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// The definition, frequency by frequency, without wrapping.
    fn direct(a: &[Complex64], b: &[Complex64], [rows, columns]: [usize; 2], shift: [i64; 2]) -> Complex64 {
        let place = |index: usize| [signed(index / columns, rows), signed(index % columns, columns)];
        let mut sum = Complex64::ZERO;
        for (i, a) in a.iter().enumerate() {
            for (j, b) in b.iter().enumerate() {
                let (from, to) = (place(i), place(j));
                if [0, 1].iter().all(|&axis| to[axis] == from[axis] + shift[axis]) {
                    sum += a.conj() * b;
                }
            }
        }
        sum
    }

    #[test]
    fn smooth_functions_are_interpolated_across_the_seam() {
        let values: Vec<f64> =
            (0..20).map(|i| signed(i / 5, 4) as f64 + 10.0 * signed(i % 5, 5) as f64).collect();
        for shift in [[0.0, 0.0], [-0.25, 0.5], [0.75, -1.5], [-2.0, -0.125]] {
            let expected = shift[0] + 10.0 * shift[1];
            assert!((between(&values, [4, 5], shift) - expected).abs() < 1e-12, "{shift:?}");
        }
    }

    #[test]
    fn whole_shifts_are_sums_over_frequencies() {
        let shape = [6, 5];
        let mut rng = Rng::new(1);
        let mut spectrum =
            || -> Vec<Complex64> { (0..30).map(|_| Complex64::new(rng.normal(), rng.normal())).collect() };
        let (a, b) = (spectrum(), spectrum());
        let correlation = Correlation::new(&a, &b, shape);
        let all = correlation.all();
        for shift in [[0, 0], [2, -1], [-3, 4], [5, 0]] {
            let expected = direct(&a, &b, shape, shift);
            let index = shift[0].rem_euclid(12) as usize * 10 + shift[1].rem_euclid(10) as usize;
            assert!((all[index] - expected).norm() < 1e-10, "{shift:?}");
            assert!((correlation.at(shift.map(|s| s as f64)) - expected).norm() < 1e-10, "{shift:?}");
        }
    }
}
