//! Closure phases and log closure amplitudes: which ones to form, and how they are correlated.
//!
//! Station gains drop out of the phase of V12 V23 V31 and of ln |V12 V34 / (V14 V23)|. Closures are formed within one
//! time stamp only. Those that share a baseline share its noise: with Psi the matrix of exponents and D the diagonal of
//! (sigma / |V|)^2, their covariance is Psi D Psi^T (Blackburn et al. 2020, ApJ 894, 31).

use std::collections::BTreeMap;

use nalgebra::{DMatrix, DVector};

use super::{Observation, average::time_stamps};
use crate::{Error, Result};

/// A closure on `N` stations: a triangle's phase (N = 3) or a quadrangle's log amplitude (N = 4).
#[derive(Debug, Clone, PartialEq)]
pub struct Closure<const N: usize> {
    /// Time stamp, seconds since 0h UTC of the observation's first day.
    pub time: f64,
    /// Stations in the order of the closure.
    pub stations: [usize; N],
    /// Index of each visibility and its factor in the sum of phases, or of log amplitudes: +1 or -1.
    pub terms: [(usize, f64); N],
}

/// A phase around a triangle.
pub type Triangle = Closure<3>;
/// A ratio of amplitudes around a quadrangle.
pub type Quadrangle = Closure<4>;

/// An independent set at one time stamp with the covariance of its noise.
#[derive(Debug, Clone)]
pub struct ClosureSet<const N: usize> {
    /// Linearly independent closures that span all of that time stamp.
    pub closures: Vec<Closure<N>>,
    /// Covariance of the noise, rad^2 for phases.
    pub covariance: DMatrix<f64>,
}

/// The visibilities of one time stamp, by their stations.
struct Stamp<'a> {
    observation: &'a Observation,
    time: f64,
    stations: Vec<usize>,
    baselines: BTreeMap<[usize; 2], usize>,
}

impl<'a> Stamp<'a> {
    fn all(observation: &'a Observation) -> impl Iterator<Item = Self> {
        time_stamps(observation).into_iter().map(move |range| {
            let time = observation.visibilities[range.start].time;
            let rows = &observation.visibilities[range.clone()];
            let baselines: BTreeMap<_, _> = rows.iter().map(|row| row.stations).zip(range).collect();
            let mut stations: Vec<usize> = baselines.keys().flatten().copied().collect();
            stations.sort_unstable();
            stations.dedup();
            Self { observation, time, stations, baselines }
        })
    }

    /// The visibility from `a` to `b` and +1, or -1 where the file holds its conjugate.
    fn term(&self, a: usize, b: usize) -> Option<(usize, f64)> {
        let stored = self.baselines.get(&[a, b]).map(|&index| (index, 1.0));
        stored.or_else(|| self.baselines.get(&[b, a]).map(|&index| (index, -1.0)))
    }

    fn triangle(&self, stations: [usize; 3]) -> Option<Triangle> {
        let [a, b, c] = stations;
        let terms = [self.term(a, b)?, self.term(b, c)?, self.term(c, a)?];
        Some(Closure { time: self.time, stations, terms })
    }

    /// ln |V12| + ln |V34| - ln |V14| - ln |V23|.
    fn quadrangle(&self, stations: [usize; 4]) -> Option<Quadrangle> {
        let [a, b, c, d] = stations;
        let term = |a, b, sign| self.term(a, b).map(|(index, _)| (index, sign));
        let terms = [term(a, b, 1.0)?, term(c, d, 1.0)?, term(a, d, -1.0)?, term(b, c, -1.0)?];
        Some(Closure { time: self.time, stations, terms })
    }

    /// Variance of the phase, and of the log amplitude, of one visibility.
    fn variance(&self, index: usize) -> f64 {
        let row = &self.observation.visibilities[index];
        (row.sigma / row.value.norm()).powi(2)
    }

