//! Log closure amplitudes.

use std::sync::Arc;

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};
use rustfft::num_complex::Complex64;

use super::{
    Product,
    closures::{Sums, balance, softened},
    rice::{Moments, log_amplitude},
};
use crate::{
    Error, Result,
    instrument::vlbi::{
        Observation, Visibility,
        average::time_stamps,
        closure::{above_noise, independent_quadrangles, whiten},
        products::{MeasuredClosure, log_closure_amplitude_fit, log_closure_amplitudes},
    },
    rng::Rng,
};

/// Log closure amplitudes of all time stamps.
///
/// Mean and covariance of the data are those that the *model's* amplitudes have with the noise of each visibility, and
/// the density is the Gaussian of these moments, its determinant included. Errors taken from the measured
/// amplitudes, (sigma / |V|)^2, would make what is too strong by chance look well measured and what is too weak look badly measured:
/// an amplitude measured n times its noise would be found 2 / n^2 too large on average. With the moments of the model the score
/// averages to zero at the truth, exactly.
///
/// The datum is ln |V| itself. Below the noise it has a long tail, which no Gaussian describes: such visibilities should be cut, but no
/// more than those, for a cut keeps what is too strong by chance. Chi-square is eht-imaging's: its minimal set of what is well
/// measured, debiased, with the measured errors, taken as independent.
#[derive(Debug, Clone)]
pub struct LogClosureAmplitude {
    stamps: Arc<[Stamp]>,
    minimal: Vec<MeasuredClosure<4>>,
    rows: usize,
    /// Noise, Jy, against which the density is balanced.
    noise: f64,
}

/// The independent set of one time stamp.
#[derive(Debug, Clone)]
struct Stamp {
    sums: Sums,
    /// Of each visibility that takes part.
    noises: Vec<Noise>,
    /// Log determinant of the covariance at the measured amplitudes: what a log density is counted from.
    usual: f64,
    /// That covariance.
    measured: DMatrix<f64>,
}

/// What is known of one visibility.
#[derive(Debug, Clone)]
struct Noise {
    /// Where the model has it; none where its true amplitude is known.
    place: Option<usize>,
    /// Moments at the measured, or the known, amplitude.
    measured: Moments,
    /// Thermal noise, Jy.
    sigma: f64,
    /// Variance of ln |V| beside it.
    systematic: f64,
}

/// A visibility whose true amplitude is known: that of the whole source at a spacing too short to resolve it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Known {
    /// Flux density, Jy.
    pub flux: f64,
    /// Fractional error, one for all times.
    pub error: f64,
}

impl LogClosureAmplitude {
    /// Closures of all visibilities with |V| >= `snr_cut` sigma, of whose sigma the fraction `systematic` of |V| is no thermal noise;
    /// those of chi-square have |V| >= `measured_cut` sigma.
    ///
    /// # Errors
    /// No closure, or a visibility without amplitude or noise.
    pub fn new(observation: &Observation, snr_cut: f64, measured_cut: f64, systematic: f64) -> Result<Self> {
        let (measured, numbers) = above_noise(observation, measured_cut);
        let minimal = log_closure_amplitudes(&measured);
        let minimal = minimal.into_iter().map(|closure| closure.renumbered(&numbers)).collect();
        let (kept, numbers) = above_noise(observation, snr_cut);
        let rows = observation.visibilities.len();
        let noises = (0..rows).map(|row| Noise::of(&observation.visibilities[row], systematic, Some(row)));
        let stamps = stamps(observation, &kept, &numbers, &noises.collect::<Vec<_>>())?;
        if stamps.is_empty() {
            return Err(Error::config(
                "data",
                "no quadrangle of well-measured visibilities at any time; lower vlbi.amplitude_snr_cut or leave log_closure_amplitude out of vlbi.data",
            ));
        }
        Ok(Self { stamps: stamps.into(), minimal, rows, noise: 0.0 })
    }

