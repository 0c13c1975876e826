//! Rivals on exact beds: the biases they are known for, and exactness where it is claimed.

use std::sync::Arc;

use antumbra::{
    compute::Compute,
    grid::Grid,
    instrument::{
        Problem,
        exact::{Filter, Normal},
    },
    posterior::{
        SolverSettings,
        beds::{Bed, Component, Covariance, Diagonal, LinearPosterior, Outcome, Score, measure, settings},
    },
    prior::{Denoiser, Scaling, gaussian::Gaussian},
    rng::Rng,
    tensor::fft::circular_convolve,
};
use candle_core::{DType, Tensor};

/// Runs a solver with settings changed by YAML on a bed.
pub(super) fn images(name: &str, changes: &str, bed: &Bed, draws: usize) -> Tensor {
    seeded(5, name, changes, bed, draws)
}

fn seeded(seed: u64, name: &str, changes: &str, bed: &Bed, draws: usize) -> Tensor {
    let mut solver: SolverSettings = serde_yaml::from_str(&format!("name: {name}\n{changes}")).unwrap();
    solver.set_chains(draws);
    run(&solver, &bed.problem, bed.prior.as_ref(), seed)
}

/// Draws of a whole run of a solver.
pub(super) fn run(settings: &SolverSettings, problem: &Problem, prior: &dyn Denoiser, seed: u64) -> Tensor {
    let (rng, compute) = (Rng::new(seed), Compute::cpu());
    let mut solver = settings.build(problem, prior, &rng, &compute).unwrap();
    for step in 0..solver.steps() {
        solver.step(problem, prior, &mut rng.stream("step", step as u64)).unwrap();
    }
    solver.draws().unwrap().images
}

/// Mean and standard deviation of one-dimensional draws.
pub(super) fn moments(images: &Tensor) -> (f64, f64) {
    let values: Vec<f64> = images.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt())
}

pub(super) fn bed(name: &str) -> Bed {
    Bed::named(name, &Rng::new(1), &Compute::cpu()).unwrap()
}

fn score(bed: &Bed, name: &str, draws: usize) -> Score {
    let row = measure(bed, &settings(name).unwrap(), draws, &Rng::new(3), &Compute::cpu()).unwrap();
    println!("{row:?}");
    match row.outcome {
        Outcome::Draws(score) => score,
        Outcome::Failed(reason) => panic!("{reason}"),
    }
}

fn score_of(bed: &Bed, images: &Tensor) -> Score {
    let exact = bed.draws(images.dim(0).unwrap(), &mut Rng::new(4)).unwrap();
    antumbra::posterior::beds::score(bed, images, &exact).unwrap()
}

/// Prior N(0, 1), y = 1.5 with noise 0.5. Reported elsewhere: exact 1.200 and 0.447, DPS 1.452 and 0.356, moment
/// matching 1.179 and 0.446, both means 0.02 below those of the continuous equations (1.473 and 1.200), which is the
/// Monte-Carlo error of some 500 draws.
#[test]
fn dps_is_biased_and_moment_matching_is_not() {
    let bed = bed("gaussian-1d");
    let steps = "schedule:\n  steps: 1000\n";
    for (name, reported, exact) in
        [("dps", (1.452, 0.356), (1.473, 0.353)), ("moment_matching", (1.179, 0.446), (1.2, 0.447))]
    {
        let (mean, std) = moments(&images(name, steps, &bed, 4000));
        println!("{name}: {mean:.3} {std:.3}, reported {reported:?}, continuous equation {exact:?}");
        assert!((mean - reported.0).abs() < 0.045 && (std - reported.1).abs() < 0.02, "{name}: {mean} {std}");
        assert!((mean - exact.0).abs() < 0.025 && (std - exact.1).abs() < 0.02, "{name}: {mean} {std}");
    }
}

/// Methods that are exact for Gaussian priors and many steps have the spread of the random field, and conjugate gradients
/// of enough iterations its posterior.
#[test]
fn moment_matching_is_exact_on_a_random_field() {
    let bed = bed("field-vlbi-32");
    let found = score_of(&bed, &images("moment_matching", "iterations: 8\nschedule: {steps: 100}", &bed, 24));
    assert!((0.93..1.07).contains(&found.spread_measured.unwrap()), "{found:?}");
    assert!((0.93..1.07).contains(&found.spread_unmeasured.unwrap()), "{found:?}");
}

/// A random field of 4 x 4 pixels, of which the 9 slowest Fourier modes are seen.
fn small_field() -> Bed {
    const SIDE: usize = 4;
    const SIGMA: f64 = 0.3;
    let (compute, mut rng) = (Compute::cpu(), Rng::new(6));
    let frequency = |i: usize| {
        let part = |k: usize| k.min(SIDE - k) as f64 / SIDE as f64;
        part(i / SIDE).hypot(part(i % SIDE))
    };
    let gains: Vec<f64> = (0..SIDE * SIDE).map(|i| f64::from(u8::from(frequency(i) < 0.4))).collect();
    let prior = Gaussian::periodic([SIDE, SIDE], |f| 2.0 / (1.0 + (f / 0.2).powi(2)), &compute).unwrap();
    let covariance = Diagonal::Fourier(prior.variances().to_vec(), [SIDE, SIDE], compute.clone());
    let truth = covariance.deviations(1, &mut rng).unwrap();
    let noise = (rng.normals(truth.dims(), &compute).unwrap() * SIGMA).unwrap();
    let data = (circular_convolve(&truth, &gains).unwrap() + noise).unwrap().flatten_from(1).unwrap();
    let problem = Problem {
        forward: Arc::new(Filter { grid: Grid::sky(SIDE, 1e-9).unwrap(), gains }),
        likelihoods: vec![Arc::new(Normal { data, sigma: SIGMA })],
        scaling: Scaling::IDENTITY,
    };
    let mean = truth.zeros_like().unwrap();
    let component = Component { weight: 1.0, mean, covariance: Arc::new(covariance) };
    let exact = LinearPosterior::new(&problem, vec![component], &compute).unwrap();
    let summary = "a random field, 9 of its 16 Fourier modes";
    Bed { name: "field-4", summary, prior: Box::new(prior), problem, exact, draws: 1000 }
}

