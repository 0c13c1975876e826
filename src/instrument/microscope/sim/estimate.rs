//! Finds the stripes of each angle: the shift at which the frames of an angle repeat the object.
//!
//! A frame's spectrum holds the object three times: in place, and shifted by the stripes' frequency up and down with
//! half the contrast and the stripes' phase (Gustafsson 2000, J. Microsc. 198, 82). Correlating the frames with the object
//! that their mean shows therefore peaks at the frequency, with the phase of the stripes.

use std::f64::consts::{PI, TAU};

use ndarray::ArrayView3;
use rustfft::num_complex::Complex64;

use super::{
    correlation::{Correlation, between, signed},
    pattern::{Layout, Pattern},
    phases::{Measured, phases},
    pool::{Length, pooled},
    profile::Profile,
    spectra::{Band, Frames},
};
use crate::{Error, Result, instrument::microscope::Psf, quantile::quantile};

/// Frequencies, in units of the cut-off, at which the strongest stripes are looked for.
const RANGE: [f64; 2] = [0.5, 1.3];
/// How much the periods of the angles may differ.
const SAME_PERIOD: f64 = 0.015;
/// How far directions may lie from equal steps, radians.
const SAME_STEP: f64 = 2.0 * PI / 180.0;
/// Significance that the strongest stripes need among all frequencies, and the others among the few left to them.
const SIGNIFICANT: [f64; 2] = [4.5, 3.0];
/// Whole shifts around which the stripes are looked for between whole shifts.
const CANDIDATES: usize = 5;
/// Step of that search, and of the last one.
const FINE: [f64; 2] = [0.1, 2e-4];
/// Weakest transfer of a shifted object on itself that is looked at, relative to that without a shift.
const LEAST_OVERLAP: f64 = 1e-4;

/// The stripes of all angles of raw frames `[F, Y, X]` on camera pixels of `pitch` metres (Y, X).
///
/// `psf` is that of the detection with `factor` voxels per camera pixel, `cut_off` its frequency limit in 1/m. All angles
/// have nearly the same period, nearly equal steps of direction between them, and nearly equal steps of phase between their frames:
/// as far as noise leaves periods and phases open, they are drawn together and to equal steps.
///
/// # Errors
/// Another number of frames than `layout` says, frames that cannot be compared, or no stripes.
pub fn estimate(
    frames: ArrayView3<f64>,
    pitch: [f64; 2],
    (psf, factor): (&Psf, usize),
    cut_off: f64,
    layout: &Layout,
) -> Result<Vec<Pattern>> {
    let (count, rows, columns) = frames.dim();
    layout.check(count)?;
    let frames = Frames::new(frames, Band::new([rows, columns], pitch, psf, factor, cut_off))?;
    let angles: Vec<Angle> = (0..layout.angles).map(|angle| Angle::new(&frames, angle, layout)).collect();
    let anywhere =
        |frequency: [f64; 2]| (RANGE[0]..RANGE[1]).contains(&(frequency[0].hypot(frequency[1]) / cut_off));
    let found = angles.iter().map(|angle| angle.strongest(SIGNIFICANT[0], &anywhere));
    let first = found.flatten().max_by(|a, b| a.significance.total_cmp(&b.significance));
    let Some(first) = first else { return Err(nothing("any angle")) };
    let near = |frequency: [f64; 2]| is_alike(frequency, first.frequency, layout.angles);
    let peaks = angles.iter().enumerate().map(|(number, angle)| {
        let peak = angle.strongest(SIGNIFICANT[1], &near);
        peak.map(|peak| angle.sharpened(peak)).ok_or_else(|| nothing(&format!("angle {}", number + 1)))
    });
    let peaks: Vec<Peak> = peaks.collect::<Result<_>>()?;
    let length = |peak: &Peak| Length {
        value: peak.frequency[0].hypot(peak.frequency[1]),
        significance: peak.significance,
    };
    let step = frames.band.step[0].max(frames.band.step[1]);
    let factors = pooled(&peaks.iter().map(length).collect::<Vec<_>>(), step);
    let found = angles.iter().zip(&peaks).zip(factors);
    Ok(found.map(|((angle, peak), factor)| angle.pattern(peak, factor)).collect())
}

fn nothing(place: &str) -> Error {
    let problem = format!(
        "no stripes found in the frames of {place}; check their order (all phases of an angle follow each other), pixel size and objective"
    );
    Error::config("microscope.sim", problem)
}

/// True if a frequency has the period of `first` and lies near one of `angles` equal steps of direction from it.
fn is_alike(frequency: [f64; 2], first: [f64; 2], angles: usize) -> bool {
    let length = |f: [f64; 2]| f[0].hypot(f[1]);
    let step = PI / angles as f64;
    let turned = frequency[0].atan2(frequency[1]) - first[0].atan2(first[1]);
    let off = turned - (turned / step).round() * step;
    (length(frequency) / length(first) - 1.0).abs() < SAME_PERIOD && off.abs() < SAME_STEP
}

/// A shift where stripes stand out.
struct Peak {
    /// Steps along Y and X.
    shift: [f64; 2],
    frequency: [f64; 2],
    significance: f64,
    /// Median strength of stripes of similar period.
    floor: f64,
}

/// The frames of one angle, correlated with their object.
struct Angle<'a> {
    band: &'a Band,
    intensities: &'a [f64],
    each: Vec<Correlation>,
    /// Sum of the frames with the phases turned back by equal steps: only one of both shifted objects is left.
    stepped: Correlation,
    /// What stripes of contrast 2 and phase 0 would give at all whole shifts.
    unit: Vec<f64>,
}