    /// The same with closures through `all` visibilities: those that are `known`, and those of the model at their
    /// `places` in it. Chi-square stays that of the minimal set without the known ones.
    ///
    /// The error of what is known is the same at all T times. Each time stamp takes it as its own, larger by the root of T:
    /// together they then tell as much of it as one measurement would.
    ///
    /// # Errors
    /// A visibility without amplitude or noise.
    pub fn through(
        self,
        all: &Observation,
        [snr_cut, systematic]: [f64; 2],
        places: &[Option<usize>],
        known: Known,
    ) -> Result<Self> {
        let (mut kept, numbers) = above_noise(all, snr_cut);
        let error = known.error * (time_stamps(&kept).len() as f64).sqrt();
        for (row, number) in kept.visibilities.iter_mut().zip(&numbers) {
            if places[*number].is_none() {
                row.sigma = row.sigma.hypot(error * row.value.norm());
            }
        }
        let noise = |(row, place): (&Visibility, &Option<usize>)| {
            let mut noise = Noise::of(row, systematic, *place);
            if place.is_none() {
                noise.systematic += error * error;
                noise.measured = noise.moments(known.flux);
            }
            noise
        };
        let noises: Vec<_> = all.visibilities.iter().zip(places).map(noise).collect();
        Ok(Self { stamps: stamps(all, &kept, &numbers, &noises)?.into(), ..self })
    }
}

/// The independent sets of the visibilities that are `kept`, whose `numbers` among all of the observation are given.
fn stamps(
    observation: &Observation,
    kept: &Observation,
    numbers: &[usize],
    noises: &[Noise],
) -> Result<Vec<Stamp>> {
    let values: Vec<f64> =
        observation.visibilities.iter().map(|row| 0.5 * softened(&row.value).ln()).collect();
    let stamp = |set| {
        let sums = Sums::new(set, &values);
        let noises = sums.visibilities.iter().map(|&visibility| noises[visibility].clone()).collect();
        let mut stamp = Stamp { sums, noises, usual: 0.0, measured: DMatrix::zeros(0, 0) };
        let measured: Vec<_> = stamp.noises.iter().map(|noise| noise.measured).collect();
        stamp.measured = stamp.covariance_of(&measured);
        stamp.usual =
            stamp.measured.clone().cholesky().map_or(0.0, |covariance| log_determinant(&covariance));
        stamp
    };
    let sets = independent_quadrangles(kept)?;
    sets.iter().try_for_each(|set| set.whitener().map(|_| ()))?;
    Ok(sets.into_iter().map(|set| stamp(set.renumbered(numbers))).collect())
}

impl Noise {
    fn of(row: &Visibility, systematic: f64, place: Option<usize>) -> Self {
        let amplitude = row.value.norm();
        let thermal = row.sigma.powi(2) - (systematic * amplitude).powi(2);
        let sigma = thermal.max(1e-12 * row.sigma.powi(2)).sqrt();
        let systematic = systematic * systematic;
        Self { place, measured: moments(amplitude, sigma, systematic), sigma, systematic }
    }

    /// Moments of ln |V| of a true `amplitude`.
    fn moments(&self, amplitude: f64) -> Moments {
        moments(amplitude, self.sigma, self.systematic)
    }
}

/// Moments of ln |V| of a true `amplitude` with noise of `sigma`, and the variance `systematic` beside it.
fn moments(amplitude: f64, sigma: f64, systematic: f64) -> Moments {
    let moments = log_amplitude(amplitude, sigma);
    Moments { variance: moments.variance + systematic, ..moments }
}

impl Stamp {
    /// Moments of all visibilities that take part.
    fn moments(&self, model: &[Complex64]) -> Vec<Moments> {
        let of = |noise: &Noise| match noise.place {
            Some(place) => noise.moments(softened(&model[place]).sqrt()),
            None => noise.measured,
        };
        self.noises.iter().map(of).collect()
    }

    /// Covariance of the closures.
    fn covariance_of(&self, moments: &[Moments]) -> DMatrix<f64> {
        let mut weighted = self.sums.factors.clone();
        weighted.column_iter_mut().zip(moments).for_each(|(mut column, moments)| column *= moments.variance);
        weighted * self.sums.factors.transpose()
    }

    /// The same in factors; none where it is not positive definite.
    fn covariance(&self, moments: &[Moments]) -> Option<Cholesky<f64, Dyn>> {
        self.covariance_of(moments).cholesky()
    }

    fn expected(&self, moments: &[Moments]) -> DVector<f64> {
        &self.sums.factors * DVector::from_iterator(moments.len(), moments.iter().map(|m| m.mean))
    }

