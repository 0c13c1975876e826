//! Closures of station-based errors of one time stamp: sums over visibilities, and their data.

use nalgebra::{DMatrix, DVector};
use rustfft::num_complex::Complex64;

use super::FAINTEST;
use crate::instrument::vlbi::closure::ClosureSet;

/// Measured closures of one time stamp.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    pub(super) data: DVector<f64>,
    /// The visibilities that take part, in rising order.
    pub(super) visibilities: Vec<usize>,
    /// Factor of each of them, a column, in each closure, a row.
    pub(super) factors: DMatrix<f64>,
}

impl Sums {
    /// Closures of the measured `values`, one per visibility of the observation.
    pub(super) fn new<const N: usize>(set: ClosureSet<N>, values: &[f64]) -> Self {
        let closures = set.closures;
        let mut visibilities: Vec<_> =
            closures.iter().flat_map(|closure| closure.terms).map(|(index, _)| index).collect();
        visibilities.sort_unstable();
        visibilities.dedup();
        let mut factors = DMatrix::zeros(closures.len(), visibilities.len());
        for (row, closure) in closures.iter().enumerate() {
            for (index, factor) in closure.terms {
                let column = visibilities.partition_point(|visibility| *visibility < index);
                factors[(row, column)] += factor;
            }
        }
        let data = closures.iter().map(|closure| closure.sum(values));
        Self { data: DVector::from_iterator(closures.len(), data), visibilities, factors }
    }

    /// The closures of `values`, one per visibility of the observation.
    pub(super) fn of(&self, values: &[f64]) -> DVector<f64> {
        let taken = self.visibilities.iter().map(|&visibility| values[visibility]);
        &self.factors * DVector::from_iterator(self.visibilities.len(), taken)
    }

    /// Adds the derivatives of the closures, times `slope` each, to those of the values they sum.
    pub(super) fn pull_back(&self, slope: &DVector<f64>, gradient: &mut [f64]) {
        let pulled = self.factors.tr_mul(slope);
        for (&visibility, slope) in self.visibilities.iter().zip(pulled.iter()) {
            gradient[visibility] += slope;
        }
    }
}

/// |V|^2, never zero.
pub(super) fn softened(value: &Complex64) -> f64 {
    value.norm_sqr() + FAINTEST * FAINTEST
}

#[cfg(test)]
pub(super) mod example {
    use super::{super::SHORT_SPACINGS, *};
    use crate::{
        instrument::vlbi::{Observation, Station, Visibility},
        rng::Rng,
    };

    /// Five stations at two times with 5 % noise, and a model that differs by about that.
    pub(in super::super) fn observation() -> (Observation, Vec<Complex64>) {
        let mut rng = Rng::new(5);
        let mut visibilities = Vec::new();
        for time in [0.0, 300.0] {
            for a in 0..5 {
                for b in a + 1..5 {
                    let value = Complex64::from_polar(0.2 + 0.5 * rng.uniform(), 6.0 * rng.uniform());
                    visibilities.push(Visibility {
                        time,
                        integration: 10.0,
                        stations: [a, b],
                        u: 0.0,
                        v: 0.0,
                        value,
                        sigma: 0.05 * value.norm() * (1.0 + rng.uniform()),
                    });
                }
            }
        }
        let mut model: Vec<_> = visibilities
            .iter()
            .map(|row| row.value + row.sigma * Complex64::new(rng.normal(), rng.normal()))
            .collect();
        model.extend([Complex64::ONE; SHORT_SPACINGS]);
        let observation = Observation {
            source: "TEST".into(),
            ra_deg: 0.0,
            dec_deg: 0.0,
            frequency_hz: 230e9,
            bandwidth_hz: 2e9,
            mjd: 57848.0,
            stations: (0..5)
                .map(|i| Station { code: format!("S{i}"), position: [0.0; 3], sefd: None })
                .collect(),
            visibilities,
        };
        (observation, model)
    }

    /// Puts other data in the place of those of all time stamps.
    pub(in super::super) fn replace<'a>(sums: impl Iterator<Item = &'a mut Sums>, data: &[f64]) {
        let mut data = data.iter();
        for sums in sums {
            sums.data.iter_mut().zip(&mut data).for_each(|(old, new)| *old = *new);
        }
    }
}
