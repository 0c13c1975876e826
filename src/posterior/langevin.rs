//! Annealed kinetic Langevin dynamics on the posterior with a smoothed prior: one denoiser evaluation a step, see `kinetic.rs`.
//!
//! The noise level s may fall during the first steps, and draws are the denoised D(z, s) or draws of x given z. A singular
//! likelihood acts as a flow.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    instrument::Problem,
    posterior::{
        Draws, Solver, Step,
        curvature::{largest_curvature, largest_curvature_of},
        hmc::Point,
        kinetic::{Dynamics, Motion, Pace, Way},
        restart::{self, Fits, Restart},
        solver::{TensorMap, take},
        step_sizes::StepSizes,
        thinning::Thinning,
    },
    prior::{
        Denoiser,
        reverse::{denoised, draw_given_noisy},
    },
    rng::Rng,
    tensor::{compute_of, to_host},
    transfer::Transfer,
};

/// Settings of [`Langevin`]. Levels are in units of the prior's standard deviation per pixel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LangevinSettings {
    /// Times that the noise level falls, after the first time from the last positions with new noise: draws of different
    /// cycles are nearly independent, which those of one cycle are not.
    pub cycles: usize,
    /// Steps of a cycle in which the noise level falls geometrically, one denoiser evaluation each.
    pub anneal: usize,
    /// First noise level if there is annealing: about 3 from draws of the prior, about 1 from fitted particles.
    pub start_level: f64,
    /// Steps of a cycle at the final noise level, one denoiser evaluation each.
    pub iterations: usize,
    /// Fraction of these before the first draw.
    pub burn_in: f64,
    /// Draws kept of each chain in a cycle, evenly spaced over the iterations after burn-in.
    pub draws: usize,
    /// Denoiser evaluations of a kept draw: 1 keeps the mean D(z, s), more draw x given z, whose spread matters where s
    /// is not small.
    pub denoise: usize,
    /// Final noise level s of the smoothed prior; below what the data resolve.
    pub level: f64,
    /// Step size in units of 1 / sqrt(largest curvature), stable below 2. The curvature is s^-2, that of the smoothed prior at most,
    /// plus that of a smooth likelihood; without annealing it is measured for both together.
    pub step: f64,
    /// Friction in units of 1 / (standard deviation of the smoothed prior); 2 damps the widest directions critically. It is never
    /// so small that velocities outlive the iterations: the modes of a prior may be much narrower than the whole.
    pub friction: f64,
    /// Largest number of leapfrog steps of one flow of a singular likelihood.
    pub leaps: usize,
    /// Acceptance of these flows that each chain's leapfrog step is adapted to until burn-in ends.
    pub acceptance: f64,
    /// What becomes of chains in a wrong mode while the level falls.
    pub restart: Restart,
}

impl Default for LangevinSettings {
    fn default() -> Self {
        Self {
            cycles: 1,
            anneal: 500,
            start_level: 3.0,
            iterations: 400,
            burn_in: 0.25,
            draws: 16,
            denoise: 1,
            level: 0.05,
            step: 0.7,
            friction: 2.0,
            leaps: 16,
            acceptance: 0.9,
            restart: Restart::default(),
        }
    }
}

/// Kinetic Langevin sampler, one chain per start image.
#[derive(Debug)]
pub struct Langevin {
    settings: LangevinSettings,
    finished: usize,
    start: Tensor,
    motion: Option<Motion>,
    /// Largest curvature of a smooth likelihood; of the whole target where the noise level does not fall.
    curvature: f64,
    /// Leapfrog steps of a singular likelihood's flow, units of the noise level.
    leaps: StepSizes,
    fits: Fits,
    kept: Thinning,
}

