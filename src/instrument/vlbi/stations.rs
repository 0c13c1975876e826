//! Unknown gains of the stations behind visibilities: one amplitude and one phase for each station and scan.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::{Observation, average::scans};
use crate::{Error, Result, compute::Compute, transfer::send};

/// Standard deviation of a log amplitude, of which arrays are calibrated to some 10 %.
const LOG_AMPLITUDE: f64 = 0.1;
/// Standard deviation of a phase, radians.
const PHASE: f64 = 1.0;

/// Which gains enter each visibility.
#[derive(Debug, Clone)]
pub struct Stations {
    /// Number of pairs of station and scan.
    gains: usize,
    /// Gain of the first and of the second station of each visibility.
    ends: [Tensor; 2],
}

impl Stations {
    /// The gains of a time-ordered observation.
    ///
    /// # Errors
    /// A device without memory.
    pub fn new(observation: &Observation, compute: &Compute) -> Result<Self> {
        let mut known = BTreeMap::new();
        let mut ends = [Vec::new(), Vec::new()];
        for (scan, rows) in scans(observation).into_iter().enumerate() {
            for row in &observation.visibilities[rows] {
                for (end, station) in ends.iter_mut().zip(row.stations) {
                    let next = known.len() as u32;
                    end.push(*known.entry((scan, station)).or_insert(next));
                }
            }
        }
        let [first, second] = ends;
        Ok(Self { gains: known.len(), ends: [send(first, &compute.device)?, send(second, &compute.device)?] })
    }

    /// Number of unknown numbers: all log amplitudes, then all phases.
    pub fn parameters(&self) -> usize {
        2 * self.gains
    }

    /// g_1 conj(g_2) V for visibilities `[B, M, 2]`, of which those after the observation's own keep gain 1; `parameters`
    /// `[B, P]` are standard normal a priori.
    ///
    /// # Errors
    /// Tensors of other shapes.
    pub fn apply(&self, visibilities: &Tensor, parameters: &Tensor) -> Result<Tensor> {
        if parameters.dim(1)? != self.parameters() {
            let (expected, found) = (vec![self.parameters()], parameters.dims().to_vec());
            return Err(Error::Shape { what: "station gains", expected, found });
        }
        let of = |first: usize, end: usize| -> Result<Tensor> {
            Ok(parameters.narrow(1, first, self.gains)?.contiguous()?.index_select(&self.ends[end], 1)?)
        };
        let amplitude = ((of(0, 0)? + of(0, 1)?)? * LOG_AMPLITUDE)?.exp()?;
        let phase = ((of(self.gains, 0)? - of(self.gains, 1)?)? * PHASE)?;
        let (real, imaginary) = ((&amplitude * phase.cos()?)?, (&amplitude * phase.sin()?)?);
        let (own, all) = (self.ends[0].dim(0)?, visibilities.dim(1)?);
        let part = |index: usize| visibilities.narrow(1, 0, own)?.narrow(2, index, 1)?.squeeze(2);
        let (x, y) = (part(0)?, part(1)?);
        let turned = [((&x * &real)? - (&y * &imaginary)?)?, ((x * imaginary)? + (y * real)?)?];
        let turned = Tensor::stack(&turned, 2)?;
        Ok(Tensor::cat(&[turned, visibilities.narrow(1, own, all - own)?], 1)?)
    }
}

#[cfg(test)]
mod tests {
    use rustfft::num_complex::Complex64;

    use super::*;
    use crate::{
        instrument::vlbi::{Station, Visibility},
        rng::Rng,
    };

    /// Two scans of three stations against complex numbers.
    #[test]
    fn visibilities_are_multiplied_by_the_gains_of_their_stations() {
        let row = |time: f64, stations: [usize; 2]| Visibility {
            time,
            integration: 10.0,
            stations,
            u: 0.0,
            v: 0.0,
            value: Complex64::ONE,
            sigma: 1.0,
        };
        let visibilities = [0.0, 600.0]
            .into_iter()
            .flat_map(|time| [[0, 1], [0, 2], [1, 2]].map(|stations| row(time, stations)));
        let station = |code: &str| Station { code: code.into(), position: [0.0; 3], sefd: None };
        let observation = Observation {
            source: "M87".into(),
            ra_deg: 0.0,
            dec_deg: 0.0,
            frequency_hz: 230e9,
            bandwidth_hz: 4e9,
            mjd: 57848.0,
            stations: ["AA", "AP", "AZ"].map(station).into(),
            visibilities: visibilities.collect(),
        };
        let compute = Compute::cpu_f64();
        let stations = Stations::new(&observation, &compute).unwrap();
        assert_eq!(stations.parameters(), 12);
        let mut rng = Rng::new(1);
        let (model, numbers) =
            (rng.normals(&[1, 7, 2], &compute).unwrap(), rng.normals(&[1, 12], &compute).unwrap());
        let found = stations.apply(&model, &numbers).unwrap().get(0).unwrap().to_vec2::<f64>().unwrap();
        let numbers = numbers.get(0).unwrap().to_vec1::<f64>().unwrap();
        let model = model.get(0).unwrap().to_vec2::<f64>().unwrap();
        // Gains are numbered as they first appear: in each scan the stations 0, 1, 2.
        let gain = |k: usize| Complex64::from_polar((0.1 * numbers[k]).exp(), numbers[6 + k]);
        for (k, row) in observation.visibilities.iter().enumerate() {
            let [first, second] = row.stations.map(|station| gain(3 * (k / 3) + station));
            let exact = first * second.conj() * Complex64::new(model[k][0], model[k][1]);
            assert!((exact - Complex64::new(found[k][0], found[k][1])).norm() < 1e-12, "{k}");
        }
        assert_eq!(found[6], model[6], "short spacings have no stations");
    }
}
