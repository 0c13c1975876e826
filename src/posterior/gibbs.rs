//! Annealed split Gibbs sampling: the likelihood by Hamiltonian steps, the prior by reverse diffusion.
//!
//! An auxiliary image z splits the posterior (Vono et al. 2019; PnP-DM, Wu et al. 2024):
//! p(x) N(z; x, r^2 I) p(y|z), whose marginal in x tends to the posterior as the coupling r falls. Each round draws
//! z given x by Metropolis-adjusted Hamiltonian steps, which need no network and cannot leave their target even
//! where the likelihood is singular, and x given z by a short reverse diffusion from noise level r.
//!
//! Chains that end in a wrong mode (a wrong turn of a phase) are recognised by their fit: see [`Restart`].

use std::f64::consts::TAU;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    instrument::Problem,
    posterior::{
        Solver, Step,
        hmc::{self, Point, QUARTER_TURN, Reference, StepSizes},
        restart::{self, Fits, Restart},
        solver::{TensorMap, take},
        thinning::Thinning,
    },
    prior::{Denoiser, reverse::draw_given_noisy},
    rng::Rng,
};

/// Settings of [`Gibbs`]. Levels are in units of the prior's standard deviation per pixel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GibbsSettings {
    /// Times that r falls, each from the start images with new noise: draws of different cycles are nearly
    /// independent, which they are not within a cycle.
    pub cycles: usize,
    /// Rounds of a cycle in which the coupling r falls; see [`GibbsSettings::level`].
    pub anneal: usize,
    /// Rounds of a cycle at the final r; the first quarter is burn-in.
    pub rounds: usize,
    /// Draws kept of each chain in a cycle, evenly spaced over the rounds after burn-in.
    pub draws: usize,
    /// First r of a cycle: large enough for chains to forget where they start.
    pub start_level: f64,
    /// Final r, below what the data resolve: data noise grows by r in quadrature, chains move by about r a round.
    /// Scan-averaged closures of a bright source resolve less than 1/20.
    pub final_level: f64,
    /// Denoiser evaluations of one draw of x given z.
    pub denoise: usize,
    /// Largest number of leapfrog steps of one trajectory.
    pub leaps: usize,
    /// Trajectories of the first round of a cycle; their number falls linearly to 1. Only a large r lets them pass from
    /// one solution of the data to another.
    pub trajectories: usize,
    /// Acceptance that the step sizes are adapted to, until burn-in ends.
    pub acceptance: f64,
    /// What becomes of chains in a wrong mode.
    pub restart: Restart,
}

impl Default for GibbsSettings {
    fn default() -> Self {
        Self {
            cycles: 8,
            anneal: 72,
            rounds: 4,
            draws: 1,
            start_level: 24.0,
            final_level: 0.012,
            denoise: 5,
            leaps: 32,
            trajectories: 10,
            acceptance: 0.8,
            restart: Restart { level: 0.016, ..Restart::default() },
        }
    }
}

/// How much slower than on average ln r falls where it lingers, and faster half a fall away from there.
const LINGER: f64 = 0.6;
/// Where ln r lingers: so many radians of a fall's full turn after half-way.
const LATE: f64 = 0.6;

impl GibbsSettings {
    /// Fraction of a cycle's fall that the given round has reached.
    fn time(&self, round: usize) -> f64 {
        if self.anneal == 0 { 1.0 } else { (round as f64 / self.anneal as f64).min(1.0) }
    }

    fn trajectories_in(&self, round: usize) -> usize {
        1 + (self.trajectories.saturating_sub(1) as f64 * (1.0 - self.time(round))).round() as usize
    }

    /// Level of the given round of a cycle: a geometric fall that lingers after half-way, where modes part and details
    /// form.
    fn level(&self, round: usize) -> f64 {
        let time = self.time(round);
        let fallen = time + LINGER * ((TAU * time - LATE).sin() + LATE.sin()) / TAU;
        self.start_level * (self.final_level / self.start_level).powf(fallen)
    }
}

/// Annealed split Gibbs sampler, one chain per start image.
#[derive(Debug)]
pub struct Gibbs {
    settings: GibbsSettings,
    round: usize,
    start: Tensor,
    cycle: Cycle,
    kept: Thinning,
}

/// What the chains carry from round to round of one cycle.
#[derive(Debug)]
struct Cycle {
    x: Tensor,
    /// The last z; none before the first round.
    point: Option<Point>,
    steps: StepSizes,
    fits: Fits,
}

impl Cycle {
    /// All chains at the start images `[K, Z, Y, X]`.
    fn new(start: &Tensor, settings: &GibbsSettings) -> Result<Self> {
        let chains = start.dim(0)?;
        Ok(Self {
            x: start.clone(),
            point: None,
            steps: StepSizes::new(chains, 0.1, QUARTER_TURN / 2.0, settings.acceptance),
            fits: Fits::new(chains),
        })
    }

    /// Replaces lost chains by copies of the others.
    fn restart(&mut self, lost: &[bool], rng: &mut Rng) -> Result<()> {
        let sources = restart::replacements(lost, rng);
        let index = restart::index(&sources, &self.x)?;
        self.x = self.x.index_select(&index, 0)?;
        if let Some(point) = &self.point {
            self.point = Some(point.index_select(&index)?);
        }
        self.steps.copy_from(&sources);
        self.fits.copy_from(&sources);
        Ok(())
    }
}

