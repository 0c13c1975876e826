//! Spectra of raw frames, their noise, and the object as far as the objective shows it.

use std::f64::consts::PI;

use ndarray::{ArrayView2, ArrayView3};
use rustfft::num_complex::Complex64;

use super::correlation::signed;
use crate::{
    Error, Result,
    instrument::microscope::{Psf, noise::taper},
    tensor::fft::Fft2,
};

/// Frequencies above this multiple of the cut-off hold noise alone.
const NOISE_FROM: f64 = 1.06;
/// Frequencies below this fraction of the cut-off belong to background and taper.
const SLOWEST: f64 = 0.04;
/// Up to this fraction of the cut-off the brightness of frames is compared: stripes are finer.
const COARSE: f64 = 0.25;
/// Smallest transfer that is used.
const LEAST_TRANSFER: f64 = 0.01;

/// The frequencies of an image: how far from 0 they are and how well the objective transmits them.
pub(super) struct Band {
    pub(super) shape: [usize; 2],
    /// Frequency step along Y and X, 1/m.
    pub(super) step: [f64; 2],
    pub(super) cut_off: f64,
    frequency: Vec<f64>,
    transfer: Vec<f64>,
}

impl Band {
    /// Frequencies of camera images of `shape` and `pitch` (Y, X, m) behind a point-spread function with `factor` voxels
    /// per pixel.
    pub(super) fn new(shape: [usize; 2], pitch: [f64; 2], psf: &Psf, factor: usize, cut_off: f64) -> Self {
        let step = [0, 1].map(|axis| 1.0 / (shape[axis] as f64 * pitch[axis]));
        let frequency = (0..shape[0] * shape[1])
            .map(|i| {
                let along = |index: usize, axis: usize| signed(index, shape[axis]) as f64 * step[axis];
                along(i / shape[1], 0).hypot(along(i % shape[1], 1))
            })
            .collect();
        Self { shape, step, cut_off, frequency, transfer: transfer(psf, shape, factor) }
    }

    /// Orthonormal spectrum of a frame without its mean, tapered at the edges.
    fn spectrum(&self, frame: ArrayView2<f64>) -> Vec<Complex64> {
        let mean = frame.mean().unwrap_or_default();
        let [rows, columns] = self.shape;
        let mut modes: Vec<Complex64> = frame
            .indexed_iter()
            .map(|((y, x), value)| Complex64::from((value - mean) * taper(y, rows) * taper(x, columns)))
            .collect();
        Fft2::new(self.shape).forward(&mut modes);
        modes
    }

    fn ring(&self, index: usize) -> usize {
        (self.frequency[index] / self.step[0].max(self.step[1])).round() as usize
    }

    /// Mean of `values` over frequencies as far from 0, for every frequency.
    fn radial(&self, values: &[f64]) -> Vec<f64> {
        let mut rings: Vec<(f64, f64)> = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let ring = self.ring(index);
            if ring >= rings.len() {
                rings.resize(ring + 1, (0.0, 0.0));
            }
            rings[ring].0 += value;
            rings[ring].1 += 1.0;
        }
        (0..values.len()).map(|index| rings[self.ring(index)]).map(|(sum, count)| sum / count).collect()
    }

    fn is_seen(&self, index: usize) -> bool {
        self.frequency[index] > SLOWEST * self.cut_off && self.transfer[index] > LEAST_TRANSFER
    }
}

/// The frames of all angles, brought to the same brightness.
pub(super) struct Frames {
    pub(super) band: Band,
    /// Brightness of each frame, mean 1.
    pub(super) intensities: Vec<f64>,
    spectra: Vec<Vec<Complex64>>,
    /// Noise power of a frame.
    noise: f64,
}

/// The frames of one angle against the object that they show together.
pub(super) struct Whitened {
    /// Estimate of the object.
    pub(super) object: Vec<Complex64>,
    /// What each frame holds beyond the angle's mean, times transfer over power.
    pub(super) frames: Vec<Vec<Complex64>>,
    /// Transfer squared over power.
    pub(super) weight: Vec<Complex64>,
}

