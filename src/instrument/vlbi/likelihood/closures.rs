//! Closures of station-based errors with the covariance of their noise, whatever they are the closures of.

use std::{fmt::Debug, marker::PhantomData};

use nalgebra::{DMatrix, DVector};
use rustfft::num_complex::Complex64;

use super::{FAINTEST, Product};
use crate::{
    Error, Result,
    instrument::vlbi::{
        Observation,
        average::time_stamps,
        closure::{ClosureSet, above_noise, whiten},
        products::MeasuredClosure,
    },
    rng::Rng,
};

/// What closures of `N` visibilities sum: one real quantity of each visibility, and the density of the sums' noise.
pub trait Quantity<const N: usize>: Debug + Clone + Send + Sync + 'static {
    /// Name of the data product.
    const NAME: &'static str;
    /// What is missing, and what to do, where no closure can be formed.
    const REMEDY: &'static str;

    /// The quantity of a visibility.
    fn of(visibility: &Complex64) -> f64;

    /// Its derivatives by the real and imaginary part; finite at zero.
    fn slope(visibility: &Complex64) -> Complex64;

    /// Independent closures of each time stamp.
    ///
    /// # Errors
    /// A visibility without amplitude or noise.
    fn independent(observation: &Observation) -> Result<Vec<ClosureSet<N>>>;

    /// The minimal set of eht-imaging.
    fn minimal(observation: &Observation) -> Vec<MeasuredClosure<N>>;

    /// Chi-square per datum of the minimal set, as in eht-imaging; none without data.
    fn chi2(minimal: &[MeasuredClosure<N>], model: &[Complex64]) -> Option<f64>;

    /// The difference of data and model as a residual.
    fn residual(difference: f64) -> f64;

    /// -2 log density of the differences `d` whose noise has the inverse covariance `precision`, and half its gradient.
    fn misfit(d: &DVector<f64>, precision: &DMatrix<f64>) -> (f64, DVector<f64>);

    /// Noise drawn from that density; `lower` is the Cholesky factor of the covariance.
    fn noise(precision: &DMatrix<f64>, lower: &DMatrix<f64>, rng: &mut Rng) -> DVector<f64>;
}

/// Measured closures of one time stamp and the density of their noise.
#[derive(Debug, Clone)]
pub(super) struct Measured<const N: usize> {
    set: ClosureSet<N>,
    pub(super) data: DVector<f64>,
    precision: DMatrix<f64>,
    lower: DMatrix<f64>,
}

impl<const N: usize> Measured<N> {
    /// Closures of `values`, one per visibility.
    fn new(set: ClosureSet<N>, values: &[f64]) -> Result<Self> {
        let (precision, lower) = set.whitener()?;
        let data = set.closures.iter().map(|closure| closure.sum(values));
        let data = DVector::from_iterator(set.closures.len(), data);
        Ok(Self { set, data, precision, lower })
    }

    /// Data minus the closures of `values`.
    fn differences(&self, values: &[f64]) -> DVector<f64> {
        let pairs = self.set.closures.iter().zip(&self.data);
        DVector::from_iterator(self.data.len(), pairs.map(|(closure, data)| data - closure.sum(values)))
    }

    /// Renumbers the visibilities to their `places` in the model; those without a place have the quantity `known`.
    fn settle(&mut self, places: &[Option<usize>], known: f64) {
        for (closure, data) in self.set.closures.iter_mut().zip(self.data.iter_mut()) {
            for (index, factor) in &mut closure.terms {
                match places[*index] {
                    Some(place) => *index = place,
                    None => {
                        *data -= *factor * known;
                        (*index, *factor) = (0, 0.0);
                    }
                }
            }
        }
    }

    /// Adds the derivatives of the closures, times `slope` each, to those of the values they sum.
    fn pull_back(&self, slope: &DVector<f64>, gradient: &mut [f64]) {
        for (closure, slope) in self.set.closures.iter().zip(slope.iter()) {
            for (index, factor) in closure.terms {
                gradient[index] += factor * slope;
            }
        }
    }
}

