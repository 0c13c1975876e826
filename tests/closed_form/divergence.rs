//! The divergence of Principled Posterior Matching and its gradient against closed forms.

use antumbra::{
    compute::Compute,
    posterior::ppm::{
        AuxiliarySettings, Distance,
        auxiliary::{Auxiliary, some},
        loss::{Comparison, Matching, NoiseLevels},
    },
    prior::{
        Adaptation, Denoiser, Trainable,
        gaussian::Gaussian,
        mixture::{Component, Mixture},
    },
    rng::Rng,
};
use candle_core::{Tensor, Var};

fn two_modes() -> Mixture {
    let mode = |mean| Component { weight: 1.0, mean: vec![mean], variances: vec![0.16] };
    Mixture::new(vec![mode(-1.0), mode(1.0)], [1, 1, 1], &Compute::cpu_f64()).unwrap()
}

fn comparison<'a>(
    prior: &'a dyn Denoiser,
    own: &'a dyn Denoiser,
    variables: &'a [(String, Var)],
    levels: NoiseLevels,
    count: usize,
) -> Comparison<'a> {
    Comparison { prior, own, variables, levels, count, distance: Distance::Squared }
}

/// KL(N(mean, std^2) || two modes) by the midpoint rule.
fn divergence(mean: f64, std: f64) -> f64 {
    let normal =
        |x: f64, m: f64, s: f64| (-0.5 * ((x - m) / s).powi(2)).exp() / (s * std::f64::consts::TAU.sqrt());
    let step = 1e-3;
    let term = |i: i32| {
        let x = f64::from(i) * step;
        let q = normal(x, mean, std);
        let p = 0.5 * (normal(x, -1.0, 0.4) + normal(x, 1.0, 0.4));
        if q > 0.0 { q * (q / p).ln() * step } else { 0.0 }
    };
    (-6000..6000).map(term).sum()
}

fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

/// Differentiating |D_q - D_p|^2 alone would give another slope in the spread, even of another sign.
#[test]
fn gradient_of_the_loss_is_that_of_the_divergence() {
    let (mean, std, count) = (1.5, 0.3, 8000);
    let prior = two_modes();
    let exact = Gaussian::diagonal(vec![mean], vec![std * std], [1, 1, 1], &Compute::cpu_f64()).unwrap();
    let auxiliary = exact.trainable(Adaptation::Copy, &mut Rng::new(1)).unwrap();
    let normals: Vec<f64> = {
        let mut rng = Rng::new(2);
        (0..count).map(|_| rng.normal()).collect()
    };
    let particles: Vec<f64> = normals.iter().map(|n| mean + std * n).collect();
    let particles = Compute::cpu_f64().tensor(particles, &[count, 1, 1, 1]).unwrap();
    let levels = NoiseLevels { smallest: 0.004, largest: 100.0, data_std: prior.data_std() };
    let matched =
        comparison(&prior, auxiliary.as_ref(), &[], levels, 8).of(&particles, &mut Rng::new(3)).unwrap();
    let slopes = matched.gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let spread: Vec<f64> = slopes.iter().zip(&normals).map(|(slope, n)| slope * n * std).collect();
    let h = 1e-4;
    let expected = [
        (divergence(mean + h, std) - divergence(mean - h, std)) / (2.0 * h),
        (divergence(mean, std * h.exp()) - divergence(mean, std * (-h).exp())) / (2.0 * h),
    ];
    for (found, expected) in [slopes, spread].iter().zip(expected) {
        let (found, error) = mean_and_error(found);
        println!("gradient {found:.3} +- {error:.3}, finite difference {expected:.3}");
        assert!((found - expected).abs() < 4.0 * error && error < 0.1 * expected.abs());
    }
    println!("bound {:.4}, divergence {:.4}", matched.bound().unwrap(), divergence(mean, std));
    assert!((matched.bound().unwrap() / divergence(mean, std) - 1.0).abs() < 0.05);
}

#[test]
fn bound_rises_to_the_divergence_but_not_above() {
    let compute = Compute::cpu();
    let (mean, variances) = ([1.0, -1.0], [0.25, 1.0]);
    let prior_variances = [1.0, 4.0];
    let prior = Gaussian::diagonal(vec![0.0; 2], prior_variances.into(), [1, 1, 2], &compute).unwrap();
    let exact: f64 = (0..2)
        .map(|j| {
            let ratio: f64 = variances[j] / prior_variances[j];
            0.5 * (ratio + mean[j] * mean[j] / prior_variances[j] - 1.0 - ratio.ln())
        })
        .sum();
    let draw = |rng: &mut Rng, count: usize| -> Tensor {
        let values = (0..2 * count).map(|i| mean[i % 2] + rng.normal() * variances[i % 2].sqrt()).collect();
        compute.tensor(values, &[count, 1, 1, 2]).unwrap()
    };
    let levels = NoiseLevels { smallest: 0.01, largest: 100.0, data_std: prior.data_std() };
    let settings = AuxiliarySettings { learning_rate: 5e-3, ..AuxiliarySettings::default() };
    let mut auxiliary = Auxiliary::new(&prior, settings, &mut Rng::new(1)).unwrap();
    let compare = |network: &dyn Trainable, count, rng: &mut Rng| -> (Tensor, Matching) {
        let particles = draw(rng, count);
        let matched =
            comparison(&prior, network, &network.variables(), levels, 1).of(&particles, rng).unwrap();
        (particles, matched)
    };
    let mut rng = Rng::new(4);
    assert_eq!(compare(auxiliary.denoiser(), 64, &mut rng).1.bound().unwrap(), 0.0);
    for k in 0..300 {
        let (particles, matched) = compare(auxiliary.denoiser(), 512, &mut rng);
        let decay = if k < 200 { 1.0 } else { 0.1 };
        let draw = |count, rng: &mut Rng| some(&particles, count, rng);
        auxiliary.update(&matched.own, decay, &draw, &levels, &mut rng).unwrap();
    }
    let bounds: Vec<f64> =
        (0..20).map(|_| compare(auxiliary.denoiser(), 2048, &mut rng).1.bound().unwrap()).collect();
    let (bound, error) = mean_and_error(&bounds);
    println!("bound {bound:.4} +- {error:.4}, divergence {exact:.4}");
    assert!(bound < exact + 4.0 * error, "above the divergence");
    assert!(bound > 0.9 * exact && error < 0.02 * exact, "far below the divergence");
}