impl Frames {
    /// # Errors
    /// Values that are no numbers, frames without structure, or pixels so coarse that no frequency is free of signal.
    pub(super) fn new(frames: ArrayView3<f64>, band: Band) -> Result<Self> {
        let refuse = |problem: &str| Err(Error::config("microscope.sim", problem));
        if frames.iter().any(|value| !value.is_finite()) {
            return refuse("the frames hold values that are no numbers; mend or mask them");
        }
        let mut spectra: Vec<_> = frames.outer_iter().map(|frame| band.spectrum(frame)).collect();
        let modes = |keep: &dyn Fn(f64) -> bool| -> Vec<usize> {
            (0..band.frequency.len()).filter(|&index| keep(band.frequency[index])).collect()
        };
        let free = modes(&|frequency| frequency > NOISE_FROM * band.cut_off);
        if free.is_empty() {
            return refuse(
                "the pixels are so coarse that no frequency tells the noise; stripes cannot be measured",
            );
        }
        let coarse = modes(&|f| (SLOWEST * band.cut_off..COARSE * band.cut_off).contains(&f));
        let mean = mean(&spectra);
        let power: f64 = coarse.iter().map(|&index| mean[index].norm_sqr()).sum();
        let brightness = |frame: &Vec<Complex64>| {
            coarse.iter().map(|&index| (mean[index].conj() * frame[index]).re).sum::<f64>() / power
        };
        let intensities: Vec<f64> = spectra.iter().map(brightness).collect();
        if !intensities.iter().all(|intensity| (0.1..10.0).contains(intensity)) {
            return refuse("the frames differ so much that they cannot show one object; check their order");
        }
        for (spectrum, intensity) in spectra.iter_mut().zip(&intensities) {
            spectrum.iter_mut().for_each(|mode| *mode /= intensity);
        }
        let powers = spectra.iter().flat_map(|frame| free.iter().map(|&index| frame[index].norm_sqr()));
        let noise = powers.sum::<f64>() / (free.len() * spectra.len()) as f64;
        Ok(Self { band, intensities, spectra, noise: noise.max(f64::MIN_POSITIVE) })
    }

    /// The frames of one angle for the regression of each frame on the shifted object.
    ///
    /// The object is the Wiener estimate from the angle's mean, so that noise in it does not weaken the stripes; frames are
    /// weighted with the power of what the mean does not explain.
    pub(super) fn whitened(&self, range: std::ops::Range<usize>) -> Whitened {
        let band = &self.band;
        let frames = &self.spectra[range];
        let count = frames.len() as f64;
        let mean = mean(frames);
        let noise = self.noise / count;
        let power = band.radial(&mean.iter().map(Complex64::norm_sqr).collect::<Vec<_>>());
        let object = (0..mean.len()).map(|index| {
            let signal = (power[index] - noise).max(0.0);
            let gain =
                if band.is_seen(index) { signal / (signal + noise) / band.transfer[index] } else { 0.0 };
            mean[index] * gain
        });
        let rest: Vec<Vec<Complex64>> =
            frames.iter().map(|frame| frame.iter().zip(&mean).map(|(a, b)| a - b).collect()).collect();
        let unexplained = (0..mean.len())
            .map(|index| rest.iter().map(|frame| frame[index].norm_sqr()).sum::<f64>() / (count - 1.0));
        let unexplained = band.radial(&unexplained.collect::<Vec<_>>());
        let filter: Vec<f64> = (0..mean.len())
            .map(|index| match band.is_seen(index) {
                true => band.transfer[index] / unexplained[index].max(self.noise),
                false => 0.0,
            })
            .collect();
        let weighted =
            |frame: &Vec<Complex64>| frame.iter().zip(&filter).map(|(mode, filter)| mode * filter).collect();
        let weight = filter.iter().zip(&band.transfer).map(|(filter, transfer)| (filter * transfer).into());
        Whitened {
            object: object.collect(),
            frames: rest.iter().map(weighted).collect(),
            weight: weight.collect(),
        }
    }
}

fn mean(spectra: &[Vec<Complex64>]) -> Vec<Complex64> {
    let mut sum = vec![Complex64::ZERO; spectra.first().map_or(0, Vec::len)];
    for spectrum in spectra {
        sum.iter_mut().zip(spectrum).for_each(|(sum, mode)| *sum += mode);
    }
    sum.iter().map(|mode| mode / spectra.len() as f64).collect()
}

/// Transfer from the object to camera images of `shape`, 1 at frequency 0: the point-spread function's, and that of the sum
/// over `factor` voxels per pixel along each axis.
fn transfer(psf: &Psf, shape: [usize; 2], factor: usize) -> Vec<f64> {
    let fine = shape.map(|count| count * factor);
    let mut modes = vec![Complex64::ZERO; fine[0] * fine[1]];
    let [_, rows, columns] = psf.grid.shape;
    for ((_, y, x), value) in psf.values.indexed_iter() {
        let wrap = |index: usize, half: usize, count: usize| {
            (index as i64 - half as i64).rem_euclid(count as i64) as usize
        };
        modes[wrap(y, rows / 2, fine[0]) * fine[1] + wrap(x, columns / 2, fine[1])] += value;
    }
    Fft2::new(fine).forward(&mut modes);
    let light = modes[0].re;
    let pixel = |frequency: i64, count: usize| {
        let half = PI * frequency as f64 / count as f64;
        if frequency == 0 { 1.0 } else { half.sin() / (factor as f64 * (half / factor as f64).sin()) }
    };
    (0..shape[0] * shape[1])
        .map(|i| {
            let place = [signed(i / shape[1], shape[0]), signed(i % shape[1], shape[1])];
            let [y, x] = [0, 1].map(|axis| place[axis].rem_euclid(fine[axis] as i64) as usize);
            modes[y * fine[1] + x].re / light * pixel(place[0], shape[0]) * pixel(place[1], shape[1])
        })
        .collect()
}