    /// The independent set of least noise among `candidates`, with its covariance.
    fn independent<const N: usize>(&self, mut candidates: Vec<Closure<N>>) -> Result<ClosureSet<N>> {
        let variance =
            |closure: &Closure<N>| closure.terms.iter().map(|&(index, _)| self.variance(index)).sum::<f64>();
        candidates.sort_by(|a, b| variance(a).total_cmp(&variance(b)));
        let column: BTreeMap<usize, usize> =
            self.baselines.values().enumerate().map(|(column, &index)| (index, column)).collect();
        let mut span = Span::default();
        let mut closures = Vec::new();
        for closure in candidates {
            let mut row = vec![0.0; column.len()];
            for (index, factor) in &closure.terms {
                row[column[index]] = *factor;
            }
            if span.extend(row) {
                closures.push(closure);
            }
        }
        let covariance = self.covariance(&closures)?;
        Ok(ClosureSet { closures, covariance })
    }

    fn covariance<const N: usize>(&self, closures: &[Closure<N>]) -> Result<DMatrix<f64>> {
        let entry = |a: &Closure<N>, b: &Closure<N>| -> f64 {
            let mut sum = 0.0;
            for (index, factor) in a.terms {
                let shared = b.terms.iter().filter(|(other, _)| *other == index);
                sum += shared.map(|(_, other)| factor * other * self.variance(index)).sum::<f64>();
            }
            sum
        };
        let size = closures.len();
        let covariance = DMatrix::from_fn(size, size, |i, j| entry(&closures[i], &closures[j]));
        match covariance.iter().all(|value| value.is_finite()) {
            true => Ok(covariance),
            false => Err(Error::config(
                "data",
                format!("a visibility at {:.1} s has no amplitude or no noise; flag it", self.time),
            )),
        }
    }
}

/// A growing linear span, kept in reduced form.
#[derive(Default)]
struct Span {
    rows: Vec<(usize, Vec<f64>)>,
}

impl Span {
    /// Adds `row` if it is independent of the rows so far, and says whether it was.
    fn extend(&mut self, mut row: Vec<f64>) -> bool {
        /// Entries are small integers; elimination keeps them far from this.
        const ZERO: f64 = 1e-9;
        for (pivot, known) in &self.rows {
            let factor = row[*pivot];
            if factor != 0.0 {
                row.iter_mut().zip(known).for_each(|(value, known)| *value -= factor * known);
            }
        }
        let largest = row.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
        match largest {
            Some((pivot, &value)) if value.abs() > ZERO => {
                row.iter_mut().for_each(|entry| *entry /= value);
                self.rows.push((pivot, row));
                true
            }
            _ => false,
        }
    }
}

/// The observation without the visibilities that noise dominates, |V| < `snr_cut` sigma, whose closures no Gaussian
/// describes, and the index that each of the others had.
pub fn above_noise(observation: &Observation, snr_cut: f64) -> (Observation, Vec<usize>) {
    let rows = observation.visibilities.iter().enumerate();
    let (kept, visibilities) = rows.filter(|(_, row)| row.value.norm() >= snr_cut * row.sigma).unzip();
    (Observation { visibilities, ..observation.clone() }, kept)
}

/// The triangles of eht-imaging's minimal set: at each time stamp all that hold the first station of the table.
pub fn minimal_triangles(observation: &Observation) -> Vec<Triangle> {
    let mut triangles = Vec::new();
    for stamp in Stamp::all(observation) {
        let Some((&reference, others)) = stamp.stations.split_first() else { continue };
        for (i, &a) in others.iter().enumerate() {
            triangles.extend(others[i + 1..].iter().filter_map(|&b| stamp.triangle([reference, a, b])));
        }
    }
    triangles
}

/// The quadrangles of eht-imaging's minimal set: (r, s_i, s_j, s_k) with r the first station of the table, i >= 3,
/// 0 < j < i, and k = j + 1, or 1 where that is i.
pub fn minimal_quadrangles(observation: &Observation) -> Vec<Quadrangle> {
    let mut quadrangles = Vec::new();
    for stamp in Stamp::all(observation) {
        let s = &stamp.stations;
        for i in 3..s.len() {
            for j in 1..i {
                let k = if j + 1 == i { 1 } else { j + 1 };
                quadrangles.extend(stamp.quadrangle([s[0], s[i], s[j], s[k]]));
            }
        }
    }
    quadrangles
}

