//! What a solver needs and problem, prior or settings lack is named in words, before the first step where
//! that can be known.

use std::sync::Arc;

use antumbra::{
    Result,
    compute::Compute,
    grid::Grid,
    instrument::{
        Forward, Likelihood, Measured, Problem,
        exact::{Filter, Normal, Projection, projection},
    },
    posterior::SolverSettings,
    prior::{Denoiser, Scaling, gaussian::Gaussian},
    rng::Rng,
};
use candle_core::{DType, Device, Tensor};

use super::rivals::bed;

/// Rivals that need the data as independent measurements of coordinates of the image.
const LINEAR: [&str; 10] = [
    "pigdm",
    "moment_matching",
    "ddrm",
    "ddnm",
    "mcgdiff",
    "fps",
    "afdps_sde",
    "afdps_ode",
    "fk_corrector",
    "eps",
];

/// An instrument that is not linear.
struct Square(Grid);

impl Forward for Square {
    fn grid(&self) -> &Grid {
        &self.0
    }
    fn apply(&self, image: &Tensor) -> Result<Tensor> {
        Ok(image.flatten_from(1)?.sqr()?)
    }
}

/// Normal noise of which solvers are told only this.
struct Told {
    normal: Normal,
    measured: Option<Measured>,
    singular: bool,
}

impl Likelihood for Told {
    fn name(&self) -> &'static str {
        "told"
    }
    fn count(&self) -> usize {
        self.normal.count()
    }
    fn log_prob(&self, predicted: &Tensor) -> Result<Tensor> {
        self.normal.log_prob(predicted)
    }
    fn residuals(&self, predicted: &Tensor) -> Result<Tensor> {
        self.normal.residuals(predicted)
    }
    fn draw(&self, predicted: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        self.normal.draw(predicted, rng)
    }
    fn is_singular(&self) -> bool {
        self.singular
    }
    fn measured(&self) -> Option<Measured> {
        self.measured.clone()
    }
}

/// A denoiser without weights.
struct Fixed<'a>(&'a dyn Denoiser);

impl Denoiser for Fixed<'_> {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        self.0.denoise(noisy, noise_level)
    }
    fn shape(&self) -> [usize; 3] {
        self.0.shape()
    }
    fn noise_range(&self) -> (f64, f64) {
        self.0.noise_range()
    }
    fn data_std(&self) -> f64 {
        self.0.data_std()
    }
}

fn row(pixels: usize) -> Grid {
    Grid { shape: [1, 1, pixels], pitch: [1.0; 3] }
}

/// So many dark measurements.
fn dark(count: usize) -> Normal {
    Normal { data: Compute::cpu().tensor(vec![0.0; count], &[1, count]).unwrap(), sigma: 0.3 }
}

fn seen(forward: impl Forward + 'static, likelihoods: Vec<Arc<dyn Likelihood>>) -> Problem {
    Problem { forward: Arc::new(forward), likelihoods, scaling: Scaling::IDENTITY }
}

/// One pixel as it is, with this likelihood.
fn pixel(likelihood: Told) -> Problem {
    let plain = projection(&[vec![1.0]], &[0.0], 0.3, &Compute::cpu()).unwrap();
    Problem { likelihoods: vec![Arc::new(likelihood)], ..plain }
}

/// Why a solver does not begin; none if it does.
fn refusal(settings: &SolverSettings, problem: &Problem, prior: &dyn Denoiser) -> Option<String> {
    settings.build(problem, prior, &Rng::new(1), &Compute::cpu()).err().map(|error| error.to_string())
}

fn refusal_of(name: &str, problem: &Problem, prior: &dyn Denoiser) -> Option<String> {
    refusal(&SolverSettings::named(name).unwrap(), problem, prior)
}

/// Exactly these rivals refuse, all in these words; the blind one needs an instrument of its own.
fn only(names: &[&str], words: &str, problem: &Problem, prior: &dyn Denoiser) {
    let rivals = SolverSettings::rivals().into_iter().filter(|settings| settings.name() != "blind_dps");
    let found: Vec<(&str, String)> =
        rivals.filter_map(|settings| Some((settings.name(), refusal(&settings, problem, prior)?))).collect();
    assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names, "{found:?}");
    for (name, reason) in found {
        assert!(reason.contains(words), "{name}: {reason}");
    }
}

#[test]
fn a_linear_instrument_with_independent_gaussian_noise() {
    let bed = bed("gaussian-1d");
    let prior = bed.prior.as_ref();
    let square = seen(Square(row(1)), vec![Arc::new(dark(1))]);
    only(&LINEAR, "a linear forward model", &square, prior);
    let unknown = pixel(Told { normal: dark(1), measured: None, singular: false });
    only(&LINEAR, "Gaussian noise of fixed variance", &unknown, prior);
    let data: [Arc<dyn Likelihood>; 2] = [Arc::new(dark(1)), Arc::new(dark(2))];
    let plain = projection(&[vec![1.0]], &[0.0], 0.3, &Compute::cpu()).unwrap();
    only(&LINEAR, "measured data", &Problem { likelihoods: data.into(), ..plain }, prior);
}