impl Gibbs {
    /// A sampler whose chains start at the images `start` `[K, Z, Y, X]`, network unit.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(settings: GibbsSettings, start: Tensor) -> Result<Self> {
        let wrong = |place: &str, problem: &str| Err(Error::config(place, problem));
        if settings.cycles == 0 {
            return wrong("cycles", "must be at least 1");
        }
        if settings.rounds < settings.draws || settings.draws == 0 {
            return wrong("draws", "must be between 1 and rounds");
        }
        if !(settings.final_level > 0.0 && settings.final_level <= settings.start_level) {
            return wrong("final_level", "must be positive and not above start_level");
        }
        if !(0.0..1.0).contains(&settings.acceptance) {
            return wrong("acceptance", "must lie between 0 and 1; use 0.8");
        }
        let cycle = Cycle::new(&start, &settings)?;
        let end = settings.anneal + settings.rounds;
        let kept = Thinning::new(settings.anneal + settings.rounds / 4, end, settings.draws);
        Ok(Self { settings, round: 0, start, cycle, kept })
    }

    /// Rounds of a cycle.
    fn period(&self) -> usize {
        self.settings.anneal + self.settings.rounds
    }

    /// Coupling r of the given round of a cycle, network unit.
    fn level(&self, round: usize, prior: &dyn Denoiser) -> f64 {
        prior.data_std() * self.settings.level(round)
    }
}

impl Solver for Gibbs {
    fn steps(&self) -> usize {
        self.settings.cycles * self.period()
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let round = self.round % self.period();
        if round == 0 {
            self.cycle = Cycle::new(&self.start, &self.settings)?;
        }
        let level = self.level(round, prior);
        let trajectories = self.settings.trajectories_in(round);
        let cycle = &mut self.cycle;
        let mut target = |z: &Tensor| problem.log_likelihood_and_gradient(z);
        let mut point = match cycle.point.take() {
            Some(point) => point,
            None => Point::new(cycle.x.clone(), &mut target)?,
        };
        let reference = Reference::Gaussian { centre: cycle.x.clone(), width: level };
        let mut acceptance = 0.0;
        for _ in 0..trajectories {
            let outcome = hmc::draw(&mut target, &reference, &point, &cycle.steps, self.settings.leaps, rng)?;
            if round < self.kept.first() {
                cycle.steps.adapt(&outcome.acceptance);
            }
            acceptance = mean(&outcome.acceptance);
            point = outcome.point;
        }
        cycle.x = draw_given_noisy(prior, &point.position, level, self.settings.denoise, rng)?;
        let log_likelihood = cycle.fits.observe(&point.log_density)?;
        cycle.point = Some(point);
        let rule = &self.settings.restart;
        let lost = cycle.fits.lost(rule, problem);
        let due = rule.due(round, self.settings.anneal);
        let restarts = due && level > rule.level * prior.data_std();
        if restarts {
            cycle.restart(&lost, rng)?;
        }
        self.kept.offer(round, &self.cycle.x);
        self.round += 1;
        let metrics = vec![
            ("level", level),
            ("log_likelihood", log_likelihood),
            ("acceptance", acceptance),
            ("step_size", self.cycle.steps.median()),
            ("lost", restart::count(&lost)),
            ("restarted", if restarts { restart::count(&lost) } else { 0.0 }),
        ];
        Ok(Step { stage: "gibbs", metrics })
    }

    fn draws(&self) -> Result<Tensor> {
        self.kept.draws()
    }

    fn state(&self) -> Result<TensorMap> {
        let mut state = TensorMap::new();
        let mut put = |name: &str, tensor: Tensor| state.insert(format!("gibbs.{name}"), tensor);
        put("round", Tensor::new(&[self.round as i64], &Device::Cpu)?);
        put("start", self.start.clone());
        put("x", self.cycle.x.clone());
        put("steps", self.cycle.steps.state()?);
        if let Some(point) = &self.cycle.point {
            put("z", point.position.clone());
            put("log_density", point.log_density.clone());
            put("gradient", point.gradient.clone());
            put("fits", self.cycle.fits.state()?);
        }
        if self.kept.has_draws() {
            put("draws", self.kept.draws()?);
        }
        Ok(state)
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        let images = self.start.dims().to_vec();
        let chains = images[0];
        let draws = state.remove("gibbs.draws");
        let mut take = |name: &str, shape: &[usize]| take(&mut state, &format!("gibbs.{name}"), shape);
        let round = take("round", &[1])?.to_vec1::<i64>()?;
        self.round = round.first().map_or(0, |n| n.unsigned_abs() as usize);
        self.start = take("start", &images)?;
        self.cycle.x = take("x", &images)?;
        self.cycle.steps =
            StepSizes::from_state(&take("steps", &[chains + 1])?, chains, self.settings.acceptance)?;
        self.cycle.point = None;
        if self.round > 0 {
            self.cycle.fits.restore(&take("fits", &[chains])?)?;
            self.cycle.point = Some(Point {
                position: take("z", &images)?,
                log_density: take("log_density", &[chains])?,
                gradient: take("gradient", &images)?,
            });
        }
        self.kept.restore(draws)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