/// At each time stamp an independent set of triangles that spans them all, least noisy first.
///
/// # Errors
/// A visibility without amplitude or noise.
pub fn independent_triangles(observation: &Observation) -> Result<Vec<ClosureSet<3>>> {
    independent(observation, |stamp| {
        let s = &stamp.stations;
        let mut all = Vec::new();
        for i in 0..s.len() {
            for j in i + 1..s.len() {
                all.extend((j + 1..s.len()).filter_map(|k| stamp.triangle([s[i], s[j], s[k]])));
            }
        }
        all
    })
}

/// At each time stamp an independent set of quadrangles that spans them all, least noisy first.
///
/// # Errors
/// A visibility without amplitude or noise.
pub fn independent_quadrangles(observation: &Observation) -> Result<Vec<ClosureSet<4>>> {
    independent(observation, |stamp| {
        let s = &stamp.stations;
        let mut all = Vec::new();
        for i in 0..s.len() {
            for j in i + 1..s.len() {
                for k in j + 1..s.len() {
                    for l in k + 1..s.len() {
                        // The three ways to pair four stations, up to sign.
                        let orders =
                            [[s[i], s[j], s[k], s[l]], [s[i], s[k], s[j], s[l]], [s[i], s[j], s[l], s[k]]];
                        all.extend(orders.into_iter().filter_map(|order| stamp.quadrangle(order)));
                    }
                }
            }
        }
        all
    })
}

