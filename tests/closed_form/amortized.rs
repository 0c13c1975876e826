//! The amortised family against exact posteriors: data that it was not fitted to, an interferometer, a microscope.

use std::sync::Arc;

use antumbra::{
    compute::Compute,
    grid::Grid,
    instrument::{
        Problem,
        density::Data,
        exact::projection,
        microscope::{
            Domain, Field, Psf, Widefield,
            likelihood::{FixedGaussian, Pixels},
        },
        vlbi::{
            Vlbi,
            problem::{DataProduct, IntraSite, problem},
        },
    },
    posterior::{Solver, SolverSettings},
    prior::{
        Denoiser, Scaling,
        draw::draws,
        unet::{Architecture, UNet},
    },
    rng::Rng,
};
use candle_core::{DType, Tensor};
use ndarray::Array3;

use super::rivals::{bed, moments};

const SIDE: usize = 8;

fn finish(solver: &mut dyn Solver, problem: &Problem, prior: &dyn Denoiser) -> Tensor {
    let rng = Rng::new(2);
    for step in 0..solver.steps() {
        solver.step(problem, prior, &mut rng.stream("step", step as u64)).unwrap();
    }
    solver.draws().unwrap().images
}

fn solver(family: &str, rest: &str, problem: &Problem, prior: &dyn Denoiser) -> Box<dyn Solver> {
    let yaml = format!(
        "name: ppm\ncorrection: {{kind: none}}\nmatching:\n  family: {{name: amortized, {family}}}\n{rest}"
    );
    let settings: SolverSettings = serde_yaml::from_str(&yaml).unwrap();
    settings.build(problem, prior, &Rng::new(1), &Compute::cpu()).unwrap()
}

/// Learns from simulated data, and takes data that it never saw: posterior means 0.8 y with standard deviation 0.447.
#[test]
#[ignore = "slow: 2 min"]
fn one_training_serves_all_data() {
    let bed = bed("gaussian-1d");
    let rest = "  particles: 256\n  steps: 800\n  auxiliary: {learning_rate: 5e-3, updates: 4, batch: 256}";
    let mut first = solver("learning_rate: 3e-3", rest, &bed.problem, bed.prior.as_ref());
    let found = [(1.5, finish(first.as_mut(), &bed.problem, bed.prior.as_ref()))];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoint.safetensors");
    candle_core::safetensors::save(&first.state().unwrap(), &file).unwrap();
    let others = [-0.8, 0.4].map(|y| {
        let problem = projection(&[vec![1.0]], &[y], 0.5, &Compute::cpu()).unwrap();
        let family = format!("trained: {}", file.display());
        let mut next = solver(&family, "  particles: 256", &problem, bed.prior.as_ref());
        assert_eq!(next.steps(), 1);
        (y, finish(next.as_mut(), &problem, bed.prior.as_ref()))
    });
    for (y, images) in found.iter().chain(&others) {
        let (mean, std) = moments(images);
        println!("y {y}: mean {mean:.3}, exact {:.3}; standard deviation {std:.3}, exact 0.447", 0.8 * y);
        assert!((mean - 0.8 * y).abs() < 0.15 && (std / 0.447 - 1.0).abs() < 0.25, "{y}: {mean} {std}");
    }
}

/// A network whose output is zero: the prior of white Gaussian images.
fn white() -> UNet {
    let sizes = Architecture {
        pixels: SIDE,
        widths: vec![16, 32],
        blocks: vec![1, 1],
        embedding: 16,
        groups: 4,
        ..Architecture::default()
    };
    let free = UNet::new(sizes.clone(), &Rng::new(3), &Compute::cpu()).unwrap();
    UNet::fixed(sizes, free.tensors().unwrap(), &Compute::cpu()).unwrap()
}

/// Trains for an instrument with Gaussian noise and holds the mean of draws for new data to the exact one: the error over
/// that of taking the prior's mean.
fn error_of_the_mean(problem: &mut Problem, rest: &str) -> f64 {
    let (prior, compute) = (white(), Compute::cpu());
    let mut rng = Rng::new(7);
    let truth = draws(&prior, 1, 18, &mut rng, &compute).unwrap();
    problem.likelihoods = problem.simulated(&truth, &mut rng).unwrap();
    let mut solver = solver("learning_rate: 2e-3", rest, problem, &prior);
    let mean = finish(solver.as_mut(), problem, &prior).mean_keepdim(0).unwrap();
    let (linear, variance) = (problem.linear(&compute).unwrap(), prior.data_std().powi(2));
    let exact = linear.each(&mean, |data, sigma| variance / (variance + sigma * sigma) * data).unwrap();
    let exact = linear.image(&exact, prior.shape()).unwrap();
    let square = |x: &Tensor| {
        x.sqr().unwrap().sum_all().unwrap().to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap()
    };
    (square(&(&mean - &exact).unwrap()) / square(&exact)).sqrt()
}

const TRAINING: &str =
    "  particles: 32\n  steps: 500\n  auxiliary: {learning_rate: 2e-3, updates: 2, batch: 32}";

/// Steep in a few directions, flat in many: slower than a microscope.
#[test]
#[ignore = "slow: 1 min"]
fn an_interferometer_is_learned() {
    let settings = Vlbi {
        data: vec![DataProduct::Visibility],
        intra_site: IntraSite::Keep,
        pixels: SIDE,
        ..Vlbi::default()
    };
    let scaling = Scaling { unit: 0.1, dark: 0.0 };
    let data = crate::laws::vlbi::observation(1);
    let mut problem = problem(&data, &settings, scaling, &Compute::cpu()).unwrap();
    let error = error_of_the_mean(&mut problem, TRAINING);
    println!("interferometer: relative error of the mean {error:.3}");
    assert!(error < 0.9, "{error}");
}

#[test]
#[ignore = "slow: 1 min"]
fn a_microscope_is_learned() {
    let domain = Domain::new([1, SIDE, SIDE], [300e-9, 100e-9, 100e-9], 1, [0, 0, 0], 1).unwrap();
    let width = |i: usize| (-0.5 * ((i as f64 - 3.0) / 0.8).powi(2)).exp();
    let values = Array3::from_shape_fn([1, 7, 7], |(_, y, x)| width(y) * width(x));
    let psf = Psf { grid: Grid { shape: [1, 7, 7], pitch: domain.object.pitch }, values };
    let count = domain.count();
    let field = Field { flat_field: Vec::new(), background: vec![0.0; count] };
    let noise = FixedGaussian { data: vec![0.0; count], sigma: vec![0.2] };
    let mut problem = Problem {
        forward: Arc::new(Widefield::new(&psf, &domain, &field, &Compute::cpu()).unwrap()),
        likelihoods: vec![Arc::new(Data::new(Pixels::new(noise, &[]).unwrap()))],
        scaling: Scaling { unit: 1.0, dark: 0.0 },
    };
    let error = error_of_the_mean(&mut problem, TRAINING);
    println!("microscope: relative error of the mean {error:.3}");
    assert!(error < 0.6, "{error}");
}
