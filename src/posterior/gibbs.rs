//! Annealed split Gibbs sampling: the likelihood by Hamiltonian steps, the prior by reverse diffusion.
//!
//! An auxiliary image z splits the posterior (Vono et al. 2019; PnP-DM, Wu et al. 2024):
//! p(x) N(z; x, r^2 I) p(y|z), whose marginal in x tends to the posterior as the coupling r falls. Each round draws
//! z given x by Metropolis-adjusted Hamiltonian steps, which need no network and cannot leave their target even
//! where the likelihood is singular, and x given z by a short reverse diffusion from noise level r.
//!
//! Chains that end in a wrong mode (a wrong turn of a phase) are recognised by their fit: see [`Restart`].

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    instrument::Problem,
    posterior::{
        Solver, Step,
        diagnostics::{LOST, below_better_half, scatter},
        hmc::{self, Point, QUARTER_TURN, Reference, StepSizes},
        solver::TensorMap,
        thinning::Thinning,
    },
    prior::{Denoiser, reverse::draw_given_noisy},
    rng::Rng,
};

/// Settings of [`Gibbs`]. Levels are in units of the prior's standard deviation per pixel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GibbsSettings {
    /// Rounds in which the coupling r falls geometrically.
    pub anneal: usize,
    /// Rounds at the final r; the first quarter is burn-in.
    pub rounds: usize,
    /// Draws kept of each chain, evenly spaced over the rounds after burn-in.
    pub draws: usize,
    /// First r: about 5 from draws of the prior, about 1 from fitted particles.
    pub start_level: f64,
    /// Final r: data noise grows by r in quadrature, chains move by about r a round.
    pub final_level: f64,
    /// Denoiser evaluations of one draw of x given z.
    pub denoise: usize,
    /// Largest number of leapfrog steps of one trajectory.
    pub leaps: usize,
    /// Trajectories a round.
    pub trajectories: usize,
    /// Acceptance that the step sizes are adapted to, until burn-in ends.
    pub acceptance: f64,
    /// What becomes of chains in a wrong mode.
    pub restart: Restart,
}

impl Default for GibbsSettings {
    fn default() -> Self {
        Self {
            anneal: 100,
            rounds: 100,
            draws: 16,
            start_level: 5.0,
            final_level: 0.05,
            denoise: 5,
            leaps: 32,
            trajectories: 1,
            acceptance: 0.8,
            restart: Restart::default(),
        }
    }
}

/// The rule for chains in a wrong mode.
///
/// A chain is lost when its log likelihood, averaged over recent rounds, lies more than `threshold` sqrt(M/2) nats
/// below the median of the better half of the chains (M data; sqrt(M/2) is the scatter of a log likelihood within one
/// mode). While r is above `level` a lost chain restarts from a copy of a chain that is not, as in sequential Monte
/// Carlo, and the copies part again. Chains that are still lost at the final r stay among the draws and are
/// counted in the metric `lost`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Restart {
    /// Distance below the better half, units of sqrt(M/2) nats.
    pub threshold: f64,
    /// Smallest r at which chains are replaced, units of the prior's standard deviation.
    pub level: f64,
    /// Rounds between two checks.
    pub every: usize,
}

impl Default for Restart {
    fn default() -> Self {
        Self { threshold: LOST, level: 0.2, every: 5 }
    }
}

/// Weight of the latest round in a chain's running fit.
const RECENT: f64 = 0.3;

/// Annealed split Gibbs sampler, one chain per start image.
#[derive(Debug)]
pub struct Gibbs {
    settings: GibbsSettings,
    round: usize,
    x: Tensor,
    point: Option<Point>,
    steps: StepSizes,
    fit: Vec<f64>,
    kept: Thinning,
}

impl Gibbs {
    /// A sampler whose chains start at the images `start` `[K, Z, Y, X]`, network unit.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(settings: GibbsSettings, start: Tensor) -> Result<Self> {
        let wrong = |place: &str, problem: &str| Err(Error::config(format!("solver.{place}"), problem));
        if settings.rounds < settings.draws || settings.draws == 0 {
            return wrong("draws", "must be between 1 and solver.rounds");
        }
        if !(settings.final_level > 0.0 && settings.final_level <= settings.start_level) {
            return wrong("final_level", "must be positive and not above solver.start_level");
        }
        if !(0.0..1.0).contains(&settings.acceptance) {
            return wrong("acceptance", "must lie between 0 and 1; use 0.8");
        }
        let chains = start.dim(0)?;
        let steps = StepSizes::new(chains, 0.1, QUARTER_TURN / 2.0, settings.acceptance);
        let fit = vec![f64::NAN; chains];
        let end = settings.anneal + settings.rounds;
        let kept = Thinning::new(settings.anneal + settings.rounds / 4, end, settings.draws);
        Ok(Self { settings, round: 0, x: start, point: None, steps, fit, kept })
    }

    /// Coupling r of the current round, network unit.
    fn level(&self, prior: &dyn Denoiser) -> f64 {
        let s = &self.settings;
        let fraction = if s.anneal == 0 { 1.0 } else { (self.round as f64 / s.anneal as f64).min(1.0) };
        prior.data_std() * s.start_level * (s.final_level / s.start_level).powf(fraction)
    }

    /// Replaces lost chains by copies of the others and says how many there were.
    fn restart(&mut self, lost: &[bool], rng: &mut Rng) -> Result<usize> {
        let sources = replacements(lost, rng);
        let index: Vec<u32> = sources.iter().map(|&i| i as u32).collect();
        let index = Tensor::from_vec(index, sources.len(), &Device::Cpu)?.to_device(self.x.device())?;
        self.x = self.x.index_select(&index, 0)?;
        if let Some(point) = &self.point {
            self.point = Some(point.index_select(&index)?);
        }
        self.steps.copy_from(&sources);
        self.fit = sources.iter().map(|&i| self.fit[i]).collect();
        Ok(lost.iter().filter(|lost| **lost).count())
    }
}