#[test]
fn a_singular_value_decomposition_of_bounded_size() {
    const LARGE: usize = 1025;
    let compute = Compute::cpu();
    let matrix = Tensor::eye(LARGE, DType::F32, &Device::Cpu).unwrap();
    let problem = seen(Projection { grid: row(LARGE), matrix }, vec![Arc::new(dark(LARGE))]);
    let prior = Gaussian::diagonal(vec![0.0; LARGE], vec![1.0; LARGE], [1, 1, LARGE], &compute).unwrap();
    let words = "a singular-value decomposition (1025 data, 1025 pixels)";
    only(&LINEAR, words, &problem, &prior);
}

#[test]
fn the_same_noise_behind_a_periodic_instrument() {
    const SIDE: usize = 4;
    const PIXELS: usize = SIDE * SIDE;
    let mut sigmas = vec![0.3; PIXELS];
    sigmas[5] = 0.6;
    let measured = Some(Measured { values: vec![0.0; PIXELS], sigmas });
    let filter = Filter { grid: Grid::sky(SIDE, 1e-9).unwrap(), gains: vec![1.0; PIXELS] };
    let uneven = Told { normal: dark(PIXELS), measured, singular: false };
    let prior = Gaussian::periodic([SIDE, SIDE], |_| 1.0, &Compute::cpu()).unwrap();
    only(&LINEAR, "the same noise in all pixels", &seen(filter, vec![Arc::new(uneven)]), &prior);
}

#[test]
fn a_smooth_likelihood() {
    let bed = bed("gaussian-1d");
    let measured = Some(Measured { values: vec![0.0], sigmas: vec![0.3] });
    let problem = pixel(Told { normal: dark(1), measured, singular: true });
    only(&["pmc"], "a smooth likelihood", &problem, bed.prior.as_ref());
}

#[test]
fn a_prior_that_can_be_trained() {
    let bed = bed("gaussian-1d");
    let fixed = Fixed(bed.prior.as_ref());
    only(&["davi", "ddip", "eps"], "this prior", &bed.problem, &fixed);
    let cases = [
        ("davi", "no weights to train"),
        ("ddip", "no weights to train"),
        ("ppm", "no weights to train"),
        ("ppm_generator", "no weights to train"),
        ("eps", "cannot be told about data"),
        ("ppm_amortized", "cannot be told about data"),
    ];
    for (name, words) in cases {
        let reason = refusal_of(name, &bed.problem, &fixed).unwrap();
        assert!(reason.contains(words), "{name}: {reason}");
    }
    // A mixture has components of several directions.
    let bed = self::bed("score-ksd-16");
    let fixed = Fixed(bed.prior.as_ref());
    for name in ["ppm_mixture", "gibbs", "langevin"] {
        assert_eq!(refusal_of(name, &bed.problem, &fixed), None, "{name}");
    }
}

#[test]
fn an_instrument_with_unknown_parameters() {
    let bed = bed("gaussian-1d");
    let reason = refusal_of("blind_dps", &bed.problem, bed.prior.as_ref()).unwrap();
    assert!(reason.contains("an instrument with unknown parameters"), "{reason}");
}

/// Only the first step can tell.
#[test]
fn data_that_can_be_simulated_one_by_one() {
    let bed = bed("gaussian-1d");
    let problem = pixel(Told { normal: dark(1), measured: None, singular: false });
    let (prior, rng) = (bed.prior.as_ref(), Rng::new(1));
    let settings = SolverSettings::named("ppm_amortized").unwrap();
    let mut solver = settings.build(&problem, prior, &rng, &Compute::cpu()).unwrap();
    let reason = solver.step(&problem, prior, &mut rng.stream("step", 0)).unwrap_err().to_string();
    assert!(reason.contains("simulated one by one, which `told` cannot"), "{reason}");
}

#[test]
fn settings_that_can_work() {
    let bed = bed("gaussian-1d");
    let cases = [
        ("dps", "chains: 0", "solver.chains: needs at least 1"),
        ("rlsd", "chains: 1", "solver.chains: needs at least 2 that push each other apart"),
        ("sds", "chains: 0", "at least 1 chain"),
        ("sds", "learning_rate: 0.0", "a positive learning_rate"),
        ("dps", "schedule: {steps: 1}", "solver.schedule: needs at least 2 steps"),
        ("dps", "schedule: {largest: 0.01, smallest: 0.1}", "levels that fall"),
        ("red_diff", "schedule: {steps: 1}", "solver.schedule: needs at least 2 steps"),
        ("moment_matching", "iterations: 0", "solver.iterations: needs at least 1"),
        ("daps", "flow_steps: 0", "at least 1 of flow_steps and of trajectories"),
        ("daps", "trajectories: 0", "at least 1 of flow_steps and of trajectories"),
        ("flow", "couplings: 0", "couplings"),
        ("eps", "training: 0", "training"),
    ];
    for (name, changes, words) in cases {
        let settings: SolverSettings = serde_yaml::from_str(&format!("name: {name}\n{changes}")).unwrap();
        let reason = refusal(&settings, &bed.problem, bed.prior.as_ref()).unwrap();
        assert!(reason.contains(words), "{name} {changes}: {reason}");
    }
}

#[test]
fn draws_of_a_run_that_has_come_to_its_end() {
    let bed = bed("gaussian-1d");
    let settings = SolverSettings::named("dps").unwrap();
    let solver = settings.build(&bed.problem, bed.prior.as_ref(), &Rng::new(1), &Compute::cpu()).unwrap();
    let reason = solver.draws().unwrap_err().to_string();
    assert!(reason.contains("no draws before its burn-in ends"), "{reason}");
}
