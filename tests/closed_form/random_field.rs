//! A periodic Gaussian random field seen through a blur or through some of its Fourier modes: the posterior is
//! diagonal in Fourier space and known exactly.

use std::sync::Arc;

use antumbra::{
    Result,
    compute::Compute,
    grid::Grid,
    instrument::{
        Likelihood, Problem,
        exact::{Filter, Normal},
    },
    posterior::{
        Draws, Solver,
        gibbs::{Gibbs, GibbsSettings},
        langevin::{Langevin, LangevinSettings},
    },
    prior::{Denoiser, Pyramid, Scaling, draw, gaussian::Gaussian},
    rng::Rng,
    tensor::{
        blocks::halved,
        fft::{circular_convolve, fourier_modes},
    },
};
use candle_core::Tensor;

const SIDE: usize = 32;

/// What the instrument measures of the field.
#[derive(Clone, Copy, Debug)]
enum Instrument {
    /// Every pixel after a periodic blur with this standard deviation, pixels.
    Blur(f64),
    /// A random half-plane of modes up to 0.35 cycles per pixel: about 28 % of all.
    Modes,
}

/// Frequency of mode i in cycles per pixel.
fn frequency(i: usize) -> f64 {
    let part = |k: usize| k.min(SIDE - k) as f64 / SIDE as f64;
    part(i / SIDE).hypot(part(i % SIDE))
}

/// The mode with the opposite frequency.
fn mirror(i: usize) -> usize {
    (SIDE - i / SIDE) % SIDE * SIDE + (SIDE - i % SIDE) % SIDE
}

fn gains(instrument: Instrument, rng: &mut Rng) -> Vec<f64> {
    let modes = SIDE * SIDE;
    match instrument {
        Instrument::Blur(width) => {
            (0..modes).map(|i| (-2.0 * (std::f64::consts::PI * frequency(i) * width).powi(2)).exp()).collect()
        }
        Instrument::Modes => {
            let kept: Vec<bool> = (0..modes).map(|i| frequency(i) < 0.35 && rng.uniform() < 0.73).collect();
            (0..modes).map(|i| f64::from(u8::from(kept[i.min(mirror(i))]))).collect()
        }
    }
}

/// Variance of a mode by its frequency.
fn power(f: f64) -> f64 {
    16.0 / (1.0 + (f / 0.06).powi(2)).powf(1.5) + 0.01
}

struct Case {
    prior: Gaussian,
    problem: Problem,
    sigma: f64,
    gains: Vec<f64>,
    data: Tensor,
}

fn case(instrument: Instrument, sigma: f64, rng: &mut Rng) -> Case {
    let compute = Compute::cpu();
    let prior = Gaussian::periodic([SIDE, SIDE], power, &compute).unwrap();
    let gains = gains(instrument, rng);
    let truth = draw::draws(&prior, 1, 30, rng, &compute).unwrap();
    let clean = circular_convolve(&truth, &gains).unwrap();
    let seen: Vec<f64> = gains.iter().map(|g| f64::from(u8::from(*g > 0.0))).collect();
    let noise = (rng.normals(&[1, 1, SIDE, SIDE], &compute).unwrap() * sigma).unwrap();
    let data = (clean + circular_convolve(&noise, &seen).unwrap()).unwrap();
    let forward = Filter { grid: Grid::sky(SIDE, 1e-9).unwrap(), gains: gains.clone() };
    let normal = Normal { data: data.flatten_from(1).unwrap(), sigma };
    let problem = Problem {
        forward: Arc::new(forward),
        likelihoods: vec![Arc::new(normal)],
        scaling: Scaling::IDENTITY,
    };
    Case { prior, problem, sigma, gains, data }
}

/// How draws compare with the exact posterior.
#[derive(Debug)]
struct Comparison {
    /// Standard deviation over exact standard deviation, rms over observed modes.
    observed: f64,
    /// The same over modes of which the data say nothing.
    unobserved: f64,
    /// Squared error of the mean over its Monte-Carlo variance for independent chains, mean over modes.
    mean: f64,
}

