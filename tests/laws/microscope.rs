//! What holds for the microscope's forward model and noise models whatever the data are.

use std::sync::Arc;

use crate::devices;
use antumbra::{
    compute::Compute,
    grid::Grid,
    instrument::{
        Forward, Likelihood, Problem,
        density::Data,
        microscope::{
            Domain, Field, Optics, Psf, Widefield,
            domain::reach,
            likelihood::{FixedGaussian, GrowingGaussian, Noise, Pixels, ShiftedPoisson},
            psf::Recipe,
        },
    },
    prior::Scaling,
    rng::Rng,
    tensor::value_and_gradient,
};
use candle_core::{DType, Tensor};
use ndarray::Array3;

const CAMERA_PITCH: [f64; 3] = [300e-9, 100e-9, 100e-9];

/// A point-spread function without symmetry, so that a mirrored axis shows.
fn lopsided(shape: [usize; 3], domain: &Domain) -> Psf {
    let mut rng = Rng::new(7);
    let values = Array3::from_shape_fn(shape, |_| rng.uniform());
    Psf { grid: Grid { shape, pitch: domain.object.pitch }, values }
}

/// Domains in two and three dimensions with point-spread functions smaller and larger than margin and object.
fn cases() -> Vec<(Domain, Psf)> {
    [
        ([1, 6, 5], 2, [0, 3, 2], [1, 5, 5]),
        ([1, 6, 5], 2, [0, 0, 0], [1, 9, 7]),
        ([1, 4, 7], 3, [0, 2, 1], [1, 4, 6]),
        ([3, 5, 4], 2, [1, 2, 2], [3, 5, 5]),
        ([4, 3, 3], 1, [0, 1, 2], [9, 15, 4]),
    ]
    .map(|(camera, factor, margin, shape)| {
        let domain = Domain::new(camera, CAMERA_PITCH, factor, margin, 1).unwrap();
        (domain, lopsided(shape, &domain))
    })
    .into()
}

fn widefield((domain, psf): &(Domain, Psf), compute: &Compute) -> Widefield {
    let count = domain.count();
    let flat_field = (0..count).map(|i| 1.0 + 0.1 * (i % 3) as f64).collect();
    let background = (0..count).map(|i| 2.0 + 0.01 * i as f64).collect();
    Widefield::new(psf, domain, &Field { flat_field, background }, compute).unwrap()
}

/// The definition, pixel by pixel and voxel by voxel.
fn direct((domain, psf): &(Domain, Psf), object: &[f64]) -> Vec<f64> {
    let [planes, rows, columns] = domain.camera;
    let [_, height, width] = domain.object.shape;
    let centre = psf.grid.shape.map(|size| size as i64 / 2);
    let response = |offset: [i64; 3]| {
        let index = [0, 1, 2].map(|axis| usize::try_from(centre[axis] + offset[axis]).ok());
        match index {
            [Some(z), Some(y), Some(x)] => psf.values.get([z, y, x]).copied().unwrap_or(0.0),
            _ => 0.0,
        }
    };
    // Light that a source in the middle plane leaves in all planes.
    let middle = planes as i64 / 2;
    let total: f64 = psf
        .values
        .indexed_iter()
        .filter(|((z, _, _), _)| (0..planes as i64).contains(&(*z as i64 - centre[0] + middle)))
        .map(|(_, value)| value)
        .sum();
    let mut counts = Vec::new();
    for pixel in 0..planes * rows * columns {
        let at = [pixel / columns / rows, pixel / columns % rows, pixel % columns];
        let mut sum = 0.0;
        for (voxel, light) in object.iter().enumerate() {
            let source = [voxel / width / height, voxel / width % height, voxel % width];
            for part in 0..domain.factor * domain.factor {
                let parts = [0, part / domain.factor, part % domain.factor];
                let offset = [0, 1, 2].map(|axis| {
                    (domain.before[axis] + at[axis] * domain.scale(axis) + parts[axis]) as i64
                        - source[axis] as i64
                });
                sum += light * response(offset) / total;
            }
        }
        counts.push((1.0 + 0.1 * (pixel % 3) as f64) * sum + 2.0 + 0.01 * pixel as f64);
    }
    counts
}

fn objects(domain: &Domain, batch: usize, seed: u64, compute: &Compute) -> Tensor {
    let [z, y, x] = domain.object.shape;
    Rng::new(seed).normals(&[batch, z, y, x], compute).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_microscope_is_the_plain_sum_over_voxels() {
    for case in cases() {
        let single = devices::single().into_iter().map(|compute| (compute, 1e-4));
        for (compute, tolerance) in
            devices::double().into_iter().map(|compute| (compute, 1e-12)).chain(single)
        {
            let object = objects(&case.0, 1, 1, &compute);
            let found = flat(&widefield(&case, &compute).apply(&object).unwrap());
            let expected = direct(&case, &flat(&object));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < tolerance, "{:?}: {found} {expected}", case.0);
            }
        }
    }
}

