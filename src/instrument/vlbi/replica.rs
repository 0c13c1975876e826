//! Data of another image by the model that a reconstruction assumes, so that its posterior can be checked against a truth.

use std::sync::Arc;

use rustfft::num_complex::Complex64;

use super::{
    Observation, Vlbi,
    gains::{GainModel, PhaseGains, observe},
    problem::{DataProduct, is_intra_site, likelihoods},
    products::model_visibilities,
};
use crate::{Result, grid::Grid, instrument::Likelihood, rng::Rng, units};

/// The data model of a reconstruction, apart from what was measured.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Coverage and thermal noise.
    coverage: Observation,
    /// Settings that take no flux density from the data any more.
    settings: Vlbi,
    /// Flux density that intra-site baselines see, Jy, and its fractional error.
    total: Option<[f64; 2]>,
}

impl Replica {
    /// The model that `settings` assume of `observation`.
    ///
    /// # Errors
    /// Fluxes that are out of range or cannot be told from the data.
    pub fn new(observation: &Observation, settings: &Vlbi) -> Result<Self> {
        let flux = settings.compact_flux(observation)?;
        let total = settings.known(observation)?;
        let settings = Vlbi {
            flux: Some(units::Flux(flux.value)),
            flux_sigma: Some(units::Flux(flux.sigma)),
            total_flux: total.map(|total| units::Flux(total.flux)).or(settings.total_flux),
            ..settings.clone()
        };
        let total = total.map(|total| [total.flux, total.error]);
        Ok(Self { coverage: observation.clone(), settings, total })
    }

    /// The likelihoods of data drawn around an image of `pixels`, Jy, in the order of `vlbi.data`.
    ///
    /// # Errors
    /// An image of another size than its grid, or data that a product cannot be formed from.
    pub fn likelihoods(&self, pixels: &[f64], grid: &Grid, rng: &Rng) -> Result<Vec<Arc<dyn Likelihood>>> {
        likelihoods(&self.observe(pixels, grid, rng)?, &self.settings)
    }

    /// Visibilities with thermal noise, the systematic errors that the likelihood allows for, and station gains as far as
    /// the data products are free of them; intra-site baselines see the total flux with its error.
    fn observe(&self, pixels: &[f64], grid: &Grid, rng: &Rng) -> Result<Observation> {
        let mut exact = model_visibilities(&self.coverage, pixels, grid, self.settings.pulse)?;
        if let Some([flux, error]) = self.total {
            let seen = flux * (error * rng.stream("total flux", 0).normal()).exp();
            let rows = exact.iter_mut().zip(&self.coverage.visibilities);
            rows.filter(|(_, row)| is_intra_site(row)).for_each(|(value, _)| *value = Complex64::from(seen));
        }
        Ok(observe(&self.coverage, exact, &self.gains(), true, rng))
    }

    fn gains(&self) -> GainModel {
        let fits = |product: DataProduct| self.settings.data.contains(&product);
        let systematic = self.settings.systematic;
        match (fits(DataProduct::Visibility), fits(DataProduct::Amplitude)) {
            (true, _) => GainModel { systematic, ..GainModel::NONE },
            (false, true) => GainModel { phases: PhaseGains::Scan, systematic, ..GainModel::NONE },
            (false, false) => {
                GainModel { amplitudes: self.settings.gains.clone(), phases: PhaseGains::Scan, systematic }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::*;
    use crate::{
        compute::Compute,
        instrument::vlbi::{
            array::{Array, Schedule, Source},
            problem::{IntraSite, problem},
        },
        prior::Scaling,
        units::MICROARCSECOND,
    };

    /// A bright ring of 12 Jy, and coverage with values so that a problem can be set up; they are never used.
    fn example() -> (Observation, Vec<f64>, Grid) {
        let source = Source { name: "M87".into(), ra_deg: 187.7, dec_deg: 12.39, mjd: 57848.0 };
        let schedule = Schedule { start: 3.6e3, duration: 2.5e4, scan: 60.0, interval: 3600.0 };
        let coverage = Array::find("eht2017").unwrap().observe(&source, &schedule).unwrap();
        let pixels = (0..256)
            .map(|i| ((i / 16) as f64 - 7.5, (i % 16) as f64 - 7.5))
            .map(|(y, x)| 0.3 * (-0.5 * (y.hypot(x) - 2.2).powi(2)).exp() * (1.0 + 0.1 * x))
            .collect();
        let ones = vec![Complex64::from(1.0); coverage.visibilities.len()];
        let grid = Grid::sky(16, 160.0 * MICROARCSECOND).unwrap();
        (observe(&coverage, ones, &GainModel::NONE, true, &Rng::new(1)), pixels, grid)
    }

    /// Over many data sets of one image, chi-square of the truth is 1 for all that is measured.
    #[test]
    fn drawn_data_fit_their_truth() {
        let (coverage, pixels, grid) = example();
        let settings = Vlbi {
            data: vec![
                DataProduct::ClosurePhase,
                DataProduct::LogClosureAmplitude,
                DataProduct::LogAmplitude,
                DataProduct::Flux,
            ],
            pixels: 16,
            flux: Some(units::Flux(12.0)),
            intra_site: IntraSite::Exclude,
            ..Vlbi::default()
        };
        let replica = Replica::new(&coverage, &settings).unwrap();
        let compute = Compute::cpu_f64();
        let built = problem(&coverage, &replica.settings, Scaling::IDENTITY, &compute).unwrap();
        let image = Tensor::from_vec(pixels.clone(), (1, 1, 16, 16), &compute.device).unwrap();
        let predicted = built.forward.apply(&image).unwrap();
        let mut squares = [[0.0; 2]; 3];
        for seed in 0..30 {
            let drawn = replica.likelihoods(&pixels, &grid, &Rng::new(seed)).unwrap();
            for (sum, likelihood) in squares.iter_mut().zip(&drawn) {
                let residuals = likelihood.residuals(&predicted).unwrap().sqr().unwrap();
                sum[0] += residuals.sum_all().unwrap().to_scalar::<f64>().unwrap();
                sum[1] += likelihood.count() as f64;
            }
        }
        for [sum, count] in squares {
            assert!((0.9..1.1).contains(&(sum / count)), "{squares:?}");
        }
    }

    #[test]
    fn intra_site_baselines_see_the_total_flux() {
        let (coverage, pixels, grid) = example();
        let settings = Vlbi { total_flux: Some(units::Flux(24.0)), ..Vlbi::default() };
        let data = Replica::new(&coverage, &settings).unwrap().observe(&pixels, &grid, &Rng::new(2)).unwrap();
        let seen: Vec<f64> =
            data.visibilities.iter().filter(|row| is_intra_site(row)).map(|row| row.value.norm()).collect();
        assert!(!seen.is_empty() && seen.iter().all(|flux| (10.0..50.0).contains(flux)), "{seen:?}");
        let longest = data.visibilities.iter().map(|row| row.u.hypot(row.v)).fold(0.0, f64::max);
        let far = data.visibilities.iter().find(|row| row.u.hypot(row.v) == longest).unwrap();
        assert!(far.value.norm() < 5.0, "{}", far.value.norm());
    }
}
