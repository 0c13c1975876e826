//! The phase of every frame from its correlation with the shifted object.

use std::f64::consts::{PI, TAU};

use nalgebra::{DMatrix, DVector};
use rustfft::num_complex::Complex64;

/// Standard deviation of phases around equal steps, radians: what instruments show.
const SCATTER: f64 = 10.0 * PI / 180.0;
/// Mean square of complex normal noise over the square of its median modulus, 1 / ln 2.
const POWER_OF_MEDIAN: f64 = std::f64::consts::LOG2_E;

/// Correlations of the frames of one angle with their object, shifted by the stripes' frequency.
pub(super) struct Measured {
    /// Of each frame.
    pub(super) frames: Vec<Complex64>,
    /// Of the sum of the frames turned back by equal steps.
    pub(super) stepped: Complex64,
    /// Median modulus of `stepped` where there are no stripes.
    pub(super) floor: f64,
}

/// Strength of the stripes in a frame, and the phase of each frame.
///
/// Frames lie on a circle around what the object's structure alone gives. Each phase is the mean of the one on the circle and
/// the one of equal steps, weighted by noise and [`SCATTER`].
pub(super) fn phases(measured: &Measured) -> (f64, Vec<f64>) {
    let count = measured.frames.len() as f64;
    let noise = POWER_OF_MEDIAN * measured.floor.powi(2) / count;
    let strength = (measured.stepped.norm() / count).powi(2);
    // Half of the noise turns the frame, the centre's share is as large.
    let trust = SCATTER.powi(2) / (SCATTER.powi(2) + noise / strength);
    let centre = centre(&measured.frames);
    let steps = (0..measured.frames.len()).map(|p| measured.stepped.arg() + TAU * p as f64 / count);
    let off: Vec<f64> = measured
        .frames
        .iter()
        .zip(steps.clone())
        .map(|(frame, step)| ((frame - centre) * Complex64::cis(-step)).arg())
        .collect();
    let phases: Vec<f64> = steps.zip(off).map(|(step, off)| step + trust * off).collect();
    let turned = measured.frames.iter().zip(&phases).map(|(frame, &phase)| frame * Complex64::cis(-phase));
    (turned.sum::<Complex64>().norm() / count, phases)
}

/// Centre of the circle through points, by linear least squares on |r|^2 = 2 Re(conj(centre) r) + constant (Kasa 1976);
/// their mean where they lie on a line.
fn centre(points: &[Complex64]) -> Complex64 {
    let mean = points.iter().sum::<Complex64>() / points.len() as f64;
    let scale = points.iter().map(|point| (point - mean).norm()).fold(f64::MIN_POSITIVE, f64::max);
    let around: Vec<Complex64> = points.iter().map(|point| (point - mean) / scale).collect();
    let matrix = DMatrix::from_fn(points.len(), 3, |row, column| match column {
        0 => 2.0 * around[row].re,
        1 => 2.0 * around[row].im,
        _ => 1.0,
    });
    let squares = DVector::from_iterator(points.len(), around.iter().map(Complex64::norm_sqr));
    match matrix.svd(true, true).solve(&squares, 1e-6) {
        Ok(solution) => mean + Complex64::new(solution[0], solution[1]) * scale,
        Err(_) => mean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unequal steps around a centre off 0 are found without noise, and taken for noise where there is much of it.
    #[test]
    fn phases_are_measured_as_far_as_noise_lets_them() {
        for truth in [vec![0.3, 2.6, 4.4], vec![0.3, 1.5, 2.9, 4.0, 5.4]] {
            let centre = Complex64::new(0.5, -0.2);
            let count = truth.len() as f64;
            let frames: Vec<_> = truth.iter().map(|&phase| centre + Complex64::cis(phase) * 2.0).collect();
            let turned = frames.iter().enumerate().map(|(p, r)| r * Complex64::cis(-TAU * p as f64 / count));
            let stepped: Complex64 = turned.sum();
            let found = |floor| phases(&Measured { frames: frames.clone(), stepped, floor });
            let (strength, sharp) = found(1e-6);
            assert!((strength / 2.0 - 1.0).abs() < 0.05, "{strength}");
            for (found, truth) in sharp.iter().zip(&truth) {
                assert!((found - truth).abs() < 1e-6, "{sharp:?}");
            }
            let (_, noisy) = found(100.0);
            let step = noisy[1] - noisy[0] - TAU / count;
            assert!(step.abs() < 0.01, "{noisy:?}");
        }
    }
}
