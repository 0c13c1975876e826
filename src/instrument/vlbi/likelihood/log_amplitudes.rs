//! Sums of log amplitudes of all time stamps, closures or the amplitudes themselves, with the errors that they share.
//!
//! Station gains add to log amplitudes, so a Gaussian prior of theirs is a part of the data's covariance and no gain needs to be
//! sampled. With C the covariance at each time stamp and A the factors of the errors that all time stamps share, scaled to unit variance,
//! the covariance of all is C + A A^T, and with K = I + A^T C^-1 A, b = A^T C^-1 r for misfits r
//!
//!     r^T (C + A A^T)^-1 r = r^T C^-1 r - b^T K^-1 b,    det (C + A A^T) = det C det K.

use std::sync::Arc;

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};
use rustfft::num_complex::Complex64;

use super::{
    closures::{Sums, balance, softened},
    noise::Noise,
    rice::Moments,
};
use crate::rng::Rng;

/// Independent sums of the log amplitudes of each time stamp.
///
/// Mean and covariance of the data are those that the *model's* amplitudes have with the noise of each visibility, and
/// the density is the Gaussian of these moments, its determinant included. Errors taken from the measured
/// amplitudes, (sigma / |V|)^2, would make what is too strong by chance look well measured and what is too weak look badly measured:
/// an amplitude measured n times its noise would be found 2 / n^2 too large on average. With the moments of the model the score
/// averages to zero at the truth, exactly.
///
/// The datum is ln |V| itself. Below the noise it has a long tail, which no Gaussian describes: such visibilities should be cut, but no
/// more than those, for a cut keeps what is too strong by chance.
#[derive(Debug, Clone)]
pub(super) struct LogAmplitudes {
    stamps: Arc<[Stamp]>,
    /// Number of errors that all time stamps share.
    shared: usize,
    /// Log determinant of the covariance at the measured amplitudes: what a log density is counted from.
    usual: f64,
    /// Noise, Jy, against which the density is balanced.
    noise: f64,
}

/// The sums of one time stamp.
#[derive(Debug, Clone)]
struct Stamp {
    sums: Sums,
    /// Of each visibility that takes part.
    noises: Vec<Noise>,
    /// Factors of the errors that all time stamps share.
    shared: DMatrix<f64>,
    /// Covariance by the errors that visibilities of this time stamp share.
    own: DMatrix<f64>,
    /// Covariance at the measured amplitudes by all errors.
    measured: DMatrix<f64>,
}

/// A time stamp beside a model, everything from the left by L^-1, L L^T = C.
struct Whitened {
    moments: Vec<Moments>,
    log_determinant: f64,
    misfit: DVector<f64>,
    factors: DMatrix<f64>,
    shared: DMatrix<f64>,
}

impl LogAmplitudes {
    /// `sums` whose visibilities have the `noises`, one for each of the observation, with so many `shared` errors at all times.
    pub(super) fn new(sums: Vec<Sums>, noises: &[Noise], shared: usize) -> Self {
        let stamps: Arc<[Stamp]> = sums.into_iter().map(|sums| Stamp::new(sums, noises, shared)).collect();
        let mut all = Self { stamps, shared, usual: 0.0, noise: 0.0 };
        let measured =
            |stamp: &Stamp| stamp.whitened(stamp.noises.iter().map(|noise| noise.measured).collect());
        if let Some((parts, precision)) = all.parts(measured) {
            all.usual =
                log_determinant(&precision) + parts.iter().map(|part| part.log_determinant).sum::<f64>();
        }
        all
    }

    pub(super) fn count(&self) -> usize {
        self.stamps.iter().map(|stamp| stamp.sums.data.len()).sum()
    }

    /// See [`super::Product::balanced`].
    pub(super) fn balanced(&self, noise: f64) -> Self {
        Self { noise, ..self.clone() }
    }

