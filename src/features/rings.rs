//! Fourier modes of images, ring by ring: how far two images agree, and how white a residual is.

use std::f64::consts::PI;

use ndarray::ArrayView2;
use rustfft::num_complex::Complex64;

use crate::tensor::fft::Fft2;

/// The ring correlation below which images do not agree any more (Rosenthal and Henderson 2003).
pub const AGREEMENT: f64 = 1.0 / 7.0;

/// Rings of equal spatial frequency in the transforms of images of one size.
///
/// Images are multiplied by a Hann window first, because their opposite edges do not meet.
pub struct Rings {
    shape: [usize; 2],
    fft: Fft2<f64>,
    window: Vec<f64>,
    /// Ring of each mode; those beyond the last are left out.
    of: Vec<usize>,
    count: usize,
    /// Width of a ring, 1/m.
    step: f64,
}

impl Rings {
    /// Rings as wide as the shorter side allows, up to the lower Nyquist frequency, for images of `shape` pixels of
    /// `pitch` metres (Y, X).
    pub fn new(shape: [usize; 2], pitch: [f64; 2]) -> Self {
        let extent = [0, 1].map(|axis| shape[axis].max(1) as f64 * pitch[axis]);
        let step = 1.0 / extent[0].min(extent[1]);
        let nyquist = 0.5 / pitch[0].max(pitch[1]);
        let count = (nyquist / step).floor() as usize + 1;
        let frequency = |i: usize, axis: usize| i.min(shape[axis] - i) as f64 / extent[axis];
        let ring = |i: usize| {
            let frequency = frequency(i / shape[1], 0).hypot(frequency(i % shape[1], 1));
            (frequency / step).round() as usize
        };
        let hann = |i: usize, count: usize| (PI * (i as f64 + 0.5) / count as f64).sin().powi(2);
        let window = |i: usize| hann(i / shape[1], shape[0]) * hann(i % shape[1], shape[1]);
        let pixels = shape[0] * shape[1];
        Self {
            shape,
            fft: Fft2::new(shape),
            window: (0..pixels).map(window).collect(),
            of: (0..pixels).map(ring).collect(),
            count,
            step,
        }
    }

    /// Frequency of each ring, 1/m, and the correlation of `pairs` of images there, all pairs together (Saxton and
    /// Baumeister 1982); the ring of frequency 0 is left out.
    pub fn correlation<'a>(&self, pairs: impl Iterator<Item = [ArrayView2<'a, f32>; 2]>) -> Vec<[f64; 2]> {
        let mut sums = vec![[0.0; 3]; self.count];
        for pair in pairs {
            let [a, b] = pair.map(|image| self.modes(image));
            for ((a, b), &ring) in a.iter().zip(&b).zip(&self.of) {
                if let Some(sum) = sums.get_mut(ring) {
                    let terms = [(a * b.conj()).re, a.norm_sqr(), b.norm_sqr()];
                    sum.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
                }
            }
        }
        let of = |[both, a, b]: [f64; 3]| both / (a * b).sqrt().max(f64::MIN_POSITIVE);
        self.along(sums.into_iter().map(of))
    }

    /// Frequency of each ring, 1/m, and the mean power there: 1 for white noise of variance 1.
    pub fn power<'a>(&self, images: impl Iterator<Item = ArrayView2<'a, f32>>) -> Vec<[f64; 2]> {
        let mut sums = vec![[0.0; 2]; self.count];
        let white = self.window.iter().map(|w| w * w).sum::<f64>() / self.window.len() as f64;
        for image in images {
            for (mode, &ring) in self.modes(image).iter().zip(&self.of) {
                if let Some(sum) = sums.get_mut(ring) {
                    *sum = [sum[0] + mode.norm_sqr() / white, sum[1] + 1.0];
                }
            }
        }
        self.along(sums.into_iter().map(|[sum, count]| sum / f64::max(count, 1.0)))
    }

    fn along(&self, values: impl Iterator<Item = f64>) -> Vec<[f64; 2]> {
        values.enumerate().skip(1).map(|(ring, value)| [ring as f64 * self.step, value]).collect()
    }

    /// Modes of the windowed image less its windowed mean.
    fn modes(&self, image: ArrayView2<f32>) -> Vec<Complex64> {
        debug_assert_eq!(image.dim(), self.shape.into());
        let total: f64 = self.window.iter().sum();
        let weighted = image.iter().zip(&self.window).map(|(value, weight)| f64::from(*value) * weight);
        let mean = weighted.sum::<f64>() / total;
        let value = |(value, weight): (&f32, &f64)| Complex64::from((f64::from(*value) - mean) * weight);
        let mut modes: Vec<Complex64> = image.iter().zip(&self.window).map(value).collect();
        self.fft.forward(&mut modes);
        modes
    }
}