#[test]
fn the_gradient_of_the_microscope_is_its_adjoint() {
    for compute in devices::double() {
        for case in cases() {
            let forward = widefield(&case, &compute);
            let object = objects(&case.0, 2, 2, &compute);
            let weights = Rng::new(3).normals(&[2, case.0.count()], &compute).unwrap();
            let (value, gradient) =
                value_and_gradient(&object, |x| Ok((forward.light(x, None)? * &weights)?.sum(1)?)).unwrap();
            let dual: f64 = flat(&(&gradient * &object).unwrap()).iter().sum();
            let total: f64 = flat(&value).iter().sum();
            assert!((total - dual).abs() < 1e-12 * total.abs().max(1.0), "{total} {dual}");
        }
    }
}

/// A grid of sources in photo-electrons with all three noise models of the same data.
pub fn problems(compute: &Compute) -> Vec<Problem> {
    let case = cases().swap_remove(3);
    let count = case.0.count();
    let truth: Vec<f64> = flat(&objects(&case.0, 1, 4, compute)).iter().map(|v| 8.0 * v.abs()).collect();
    let data = widefield(&case, compute).predict(&truth).unwrap();
    let data: Vec<f64> = data.iter().enumerate().map(|(i, v)| v + ((i * 7) % 5) as f64 - 2.0).collect();
    let fixed =
        FixedGaussian { data: data.clone(), sigma: (0..count).map(|i| 1.0 + 0.01 * i as f64).collect() };
    let growing = GrowingGaussian { data: data.clone(), slope: vec![0.8], floor: vec![2.0], least: 0.5 };
    let poisson = ShiftedPoisson { data, read_variance: vec![1.7] };
    let problem = |likelihood: Arc<dyn Likelihood>| Problem {
        forward: Arc::new(widefield(&case, compute)),
        likelihoods: vec![likelihood],
        scaling: Scaling { unit: 6.0, dark: -0.5 },
    };
    vec![
        problem(Arc::new(Data::new(Pixels::new(fixed, &[]).unwrap()))),
        problem(Arc::new(Data::new(Pixels::new(growing, &[]).unwrap()))),
        problem(Arc::new(Data::new(Pixels::new(poisson, &[]).unwrap()))),
    ]
}

/// Network-unit objects, some of whose predictions are dark.
pub fn network_objects(problem: &Problem, batch: usize, compute: &Compute) -> Tensor {
    let [z, y, x] = problem.forward.grid().shape;
    Rng::new(5).normals(&[batch, z, y, x], compute).unwrap()
}

#[test]
fn gradients_of_the_log_likelihood_agree_with_finite_differences() {
    const STEP: f64 = 1e-5;
    for compute in devices::double() {
        for problem in problems(&compute) {
            let x = network_objects(&problem, 2, &compute);
            let (_, gradient) = problem.log_likelihood_and_gradient(&x).unwrap();
            for seed in 0..4 {
                let direction = Rng::new(seed).normals(x.dims(), &compute).unwrap();
                let moved = |step: f64| {
                    flat(&problem.log_likelihood(&(&x + (&direction * step).unwrap()).unwrap()).unwrap())
                };
                let exact = flat(&(&gradient * &direction).unwrap().flatten_from(1).unwrap().sum(1).unwrap());
                for ((above, below), exact) in moved(STEP).iter().zip(moved(-STEP)).zip(exact) {
                    let slope = (above - below) / (2.0 * STEP);
                    let name = problem.likelihoods[0].name();
                    assert!((slope - exact).abs() < 1e-5 * exact.abs().max(1.0), "{name}: {slope} {exact}");
                }
            }
        }
    }
}

#[test]
fn a_batch_of_stacks_is_its_stacks_one_by_one() {
    for compute in devices::single() {
        for problem in problems(&compute) {
            let x = network_objects(&problem, 3, &compute);
            let (values, gradients) = problem.log_likelihood_and_gradient(&x).unwrap();
            for b in 0..3 {
                let (value, gradient) =
                    problem.log_likelihood_and_gradient(&x.narrow(0, b, 1).unwrap()).unwrap();
                // Matrix products of a GPU add in another order for another number of rows.
                let tolerance = if compute.device.is_cpu() { 0.0 } else { 1e-4 };
                for (one, all) in [(value, &values), (gradient, &gradients)] {
                    let (one, all) = (flat(&one), flat(&all.narrow(0, b, 1).unwrap()));
                    let largest = all.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
                    let close = |(one, all): (&f64, &f64)| (one - all).abs() <= tolerance * largest;
                    assert!(one.iter().zip(&all).all(close), "{b} on {}", compute.name());
                }
            }
        }
    }
}

