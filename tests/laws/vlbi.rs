//! What holds for the interferometer's problem whatever the data are.

use crate::devices;
use antumbra::compute::Compute;
use antumbra::grid::Grid;
use antumbra::instrument::Problem;
use antumbra::instrument::vlbi::{
    Observation, Vlbi,
    array::{Array, Schedule, Source},
    gains::{GainModel, GainSpreads, PhaseGains, SkyModel, simulate},
    problem::{DataProduct, problem},
};
use antumbra::prior::Scaling;
use antumbra::rng::Rng;
use antumbra::tensor::value_and_gradient;
use candle_core::Tensor;

const SIDE: usize = 12;
/// Flux fractions; with a flux of 1.6 Jy one network unit is 0.08 Jy/pixel.
const FRACTION: Scaling = Scaling { unit: 0.05, dark: -0.5 };

/// A blob off the centre, seen by the EHT through random gains.
pub fn observation(seed: u64) -> Observation {
    let source = Source { name: "BLOB".into(), ra_deg: 187.7, dec_deg: 12.39, mjd: 57848.0 };
    let schedule = Schedule { start: 3.6e3, duration: 2.5e4, scan: 60.0, interval: 3600.0 };
    let like = Array::find("eht2017").unwrap().observe(&source, &schedule).unwrap();
    let grid = Vlbi { pixels: SIDE, ..Vlbi::default() }.grid().unwrap();
    let pixels = blob(&grid);
    let gains = GainModel { amplitudes: GainSpreads::default(), phases: PhaseGains::Scan, systematic: 0.0 };
    let model = SkyModel { pixels: &pixels, grid: &grid, pulse: Default::default() };
    simulate(&like, model, &gains, true, &Rng::new(seed)).unwrap()
}

fn blob(grid: &Grid) -> Vec<f64> {
    let (east, north) = (grid.east(), grid.north());
    let width = grid.pitch[1];
    let value = |y: &f64, x: &f64| 0.5 * (-((x - width) / width).powi(2) - (y / width).powi(2)).exp() + 1e-4;
    north.iter().flat_map(|y| east.iter().map(move |x| value(y, x))).collect()
}

pub(super) fn all_products(data: &Observation, compute: &Compute) -> Problem {
    use DataProduct::*;
    let settings = Vlbi {
        data: vec![Visibility, Amplitude, ClosurePhase, LogAmplitude, LogClosureAmplitude, Flux],
        pixels: SIDE,
        flux: Some(antumbra::units::Flux(1.6)),
        ..Vlbi::default()
    };
    problem(data, &settings, FRACTION, compute).unwrap()
}

/// Images near the truth in network units, `[batch, 1, SIDE, SIDE]`.
fn images(batch: usize, compute: &Compute) -> Tensor {
    let grid = Vlbi { pixels: SIDE, ..Vlbi::default() }.grid().unwrap();
    let truth = compute.tensor(blob(&grid), &[1, 1, SIDE, SIDE]).unwrap();
    let noise = Rng::new(9).normals(&[batch, 1, SIDE, SIDE], compute).unwrap();
    let scaling = Scaling { unit: 1.6 * FRACTION.unit, ..FRACTION };
    scaling.to_network(&truth.broadcast_add(&(noise * 2e-3).unwrap()).unwrap()).unwrap()
}

#[test]
fn gradient_of_the_log_likelihood_agrees_with_finite_differences() {
    for compute in devices::double() {
        let problem = all_products(&observation(1), &compute);
        let x = images(2, &compute);
        let (_, gradient) = problem.log_likelihood_and_gradient(&x).unwrap();
        const STEP: f64 = 1e-4;
        for seed in 0..6 {
            let direction = Rng::new(seed).normals(x.dims(), &compute).unwrap();
            let moved =
                |step: f64| problem.log_likelihood(&(&x + (&direction * step).unwrap()).unwrap()).unwrap();
            let slope =
                ((moved(STEP) - moved(-STEP)).unwrap() / (2.0 * STEP)).unwrap().to_vec1::<f64>().unwrap();
            let exact = (&gradient * &direction).unwrap().flatten_from(1).unwrap().sum(1).unwrap();
            for (slope, exact) in slope.iter().zip(exact.to_vec1::<f64>().unwrap()) {
                assert!((slope - exact).abs() < 1e-5 * exact.abs().max(1.0), "{slope} {exact}");
            }
        }
    }
}

/// What a sampler asks for on the host is what differentiation finds.
#[test]
fn the_detached_gradient_of_a_product_is_that_of_its_tensors() {
    for compute in devices::double() {
        let problem = all_products(&observation(1), &compute);
        let predicted = problem.predict(&images(3, &compute)).unwrap();
        for likelihood in &problem.likelihoods {
            let (value, gradient) = likelihood.log_prob_and_gradient(&predicted).unwrap();
            let exact = value_and_gradient(&predicted, |predicted| likelihood.log_prob(predicted)).unwrap();
            let size = |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            for (found, exact) in [(value, exact.0), (gradient, exact.1)] {
                let difference = size(&(&found - &exact).unwrap());
                assert!(difference <= 1e-12 * size(&exact), "{}: {difference}", likelihood.name());
            }
        }
    }
}

#[test]
fn a_batch_is_its_images_one_by_one() {
    for compute in devices::single() {
        let problem = all_products(&observation(1), &compute);
        let x = images(3, &compute);
        let (values, gradients) = problem.log_likelihood_and_gradient(&x).unwrap();
        for b in 0..3 {
            let (value, gradient) = problem.log_likelihood_and_gradient(&x.narrow(0, b, 1).unwrap()).unwrap();
            let close = |a: &Tensor, b: &Tensor| {
                let difference =
                    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let size = b.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(difference <= 1e-5 * size, "{difference} {size}");
            };
            close(&values.narrow(0, b, 1).unwrap(), &value);
            close(&gradients.narrow(0, b, 1).unwrap(), &gradient);
        }
    }
}

#[test]
fn the_truth_fits_its_own_closures_and_station_gains_do_not_matter() {
    for compute in devices::double() {
        let grid = Vlbi { pixels: SIDE, ..Vlbi::default() }.grid().unwrap();
        let truth = compute.tensor(blob(&grid), &[1, 1, SIDE, SIDE]).unwrap();
        let mut total = [0.0; 2];
        const REPEATS: u64 = 20;
        for seed in 0..REPEATS {
            let flux = Some(antumbra::units::Flux(1.6));
            let total_flux = Some(antumbra::units::Flux(blob(&grid).iter().sum()));
            let total_flux_error = 1e-3;
            let settings =
                Vlbi { pixels: SIDE, systematic: 0.0, flux, total_flux, total_flux_error, ..Vlbi::default() };
            let problem = problem(&observation(seed), &settings, FRACTION, &compute).unwrap();
            let predicted = problem.forward.apply(&truth).unwrap();
            for (sum, likelihood) in total.iter_mut().zip(&problem.likelihoods) {
                let residuals = likelihood.residuals(&predicted).unwrap();
                *sum +=
                    residuals.sqr().unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap() / REPEATS as f64;
            }
        }
        println!("mean squared whitened residuals {total:?}");
        assert!(total.iter().all(|mean| (mean - 1.0).abs() < 0.15), "{total:?}");
    }
}
