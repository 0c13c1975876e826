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

/// What the closures of one time stamp lack under blur; see [`crate::instrument::Likelihood::balanced`].
///
/// Noise of standard deviation `noise` in the real and imaginary part of each visibility adds F D F^T to the closures' own covariance C,
/// F the factors and D_k = noise^2 / (|V_k|^2 + noise^2) the variance of a log amplitude or a phase, at most 1. Data that scatter by C
/// alone have on average the log density -H, H = (ln det T + tr C T^-1) / 2 with T = C + F D F^T. Returns H up to a constant and its
/// derivatives by the log amplitudes, -d_k (1 - D_k) D_k with d the diagonal of F^T T^-1 (T - C) T^-1 F; none if T is not positive.
pub(super) fn balance(
    sums: &Sums,
    covariance: &DMatrix<f64>,
    powers: &[f64],
    noise: f64,
) -> Option<(f64, Vec<f64>)> {
    let variances: Vec<f64> = powers.iter().map(|power| noise * noise / (power + noise * noise)).collect();
    let mut blurred = sums.factors.clone();
    blurred.column_iter_mut().zip(&variances).for_each(|(mut column, variance)| column *= variance.sqrt());
    let total = (covariance + &blurred * blurred.transpose()).cholesky()?;
    let solve = |matrix: &DMatrix<f64>| total.l_dirty().solve_lower_triangular(matrix);
    let (factors, blurred) = (solve(&sums.factors)?, solve(&blurred)?);
    let determinant: f64 = total.l_dirty().diagonal().iter().map(|value| value.ln()).sum();
    let seen = blurred.tr_mul(&factors);
    let slope = |(seen, variance): (f64, &f64)| -seen * variance * (1.0 - variance);
    let slopes = seen.column_iter().map(|column| column.norm_squared()).zip(&variances).map(slope).collect();
    Some((determinant - 0.5 * blurred.norm_squared(), slopes))
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

#[cfg(test)]
mod tests {
    use super::{example::observation, *};
    use crate::{instrument::vlbi::closure::independent_triangles, rng::Rng};

    /// Closures that scatter by their own noise have a mean log density under blur that changes with the visibilities as -H does: with
    /// the balance, on average, nothing changes.
    #[test]
    fn the_balance_is_what_the_mean_log_density_lacks() {
        const DRAWS: usize = 20_000;
        let (observation, model) = observation();
        let set = independent_triangles(&observation).unwrap().swap_remove(0);
        let lower = set.whitener().unwrap().1;
        let sums = Sums::new(set, &vec![0.0; observation.visibilities.len()]);
        let covariance = &lower * lower.transpose();
        let mut rng = Rng::new(7);
        let noises: Vec<DVector<f64>> =
            (0..DRAWS).map(|_| &lower * DVector::from_fn(lower.nrows(), |_, _| rng.normal())).collect();
        // By the definition, with an inverse and a determinant.
        let balanced = |scale: f64, noise: f64| {
            let powers: Vec<f64> =
                sums.visibilities.iter().map(|&row| scale * scale * softened(&model[row])).collect();
            let variances = powers.iter().map(|power| noise * noise / (power + noise * noise));
            let variances = DVector::from_iterator(powers.len(), variances);
            let total =
                &covariance + &sums.factors * DMatrix::from_diagonal(&variances) * sums.factors.transpose();
            let half = 0.5 * total.determinant().ln();
            let inverse = total.try_inverse().unwrap();
            let density = |own: &DVector<f64>| -0.5 * own.dot(&(&inverse * own)) - half;
            let mean = noises.iter().map(density).sum::<f64>() / DRAWS as f64;
            (mean, mean + balance(&sums, &covariance, &powers, noise).unwrap().0)
        };
        for noise in [0.02, 0.1, 0.4] {
            let [dim, bright] = [0.7, 1.4].map(|scale| balanced(scale, noise));
            assert!(bright.0 - dim.0 > 0.1, "{noise}: {dim:?} {bright:?}");
            assert!((bright.1 - dim.1).abs() < 0.02, "{noise}: {dim:?} {bright:?}");
        }
    }
}
