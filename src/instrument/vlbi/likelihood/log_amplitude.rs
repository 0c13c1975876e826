//! Log amplitudes of visibilities behind station gains of which a prior is known.

use nalgebra::DMatrix;
use rustfft::num_complex::Complex64;

use super::{
    Product,
    closures::Sums,
    log_amplitudes::LogAmplitudes,
    noise::{self, Known, Noise},
};
use crate::{
    Error, Result,
    instrument::vlbi::{Observation, average::time_stamps, gains::GainSpreads},
    rng::Rng,
};

/// Log amplitudes of all visibilities with the density of [`super::log_amplitudes`], each station's gain integrated out.
///
/// A station's log gain is Gaussian: an offset, the same at all times, and a scatter from time stamp to time stamp. The wider they are
/// the less is left but log closure amplitudes; without any the data are calibrated amplitudes.
#[derive(Debug, Clone)]
pub struct LogAmplitude {
    sums: LogAmplitudes,
    rows: usize,
}

impl LogAmplitude {
    /// Of `all` visibilities with |V| >= `snr_cut` sigma, of whose sigma the fraction `systematic` of |V| is no thermal noise, at their
    /// `places` in the model. Those without a place count where their flux density is `known`.
    ///
    /// # Errors
    /// No visibility above the noise.
    pub fn new(
        all: &Observation,
        [snr_cut, systematic]: [f64; 2],
        places: &[Option<usize>],
        known: Option<Known>,
        gains: &GainSpreads,
    ) -> Result<Self> {
        let spreads: Vec<_> = all.stations.iter().map(|station| gains.of(&station.code)).collect();
        let mut noises = Noise::all(all, systematic, places, known, spreads.len());
        for (noise, row) in noises.iter_mut().zip(&all.visibilities) {
            for station in row.stations {
                noise.errors[0].push((station, spreads[station].offset));
                noise.errors[1].push((station, spreads[station].scatter));
            }
        }
        let counts = |row: &usize| {
            let visibility = &all.visibilities[*row];
            (places[*row].is_some() || known.is_some())
                && visibility.value.norm() >= snr_cut * visibility.sigma
        };
        let values = noise::measured(all);
        let stamp = |range: std::ops::Range<usize>| {
            let visibilities: Vec<usize> = range.filter(counts).collect();
            let size = visibilities.len();
            let data = visibilities.iter().map(|&row| values[row]).collect::<Vec<_>>().into();
            (size > 0).then(|| Sums { data, visibilities, factors: DMatrix::identity(size, size) })
        };
        let sums: Vec<_> = time_stamps(all).into_iter().filter_map(stamp).collect();
        if sums.is_empty() {
            return Err(Error::config(
                "data",
                "no visibility above the noise; lower vlbi.amplitude_snr_cut or leave log_amplitude out of vlbi.data",
            ));
        }
        let rows = places.iter().flatten().count();
        Ok(Self { sums: LogAmplitudes::new(sums, &noises, spreads.len() + 1), rows })
    }
}

impl Product for LogAmplitude {
    const NAME: &'static str = "log_amplitude";
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

    /// The mean square of the residuals: what no gains within their prior explain.
    fn chi2(&self, model: &[Complex64]) -> f64 {
        self.residuals(model).iter().map(|residual| residual * residual).sum::<f64>() / self.count() as f64
    }

    fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64> {
        self.sums.draw(model, rng)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{LogClosureAmplitude, SHORT_SPACINGS, closures::example::observation, laws},
        *,
    };

    fn product(observation: &Observation, gains: &GainSpreads) -> LogAmplitude {
        let places: Vec<_> = (0..observation.visibilities.len()).map(Some).collect();
        LogAmplitude::new(observation, [0.0, 0.01], &places, None, gains).unwrap()
    }

    fn spreads(offset: f64, scatter: f64) -> GainSpreads {
        GainSpreads { offset, scatter, stations: [].into() }
    }