/// For each chain the chain it continues: itself, or for a lost one another, all of them used equally often.
fn replacements(lost: &[bool], rng: &mut Rng) -> Vec<usize> {
    let good: Vec<usize> = (0..lost.len()).filter(|&i| !lost[i]).collect();
    let mut next = rng.below(good.len());
    let replace = |i: usize| {
        if !lost[i] || good.is_empty() {
            return i;
        }
        next += 1;
        good[next % good.len()]
    };
    (0..lost.len()).map(replace).collect()
}

impl Solver for Gibbs {
    fn steps(&self) -> usize {
        self.settings.anneal + self.settings.rounds
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let level = self.level(prior);
        let mut target = |z: &Tensor| problem.log_likelihood_and_gradient(z);
        let mut point = match self.point.take() {
            Some(point) => point,
            None => Point::new(self.x.clone(), &mut target)?,
        };
        let reference = Reference::Gaussian { centre: self.x.clone(), width: level };
        let mut acceptance = 0.0;
        for _ in 0..self.settings.trajectories.max(1) {
            let outcome = hmc::draw(&mut target, &reference, &point, &self.steps, self.settings.leaps, rng)?;
            if self.round < self.kept.first() {
                self.steps.adapt(&outcome.acceptance);
            }
            acceptance = mean(&outcome.acceptance);
            point = outcome.point;
        }
        self.x = draw_given_noisy(prior, &point.position, level, self.settings.denoise, rng)?;
        let now = hmc::to_host(&point.log_density)?;
        for (fit, now) in self.fit.iter_mut().zip(&now) {
            *fit = if fit.is_finite() { *fit + RECENT * (now - *fit) } else { *now };
        }
        self.point = Some(point);
        let lost = below_better_half(&self.fit, self.settings.restart.threshold * scatter(problem));
        let due = self.round > 0 && self.round.is_multiple_of(self.settings.restart.every.max(1));
        let early = level > self.settings.restart.level * prior.data_std();
        let restarted = if due && early { self.restart(&lost, rng)? } else { 0 };
        self.kept.offer(self.round, &self.x);
        self.round += 1;
        let metrics = vec![
            ("level", level),
            ("log_likelihood", mean(&now)),
            ("acceptance", acceptance),
            ("step", self.steps.median()),
            ("lost", lost.iter().filter(|lost| **lost).count() as f64),
            ("restarted", restarted as f64),
        ];
        Ok(Step { stage: "gibbs", metrics })
    }

    fn draws(&self) -> Result<Tensor> {
        self.kept.draws()
    }

    fn state(&self) -> Result<TensorMap> {
        let mut state = TensorMap::from([
            ("gibbs.round".into(), Tensor::new(self.round as i64, &Device::Cpu)?),
            ("gibbs.x".into(), self.x.clone()),
            ("gibbs.steps".into(), self.steps.state()?),
        ]);
        if let Some(point) = &self.point {
            state.insert("gibbs.z".into(), point.position.clone());
            state.insert("gibbs.log_density".into(), point.log_density.clone());
            state.insert("gibbs.gradient".into(), point.gradient.clone());
            state.insert("gibbs.fit".into(), Tensor::new(self.fit.as_slice(), &Device::Cpu)?);
        }
        if self.kept.has_draws() {
            state.insert("gibbs.draws".into(), self.draws()?);
        }
        Ok(state)
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        let mut take = |name: &str| state.remove(&format!("gibbs.{name}"));
        let missing = || Error::config("--resume", "the checkpoint belongs to another solver; start again");
        let (round, x, steps) = (take("round"), take("x"), take("steps"));
        let (round, x, steps) =
            (round.ok_or_else(missing)?, x.ok_or_else(missing)?, steps.ok_or_else(missing)?);
        if x.dims() != self.x.dims() {
            let (expected, found) = (self.x.dims().to_vec(), x.dims().to_vec());
            return Err(Error::Shape { what: "chains of the checkpoint", expected, found });
        }
        self.steps = StepSizes::from_state(&steps, self.x.dim(0)?, self.settings.acceptance)?;
        self.round = round.to_scalar::<i64>()?.unsigned_abs() as usize;
        self.x = x;
        self.point = match (take("z"), take("log_density"), take("gradient")) {
            (Some(position), Some(log_density), Some(gradient)) => {
                Some(Point { position, log_density, gradient })
            }
            _ => None,
        };
        if let Some(fit) = take("fit") {
            self.fit = hmc::to_host(&fit)?;
        }
        self.kept.restore(take("draws"))
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