/// A trained posterior denoiser in the coordinates of a Fourier transform, against one that is not trained.
#[test]
fn the_posterior_score_of_a_random_field_is_learned() {
    let bed = small_field();
    let exact = bed.draws(4000, &mut Rng::new(4)).unwrap().mean_keepdim(0).unwrap();
    let size = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    let learned = |training: usize| {
        let rest = "schedule: {steps: 200}\nimages: 4096\nbatch: 128\nlearning_rate: 2e-3";
        let found = images("eps", &format!("training: {training}\n{rest}"), &bed, 1000);
        let error = size(&(found.mean_keepdim(0).unwrap() - &exact).unwrap()) / size(&exact);
        (error, score_of(&bed, &found))
    };
    let ((poor, _), (error, found)) = (learned(1), learned(1000));
    println!("eps: mean off by {error:.3}, by {poor:.3} without training; {found:?}");
    assert!(error < 0.1 && error < 0.6 * poor, "{error} {poor}");
    assert!((0.88..1.06).contains(&found.spread_measured.unwrap()), "{found:?}");
    assert!((0.88..1.06).contains(&found.spread_unmeasured.unwrap()), "{found:?}");
}

/// A trained posterior denoiser in the coordinates of a singular-value decomposition: one coordinate, and the
/// weights of modes on a ring.
#[test]
fn the_posterior_score_is_learned() {
    let (mean, std) = moments(&images("eps", "", &bed("gaussian-1d"), 2000));
    println!("eps: {mean:.3} {std:.3}; exact 1.200, 0.447");
    assert!((mean - 1.2).abs() < 0.03 && (std - 0.447).abs() < 0.03, "{mean} {std}");
    let bed = bed("ring-2d");
    let found = score_of(&bed, &images("eps", "images: 8192\ntraining: 4000", &bed, 1000));
    println!("eps: {found:?}");
    assert!(found.mode_error.unwrap() < 0.08, "{found:?}");
}

/// Both stand-ins for the prior's density fit a Gaussian; the bound with its noise.
#[test]
fn flows_fit_a_gaussian() {
    for prior in ["score", "bound"] {
        let changes = format!("prior: {prior}\nschedule: {{steps: 2000, largest: 3.0, smallest: 0.05}}");
        let (mean, std) = moments(&images("flow", &changes, &bed("gaussian-1d"), 4000));
        println!("flow by {prior}: {mean:.3} {std:.3}; exact 1.200, 0.447");
        assert!((mean - 1.2).abs() < 0.06 && (std / 0.447 - 1.0).abs() < 0.12, "{prior}: {mean} {std}");
    }
}

/// The mean of weighted particles comes closer to the posterior's as they grow in number: slowly for twists that are
/// narrower than the data's predictive density, whose weights have heavy tails.
#[test]
fn exact_methods_converge_with_the_number_of_particles() {
    let bed = bed("gaussian-1d");
    let cases = [
        ("mcgdiff", 1024, 0.4),
        ("afdps_sde", 1024, 0.4),
        ("afdps_ode", 1024, 0.4),
        ("fk_corrector", 1024, 0.4),
        ("tds", 4096, 0.6),
    ];
    for (name, particles, share) in cases {
        let error = |particles: usize| {
            let square = |seed| {
                let changes = "schedule: {steps: 100}";
                (moments(&seeded(seed, name, changes, &bed, particles)).0 - 1.2).powi(2)
            };
            ((0..8).map(square).sum::<f64>() / 8.0).sqrt()
        };
        let (few, many) = (error(16), error(particles));
        println!("{name}: root mean square error of the mean {few:.3} with 16, {many:.3} with {particles}");
        assert!(
            many < share * few && many < 0.12,
            "{name}: {few} with few, {many} with {particles} particles"
        );
    }
}

/// So do the weights of modes.
#[test]
fn particles_find_the_weights_of_modes() {
    let bed = bed("ring-2d");
    for name in ["mcgdiff", "afdps_ode"] {
        let found = score_of(&bed, &images(name, "", &bed, 2048));
        println!("{name}: {found:?}");
        assert!(found.mode_error.unwrap() < 0.07, "{name}: {found:?}");
    }
}

/// Points that only descend keep none of the spread along the data and miss the weights of modes; repulsion gives a
/// spread that is not the posterior's.
#[test]
fn descents_collapse() {
    let bed = bed("ring-2d");
    for name in ["red_diff", "sds"] {
        let found = score(&bed, name, 200);
        assert!(found.spread_measured.unwrap() < 0.3 && found.mode_error.unwrap() > 0.3, "{name}: {found:?}");
    }
    let found = score(&bed, "rlsd", 200);
    let spread = [found.spread_measured.unwrap(), found.spread_unmeasured.unwrap()];
    assert!(spread.iter().any(|ratio| (ratio - 1.0).abs() > 0.2), "{found:?}");
}
