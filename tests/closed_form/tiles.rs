//! One tile against four: a random field seen through a blur, whose posterior is known exactly when one tile holds it all.

use std::sync::Arc;

use antumbra::{
    compute::Compute,
    grid::Grid,
    instrument::{
        Problem,
        exact::{Filter, Normal},
    },
    posterior::{
        Solver,
        gibbs::{Gibbs, GibbsSettings},
    },
    prior::{Denoiser, Scaling, draw, gaussian::Gaussian, tiled::Tiled},
    rng::Rng,
    tensor::fft::circular_convolve,
};
use candle_core::{DType, Tensor};

const SIDE: usize = 64;
const TILE: usize = 40;
const SIGMA: f64 = 0.7;
/// Pixels at the border whose neighbours across it one tile knows and four do not.
const BORDER: usize = 8;

fn power(f: f64) -> f64 {
    9.0 / (1.0 + (f / 0.12).powi(2)).powf(1.5) + 0.01
}

fn frequency(i: usize) -> f64 {
    let part = |k: usize| k.min(SIDE - k) as f64 / SIDE as f64;
    part(i / SIDE).hypot(part(i % SIDE))
}

fn host(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Mean and variance of each pixel over the draws of a sampler.
fn moments(prior: &dyn Denoiser, problem: &Problem, start: Tensor) -> [Vec<f64>; 2] {
    let settings = GibbsSettings {
        cycles: 1,
        anneal: 24,
        rounds: 32,
        draws: 8,
        start_level: 3.0,
        final_level: 0.2,
        ..GibbsSettings::default()
    };
    let mut solver = Gibbs::new(settings, start).unwrap();
    let rng = Rng::new(4);
    for step in 0..solver.steps() {
        solver.step(problem, prior, &mut rng.stream("step", step as u64)).unwrap();
    }
    let images = solver.draws().unwrap().images;
    let mean = images.mean_keepdim(0).unwrap();
    let variance = images.broadcast_sub(&mean).unwrap().sqr().unwrap().mean(0).unwrap();
    [host(&mean), host(&variance)]
}

#[test]
fn four_tiles_give_the_posterior_of_one() {
    let compute = Compute::cpu();
    let mut rng = Rng::new(1);
    let whole = Gaussian::periodic([SIDE, SIDE], power, &compute).unwrap();
    let gains: Vec<f64> = (0..SIDE * SIDE)
        .map(|i| (-2.0 * (std::f64::consts::PI * frequency(i) * 1.2).powi(2)).exp())
        .collect();
    let truth = draw::draws(&whole, 1, 30, &mut rng, &compute).unwrap();
    let noise = (rng.normals(&[1, 1, SIDE, SIDE], &compute).unwrap() * SIGMA).unwrap();
    let data = (circular_convolve(&truth, &gains).unwrap() + noise).unwrap();
    // The exact posterior: a Wiener filter, and one variance for all pixels.
    let known = |i: usize| 1.0 / (1.0 / power(frequency(i)) + (gains[i] / SIGMA).powi(2));
    let filter: Vec<f64> = (0..SIDE * SIDE).map(|i| known(i) * gains[i] / SIGMA.powi(2)).collect();
    let exact = host(&circular_convolve(&data, &filter).unwrap());
    let sd = ((0..SIDE * SIDE).map(known).sum::<f64>() / (SIDE * SIDE) as f64).sqrt();

    let problem = Problem {
        forward: Arc::new(Filter { grid: Grid::sky(SIDE, 1e-9).unwrap(), gains }),
        likelihoods: vec![Arc::new(Normal { data: data.flatten_from(1).unwrap(), sigma: SIGMA })],
        scaling: Scaling::IDENTITY,
    };
    let start = draw::draws(&whole, 64, 12, &mut rng, &compute).unwrap();
    let tile = Gaussian::periodic([TILE, TILE], power, &compute).unwrap();
    let four = Tiled::new(Box::new(tile), [1, SIDE, SIDE], 12, &compute).unwrap();
    assert_eq!(four.tiles(), 4);
    let inner = |i: &usize| {
        let inside = BORDER..SIDE - BORDER;
        inside.contains(&(i / SIDE)) && inside.contains(&(i % SIDE))
    };
    // Rows and columns in which tiles end or cross.
    let seam = |i: &usize| [i / SIDE, i % SIDE].iter().any(|k| (SIDE - TILE..TILE).contains(k));
    for (name, prior) in [("one", &whole as &dyn Denoiser), ("four", &four)] {
        let [mean, variance] = moments(prior, &problem, start.clone());
        let off = (0..SIDE * SIDE).filter(inner).map(|i| (mean[i] - exact[i]).abs() / sd).fold(0.0, f64::max);
        let average = |chosen: &dyn Fn(&usize) -> bool| {
            let all: Vec<f64> =
                (0..SIDE * SIDE).filter(inner).filter(|i| chosen(i)).map(|i| variance[i]).collect();
            all.iter().sum::<f64>() / all.len() as f64
        };
        let (across, inside) = (average(&|i| seam(i)), average(&|i| !seam(i)));
        println!(
            "{name}: mean {off:.3} sd off, variance {:.3} of the exact, seams {:.3} of the interior",
            inside / sd.powi(2),
            across / inside
        );
        assert!(off < 0.5, "{name}: mean {off} standard deviations from the exact");
        assert!((across / inside - 1.0).abs() < 0.05, "{name}: {across} {inside}");
        assert!((inside / sd.powi(2) - 1.0).abs() < 0.1, "{name}: {inside} {}", sd.powi(2));
    }
}