/// Over data drawn around expected values the score has mean 0 and the residuals have variance 1.
fn draws_fit_the_density<N: Noise>(expected: &[f64], draw_like: &N, with: impl Fn(Vec<f64>) -> N) {
    const DRAWS: usize = 20_000;
    let mut rng = Rng::new(6);
    for (index, &expected) in expected.iter().enumerate() {
        let (mut score, mut power, mut squares) = (0.0, 0.0, 0.0);
        for _ in 0..DRAWS {
            let drawn = draw_like.draw(index, expected, &mut rng);
            let noise = with(vec![drawn; index + 1]);
            let slope = noise.log_prob(index, expected).1;
            score += slope;
            power += slope * slope;
            squares += noise.residual(index, expected).powi(2);
        }
        let draws = DRAWS as f64;
        let error = (power / draws).sqrt() / draws.sqrt();
        assert!((score / draws).abs() < 4.5 * error, "{} score {} +- {error}", N::NAME, score / draws);
        assert!((squares / draws - 1.0).abs() < 0.05, "{} variance {}", N::NAME, squares / draws);
    }
}

#[test]
fn camera_draws_fit_their_densities() {
    let expected = [6.0, 20.0, 300.0];
    let fixed = |data| FixedGaussian { data, sigma: vec![3.0] };
    draws_fit_the_density(&expected, &fixed(vec![0.0; 3]), fixed);
    let growing = |data| GrowingGaussian { data, slope: vec![1.5], floor: vec![2.0], least: 0.1 };
    draws_fit_the_density(&expected, &growing(vec![0.0; 3]), growing);
    let poisson = |data| ShiftedPoisson { data, read_variance: vec![1.2] };
    draws_fit_the_density(&expected, &poisson(vec![0.0; 3]), poisson);
}

#[test]
fn light_is_kept_and_sources_outside_the_field_of_view_are_seen() {
    for compute in devices::double() {
        let optics = Optics::matched(1.4, 1.515, 520e-9);
        let pitch = [200e-9, 65e-9, 65e-9];
        let psf =
            Recipe::new(optics).psf(&Grid { shape: [1, 61, 61], pitch: [200e-9, 32.5e-9, 32.5e-9] }).unwrap();
        let margin = reach(&psf, 0.99);
        assert!((10..=30).contains(&margin[2]) && margin[0] == 0, "{margin:?}");
        let domain = Domain::new([1, 48, 48], pitch, 2, margin, 8).unwrap();
        let forward = Widefield::new(&psf, &domain, &Field::default(), &compute).unwrap();
        let [_, height, width] = domain.object.shape;
        let source = |y: usize, x: usize| {
            let mut object = vec![0.0; height * width];
            object[y * width + x] = 1000.0;
            forward.predict(&object).unwrap()
        };
        let middle = source(height / 2, width / 2);
        assert!((middle.iter().sum::<f64>() - 1000.0).abs() < 1e-6);
        let brightest = (0..middle.len()).max_by(|&a, &b| middle[a].total_cmp(&middle[b])).unwrap();
        let voxel = [domain.before[1] + 2 * (brightest / 48), domain.before[2] + 2 * (brightest % 48)];
        assert!(voxel[0].abs_diff(height / 2) <= 1 && voxel[1].abs_diff(width / 2) <= 1, "{voxel:?}");
        let outside = source(height / 2, domain.before[2] - 2).iter().sum::<f64>();
        assert!((50.0..500.0).contains(&outside), "{outside}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    for compute in devices::double() {
        let (domain, psf) = cases().swap_remove(0);
        let coarse = Psf { grid: Grid { pitch: [1e-6; 3], ..psf.grid }, values: psf.values.clone() };
        let dark = Psf { values: psf.values.mapv(|_| 0.0), ..psf.clone() };
        let plain = Field::default();
        assert!(Widefield::new(&coarse, &domain, &plain, &compute).is_err());
        assert!(Widefield::new(&dark, &domain, &plain, &compute).is_err());
        for field in [
            Field { flat_field: vec![1.0; 3], ..Field::default() },
            Field { flat_field: vec![0.0; 30], ..Field::default() },
            Field { background: vec![f64::NAN], ..Field::default() },
            Field { background: vec![1.0; 3], ..Field::default() },
        ] {
            assert!(Widefield::new(&psf, &domain, &field, &compute).is_err(), "{field:?}");
        }
        let forward = Widefield::new(&psf, &domain, &plain, &compute).unwrap();
        assert!(forward.apply(&objects(&cases()[3].0, 1, 1, &compute)).is_err());
        let sigma = vec![1.0; 4];
        let noise = FixedGaussian { data: vec![0.0; 9], sigma: sigma.clone() };
        assert!(Pixels::new(noise, &[("sigma", &sigma)]).is_err());
    }
}