impl Langevin {
    /// A sampler whose chains start at the images `start` `[K, Z, Y, X]`, network unit.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(settings: LangevinSettings, start: Tensor) -> Result<Self> {
        let wrong = |place: &str, problem: &str| Err(Error::config(place, problem));
        if settings.draws == 0 || settings.iterations < settings.draws {
            return wrong("draws", "must be between 1 and iterations");
        }
        if settings.denoise == 0 || settings.cycles == 0 {
            return wrong("denoise", "and cycles must be at least 1");
        }
        if !(0.0..1.0).contains(&settings.burn_in) {
            return wrong("burn_in", "is a fraction between 0 and 1; use 0.25");
        }
        if !(settings.step > 0.0 && settings.step < 2.0) {
            return wrong("step", "must lie between 0 and 2; use 0.7");
        }
        if !(settings.level > 0.0 && settings.start_level > 0.0 && settings.friction > 0.0) {
            return wrong("level", "and start_level and friction must be positive");
        }
        let burn_in = settings.anneal + (settings.iterations as f64 * settings.burn_in) as usize;
        let kept = Thinning::new(burn_in, settings.anneal + settings.iterations, settings.draws);
        let chains = start.dim(0)?;
        let (fits, leaps) = (Fits::new(chains), leaps(chains, &settings));
        Ok(Self { settings, finished: 0, start, motion: None, curvature: 0.0, leaps, fits, kept })
    }

    /// Steps of a cycle.
    fn period(&self) -> usize {
        self.settings.anneal + self.settings.iterations
    }

    /// Positions at the start of a cycle: those of the end of the last one, with noise up to the first level.
    fn heated(&self, position: &Tensor, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Tensor> {
        let [hot, cold] = [self.level(0, prior), self.level(self.period(), prior)];
        let noise = rng.normals(position.dims(), &compute_of(position))?;
        Ok((position + (noise * (hot * hot - cold * cold).max(0.0).sqrt())?)?)
    }

    /// Noise level after `finished` steps of a cycle, network unit.
    fn level(&self, finished: usize, prior: &dyn Denoiser) -> f64 {
        let s = &self.settings;
        let left = s.anneal.saturating_sub(finished) as f64 / s.anneal.max(1) as f64;
        (prior.data_std() * s.level * (s.start_level / s.level).powf(left)).max(prior.noise_range().0)
    }

    /// Chains at their start.
    fn begin(&mut self, dynamics: &Dynamics, rng: &mut Rng) -> Result<Motion> {
        let Dynamics { problem, prior, .. } = dynamics;
        let level = self.level(0, *prior);
        self.curvature = match (problem.is_singular(), self.settings.anneal) {
            (true, _) => 0.0,
            (false, 0) => self.whole_curvature(problem, *prior, level, rng)?,
            (false, _) => largest_curvature(problem, &self.start, 0.1 * level, rng)?,
        };
        self.leaps = leaps(self.start.dim(0)?, &self.settings);
        Ok(dynamics.start(self.start.clone(), level, rng)?.0)
    }

    /// Largest curvature of the target at a noise level: the smoothed prior has at most 1 / s^2, and often much less.
    fn whole_curvature(
        &self,
        problem: &Problem,
        prior: &dyn Denoiser,
        level: f64,
        rng: &mut Rng,
    ) -> Result<f64> {
        let some = self.start.narrow(0, 0, self.start.dim(0)?.min(PROBED))?;
        let gradient = |x: &Tensor| {
            let score = ((denoised(prior, x, level)? - x)? / (level * level))?;
            Ok((score + problem.log_likelihood_and_gradient(x)?.1)?)
        };
        let bound = level.powi(-2) + largest_curvature(problem, &some, 0.1 * level, rng)?;
        Ok(bound.min(largest_curvature_of(gradient, &some, 0.1 * level, rng)?))
    }

    /// Steps at a noise level.
    fn pace(&self, prior: &dyn Denoiser, level: f64, flows: bool) -> Pace {
        let smoothed = if flows || self.settings.anneal > 0 { level.powi(-2) } else { 0.0 };
        let step = self.settings.step / (smoothed + self.curvature).sqrt();
        let rate = self.settings.friction / prior.data_std().hypot(level);
        let friction = [rate, FORGETTING / self.settings.iterations as f64];
        match flows {
            true => Pace::of_flows(step, &self.leaps, level, self.settings.leaps, friction),
            false => Pace::even(step, self.fits.values().len(), friction),
        }
    }

    /// Replaces lost chains by copies of the others.
    fn restart(&mut self, motion: &mut Motion, lost: &[bool], rng: &mut Rng) -> Result<()> {
        let sources = restart::replacements(lost, rng);
        motion.take(&restart::index(&sources, &motion.velocity)?)?;
        self.leaps.copy_from(&sources);
        self.fits.copy_from(&sources);
        Ok(())
    }
}

/// First leaps of so many chains.
fn leaps(chains: usize, settings: &LangevinSettings) -> StepSizes {
    StepSizes::new(chains, 0.1, settings.step / 2.0, settings.acceptance)
}

/// Chains on which the curvature of the target is measured.
const PROBED: usize = 8;