/// The frequency at which a ring correlation first falls below [`AGREEMENT`], between rings; none if it never does.
pub fn resolved(correlation: &[[f64; 2]]) -> Option<f64> {
    let fall = correlation.windows(2).find(|pair| pair[0][1] >= AGREEMENT && pair[1][1] < AGREEMENT)?;
    let share = (fall[0][1] - AGREEMENT) / (fall[0][1] - fall[1][1]);
    Some(fall[0][0] + share * (fall[1][0] - fall[0][0]))
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::rng::Rng;

    const PITCH: [f64; 2] = [5e-8; 2];

    fn noise(seed: u64, sigma: f64) -> Array2<f32> {
        let mut rng = Rng::new(seed);
        Array2::from_shape_fn((96, 80), |_| (sigma * rng.normal()) as f32)
    }

    #[test]
    fn white_noise_is_flat_and_a_wave_stands_out() {
        let rings = Rings::new([96, 80], PITCH);
        let noises: Vec<Array2<f32>> = (0..8).map(|seed| noise(seed, 1.0)).collect();
        let power = rings.power(noises.iter().map(|image| image.view()));
        assert!(power.iter().skip(2).all(|point| (point[1] - 1.0).abs() < 0.3), "{power:?}");
        // 4/um across the columns.
        let wave = Array2::from_shape_fn((96, 80), |(_, x)| (2.0 * PI * 4.0 * 0.05 * x as f64).cos() as f32);
        let power = rings.power(std::iter::once(wave.view()));
        let top = power.iter().max_by(|a, b| a[1].total_cmp(&b[1])).unwrap();
        assert!((top[0] / 4e6 - 1.0).abs() < 0.05, "{top:?}");
    }

    /// A common image of variance 1 below 3/um and noise of its own in each: agreement ends there.
    #[test]
    fn images_agree_up_to_the_frequencies_they_share() {
        let rings = Rings::new([96, 80], PITCH);
        let common = Array2::from_shape_fn((96, 80), |(y, x)| {
            let place = [y as f64 * 0.05, x as f64 * 0.05];
            let waves = (1..12).map(|k| {
                let (f, turn) = (0.25 * f64::from(k), 1.3 * f64::from(k));
                (2.0 * PI * f * (place[0] * turn.cos() + place[1] * turn.sin())).cos()
            });
            waves.sum::<f64>() as f32
        });
        let pair = [noise(1, 0.05) + &common, noise(2, 0.05) + &common];
        let pair = || std::iter::once([pair[0].view(), pair[1].view()]);
        let correlation = rings.correlation(pair());
        let end = resolved(&correlation).unwrap();
        assert!((2.7e6..3.6e6).contains(&end), "{end} {correlation:?}");
        assert!(correlation.iter().take_while(|point| point[0] < 2.5e6).all(|point| point[1] > 0.5));
        let same = std::iter::once([common.view(), common.view()]);
        assert!(resolved(&rings.correlation(same)).is_none());
    }
}