fn independent<const N: usize>(
    observation: &Observation,
    candidates: impl Fn(&Stamp<'_>) -> Vec<Closure<N>>,
) -> Result<Vec<ClosureSet<N>>> {
    let mut sets = Vec::new();
    for stamp in Stamp::all(observation) {
        let set = stamp.independent(candidates(&stamp))?;
        if !set.closures.is_empty() {
            sets.push(set);
        }
    }
    Ok(sets)
}

impl<const N: usize> Closure<N> {
    /// The closure from the phases, or the log amplitudes, of all visibilities; a phase is not wrapped.
    pub fn sum(&self, values: &[f64]) -> f64 {
        self.terms.iter().map(|&(index, factor)| factor * values[index]).sum()
    }

    /// The same closure where visibility `k` has become `new[k]`.
    pub fn renumbered(mut self, new: &[usize]) -> Self {
        self.terms.iter_mut().for_each(|(index, _)| *index = new[*index]);
        self
    }

    /// Standard deviation of the measured closure: the root of the summed (sigma / |V|)^2; radians for a phase.
    pub fn sigma(&self, observation: &Observation) -> f64 {
        let variance = |&(index, _): &(usize, f64)| {
            let row = &observation.visibilities[index];
            (row.sigma / row.value.norm()).powi(2)
        };
        self.terms.iter().map(variance).sum::<f64>().sqrt()
    }
}

impl Quadrangle {
    /// Debiased log closure amplitude and its standard deviation as eht-imaging has them.
    pub fn debiased(&self, observation: &Observation) -> (f64, f64) {
        let (mut value, mut variance) = (0.0, 0.0);
        for (index, factor) in self.terms {
            let row = &observation.visibilities[index];
            let power = row.value.norm_sqr() - row.sigma.powi(2);
            let amplitude = if power > 0.0 { power.sqrt() } else { row.sigma };
            let inverse = (row.sigma / amplitude).powi(2);
            value += factor * (amplitude.ln() + 0.5 * inverse);
            variance += inverse;
        }
        (value, variance.sqrt())
    }
}

impl<const N: usize> ClosureSet<N> {
    /// The same set where visibility `k` has become `new[k]`.
    pub fn renumbered(mut self, new: &[usize]) -> Self {
        self.closures = self.closures.into_iter().map(|closure| closure.renumbered(new)).collect();
        self
    }

    /// The inverse covariance, and the solver that whitens: L of covariance = L L^T.
    ///
    /// # Errors
    /// A covariance that is not positive definite.
    pub fn whitener(&self) -> Result<(DMatrix<f64>, DMatrix<f64>)> {
        let time = self.closures.first().map_or(0.0, |closure| closure.time);
        let factor = self.covariance.clone().cholesky().ok_or_else(|| {
            Error::config("data", format!("closures at {time:.1} s are degenerate; check the noise there"))
        })?;
        Ok((factor.inverse(), factor.l()))
    }
}

/// L^-1 r, the residuals made independent.
pub(super) fn whiten(lower: &DMatrix<f64>, residuals: Vec<f64>) -> Vec<f64> {
    let vector = DVector::from_vec(residuals);
    lower.solve_lower_triangular(&vector).unwrap_or(vector).as_slice().to_vec()
}

#[cfg(test)]
mod tests {
    use rustfft::num_complex::Complex64;

    use super::*;
    use crate::instrument::vlbi::{Station, Visibility};

    /// `count` stations, all baselines but `missing`, at one time.
    fn observation(count: usize, missing: &[[usize; 2]]) -> Observation {
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| [a, b]));
        let visibilities = pairs.filter(|pair| !missing.contains(pair)).map(|stations| Visibility {
            time: 0.0,
            integration: 10.0,
            stations,
            u: 1e9,
            v: 1e9,
            value: Complex64::from_polar(
                1.0 + stations[0] as f64 / 3.0,
                (stations[1] + 7 * stations[0]) as f64,
            ),
            sigma: 0.1 + 0.03 * stations[1] as f64,
        });
        Observation {
            source: "TEST".into(),
            ra_deg: 0.0,
            dec_deg: 0.0,
            frequency_hz: 230e9,
            bandwidth_hz: 2e9,
            mjd: 57848.0,
            stations: (0..count)
                .map(|i| Station { code: format!("S{i}"), position: [0.0; 3], sefd: None })
                .collect(),
            visibilities: visibilities.collect(),
        }
    }

    #[test]
    fn independent_sets_are_as_large_as_the_gains_allow() {
        for count in 3..8 {
            let data = observation(count, &[]);
            let baselines = count * (count - 1) / 2;
            let phases: usize =
                independent_triangles(&data).unwrap().iter().map(|set| set.closures.len()).sum();
            assert_eq!(phases, baselines + 1 - count);
            let amplitudes: usize =
                independent_quadrangles(&data).unwrap().iter().map(|set| set.closures.len()).sum();
            assert_eq!(amplitudes, if count < 4 { 0 } else { baselines - count });
        }
        // Without the baseline 0-1 eht-imaging's set loses triangles that the others still span.
        let data = observation(6, &[[0, 1]]);
        assert_eq!(minimal_triangles(&data).len(), 6);
        assert_eq!(independent_triangles(&data).unwrap()[0].closures.len(), 14 + 1 - 6);
        assert_eq!(independent_quadrangles(&data).unwrap()[0].closures.len(), 14 - 6);
    }

    #[test]
    fn closures_ignore_station_gains() {
        let mut data = observation(5, &[]);
        let phases = |data: &Observation| -> Vec<f64> {
            data.visibilities.iter().map(|row| row.value.arg()).collect()
        };
        let logs = |data: &Observation| -> Vec<f64> {
            data.visibilities.iter().map(|row| row.value.norm().ln()).collect()
        };
        let (before_phases, before_logs) = (phases(&data), logs(&data));
        for row in &mut data.visibilities {
            let gain = |s: usize| Complex64::from_polar(1.0 + 0.1 * s as f64, 0.3 * (s * s) as f64);
            row.value *= gain(row.stations[0]) * gain(row.stations[1]).conj();
        }
        let (after_phases, after_logs) = (phases(&data), logs(&data));
        for triangle in minimal_triangles(&data) {
            let change = triangle.sum(&after_phases) - triangle.sum(&before_phases);
            assert!(
                (change / std::f64::consts::TAU - (change / std::f64::consts::TAU).round()).abs() < 1e-12
            );
        }
        for quadrangle in minimal_quadrangles(&data) {
            let change = quadrangle.sum(&after_logs) - quadrangle.sum(&before_logs);
            assert!(change.abs() < 1e-12);
        }
    }

    #[test]
    fn covariance_counts_shared_baselines() {
        let data = observation(4, &[]);
        let set = &independent_triangles(&data).unwrap()[0];
        for (i, triangle) in set.closures.iter().enumerate() {
            assert!((set.covariance[(i, i)].sqrt() - triangle.sigma(&data)).abs() < 1e-12);
        }
        assert!(set.covariance[(0, 1)].abs() > 1e-3, "two triangles of four stations share a baseline");
        let (_, lower) = set.whitener().unwrap();
        assert!((&lower * lower.transpose() - &set.covariance).norm() < 1e-12);
    }
}
