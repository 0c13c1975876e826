//! Exact priors: denoiser, score, density, posterior and draws agree with each other.

use crate::devices;
use antumbra::{
    compute::Compute,
    prior::{
        Adaptation, Denoiser,
        draw::draws,
        gaussian::Gaussian,
        low_rank::{LowRank, LowRankMixture},
        mixture::{Component, Mixture},
    },
    rng::Rng,
    tensor::value_and_gradient,
};
use candle_core::{DType, Device, Tensor};

fn two_modes(compute: &Compute) -> Mixture {
    let component = |weight, mean: [f64; 2], variances: [f64; 2]| Component {
        weight,
        mean: mean.into(),
        variances: variances.into(),
    };
    let components = vec![component(3.0, [1.0, -0.5], [0.2, 0.4]), component(1.0, [-1.0, 1.5], [0.3, 0.1])];
    Mixture::new(components, [1, 1, 2], compute).unwrap()
}

/// Three modes with the same variances.
fn equal_modes(compute: &Compute) -> Mixture {
    let component =
        |weight, mean: [f64; 2]| Component { weight, mean: mean.into(), variances: vec![0.2, 0.5] };
    let components =
        vec![component(3.0, [1.0, -0.5]), component(1.0, [-1.0, 1.5]), component(0.5, [0.2, 0.4])];
    Mixture::new(components, [1, 1, 2], compute).unwrap()
}

fn field(compute: &Compute) -> Gaussian {
    Gaussian::periodic([8, 6], |f| 1.0 / (0.02 + f * f), compute).unwrap()
}

fn pixels(compute: &Compute) -> Gaussian {
    Gaussian::diagonal(vec![0.5, -1.0, 2.0], vec![0.3, 1.0, 4.0], [1, 1, 3], compute).unwrap()
}

/// Two structured components.
fn structured(compute: &Compute) -> LowRankMixture {
    let component = |weight: f64, seed: u64| {
        let directions =
            nalgebra::DMatrix::from_fn(6, 2, |i, j| Rng::new(seed + (2 * i + j) as u64).normal());
        let directions = directions.qr().q().as_slice().to_vec();
        let mean = (0..6).map(|i| Rng::new(seed + 50 + i).normal()).collect();
        LowRank {
            weight,
            mean: compute.tensor(mean, &[1, 6]).unwrap(),
            directions: compute.tensor(directions, &[2, 6]).unwrap(),
            variances: vec![2.0, 0.5],
        }
    };
    LowRankMixture::new(vec![component(2.0, 1), component(1.0, 100)], 0.1, [1, 2, 3], compute).unwrap()
}

fn exact_priors() -> Vec<Box<dyn Denoiser>> {
    let compute = Compute::cpu_f64();
    vec![
        Box::new(two_modes(&compute)),
        Box::new(equal_modes(&compute)),
        Box::new(structured(&compute)),
        Box::new(field(&compute)),
        Box::new(pixels(&compute)),
    ]
}

/// Noisy images with a different noise level each.
fn noisy(prior: &dyn Denoiser) -> (Tensor, Tensor) {
    let [z, y, x] = prior.shape();
    let levels = Tensor::new(&[0.1, 0.7, 3.0], &Device::Cpu).unwrap();
    (Rng::new(5).normals(&[3, z, y, x], &Compute::cpu_f64()).unwrap(), levels)
}