    /// All time stamps whitened, and K in factors; none where a covariance is not positive definite.
    fn parts(
        &self,
        whitened: impl Fn(&Stamp) -> Option<Whitened>,
    ) -> Option<(Vec<Whitened>, Cholesky<f64, Dyn>)> {
        let parts: Vec<_> = self.stamps.iter().map(whitened).collect::<Option<_>>()?;
        let mut precision = DMatrix::identity(self.shared, self.shared);
        parts.iter().for_each(|part| precision += part.shared.tr_mul(&part.shared));
        Some((parts, precision.cholesky()?))
    }

    /// See [`super::Product::log_prob`].
    pub(super) fn log_prob(&self, model: &[Complex64], gradient: &mut [Complex64]) -> f64 {
        self.density(model, gradient).unwrap_or(f64::NEG_INFINITY)
    }

    fn density(&self, model: &[Complex64], gradient: &mut [Complex64]) -> Option<f64> {
        let (parts, precision) = self.parts(|stamp| stamp.whitened(stamp.moments(model)))?;
        let mut pull = DVector::zeros(self.shared);
        parts.iter().for_each(|part| pull += part.shared.tr_mul(&part.misfit));
        let errors = precision.solve(&pull);
        let mut sum = 0.5 * (pull.dot(&errors) + self.usual - log_determinant(&precision));
        for (stamp, part) in self.stamps.iter().zip(&parts) {
            sum -= 0.5 * (part.misfit.norm_squared() + part.log_determinant);
            let mut slopes = part.slopes(&errors, &precision)?;
            if self.noise > 0.0 {
                let (more, further) = stamp.balance(model, self.noise)?;
                sum += more;
                slopes.iter_mut().zip(further).for_each(|(slope, more)| *slope += more);
            }
            for (noise, slope) in stamp.noises.iter().zip(slopes) {
                if let Some(place) = noise.place {
                    gradient[place] += slope * model[place] / softened(&model[place]);
                }
            }
        }
        Some(sum)
    }

    /// Misfits whitened one time stamp after the other, each given what those before it tell of the shared errors.
    pub(super) fn residuals(&self, model: &[Complex64]) -> Vec<f64> {
        let mut errors = DVector::zeros(self.shared);
        let mut spread = DMatrix::identity(self.shared, self.shared);
        let mut whitened = Vec::with_capacity(self.count());
        for stamp in &*self.stamps {
            let moments = stamp.moments(model);
            let misfit = &stamp.sums.data - stamp.expected(&moments) - &stamp.shared * &errors;
            let seen = &stamp.shared * &spread;
            let covariance = stamp.covariance(&moments) + &seen * stamp.shared.transpose();
            let Some(covariance) = covariance.cholesky() else {
                whitened.extend(vec![f64::NAN; misfit.len()]);
                continue;
            };
            errors += seen.tr_mul(&covariance.solve(&misfit));
            spread -= seen.tr_mul(&covariance.solve(&seen));
            let lower = covariance.l();
            whitened.extend(lower.solve_lower_triangular(&misfit).unwrap_or(misfit).iter());
        }
        whitened
    }

    /// See [`super::Product::draw`].
    pub(super) fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64> {
        let errors = DVector::from_fn(self.shared, |_, _| rng.normal());
        let mut draws = Vec::with_capacity(self.count());
        for stamp in &*self.stamps {
            let moments = stamp.moments(model);
            let mut drawn = stamp.expected(&moments) + &stamp.shared * &errors;
            if let Some(covariance) = stamp.covariance(&moments).cholesky() {
                drawn += covariance.l() * DVector::from_fn(drawn.len(), |_, _| rng.normal());
            }
            draws.extend(drawn.iter());
        }
        draws
    }

    /// The same with other data, in the order of [`Self::draw`].
    #[cfg(test)]
    pub(super) fn with_data(mut self, data: &[f64]) -> Self {
        let sums = Arc::make_mut(&mut self.stamps).iter_mut().map(|stamp| &mut stamp.sums);
        super::closures::example::replace(sums, data);
        self
    }
}