/// Closures of the quantity `Q` of all time stamps.
///
/// Closures that share a baseline are correlated; `Q` gives the density of one time stamp's independent set.
#[derive(Debug, Clone)]
pub struct Closures<Q, const N: usize> {
    pub(super) sets: Vec<Measured<N>>,
    minimal: Vec<MeasuredClosure<N>>,
    rows: usize,
    quantity: PhantomData<Q>,
}

/// A visibility whose true amplitude is known: that of the whole source at a spacing too short to resolve it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Known {
    /// Flux density, Jy.
    pub flux: f64,
    /// Fractional error, one for all times.
    pub error: f64,
}

impl<Q: Quantity<N>, const N: usize> Closures<Q, N> {
    /// Closures of all visibilities with |V| >= `snr_cut` sigma.
    ///
    /// # Errors
    /// No closure, or a visibility without amplitude or noise.
    pub fn new(observation: &Observation, snr_cut: f64) -> Result<Self> {
        let (kept, numbers) = above_noise(observation, snr_cut);
        let sets: Vec<_> = Q::independent(&kept)?
            .into_iter()
            .map(|set| Measured::new(set.renumbered(&numbers), &quantities::<Q, N>(observation)))
            .collect::<Result<_>>()?;
        if sets.is_empty() {
            return Err(Error::config("data", Q::REMEDY));
        }
        let minimal = Q::minimal(&kept).into_iter().map(|closure| closure.renumbered(&numbers)).collect();
        Ok(Self { sets, minimal, rows: observation.visibilities.len(), quantity: PhantomData })
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
        snr_cut: f64,
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
        let value = Q::of(&Complex64::from(known.flux));
        let settled = |set: ClosureSet<N>| {
            let mut measured = Measured::new(set.renumbered(&numbers), &quantities::<Q, N>(all))?;
            measured.settle(places, value);
            Ok(measured)
        };
        let sets = Q::independent(&kept)?.into_iter().map(settled).collect::<Result<_>>()?;
        Ok(Self { sets, ..self })
    }
}

fn quantities<Q: Quantity<N>, const N: usize>(observation: &Observation) -> Vec<f64> {
    observation.visibilities.iter().map(|row| Q::of(&row.value)).collect()
}

impl<Q: Quantity<N>, const N: usize> Product for Closures<Q, N> {
    const NAME: &'static str = Q::NAME;
    const SINGULAR: bool = true;

    fn count(&self) -> usize {
        self.sets.iter().map(|measured| measured.data.len()).sum()
    }

    fn visibilities(&self) -> usize {
        self.rows
    }

    fn log_prob(&self, model: &[Complex64], gradient: &mut [Complex64]) -> f64 {
        let values: Vec<f64> = model.iter().map(Q::of).collect();
        let mut slopes = vec![0.0; model.len()];
        let mut sum = 0.0;
        for measured in &self.sets {
            let (misfit, slope) = Q::misfit(&measured.differences(&values), &measured.precision);
            sum += misfit;
            // The difference falls as the model's closure rises, and log p = -misfit / 2.
            measured.pull_back(&slope, &mut slopes);
        }
        for ((gradient, slope), value) in gradient.iter_mut().zip(slopes).zip(model) {
            *gradient += slope * Q::slope(value);
        }
        -0.5 * sum
    }

    fn residuals(&self, model: &[Complex64]) -> Vec<f64> {
        let values: Vec<f64> = model.iter().map(Q::of).collect();
        let whitened = |measured: &Measured<N>| {
            let residuals = measured.differences(&values).map(Q::residual);
            whiten(&measured.lower, residuals.as_slice().to_vec())
        };
        self.sets.iter().flat_map(whitened).collect()
    }

    fn chi2(&self, model: &[Complex64]) -> f64 {
        Q::chi2(&self.minimal, model).unwrap_or(f64::NAN)
    }

    fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64> {
        let values: Vec<f64> = model.iter().map(Q::of).collect();
        let mut draws = Vec::new();
        for Measured { set, precision, lower, .. } in &self.sets {
            let noise = Q::noise(precision, lower, rng);
            let closures = set.closures.iter().zip(noise.iter());
            draws.extend(closures.map(|(closure, noise)| Q::residual(closure.sum(&values) + noise)));
        }
        draws
    }
}

/// |V|^2, never zero.
pub(super) fn softened(value: &Complex64) -> f64 {
    value.norm_sqr() + FAINTEST * FAINTEST
}