fn largest(difference: &Tensor) -> f64 {
    difference.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn score_is_the_gradient_of_the_log_density() {
    for prior in exact_priors() {
        let (x, s) = noisy(prior.as_ref());
        let density = |x: &Tensor| Ok(prior.log_density(x, &s)?.unwrap());
        let (_, gradient) = value_and_gradient(&x, density).unwrap();
        let square = s.sqr().unwrap().reshape((3, 1, 1, 1)).unwrap();
        let score = (prior.denoise(&x, &s).unwrap() - &x).unwrap().broadcast_div(&square).unwrap();
        assert!(largest(&(score - gradient).unwrap()) < 1e-9);
    }
}

#[test]
fn vector_jacobian_product_is_that_of_finite_differences() {
    for prior in exact_priors() {
        let (x, s) = noisy(prior.as_ref());
        let draw = |seed| Rng::new(seed).normals(x.dims(), &Compute::cpu_f64()).unwrap();
        let (weight, direction) = (draw(6), draw(7));
        let value = |x: &Tensor| Ok((prior.denoise(x, &s)? * &weight)?.flatten_from(1)?.sum(1)?);
        let (_, gradient) = value_and_gradient(&x, value).unwrap();
        let product = (gradient * &direction).unwrap().flatten_from(1).unwrap().sum(1).unwrap();
        let at = |h: f64| value(&(&x + (&direction * h).unwrap()).unwrap()).unwrap();
        let difference = ((at(1e-5) - at(-1e-5)).unwrap() / 2e-5).unwrap();
        assert!(largest(&(product - difference).unwrap()) < 1e-6);
    }
}

#[test]
fn trainable_copy_starts_equal_and_changes_with_its_variables() {
    for prior in exact_priors() {
        let (x, s) = noisy(prior.as_ref());
        let copy = prior.trainable(Adaptation::Copy, &mut Rng::new(1)).unwrap();
        let difference = || {
            let both = (copy.denoise(&x, &s).unwrap(), prior.denoise(&x, &s).unwrap());
            largest(&(both.0 - both.1).unwrap())
        };
        assert_eq!(difference(), 0.0);
        let (_, bias) = copy.variables().pop().unwrap();
        bias.set(&bias.as_tensor().ones_like().unwrap()).unwrap();
        assert!(difference() > 0.05);
    }
}

#[test]
fn mixture_density_and_posterior_are_those_of_numerical_integration() {
    let prior = two_modes(&Compute::cpu_f64());
    let (row, y, sigma) = ([0.8, 0.6], 0.4, 0.3);
    let (cells, width) = (240, 12.0);
    let step = width / f64::from(cells);
    let coordinate = |i: i32| (f64::from(i) + 0.5) * step - width / 2.0;
    let points: Vec<[f64; 2]> =
        (0..cells * cells).map(|i| [coordinate(i / cells), coordinate(i % cells)]).collect();
    let images = Tensor::from_vec(points.concat(), (points.len(), 1, 1, 2), &Device::Cpu).unwrap();
    let clean = Tensor::zeros(points.len(), DType::F64, &Device::Cpu).unwrap();
    let logs = prior.log_density(&images, &clean).unwrap().unwrap().to_vec1::<f64>().unwrap();
    let total: f64 = logs.iter().map(|l| l.exp() * step * step).sum();
    assert!((total - 1.0).abs() < 1e-6, "density integrates to {total}");

    let exact = prior.linear_posterior(&[row.to_vec()], &[y], sigma).unwrap();
    let exact_mean = |j: usize| exact.iter().map(|p| p.weight * p.mean[j]).sum::<f64>();
    let exact_square =
        |j: usize| exact.iter().map(|p| p.weight * (p.covariance[(j, j)] + p.mean[j].powi(2))).sum::<f64>();
    let weights: Vec<f64> = logs
        .iter()
        .zip(&points)
        .map(|(log, x)| (log - 0.5 * ((y - row[0] * x[0] - row[1] * x[1]) / sigma).powi(2)).exp())
        .collect();
    let norm: f64 = weights.iter().sum();
    for j in 0..2 {
        let moment =
            |power| weights.iter().zip(&points).map(|(w, x)| w * x[j].powi(power)).sum::<f64>() / norm;
        assert!((moment(1) - exact_mean(j)).abs() < 1e-6);
        assert!((moment(2) - exact_square(j)).abs() < 1e-6);
    }
}

#[test]
fn draws_have_the_moments_of_the_prior() {
    for compute in devices::single() {
        let count = 2000;
        let values = |prior: &dyn Denoiser| {
            let images = draws(prior, count, 20, &mut Rng::new(2), &compute).unwrap();
            images.flatten_from(1).unwrap().to_vec2::<f32>().unwrap()
        };
        let modes = values(&two_modes(&compute));
        let share = modes.iter().filter(|x| x[1] - x[0] < 0.5).count() as f64 / count as f64;
        assert!((share - 0.75).abs() < 4.0 * (0.75 * 0.25 / count as f64).sqrt(), "share {share}");
        let gaussian = values(&pixels(&compute));
        for (j, (mean, variance)) in [(0.5, 0.3), (-1.0, 1.0), (2.0, 4.0)].into_iter().enumerate() {
            let column = || gaussian.iter().map(|x| f64::from(x[j]));
            let found = column().sum::<f64>() / count as f64;
            let spread = column().map(|x| (x - found).powi(2)).sum::<f64>() / count as f64;
            assert!((found - mean).abs() < 4.0 * f64::sqrt(variance / count as f64), "mean {found}");
            assert!(
                (spread / variance - 1.0).abs() < 4.0 * f64::sqrt(2.0 / count as f64),
                "variance {spread}"
            );
        }
    }
}