/// Compares the modes of draws with the exact posterior.
fn compare(case: &Case, draws: &Draws) -> Comparison {
    let count = draws.len();
    let host = |x: &Tensor| -> Vec<f64> {
        let modes = fourier_modes(x).unwrap().flatten_all().unwrap();
        modes.to_dtype(candle_core::DType::F64).unwrap().to_vec1().unwrap()
    };
    let modes = SIDE * SIDE;
    let values = host(&draws.images);
    let data = host(&case.data);
    let (mut ratio, mut number, mut pull) = ([0.0; 2], [0.0; 2], 0.0);
    for i in 0..modes {
        let information = (case.gains[i] / case.sigma).powi(2);
        let variance = 1.0 / (1.0 / case.prior.variances()[i] + information);
        // Real and imaginary parts share the variance of a mode, but a real mode has one part only.
        let own = if i == mirror(i) { variance } else { variance / 2.0 };
        let observed = information * case.prior.variances()[i] > 1.0;
        for part in 0..if i == mirror(i) { 1 } else { 2 } {
            let exact = variance * data[2 * i + part] * case.gains[i] / case.sigma.powi(2);
            let value = |draw: usize| values[2 * (draw * modes + i) + part];
            let mean = (0..count).map(value).sum::<f64>() / count as f64;
            let squares = (0..count).map(|draw| (value(draw) - exact).powi(2)).sum::<f64>();
            ratio[usize::from(observed)] += squares / count as f64 / own;
            number[usize::from(observed)] += 1.0;
            pull += (mean - exact).powi(2) / (own / draws.chains() as f64);
        }
    }
    Comparison {
        observed: (ratio[1] / number[1]).sqrt(),
        unobserved: (ratio[0] / number[0]).sqrt(),
        mean: pull / (number[0] + number[1]),
    }
}

fn run(solver: &mut dyn Solver, case: &Case, rng: &Rng) -> Comparison {
    for step in 0..solver.steps() {
        solver.step(&case.problem, &case.prior, &mut rng.stream("step", step as u64)).unwrap();
    }
    compare(case, &solver.draws().unwrap())
}

/// Runs a sampler from draws of the prior on every instrument and holds it to the exact posterior.
fn check(name: &str, make: impl Fn(Tensor) -> Box<dyn Solver>, singular: bool) {
    for instrument in [Instrument::Blur(1.0), Instrument::Modes] {
        let rng = Rng::new(3);
        let mut case = case(instrument, 0.3, &mut rng.stream("case", 0));
        if singular {
            case.problem.likelihoods = case.problem.likelihoods.drain(..).map(Singular::wrap).collect();
        }
        let start = draw::draws(&case.prior, 16, 20, &mut rng.stream("start", 0), &Compute::cpu()).unwrap();
        let clock = std::time::Instant::now();
        let found = run(make(start).as_mut(), &case, &rng);
        println!("{name} {instrument:?}: {found:?} {:?}", clock.elapsed());
        assert!((0.95..1.05).contains(&found.observed), "{name} {instrument:?}: {found:?}");
        assert!((0.95..1.05).contains(&found.unobserved), "{name} {instrument:?}: {found:?}");
        assert!(found.mean < 1.2, "{name} {instrument:?}: {found:?}");
    }
}

/// A likelihood that asks for samplers with an accept step.
struct Singular(Arc<dyn Likelihood>);

impl Singular {
    fn wrap(inner: Arc<dyn Likelihood>) -> Arc<dyn Likelihood> {
        Arc::new(Self(inner))
    }
}

impl Likelihood for Singular {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn count(&self) -> usize {
        self.0.count()
    }
    fn log_prob(&self, predicted: &Tensor) -> Result<Tensor> {
        self.0.log_prob(predicted)
    }
    fn residuals(&self, predicted: &Tensor) -> Result<Tensor> {
        self.0.residuals(predicted)
    }
    fn draw(&self, predicted: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        self.0.draw(predicted, rng)
    }
    fn is_singular(&self) -> bool {
        true
    }
}

#[test]
fn split_gibbs_matches_the_exact_field() {
    let settings = GibbsSettings { cycles: 8, ..GibbsSettings::default() };
    check("split Gibbs", |start| Box::new(Gibbs::new(settings.clone(), start).unwrap()), true);
}