    /// Log density, and its derivatives by the log amplitudes of the visibilities that take part.
    fn log_density(&self, model: &[Complex64]) -> Option<(f64, Vec<f64>)> {
        let moments = self.moments(model);
        let covariance = self.covariance(&moments)?;
        let misfit = &self.sums.data - self.expected(&moments);
        let weighted = covariance.solve(&misfit);
        let value = -0.5 * (misfit.dot(&weighted) + log_determinant(&covariance) - self.usual);
        let pulled = self.sums.factors.tr_mul(&weighted);
        let spread = covariance.l_dirty().solve_lower_triangular(&self.sums.factors)?;
        let slope = |(index, moments): (usize, &Moments)| {
            let [mean, variance] = moments.slopes;
            let power = pulled[index].powi(2) - spread.column(index).norm_squared();
            pulled[index] * mean + 0.5 * power * variance
        };
        Some((value, moments.iter().enumerate().map(slope).collect()))
    }

    /// See [`balance`]; blur does not reach what is known.
    fn balance(&self, model: &[Complex64], noise: f64) -> Option<(f64, Vec<f64>)> {
        let power = |noise: &Noise| noise.place.map_or(f64::INFINITY, |place| softened(&model[place]));
        let powers: Vec<f64> = self.noises.iter().map(power).collect();
        balance(&self.sums, &self.measured, &powers, noise)
    }
}

fn log_determinant(covariance: &Cholesky<f64, Dyn>) -> f64 {
    2.0 * covariance.l_dirty().diagonal().iter().map(|value| value.ln()).sum::<f64>()
}

impl Product for LogClosureAmplitude {
    const NAME: &'static str = "log_closure_amplitude";
    const SINGULAR: bool = false;

    fn count(&self) -> usize {
        self.stamps.iter().map(|stamp| stamp.sums.data.len()).sum()
    }

    fn visibilities(&self) -> usize {
        self.rows
    }

    fn balanced(&self, noise: f64) -> Option<Self> {
        Some(Self { noise, ..self.clone() })
    }

    fn log_prob(&self, model: &[Complex64], gradient: &mut [Complex64]) -> f64 {
        let mut sum = 0.0;
        for stamp in &*self.stamps {
            let Some((value, mut slopes)) = stamp.log_density(model) else { return f64::NEG_INFINITY };
            sum += value;
            if self.noise > 0.0 {
                let Some((more, further)) = stamp.balance(model, self.noise) else {
                    return f64::NEG_INFINITY;
                };
                sum += more;
                slopes.iter_mut().zip(further).for_each(|(slope, more)| *slope += more);
            }
            for (noise, slope) in stamp.noises.iter().zip(slopes) {
                if let Some(place) = noise.place {
                    gradient[place] += slope * model[place] / softened(&model[place]);
                }
            }
        }
        sum
    }

    fn residuals(&self, model: &[Complex64]) -> Vec<f64> {
        let whitened = |stamp: &Stamp| {
            let moments = stamp.moments(model);
            let misfit = (&stamp.sums.data - stamp.expected(&moments)).as_slice().to_vec();
            match stamp.covariance(&moments) {
                Some(covariance) => whiten(&covariance.l(), misfit),
                None => vec![f64::NAN; misfit.len()],
            }
        };
        self.stamps.iter().flat_map(whitened).collect()
    }

    fn chi2(&self, model: &[Complex64]) -> f64 {
        log_closure_amplitude_fit(&self.minimal, model).map_or(f64::NAN, |fit| fit.chi2)
    }

    fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64> {
        let mut draws = Vec::new();
        for stamp in &*self.stamps {
            let moments = stamp.moments(model);
            let mut drawn = stamp.expected(&moments);
            if let Some(covariance) = stamp.covariance(&moments) {
                drawn += covariance.l() * DVector::from_fn(drawn.len(), |_, _| rng.normal());
            }
            draws.extend(drawn.iter());
        }
        draws
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            SHORT_SPACINGS,
            closures::example::{observation, replace},
            laws,
        },
        *,
    };

    fn with_data(product: &LogClosureAmplitude, data: Option<&[f64]>) -> LogClosureAmplitude {
        let mut product = product.clone();
        data.inspect(|data| {
            replace(Arc::make_mut(&mut product.stamps).iter_mut().map(|stamp| &mut stamp.sums), data)
        });
        product
    }

    #[test]
    fn log_closure_amplitudes_have_gradient_and_draws_of_their_density() {
        let (observation, model) = observation();
        let product = LogClosureAmplitude::new(&observation, 0.0, 0.0, 0.01).unwrap();
        laws::gradient_is_exact(&product, &model);
        laws::gradient_is_exact(&product.balanced(0.2).unwrap(), &model);
        laws::draws_fit_the_density(&model, |data| with_data(&product, data));
    }

    /// Closures of all visibilities, through the baseline of stations 0 and 1, whose flux is known to be 1.2 Jy, too.
    fn through_a_known_baseline(observation: &Observation) -> LogClosureAmplitude {
        let is_known = |row: &Visibility| row.stations == [0, 1];
        let mut others = observation.clone();
        others.visibilities.retain(|row| !is_known(row));
        let mut place = 0..;
        let rows = observation.visibilities.iter();
        let places: Vec<_> = rows.map(|row| if is_known(row) { None } else { place.next() }).collect();
        let known = Known { flux: 1.2, error: 0.1 };
        let closures = LogClosureAmplitude::new(&others, 0.0, 0.0, 0.0).unwrap();
        closures.through(observation, [0.0, 0.0], &places, known).unwrap()
    }

    /// Gradient and draws of closures through a known baseline; they tell the absolute scale, whatever the gains.
    #[test]
    fn a_known_baseline_ties_log_closure_amplitudes_to_janskys() {
        let (mut observation, mut model) = observation();
        let known: Vec<usize> = (0..20).filter(|&k| observation.visibilities[k].stations == [0, 1]).collect();
        for k in known.iter().rev() {
            model.remove(*k);
        }
        let product = through_a_known_baseline(&observation);
        let without = LogClosureAmplitude::new(&observation, 0.0, 0.0, 0.0).unwrap().count();
        assert_eq!(product.count(), without);
        laws::gradient_is_exact(&product, &model);
        laws::gradient_is_exact(&product.balanced(0.2).unwrap(), &model);
        laws::draws_fit_the_density(&model, |data| with_data(&product, data));
        // Data are the model behind gains, and the known baseline sees its flux.
        let mut place = 0..;
        let gains = [1.3, 0.6, 1.1, 0.9, 2.0];
        for row in &mut observation.visibilities {
            let [a, b] = row.stations;
            let seen =
                if row.stations == [0, 1] { Complex64::from(1.2) } else { model[place.next().unwrap()] };
            row.value = gains[a] * gains[b] * seen;
            row.sigma = 1e-3 * row.value.norm();
        }
        let product = through_a_known_baseline(&observation);
        let misfit = |scale: f64| {
            let model: Vec<_> = model.iter().map(|value| scale * value).collect();
            product.residuals(&model).iter().map(|r| r * r).sum::<f64>()
        };
        assert!(misfit(1.0) < 1e-4 && misfit(1.2) > 0.5, "{} {}", misfit(1.0), misfit(1.2));
    }

    #[test]
    fn a_dark_image_gives_finite_log_closure_amplitudes() {
        let product = LogClosureAmplitude::new(&observation().0, 0.0, 0.0, 0.02).unwrap();
        laws::dark_images_have_finite_values(&product, product.rows + SHORT_SPACINGS);
    }

    /// Over many noises of weak visibilities the score averages to zero at the truth: nothing draws the image towards brighter ones.
    #[test]
    fn noise_of_visibilities_does_not_bias_the_model() {
        const DRAWS: usize = 4000;
        let (mut observation, model) = observation();
        for (row, exact) in observation.visibilities.iter_mut().zip(&model) {
            row.sigma = exact.norm() / (2.0 + row.stations[1] as f64);
        }
        let mut rng = Rng::new(3);
        let rows = observation.visibilities.len();
        let (mut sum, mut squares) = (vec![0.0; rows], vec![0.0; rows]);
        for _ in 0..DRAWS {
            for (row, exact) in observation.visibilities.iter_mut().zip(&model) {
                row.value = exact + row.sigma * Complex64::new(rng.normal(), rng.normal());
            }
            let product = LogClosureAmplitude::new(&observation, 0.0, 0.0, 0.0).unwrap();
            let mut gradient = vec![Complex64::ZERO; model.len()];
            product.log_prob(&model, &mut gradient);
            for k in 0..rows {
                let slope = (gradient[k] * model[k].conj()).re;
                sum[k] += slope;
                squares[k] += slope * slope;
            }
        }
        for k in 0..rows {
            let (mean, error) = (sum[k] / DRAWS as f64, squares[k].sqrt() / DRAWS as f64);
            assert!(mean.abs() < 4.5 * error, "{k}: {mean} +- {error}");
        }
    }
}
