//! Phases under split Gibbs sampling at a wide coupling: what its noise does to them says nothing of brightness once it is balanced.

use std::sync::Arc;

use antumbra::{
    Result,
    compute::Compute,
    grid::Grid,
    instrument::{
        Forward, Linearity, Problem,
        density::{Data, Density},
    },
    posterior::{
        Solver,
        gibbs::{Gibbs, GibbsSettings},
        restart::Restart,
    },
    prior::{Denoiser, Scaling, gaussian::Gaussian},
    rng::Rng,
};
use candle_core::{DType, Tensor};

/// Visibilities, all of them `BRIGHTNESS` on average, and the standard deviation of their common brightness.
const COUNT: usize = 8;
const BRIGHTNESS: f64 = 1.0;
const SPREAD: f64 = 0.2;
/// Standard deviation of each visibility about the common one.
const APART: f64 = 0.01;
/// Noise of the phases, and of the coupling.
const SIGMA: f64 = 0.1;
const COUPLING: f64 = 0.25;

/// Real and imaginary parts in another orthonormal basis: the first coordinate is what all visibilities have in common.
struct Turned {
    grid: Grid,
    matrix: Tensor,
}

impl Turned {
    fn new(compute: &Compute) -> Self {
        let size = 2 * COUNT;
        let common = |k: usize| if k.is_multiple_of(2) { (1.0 / COUNT as f64).sqrt() } else { 0.0 };
        let normal: Vec<f64> = (0..size).map(|k| f64::from(u8::from(k == 0)) - common(k)).collect();
        let square: f64 = normal.iter().map(|value| value * value).sum();
        let entry = |i: usize, j: usize| f64::from(u8::from(i == j)) - 2.0 * normal[i] * normal[j] / square;
        let matrix = (0..size * size).map(|k| entry(k / size, k % size)).collect();
        Self {
            grid: Grid { shape: [1, 1, size], pitch: [1.0; 3] },
            matrix: compute.tensor(matrix, &[size, size]).unwrap(),
        }
    }
}

impl Forward for Turned {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn apply(&self, image: &Tensor) -> Result<Tensor> {
        Ok(image.flatten_from(1)?.matmul(&self.matrix)?)
    }

    fn linearity(&self) -> Linearity {
        Linearity::Affine
    }

    fn noise_gain(&self) -> Option<f64> {
        Some(1.0)
    }
}

/// Phases, measured as one standard deviation off zero to both sides in turn.
struct Phases {
    blur: f64,
}

impl Density for Phases {
    const NAME: &'static str = "phases";
    const SINGULAR: bool = true;

    fn count(&self) -> usize {
        COUNT
    }

    fn prediction(&self) -> Vec<usize> {
        vec![2 * COUNT]
    }

    fn log_prob(&self, predicted: &[f64]) -> (f64, Vec<f64>) {
        let (mut value, mut gradient) = (0.0, Vec::new());
        let (own, noise) = (SIGMA * SIGMA, self.blur * self.blur);
        for (k, part) in predicted.chunks_exact(2).enumerate() {
            let power = part[0] * part[0] + part[1] * part[1] + 1e-12;
            let off = part[1].atan2(part[0]) - if k.is_multiple_of(2) { SIGMA } else { -SIGMA };
            let variance = noise / (power + noise);
            let total = own + variance;
            let balanced = if noise > 0.0 { 0.5 * (total.ln() + own / total) } else { 0.0 };
            value += balanced - (1.0 - off.cos()) / own;
            let turn = -off.sin() / own / power;
            let dim = -(variance / total) * (variance / total) / (power + noise);
            gradient.extend([dim * part[0] - turn * part[1], dim * part[1] + turn * part[0]]);
        }
        (value, gradient)
    }

    fn residuals(&self, _: &[f64]) -> Vec<f64> {
        unimplemented!("not asked for")
    }

    fn chi2(&self, _: &[f64]) -> f64 {
        unimplemented!("not asked for")
    }

    fn draw(&self, _: &[f64], _: &mut Rng) -> Vec<f64> {
        unimplemented!("not asked for")
    }

    fn balanced(&self, noise: f64) -> Option<Self> {
        Some(Self { blur: noise })
    }
}

/// Numbers for all coordinates: one for what the visibilities have in common, one for the others.
fn coordinates(common: f64, others: f64) -> Vec<f64> {
    (0..2 * COUNT).map(|k| if k == 0 { common } else { others }).collect()
}

/// Mean brightness of draws, and how many there are, if likelihoods are balanced from `balance_level` on.
fn brightness(balance_level: f64) -> (f64, usize) {
    let (compute, root) = (Compute::cpu_f64(), (COUNT as f64).sqrt());
    let shape = [1, 1, 2 * COUNT];
    let mean = coordinates(BRIGHTNESS * root, 0.0);
    let start = compute.tensor(mean.repeat(128), &[128, 1, 1, 2 * COUNT]).unwrap();
    let variances = coordinates((SPREAD * root).powi(2), APART * APART);
    let prior = Gaussian::diagonal(mean, variances, shape, &compute).unwrap();
    let problem = Problem {
        forward: Arc::new(Turned::new(&compute)),
        likelihoods: vec![Arc::new(Data::new(Phases { blur: 0.0 }))],
        scaling: Scaling::IDENTITY,
    };
    let level = COUPLING / prior.data_std();
    let settings = GibbsSettings {
        cycles: 2,
        reheats: 1,
        reheat_level: level,
        balance_level,
        anneal: 20,
        rounds: 40,
        draws: 20,
        start_level: level,
        final_level: level,
        kinetic: false,
        restart: Restart { threshold: 1e6, ..Restart::default() },
        ..GibbsSettings::default()
    };
    let rng = Rng::new(1);
    let mut gibbs = Gibbs::new(settings, start).unwrap();
    for step in 0..gibbs.steps() {
        gibbs.step(&problem, &prior, &mut rng.stream("step", step as u64)).unwrap();
    }
    let draws = gibbs.draws().unwrap();
    let common = draws.images.flatten_from(1).unwrap().narrow(1, 0, 1).unwrap().to_dtype(DType::F64).unwrap();
    (common.mean_all().unwrap().to_scalar::<f64>().unwrap() / root, draws.len())
}

/// Phases say nothing of the common brightness, so draws have that of the prior; and only reheated cycles, which are balanced, leave any.
#[test]
fn phases_do_not_make_a_balanced_posterior_brighter() {
    let (plain, all) = brightness(1e9);
    let (balanced, half) = brightness(0.0);
    println!("{plain:.3} of {all} draws, balanced {balanced:.3} of {half}");
    assert_eq!(2 * half, all);
    assert!(plain > BRIGHTNESS + 0.15, "{plain}");
    assert!((balanced - BRIGHTNESS).abs() < 0.05, "{balanced}");
}
