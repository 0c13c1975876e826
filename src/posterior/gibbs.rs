//! Annealed split Gibbs sampling: the likelihood by Hamiltonian steps, the prior by reverse diffusion.
//!
//! An auxiliary image z splits the posterior (Vono et al. 2019; PnP-DM, Wu et al. 2024):
//! p(x) N(z; x, r^2 I) p(y|z), whose marginal in x tends to the posterior as the coupling r falls. Each round draws
//! z given x by Metropolis-adjusted Hamiltonian steps, which need no network and cannot leave their target even
//! where the likelihood is singular, and x given z by a short reverse diffusion from noise level r.
//!
//! Chains that end in a wrong mode (a wrong turn of a phase) are recognised by their fit: see [`Restart`]. While r is
//! large they go on from copies of others, which part again; later they are given up for this cycle and leave no draw.

use std::{collections::BTreeMap, f64::consts::TAU};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    instrument::Problem,
    posterior::{
        Draws, Solver, Step,
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
            cycles: 28,
            anneal: 72,
            rounds: 4,
            draws: 1,
            start_level: 24.0,
            final_level: 0.012,
            denoise: 5,
            leaps: 128,
            trajectories: 4,
            acceptance: 0.8,
            restart: Restart { level: 0.15, ..Restart::default() },
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
    /// Fits of all chains of all cycles at the rounds where lost chains are looked for.
    seen: BTreeMap<usize, Vec<f64>>,
    kept: Thinning,
}

/// What the chains carry from round to round of one cycle.
#[derive(Debug)]
struct Cycle {
    /// Start image of each chain that is left.
    chains: Vec<usize>,
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
            chains: (0..chains).collect(),
            x: start.clone(),
            point: None,
            steps: StepSizes::new(chains, 0.1, QUARTER_TURN / 2.0, settings.acceptance),
            fits: Fits::new(chains),
        })
    }

    /// Gives up all chains but these.
    fn narrow(&mut self, left: &[usize]) -> Result<()> {
        self.chains = left.iter().map(|&i| self.chains[i]).collect();
        self.take(left)
    }

    /// Chain i continues where chain `sources[i]` is.
    fn take(&mut self, sources: &[usize]) -> Result<()> {
        let index = restart::index(sources, &self.x)?;
        self.x = self.x.index_select(&index, 0)?;
        if let Some(point) = &self.point {
            self.point = Some(point.index_select(&index)?);
        }
        self.steps.copy_from(sources);
        self.fits.copy_from(sources);
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
        Ok(Self { settings, round: 0, start, cycle, seen: BTreeMap::new(), kept })
    }

    /// Rounds of a cycle.
    fn period(&self) -> usize {
        self.settings.anneal + self.settings.rounds
    }

    /// Looks for lost chains where it is due: replaces them while copies still part, gives them up later, and keeps
    /// the others' draws. Returns how many were replaced and given up.
    fn check(&mut self, round: usize, parting: bool, problem: &Problem, rng: &mut Rng) -> Result<[f64; 2]> {
        let (rule, draws) = (&self.settings.restart, self.kept.is_due(round));
        if !draws && !rule.due(round, self.settings.anneal) {
            return Ok([0.0; 2]);
        }
        let cycle = &mut self.cycle;
        let seen = self.seen.entry(round).or_default();
        seen.extend(cycle.fits.values());
        let lost = cycle.fits.lost(seen, rule, problem);
        if parting {
            cycle.take(&restart::replacements(&lost, rng))?;
            return Ok([restart::count(&lost), 0.0]);
        }
        let good: Vec<usize> = (0..lost.len()).filter(|&i| !lost[i]).collect();
        // The best of a cycle goes on even if all are lost, and leaves no draw either.
        let left = if good.is_empty() { vec![cycle.fits.best()] } else { good.clone() };
        let dropped = cycle.chains.len() - left.len();
        if dropped > 0 {
            cycle.narrow(&left)?;
        }
        if draws && !good.is_empty() {
            self.kept.keep(&cycle.x, &cycle.chains, self.round);
        }
        Ok([0.0, dropped as f64])
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
        let [restarted, dropped] =
            self.check(round, level > self.settings.restart.level * prior.data_std(), problem, rng)?;
        self.round += 1;
        let metrics = vec![
            ("level", level),
            ("log_likelihood", log_likelihood),
            ("acceptance", acceptance),
            ("step_size", self.cycle.steps.median()),
            ("restarted", restarted),
            ("dropped", dropped),
        ];
        Ok(Step { stage: "gibbs", metrics })
    }

    fn draws(&self) -> Result<Draws> {
        self.kept.draws()
    }

    fn state(&self) -> Result<TensorMap> {
        let mut state = TensorMap::new();
        let mut put = |name: &str, tensor: Tensor| state.insert(format!("gibbs.{name}"), tensor);
        put("round", Tensor::new(&[self.round as i64], &Device::Cpu)?);
        put("start", self.start.clone());
        let chains: Vec<i64> = self.cycle.chains.iter().map(|&chain| chain as i64).collect();
        put("chains", Tensor::new(chains, &Device::Cpu)?);
        put("x", self.cycle.x.clone());
        put("steps", self.cycle.steps.state()?);
        if let Some(point) = &self.cycle.point {
            put("z", point.position.clone());
            put("log_density", point.log_density.clone());
            put("gradient", point.gradient.clone());
            put("fits", self.cycle.fits.state()?);
        }
        let seen =
            self.seen.iter().flat_map(|(&round, fits)| fits.iter().flat_map(move |&fit| [round as f64, fit]));
        let seen: Vec<f64> = seen.collect();
        if !seen.is_empty() {
            put("seen", Tensor::from_vec(seen, ((), 2), &Device::Cpu)?);
        }
        self.kept.save("gibbs", &mut state)?;
        Ok(state)
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        self.kept.restore("gibbs", &mut state)?;
        self.seen.clear();
        if let Some(seen) = state.remove("gibbs.seen") {
            for pair in hmc::to_host(&seen)?.chunks_exact(2) {
                self.seen.entry(pair[0] as usize).or_default().push(pair[1]);
            }
        }
        let all = self.start.dims().to_vec();
        let left = state.get("gibbs.chains").map_or(0, Tensor::elem_count);
        let images = [&[left], &all[1..]].concat();
        let mut take = |name: &str, shape: &[usize]| take(&mut state, &format!("gibbs.{name}"), shape);
        let round = take("round", &[1])?.to_vec1::<i64>()?;
        self.round = round.first().map_or(0, |n| n.unsigned_abs() as usize);
        self.start = take("start", &all)?;
        let chains = take("chains", &[left])?.to_vec1::<i64>()?;
        self.cycle.chains = chains.iter().map(|&chain| chain.unsigned_abs() as usize).collect();
        self.cycle.x = take("x", &images)?;
        self.cycle.steps =
            StepSizes::from_state(&take("steps", &[left + 1])?, left, self.settings.acceptance)?;
        self.cycle.point = None;
        if self.round > 0 {
            self.cycle.fits.restore(&take("fits", &[left])?)?;
            self.cycle.point = Some(Point {
                position: take("z", &images)?,
                log_density: take("log_density", &[left])?,
                gradient: take("gradient", &images)?,
            });
        }
        Ok(())
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
