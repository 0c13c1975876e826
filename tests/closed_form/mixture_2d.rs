//! Two-dimensional mixtures with one noisy projection: mode weights and spread within modes.

use antumbra::{
    compute::Compute,
    instrument::{Problem, exact::projection},
    posterior::{
        Draws, Solver,
        chains::{rhat, rhat_of_groups},
        gibbs::{Gibbs, GibbsSettings},
        langevin::{Langevin, LangevinSettings},
        ppm::{AuxiliarySettings, Ppm, PpmSettings},
    },
    prior::{
        draw::draws,
        mixture::{Component, Mixture, Posterior},
    },
    rng::Rng,
};
use candle_core::DType;
use nalgebra::{Cholesky, DVector};

/// Standard deviation within each mode of the prior.
const MODE_STD: f64 = 0.25;
/// Direction of the projection: no two modes share a projection by symmetry.
const DIRECTION: [f64; 2] = [0.9, 0.435_889_894_354_067_4];
const SIGMA: f64 = 0.5;

fn modes(means: impl Iterator<Item = [f64; 2]>) -> Mixture {
    let component = |mean: [f64; 2]| Component {
        weight: 1.0,
        mean: mean.into(),
        variances: vec![MODE_STD * MODE_STD; 2],
    };
    Mixture::new(means.map(component).collect(), [1, 1, 2], &Compute::cpu()).unwrap()
}

fn ring() -> Mixture {
    modes(
        (0..8)
            .map(|k| (f64::from(k) * std::f64::consts::FRAC_PI_4).sin_cos())
            .map(|(y, x)| [2.0 * x, 2.0 * y]),
    )
}

fn grid() -> Mixture {
    modes((0..9).map(|k| [2.0 * f64::from(k % 3) - 2.0, 2.0 * f64::from(k / 3) - 2.0]))
}

/// A data set, its exact posterior and the problem that a solver sees.
fn observe(prior: &Mixture, y: f64) -> (Problem, Vec<Posterior>) {
    let rows = [DIRECTION.to_vec()];
    let exact = prior.linear_posterior(&rows, &[y], SIGMA).unwrap();
    (projection(&rows, &[y], SIGMA, &Compute::cpu()).unwrap(), exact)
}

/// Total variation of the mode weights, and the spread within modes over the exact one along and across the
/// projection.
fn errors(draws: &Draws, exact: &[Posterior]) -> (f64, [f64; 2]) {
    let points = draws.images.reshape(((), 2)).unwrap().to_vec2::<f32>().unwrap();
    let mut counts = vec![0.0; exact.len()];
    let mut squares = [0.0; 2];
    let axes = [DIRECTION, [-DIRECTION[1], DIRECTION[0]]].map(|a| DVector::from_column_slice(&a));
    for point in &points {
        let point = DVector::from_vec(vec![f64::from(point[0]), f64::from(point[1])]);
        let log_density = |p: &Posterior| {
            let factor = Cholesky::new(p.covariance.clone()).unwrap();
            let offset = &point - &p.mean;
            p.weight.ln()
                - 0.5 * offset.dot(&factor.solve(&offset))
                - factor.l().diagonal().map(f64::ln).sum()
        };
        let best =
            (0..exact.len()).max_by(|&a, &b| log_density(&exact[a]).total_cmp(&log_density(&exact[b])));
        let mode = &exact[best.unwrap()];
        counts[best.unwrap()] += 1.0 / points.len() as f64;
        for (square, axis) in squares.iter_mut().zip(&axes) {
            let variance = (axis.transpose() * &mode.covariance * axis)[0];
            *square += axis.dot(&(&point - &mode.mean)).powi(2) / variance / points.len() as f64;
        }
    }
    let distance = 0.5 * counts.iter().zip(exact).map(|(c, p)| (c - p.weight).abs()).sum::<f64>();
    (distance, squares.map(f64::sqrt))
}

/// Particles enough for mode weights; as many steps as the auxiliary network needs to follow them closely.
fn settings() -> PpmSettings {
    let auxiliary =
        AuxiliarySettings { learning_rate: 1e-2, updates: 4, batch: 512, ..AuxiliarySettings::default() };
    PpmSettings { particles: 1024, steps: 400, learning_rate: 0.003, auxiliary, ..PpmSettings::default() }
}

/// Runs all steps of a solver.
fn finish(solver: &mut dyn Solver, problem: &Problem, prior: &Mixture, rng: &Rng) {
    for k in 0..solver.steps() {
        solver.step(problem, prior, &mut rng.stream("step", k as u64)).unwrap();
    }
}

/// Mode weights come from the particles, the spread within modes from the correction.
fn check(prior: &Mixture, y: f64, seed: u64) {
    let (problem, exact) = observe(prior, y);
    let rng = Rng::new(seed);
    let mut ppm = Ppm::new(settings(), prior, &rng, &Compute::cpu()).unwrap();
    finish(&mut ppm, &problem, prior, &rng);
    let (distance, spread) = errors(&ppm.draws().unwrap(), &exact);
    println!("particles: total variation {distance:.3}, spread along and across the data {spread:.3?}");
    assert!(distance <= 0.05, "mode weights of the particles");
    let settings = LangevinSettings { anneal: 0, iterations: 200, draws: 4, ..LangevinSettings::default() };
    let mut langevin = Langevin::new(settings, ppm.draws().unwrap().images).unwrap();
    finish(&mut langevin, &problem, prior, &rng.stream("langevin", 0));
    let (distance, spread) = errors(&langevin.draws().unwrap(), &exact);
    println!("corrected: total variation {distance:.3}, spread along and across the data {spread:.3?}");
    assert!(distance <= 0.05, "mode weights");
    assert!(spread.iter().all(|ratio| (0.9..=1.1).contains(ratio)), "spread within modes");
}

/// At its final coupling a chain never leaves its mode; over cycles it visits all of them by their weights, here with falls
/// twice as slow as by default, whose weights are not quite right.
#[test]
fn annealing_cycles_carry_chains_from_mode_to_mode() {
    let prior = ring();
    let (problem, exact) = observe(&prior, 1.0);
    let settings = GibbsSettings { cycles: 12, anneal: 144, denoise: 8, ..Default::default() };
    let rng = Rng::new(3);
    let start = draws(&prior, 256, 18, &mut rng.stream("start", 0), &Compute::cpu()).unwrap();
    let mut gibbs = Gibbs::new(settings, start).unwrap();
    finish(&mut gibbs, &problem, &prior, &rng);
    let found = gibbs.draws().unwrap();
    let (distance, spread) = errors(&found, &exact);
    let along = found.images.flatten_from(1).unwrap().narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
    let along: Vec<f64> = along.to_dtype(DType::F64).unwrap().to_vec1().unwrap();
    let rhat = rhat(&found.by_chain(&along)).max(rhat_of_groups(&found.by_time(&along)));
    println!("total variation {distance:.3}, spread {spread:.3?}, R-hat {rhat:.3}");
    assert!(distance <= 0.05, "mode weights");
    assert!(spread.iter().all(|ratio| (0.9..=1.1).contains(ratio)), "spread within modes");
    assert!(rhat < 1.1, "mixing");
}

#[test]
fn ring_of_eight_modes() {
    check(&ring(), 1.0, 1);
}

#[test]
fn grid_of_nine_modes() {
    check(&grid(), 0.7, 2);
}