/// Chains that begin on half as many pixels along each side, in another unit: where they pass on to all pixels their mean is that of
/// the posterior under the coupling, and their draws in the end are draws of the posterior.
#[test]
fn split_gibbs_begins_on_coarser_pixels() {
    /// Network units of the coarser prior in one of the finer.
    const UNIT: f64 = 0.5;
    let rng = Rng::new(3);
    let case = case(Instrument::Blur(1.0), 0.3, &mut rng.stream("case", 0));
    let compute = Compute::cpu();
    // The mean of a block has a quarter of the variance of a mode that is the same in its pixels.
    let of_blocks = |f: f64| power(f / 2.0) * 0.25 / (UNIT * UNIT);
    let coarse = Gaussian::periodic([SIDE / 2, SIDE / 2], of_blocks, &compute).unwrap();
    let fine = Gaussian::periodic([SIDE, SIDE], power, &compute).unwrap();
    let scaling = Scaling { unit: UNIT, dark: 0.0 };
    let prior = Pyramid::new(Box::new(fine), Box::new(coarse), scaling).unwrap();

    let settings = GibbsSettings { cycles: 1, coarse_level: Some(0.5), draws: 4, ..GibbsSettings::default() };
    let start = draw::draws(&case.prior, 64, 20, &mut rng.stream("start", 0), &compute).unwrap();
    let mut gibbs = Gibbs::new(settings, start).unwrap();
    let (mut last, mut level) = (None, 0.0);
    for step in 0..gibbs.steps() {
        let done = gibbs.step(&case.problem, &prior, &mut rng.stream("step", step as u64)).unwrap();
        let x = gibbs.state().unwrap().remove("gibbs.x").unwrap();
        if x.dim(3).unwrap() == SIDE / 2 {
            level = done.metrics.iter().find(|(name, _)| *name == "level").unwrap().1;
            last = Some(x);
        }
    }
    let rms = |x: &Tensor| x.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    let wiener = |i: usize| {
        let (gain, variance) = (case.gains[i], case.prior.variances()[i]);
        gain * variance / (gain * gain * (variance + level * level) + case.sigma * case.sigma)
    };
    let gains: Vec<f64> = (0..SIDE * SIDE).map(wiener).collect();
    let exact = halved(&circular_convolve(&case.data, &gains).unwrap()).unwrap();
    let mean = (last.unwrap().mean_keepdim(0).unwrap() * UNIT).unwrap();
    let error = rms(&(mean - &exact).unwrap()) / rms(&exact);
    let found = compare(&case, &gibbs.draws().unwrap());
    println!("level {level}: mean off by {error}, then {found:?}");
    assert!(error < 0.15, "{error}");
    assert!((0.95..1.05).contains(&found.observed), "{found:?}");
    assert!((0.95..1.05).contains(&found.unobserved), "{found:?}");
    assert!(found.mean < 1.2, "{found:?}");
}

#[test]
fn langevin_matches_the_exact_field() {
    let settings = LangevinSettings { anneal: 100, iterations: 300, ..LangevinSettings::default() };
    check("Langevin", |start| Box::new(Langevin::new(settings.clone(), start).unwrap()), false);
}

#[test]
fn langevin_with_likelihood_flows_matches_the_exact_field() {
    let settings = LangevinSettings { anneal: 100, iterations: 300, ..LangevinSettings::default() };
    check("Langevin, flows", |start| Box::new(Langevin::new(settings.clone(), start).unwrap()), true);
}

/// At a high level the denoised mean leaves out most of the spread of weak modes; draws given z bring it back.
#[test]
fn langevin_draws_what_the_denoised_mean_leaves_out() {
    let rng = Rng::new(3);
    let case = case(Instrument::Modes, 0.3, &mut rng.stream("case", 0));
    let start = draw::draws(&case.prior, 16, 20, &mut rng.stream("start", 0), &Compute::cpu()).unwrap();
    let spread = |denoise: usize| {
        let level = 0.15 / case.prior.data_std();
        let settings = LangevinSettings { anneal: 0, iterations: 120, denoise, level, ..Default::default() };
        run(&mut Langevin::new(settings, start.clone()).unwrap(), &case, &rng).unobserved
    };
    let [mean, drawn] = [spread(1), spread(5)];
    assert!(mean < 0.9 && (0.95..1.05).contains(&drawn), "{mean} {drawn}");
}

/// At a level far below all that prior and data resolve, steps are as long as the posterior allows, not as the level does: images
/// that all lie on the data spread out within 200 steps.
#[test]
fn langevin_without_annealing_takes_the_steps_of_the_posterior() {
    let rng = Rng::new(3);
    let case = case(Instrument::Blur(1.0), 0.3, &mut rng.stream("case", 0));
    let start = case.data.reshape((1, 1, SIDE, SIDE)).unwrap().repeat((16, 1, 1, 1)).unwrap();
    let settings =
        LangevinSettings { anneal: 0, iterations: 200, draws: 1, level: 0.01, ..Default::default() };
    let found = run(&mut Langevin::new(settings, start).unwrap(), &case, &rng);
    println!("{found:?}");
    assert!((0.93..1.07).contains(&found.observed), "{found:?}");
    assert!((0.93..1.07).contains(&found.unobserved), "{found:?}");
}