#[cfg(test)]
pub(super) mod laws {
    //! What holds for closures of every quantity.

    use super::{
        super::{SHORT_SPACINGS, laws},
        *,
    };
    use crate::instrument::vlbi::{Station, Visibility};

    /// Five stations at two times with 5 % noise, and a model that differs by about that.
    fn observation() -> (Observation, Vec<Complex64>) {
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

    fn replace<const N: usize>(sets: &mut [Measured<N>], data: &[f64]) {
        let mut data = data.iter();
        for measured in sets {
            measured.data.iter_mut().zip(&mut data).for_each(|(old, new)| *old = *new);
        }
    }

    pub(in super::super) fn gradient_and_draws_fit_the_density<Q: Quantity<N>, const N: usize>() {
        let (observation, model) = observation();
        let product = Closures::<Q, N>::new(&observation, 0.0).unwrap();
        laws::gradient_is_exact(&product, &model);
        laws::draws_fit_the_density(&model, |data| {
            let mut product = product.clone();
            data.inspect(|data| replace(&mut product.sets, data));
            product
        });
    }

    /// Closures of all visibilities, through the baseline of stations 0 and 1, whose flux is known to be 1.2 Jy, too.
    pub(super) fn through_a_known_baseline<Q: Quantity<N>, const N: usize>(
        observation: &Observation,
    ) -> Closures<Q, N> {
        let is_known = |row: &Visibility| row.stations == [0, 1];
        let mut others = observation.clone();
        others.visibilities.retain(|row| !is_known(row));
        let mut place = 0..;
        let rows = observation.visibilities.iter();
        let places: Vec<_> = rows.map(|row| if is_known(row) { None } else { place.next() }).collect();
        let known = Known { flux: 1.2, error: 0.1 };
        Closures::new(&others, 0.0).unwrap().through(observation, 0.0, &places, known).unwrap()
    }

    /// Gradient and draws of closures through a known baseline; they tell the absolute scale, whatever the gains.
    pub(in super::super) fn a_known_baseline_tells_the_scale<Q: Quantity<N>, const N: usize>() {
        let (mut observation, mut model) = observation();
        let known: Vec<usize> = (0..20).filter(|&k| observation.visibilities[k].stations == [0, 1]).collect();
        for k in known.iter().rev() {
            model.remove(*k);
        }
        let product = through_a_known_baseline::<Q, N>(&observation);
        let without = Closures::<Q, N>::new(&observation, 0.0).unwrap().count();
        assert_eq!(product.count(), without);
        laws::gradient_is_exact(&product, &model);
        laws::draws_fit_the_density(&model, |data| {
            let mut product = product.clone();
            data.inspect(|data| replace(&mut product.sets, data));
            product
        });
        // Data are the model behind gains, and the known baseline sees its flux.
        let mut place = 0..;
        let gains = [1.3, 0.6, 1.1, 0.9, 2.0];
        for row in &mut observation.visibilities {
            let [a, b] = row.stations;
            let seen =
                if row.stations == [0, 1] { Complex64::from(1.2) } else { model[place.next().unwrap()] };
            row.value = gains[a] * gains[b] * seen;
        }
        let product = through_a_known_baseline::<Q, N>(&observation);
        let misfit = |scale: f64| {
            let model: Vec<_> = model.iter().map(|value| scale * value).collect();
            product.residuals(&model).iter().map(|r| r * r).sum::<f64>()
        };
        assert!(misfit(1.0) < 1e-20 && misfit(1.2) > 0.5, "{} {}", misfit(1.0), misfit(1.2));
    }

    pub(in super::super) fn a_dark_image_gives_finite_values<Q: Quantity<N>, const N: usize>() {
        let product = Closures::<Q, N>::new(&observation().0, 0.0).unwrap();
        let dark = vec![Complex64::ZERO; product.visibilities() + SHORT_SPACINGS];
        let mut gradient = dark.clone();
        assert!(product.log_prob(&dark, &mut gradient).is_finite());
        assert!(gradient.iter().all(|value| value.is_finite()));
        assert!(product.residuals(&dark).iter().all(|value| value.is_finite()));
    }
}