impl<'a> Angle<'a> {
    fn new(frames: &'a Frames, angle: usize, layout: &Layout) -> Self {
        let range = angle * layout.phases..(angle + 1) * layout.phases;
        let whitened = frames.whitened(range.clone());
        let shape = frames.band.shape;
        let mut turned = vec![Complex64::ZERO; whitened.object.len()];
        for (phase, frame) in whitened.frames.iter().enumerate() {
            let back = Complex64::cis(-TAU * phase as f64 / layout.phases as f64);
            turned.iter_mut().zip(frame).for_each(|(sum, mode)| *sum += mode * back);
        }
        let power: Vec<Complex64> = whitened.object.iter().map(|mode| mode.norm_sqr().into()).collect();
        let correlate = |frame: &Vec<Complex64>| Correlation::new(&whitened.object, frame, shape);
        Self {
            band: &frames.band,
            intensities: &frames.intensities[range],
            each: whitened.frames.iter().map(correlate).collect(),
            stepped: correlate(&turned),
            unit: Correlation::new(&power, &whitened.weight, shape)
                .all()
                .iter()
                .map(|mode| mode.re)
                .collect(),
        }
    }

    fn frequency(&self, shift: [f64; 2]) -> [f64; 2] {
        [shift[0] * self.band.step[0], shift[1] * self.band.step[1]]
    }

    /// The shift near the allowed whole ones whose stripes, less `significance` times the median of their ring, have the
    /// largest contrast.
    fn strongest(&self, significance: f64, allowed: &dyn Fn([f64; 2]) -> bool) -> Option<Peak> {
        let [rows, columns] = self.stepped.shape();
        let strength: Vec<f64> = self.stepped.all().iter().map(|mode| mode.norm()).collect();
        let places: Vec<[f64; 2]> = (0..rows * columns)
            .map(|i| [signed(i / columns, rows) as f64, signed(i % columns, columns) as f64])
            .collect();
        let ring = |index: usize| {
            let frequency = self.frequency(places[index]);
            (frequency[0].hypot(frequency[1]) / self.band.step[0].max(self.band.step[1])).round() as usize
        };
        let mut rings: Vec<Vec<f64>> = Vec::new();
        for (index, value) in strength.iter().enumerate() {
            let ring = ring(index);
            rings.resize_with(rings.len().max(ring + 1), Vec::new);
            rings[ring].push(*value);
        }
        let floors: Vec<f64> = rings.iter_mut().map(|values| quantile(values, 0.5)).collect();
        let score =
            |strength: f64, index: usize| (strength - significance * floors[ring(index)]) / self.unit[index];
        let overlaps = |index: &usize| self.unit[*index] > LEAST_OVERLAP * self.unit[0];
        let candidates = (0..rows * columns).filter(|&index| allowed(self.frequency(places[index])));
        let mut candidates: Vec<usize> = candidates.filter(overlaps).collect();
        candidates.sort_by(|&a, &b| score(strength[b], b).total_cmp(&score(strength[a], a)));
        let climbed = candidates.iter().take(CANDIDATES).map(|&index| {
            let shift = climb(places[index], FINE[0], &|shift| self.strength(shift));
            let (strength, floor) = (self.strength(shift), floors[ring(index)]);
            let frequency = self.frequency(shift);
            (score(strength, index), Peak { shift, frequency, significance: strength / floor, floor })
        });
        let best = climbed.max_by(|a, b| a.0.total_cmp(&b.0));
        best.filter(|(score, _)| *score > 0.0).map(|(_, peak)| peak)
    }

    /// Strength of stripes at a shift.
    fn strength(&self, shift: [f64; 2]) -> f64 {
        self.stepped.at(shift).norm()
    }

    /// The same peak with its place known better.
    fn sharpened(&self, peak: Peak) -> Peak {
        let shift = climb(peak.shift, FINE[1], &|shift| self.strength(shift));
        let significance = self.strength(shift) / peak.floor;
        Peak { shift, frequency: self.frequency(shift), significance, floor: peak.floor }
    }

    /// The stripes at a peak whose frequency is multiplied by `factor`.
    fn pattern(&self, peak: &Peak, factor: f64) -> Pattern {
        let shift = peak.shift.map(|steps| steps * factor);
        let measured = Measured {
            frames: self.each.iter().map(|frame| frame.at(shift)).collect(),
            stepped: self.stepped.at(shift),
            floor: peak.floor,
        };
        let (amplitude, mut phases) = phases(&measured);
        let unit = between(&self.unit, self.stepped.shape(), shift);
        let mut frequency = self.frequency(shift);
        if frequency[0] < 0.0 {
            frequency = frequency.map(|f| -f);
            phases.iter_mut().for_each(|phase| *phase = -*phase);
        }
        Pattern {
            frequency,
            contrast: (2.0 * amplitude / unit).clamp(0.0, 1.0),
            phases: phases.iter().map(|phase| phase.rem_euclid(TAU)).collect(),
            intensities: self.intensities.to_vec(),
            profile: Profile::even(),
            significance: peak.significance,
        }
    }
}

/// The place of the maximum of `height` near `start`, by ever smaller steps down to `finest`.
fn climb(start: [f64; 2], finest: f64, height: &dyn Fn([f64; 2]) -> f64) -> [f64; 2] {
    let (mut best, mut top, mut step) = (start, height(start), 0.5);
    while step > finest {
        let around = [[-step, 0.0], [step, 0.0], [0.0, -step], [0.0, step]];
        let tried = around.map(|by| {
            let place = [best[0] + by[0], best[1] + by[1]];
            (height(place), place)
        });
        match tried.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((higher, place)) if higher > top => (best, top) = (place, higher),
            _ => step *= 0.5,
        }
    }
    best
}