impl Stamp {
    fn new(sums: Sums, noises: &[Noise], shared: usize) -> Self {
        let noises: Vec<_> = sums.visibilities.iter().map(|&visibility| noises[visibility].clone()).collect();
        let factors = |kind: usize, count: usize| {
            let mut errors = DMatrix::zeros(noises.len(), count);
            for (row, noise) in noises.iter().enumerate() {
                noise.errors[kind].iter().for_each(|&(number, sigma)| errors[(row, number)] += sigma);
            }
            &sums.factors * errors
        };
        let most = noises.iter().flat_map(|noise| &noise.errors[1]).map(|(number, _)| number + 1).max();
        let (shared, own) = (factors(0, shared), factors(1, most.unwrap_or(0)));
        let size = sums.data.len();
        let mut stamp =
            Self { own: &own * own.transpose(), measured: DMatrix::zeros(size, size), sums, noises, shared };
        let measured: Vec<_> = stamp.noises.iter().map(|noise| noise.measured).collect();
        stamp.measured = stamp.covariance(&measured) + &stamp.shared * stamp.shared.transpose();
        stamp
    }

    /// Moments of all visibilities that take part.
    fn moments(&self, model: &[Complex64]) -> Vec<Moments> {
        let of = |noise: &Noise| match noise.place {
            Some(place) => noise.moments(softened(&model[place]).sqrt()),
            None => noise.measured,
        };
        self.noises.iter().map(of).collect()
    }

    /// Covariance of the sums without the errors that all time stamps share.
    fn covariance(&self, moments: &[Moments]) -> DMatrix<f64> {
        let mut weighted = self.sums.factors.clone();
        weighted.column_iter_mut().zip(moments).for_each(|(mut column, moments)| column *= moments.variance);
        weighted * self.sums.factors.transpose() + &self.own
    }

    fn expected(&self, moments: &[Moments]) -> DVector<f64> {
        &self.sums.factors * DVector::from_iterator(moments.len(), moments.iter().map(|m| m.mean))
    }

    fn whitened(&self, moments: Vec<Moments>) -> Option<Whitened> {
        let covariance = self.covariance(&moments).cholesky()?;
        let lower = covariance.l_dirty();
        let misfit = &self.sums.data - self.expected(&moments);
        Some(Whitened {
            log_determinant: log_determinant(&covariance),
            misfit: lower.solve_lower_triangular(&misfit)?,
            factors: lower.solve_lower_triangular(&self.sums.factors)?,
            shared: lower.solve_lower_triangular(&self.shared)?,
            moments,
        })
    }

    /// See [`balance`]; blur does not reach what is known.
    fn balance(&self, model: &[Complex64], noise: f64) -> Option<(f64, Vec<f64>)> {
        let power = |noise: &Noise| noise.place.map_or(f64::INFINITY, |place| softened(&model[place]));
        let powers: Vec<f64> = self.noises.iter().map(power).collect();
        balance(&self.sums, &self.measured, &powers, noise)
    }
}

impl Whitened {
    /// Derivatives of the log density by the log amplitudes of the visibilities that take part, with the most probable shared
    /// `errors` and K in factors.
    fn slopes(&self, errors: &DVector<f64>, precision: &Cholesky<f64, Dyn>) -> Option<Vec<f64>> {
        let pulled = self.factors.tr_mul(&(&self.misfit - &self.shared * errors));
        let known = precision.l_dirty().solve_lower_triangular(&self.shared.tr_mul(&self.factors))?;
        let slope = |(index, moments): (usize, &Moments)| {
            let [mean, variance] = moments.slopes;
            let certain = self.factors.column(index).norm_squared() - known.column(index).norm_squared();
            pulled[index] * mean + 0.5 * (pulled[index].powi(2) - certain) * variance
        };
        Some(self.moments.iter().enumerate().map(slope).collect())
    }
}

fn log_determinant(covariance: &Cholesky<f64, Dyn>) -> f64 {
    2.0 * covariance.l_dirty().diagonal().iter().map(|value| value.ln()).sum::<f64>()
}
