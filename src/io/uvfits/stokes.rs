//! Stokes I: hands, IFs and channels of every record to one visibility.

use std::collections::HashSet;
use std::path::Path;

use ndarray::Axis;
use rustfft::num_complex::{Complex32, Complex64};

use super::{Hand, Record, UvData};
use crate::instrument::vlbi::{Observation, Visibility};
use crate::{Error, Result};

/// Time stamps closer than this are one, seconds: single precision resolves a day's fraction to 5.2 ms.
const TIME_RESOLUTION: f64 = 6e-3;
const DAY: f64 = 86_400.0;

impl UvData {
    /// Stokes I visibilities, averaged over IFs and channels with inverse-variance weights.
    ///
    /// I is the mean of the parallel hands that have data; where one hand is missing the other stands for I.
    /// Components u and v are taken at the weighted mean of the frequencies that took part. Stations of a baseline
    /// are put in table order by conjugation; of several records of one baseline and time the first one counts.
    ///
    /// # Errors
    /// No unflagged parallel hand in the whole file (named `path` in the message).
    pub fn observation(&self, path: &Path) -> Result<Observation> {
        let mut visibilities: Vec<_> =
            (0..self.records.len()).filter_map(|index| self.stokes_i(index)).collect();
        visibilities.sort_by(|a, b| a.time.total_cmp(&b.time));
        join_time_stamps(&mut visibilities);
        visibilities.sort_by(|a, b| a.time.total_cmp(&b.time).then(a.stations.cmp(&b.stations)));
        let mut seen = HashSet::new();
        visibilities.retain(|visibility| seen.insert((visibility.time.to_bits(), visibility.stations)));
        let Some(first) = visibilities.first() else {
            let problem =
                "no unflagged parallel hand (I, RR, LL, XX or YY with a weight above 0) in any group";
            return Err(Error::format(path, "HDU 1 (primary)", problem));
        };
        let days = (first.time / DAY).floor();
        visibilities.iter_mut().for_each(|visibility| visibility.time -= days * DAY);
        Ok(Observation {
            source: self.source.clone(),
            ra_deg: self.ra_deg,
            dec_deg: self.dec_deg,
            frequency_hz: self.frequency(),
            bandwidth_hz: self.bandwidth(),
            mjd: self.mjd + days,
            stations: self.stations.clone(),
            visibilities,
        })
    }

    /// Stokes I of one record; `None` without an unflagged parallel hand.
    fn stokes_i(&self, index: usize) -> Option<Visibility> {
        let record = &self.records[index];
        let hands = self.hands.iter().enumerate().filter(|(_, hand)| hand.is_parallel());
        let averages: Vec<_> =
            hands.filter_map(|(position, hand)| Some((*hand, self.average(index, position)?))).collect();
        let native = averages.iter().any(|(hand, _)| *hand == Hand::I);
        let used =
            || averages.iter().filter(|(hand, _)| !native || *hand == Hand::I).map(|(_, average)| average);
        let count = used().count() as f64;
        if count == 0.0 {
            return None;
        }
        let value = used().map(|average| average.value).sum::<Complex64>() / count;
        let sigma = used().map(|average| average.sigma().powi(2)).sum::<f64>().sqrt() / count;
        let weight: f64 = used().map(|average| average.weight).sum();
        let frequency = used().map(|average| average.weight * average.frequency).sum::<f64>() / weight;
        Some(in_table_order(record, value, sigma, frequency))
    }

    /// Inverse-variance mean of one hand over IFs and channels.
    ///
    /// In single precision, as the file is, and in the order of operations of eht-imaging: debiased closure amplitudes at
    /// the level of the noise feel the last digit.
    fn average(&self, index: usize, hand: usize) -> Option<Average> {
        let values = self.values.index_axis(Axis(0), index);
        let weights = self.weights.index_axis(Axis(0), index);
        let (values, weights) = (values.index_axis(Axis(2), hand), weights.index_axis(Axis(2), hand));
        let frequencies = self.frequencies[self.records[index].setup].iter().flatten();
        let (mut sum, mut total, mut frequency_sum) = (Complex32::ZERO, 0.0f32, 0.0);
        for ((value, weight), frequency) in values.iter().zip(weights).zip(frequencies) {
            sum += Complex32::new(value.re as f32, value.im as f32) * *weight as f32;
            total += *weight as f32;
            frequency_sum += frequency * weight;
        }
        let weight = f64::from(total);
        let value = sum * (1.0 / total);
        (weight > 0.0 && weight.is_finite()).then(|| Average {
            value: Complex64::new(f64::from(value.re), f64::from(value.im)),
            weight,
            frequency: frequency_sum / weight,
        })
    }
}

/// Mean of one hand: value, its weight 1/sigma^2, and the mean frequency with the same weights.
struct Average {
    value: Complex64,
    weight: f64,
    frequency: f64,
}

impl Average {
    /// Noise of each real component, Jy, in single precision like the weights.
    fn sigma(&self) -> f64 {
        f64::from(1.0 / (self.weight as f32).sqrt())
    }
}

fn in_table_order(record: &Record, value: Complex64, sigma: f64, frequency: f64) -> Visibility {
    let [first, second] = record.stations;
    let (u, v) = (record.uvw[0] * frequency, record.uvw[1] * frequency);
    let (time, integration) = (record.time, record.integration);
    if first <= second {
        Visibility { time, integration, stations: [first, second], u, v, value, sigma }
    } else {
        Visibility { time, integration, stations: [second, first], u: -u, v: -v, value: value.conj(), sigma }
    }
}

/// Gives stamps that differ by rounding only the value of the first; `visibilities` are sorted by time.
fn join_time_stamps(visibilities: &mut [Visibility]) {
    let mut stamp = f64::NEG_INFINITY;
    for visibility in visibilities {
        if visibility.time - stamp > TIME_RESOLUTION {
            stamp = visibility.time;
        }
        visibility.time = stamp;
    }
}