    #[test]
    fn log_amplitudes_have_gradient_and_draws_of_their_density() {
        let (observation, model) = observation();
        for gains in [spreads(0.1, 0.05), spreads(0.3, 0.0), spreads(0.0, 0.0)] {
            let product = product(&observation, &gains);
            laws::gradient_is_exact(&product, &model);
            laws::gradient_is_exact(&product.balanced(0.2).unwrap(), &model);
            laws::dark_images_have_finite_values(&product, product.rows + SHORT_SPACINGS);
        }
    }

    /// Errors that time stamps share have the density of one Gaussian with the whole covariance, and draws of it.
    #[test]
    fn shared_gains_are_integrated_out() {
        let (observation, model) = observation();
        let product = product(&observation, &spreads(0.2, 0.1));
        laws::draws_fit_the_density(&model, |data| match data {
            Some(data) => LogAmplitude { sums: product.sums.clone().with_data(data), ..product.clone() },
            None => product.clone(),
        });
        let rows = observation.visibilities.len();
        let exact = |scale: f64| {
            let model: Vec<_> = model.iter().map(|value| value * scale).collect();
            let noises = Noise::all(&observation, 0.01, &vec![Some(0); rows], None, 0);
            let mut covariance = DMatrix::zeros(rows, rows);
            for (i, one) in observation.visibilities.iter().enumerate() {
                for (j, other) in observation.visibilities.iter().enumerate() {
                    let shared = one.stations.iter().filter(|station| other.stations.contains(station));
                    let same = if one.time == other.time { 0.01 } else { 0.0 };
                    covariance[(i, j)] = shared.count() as f64 * (0.04 + same);
                }
                covariance[(i, i)] += noises[i].moments(model[i].norm()).variance;
            }
            let misfit = nalgebra::DVector::from_fn(rows, |i, _| {
                observation.visibilities[i].value.norm().ln() - noises[i].moments(model[i].norm()).mean
            });
            let whitened = covariance.clone().try_inverse().unwrap() * &misfit;
            (-0.5 * (misfit.dot(&whitened) + covariance.determinant().ln()), misfit.dot(&whitened), model)
        };
        let value = |model: &[Complex64]| product.log_prob(model, &mut vec![Complex64::ZERO; model.len()]);
        let [(one, _, first), (two, squares, second)] = [1.0, 0.8].map(exact);
        let change = value(&second) - value(&first);
        assert!((change - (two - one)).abs() < 1e-8, "{change} {}", two - one);
        let residuals: f64 = product.residuals(&second).iter().map(|residual| residual * residual).sum();
        assert!((residuals - squares).abs() < 1e-8 * squares, "{residuals} {squares}");
    }

    /// Gains of no known size leave log closure amplitudes; gains that are known tell the flux.
    #[test]
    fn wide_gains_leave_closures() {
        let (observation, model) = observation();
        let closures = LogClosureAmplitude::new(&observation, 0.0, 0.0, 0.01).unwrap();
        let bright: Vec<_> = model.iter().map(|value| value * 1.3).collect();
        let other: Vec<_> =
            model.iter().enumerate().map(|(k, value)| value * (1.0 + 0.02 * (k % 3) as f64)).collect();
        let change =
            |product: &dyn Fn(&[Complex64]) -> f64, moved: &[Complex64]| product(moved) - product(&model);
        let wide = product(&observation, &spreads(0.0, 30.0));
        let value = |product: &LogAmplitude, model: &[Complex64]| {
            product.log_prob(model, &mut vec![Complex64::ZERO; model.len()])
        };
        let of_closures =
            |model: &[Complex64]| closures.log_prob(model, &mut vec![Complex64::ZERO; model.len()]);
        for moved in [&bright, &other] {
            let [amplitudes, closed] = [change(&|m| value(&wide, m), moved), change(&of_closures, moved)];
            assert!((amplitudes - closed).abs() < 0.02 * (1.0 + closed.abs()), "{amplitudes} {closed}");
        }
        let narrow = product(&observation, &spreads(0.05, 0.02));
        assert!(change(&|m| value(&narrow, m), &bright) < -4.0);
    }
}
