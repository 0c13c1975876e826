//! Log closure amplitudes.

use rustfft::num_complex::Complex64;

use super::{
    Product,
    closures::Sums,
    log_amplitudes::LogAmplitudes,
    noise::{self, Known, Noise},
};
use crate::{
    Error, Result,
    instrument::vlbi::{
        Observation,
        closure::{above_noise, independent_quadrangles},
        products::{MeasuredClosure, log_closure_amplitude_fit, log_closure_amplitudes},
    },
    rng::Rng,
};

/// Log closure amplitudes of all time stamps, with the density of [`super::log_amplitudes`].
///
/// Chi-square is eht-imaging's: its minimal set of what is well measured, debiased, with the measured errors, taken as independent.
#[derive(Debug, Clone)]
pub struct LogClosureAmplitude {
    sums: LogAmplitudes,
    minimal: Vec<MeasuredClosure<4>>,
    rows: usize,
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
        let places: Vec<_> = (0..rows).map(Some).collect();
        let noises = Noise::all(observation, systematic, &places, None, 0);
        let sums = closures(observation, &kept, &numbers)?;
        if sums.is_empty() {
            return Err(Error::config(
                "data",
                "no quadrangle of well-measured visibilities at any time; lower vlbi.amplitude_snr_cut or leave log_closure_amplitude out of vlbi.data",
            ));
        }
        Ok(Self { sums: LogAmplitudes::new(sums, &noises, 0), minimal, rows })
    }

    /// The same with closures through `all` visibilities: those that are `known`, with the same error at all times, and those of the
    /// model at their `places` in it. Chi-square stays that of the minimal set without the known ones.
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
        for (row, number) in kept.visibilities.iter_mut().zip(&numbers) {
            if places[*number].is_none() {
                row.sigma = row.sigma.hypot(known.error * row.value.norm());
            }
        }
        let noises = Noise::all(all, systematic, places, Some(known), 0);
        Ok(Self { sums: LogAmplitudes::new(closures(all, &kept, &numbers)?, &noises, 1), ..self })
    }
}

/// The independent closures of the visibilities that are `kept`, whose `numbers` among all of the observation are given.
fn closures(observation: &Observation, kept: &Observation, numbers: &[usize]) -> Result<Vec<Sums>> {
    let values = noise::measured(observation);
    let sets = independent_quadrangles(kept)?;
    sets.iter().try_for_each(|set| set.whitener().map(|_| ()))?;
    Ok(sets.into_iter().map(|set| Sums::new(set.renumbered(numbers), &values)).collect())
}

impl Product for LogClosureAmplitude {
    const NAME: &'static str = "log_closure_amplitude";
    const SINGULAR: bool = false;

    fn count(&self) -> usize {
        self.sums.count()
    }

    fn visibilities(&self) -> usize {
        self.rows
    }

    fn balanced(&self, noise: f64) -> Option<Self> {
        Some(Self { sums: self.sums.balanced(noise), ..self.clone() })
    }

    fn log_prob(&self, model: &[Complex64], gradient: &mut [Complex64]) -> f64 {
        self.sums.log_prob(model, gradient)
    }

    fn residuals(&self, model: &[Complex64]) -> Vec<f64> {
        self.sums.residuals(model)
    }

    fn chi2(&self, model: &[Complex64]) -> f64 {
        log_closure_amplitude_fit(&self.minimal, model).map_or(f64::NAN, |fit| fit.chi2)
    }

    fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64> {
        self.sums.draw(model, rng)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{SHORT_SPACINGS, closures::example::observation, laws},
        *,
    };
    use crate::instrument::vlbi::Visibility;

    fn with_data(product: &LogClosureAmplitude, data: Option<&[f64]>) -> LogClosureAmplitude {
        match data {
            Some(data) => {
                LogClosureAmplitude { sums: product.sums.clone().with_data(data), ..product.clone() }
            }
            None => product.clone(),
        }
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