/// How often velocities are forgotten at least in the iterations at the final level, in terms of 1/e.
const FORGETTING: f64 = 10.0;

impl Solver for Langevin {
    fn steps(&self) -> usize {
        self.settings.cycles * self.period()
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let now = self.finished % self.period();
        let singular = problem.is_singular();
        let dynamics = Dynamics { problem, prior, way: if singular { Way::Flows } else { Way::Kicks } };
        let mut motion = match self.motion.take() {
            Some(motion) if now > 0 => motion,
            Some(motion) => {
                self.start = self.heated(&motion.point.position, prior, rng)?;
                self.begin(&dynamics, rng)?
            }
            None => self.begin(&dynamics, rng)?,
        };
        let level = self.level(now, prior);
        let pace = self.pace(prior, level, singular);
        let next = self.level(now + 1, prior);
        let leaps = (now < self.kept.first()).then_some(&mut self.leaps);
        let (acceptance, clean) = dynamics.step(&mut motion, &pace, next, leaps, rng)?;
        if self.kept.is_due(now) {
            let chains: Vec<usize> = (0..clean.dim(0)?).collect();
            let draw = match self.settings.denoise {
                1 => clean,
                count => draw_given_noisy(prior, &motion.point.position, next, count, rng)?,
            };
            self.kept.keep(&draw, &chains, self.finished);
        }
        let log_likelihood = self.fits.observe(&motion.point.log_density)?;
        let rule = &self.settings.restart;
        let lost = self.fits.lost(rule, problem);
        let due = rule.due(now, self.settings.anneal);
        let restarts = due && now < self.settings.anneal && level > rule.level * prior.data_std();
        if restarts {
            self.restart(&mut motion, &lost, rng)?;
        }
        self.finished += 1;
        let temperature = motion.cool(&mut self.leaps, rng)?;
        let metrics = vec![
            ("level", level),
            ("log_likelihood", log_likelihood),
            ("temperature", temperature),
            ("acceptance", acceptance),
            ("step_size", pace.steps.iter().sum::<f64>() / pace.steps.len() as f64),
            ("lost", restart::count(&lost)),
            ("restarted", if restarts { restart::count(&lost) } else { 0.0 }),
        ];
        self.motion = Some(motion);
        Ok(Step { stage: "langevin", metrics })
    }

    fn draws(&self) -> Result<Draws> {
        self.kept.draws()
    }

    fn state(&self) -> Result<TensorMap> {
        let mut state = TensorMap::from([(
            "langevin.finished".into(),
            Tensor::new(&[self.finished as i64], &Device::Cpu)?,
        )]);
        let mut put = |name: &str, tensor: Tensor| state.insert(format!("langevin.{name}"), tensor);
        if let Some(motion) = &self.motion {
            put("z", motion.point.position.clone());
            put("log_density", motion.point.log_density.clone());
            put("gradient", motion.point.gradient.clone());
            put("velocity", motion.velocity.clone());
            put("force", motion.force.clone());
            put("curvature", Tensor::new(&[self.curvature], &Device::Cpu)?);
            put("leaps", self.leaps.state()?);
            put("fits", self.fits.state()?);
        } else {
            put("start", self.start.clone());
        }
        self.kept.save("langevin", &mut state)?;
        Ok(state)
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        let images = self.start.dims().to_vec();
        let chains = images[0];
        self.kept.restore("langevin", &mut state)?;
        let mut take = |name: &str, shape: &[usize]| take(&mut state, &format!("langevin.{name}"), shape);
        let finished = take("finished", &[1])?.read_list::<i64>()?;
        self.finished = finished.first().map_or(0, |n| n.unsigned_abs() as usize);
        self.motion = None;
        if self.finished == 0 {
            self.start = take("start", &images)?;
        } else {
            self.fits.restore(&take("fits", &[chains])?)?;
            self.motion = Some(Motion {
                point: Point {
                    position: take("z", &images)?,
                    log_density: take("log_density", &[chains])?,
                    gradient: take("gradient", &images)?,
                },
                velocity: take("velocity", &images)?,
                force: take("force", &images)?,
            });
            self.curvature = to_host(&take("curvature", &[1])?)?.into_iter().sum();
            let leaps = take("leaps", &[chains + 1])?;
            self.leaps = StepSizes::from_state(&leaps, chains, self.settings.acceptance)?;
        }
        Ok(())
    }
}
