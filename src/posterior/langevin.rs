//! Annealed kinetic Langevin dynamics on the posterior with a smoothed prior: one denoiser evaluation a step.
//!
//! The target is p(y|z) p_s(z), where p_s is the prior diffused to the noise level s and
//! grad log p_s = (D(z, s) - z) / s^2; s may fall during the first steps, and draws are the denoised D(z, s) or draws of x
//! given z.
//! Steps follow the BAOAB splitting (Leimkuhler and Matthews 2013), whose positions are exact for harmonic forces.
//! Where the likelihood is singular its force is left out of the kicks and acts in the drift instead, as a
//! Metropolis-adjusted flow of many small steps: a rejected flow reverses the velocity, so the likelihood part of the
//! splitting stays exact however steep it is.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    instrument::Problem,
    posterior::{
        Draws, Solver, Step,
        curvature::{largest_curvature, largest_curvature_of},
        hmc::{self, Point, Reference, per_chain, squared_norm},
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
    fits: Fits,
    kept: Thinning,
}

/// What exists from the first step on.
#[derive(Debug)]
struct Motion {
    /// Positions z with the likelihood there.
    point: Point,
    velocity: Tensor,
    /// Force of the kicks: the score, and the likelihood's gradient where that is smooth.
    force: Tensor,
    /// Largest curvature of a smooth likelihood; of the whole target where the noise level does not fall.
    curvature: f64,
    /// Leapfrog steps of a singular likelihood's flow, units of the noise level.
    leaps: StepSizes,
}

/// How long the chains drift in one step.
struct Pace {
    /// Length of the step of each chain.
    steps: Vec<f64>,
    /// Leapfrog steps of half of it.
    leaps: usize,
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
        let fits = Fits::new(start.dim(0)?);
        Ok(Self { settings, finished: 0, start, motion: None, fits, kept })
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

    fn start(&self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Motion> {
        let level = self.level(0, prior);
        let point = Point::new(self.start.clone(), &mut likelihood(problem))?;
        let curvature = match (problem.is_singular(), self.settings.anneal) {
            (true, _) => 0.0,
            (false, 0) => self.whole_curvature(problem, prior, level, rng)?,
            (false, _) => largest_curvature(problem, &self.start, 0.1 * level, rng)?,
        };
        let (force, _) = force(problem, prior, &point, level)?;
        let velocity = rng.normals(self.start.dims(), &compute_of(&self.start))?;
        let largest = self.settings.step / 2.0;
        let leaps = StepSizes::new(self.start.dim(0)?, 0.1, largest, self.settings.acceptance);
        Ok(Motion { point, velocity, force, curvature, leaps })
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

    /// Step lengths at a noise level. A flow takes as many leaps as the median chain needs; chains that would need
    /// more than the largest number take shorter steps.
    fn pace(&self, motion: &Motion, level: f64, singular: bool) -> Pace {
        let prior = if singular || self.settings.anneal > 0 { level.powi(-2) } else { 0.0 };
        let step = self.settings.step / (prior + motion.curvature).sqrt();
        let leap: Vec<f64> = motion.leaps.values().iter().map(|leap| leap * level).collect();
        if !singular {
            return Pace { steps: vec![step; leap.len()], leaps: 1 };
        }
        let wanted = (0.5 * step / (motion.leaps.median() * level)).ceil() as usize;
        let leaps = wanted.clamp(1, self.settings.leaps.max(1));
        Pace { steps: leap.iter().map(|leap| step.min(2.0 * leaps as f64 * leap)).collect(), leaps }
    }

    /// Half a drift of every chain; returns the mean acceptance.
    fn drift(&self, problem: &Problem, motion: &mut Motion, pace: &Pace, rng: &mut Rng) -> Result<f64> {
        if !problem.is_singular() {
            let half = half_of(&pace.steps, &motion.velocity)?;
            motion.point.position = (&motion.point.position + motion.velocity.broadcast_mul(&half)?)?;
            return Ok(1.0);
        }
        let times: Vec<f64> = pace.steps.iter().map(|step| step / (2 * pace.leaps) as f64).collect();
        let flow = hmc::trajectory(
            &mut likelihood(problem),
            &Reference::Flat,
            &motion.point,
            &motion.velocity,
            &times,
            pace.leaps,
            rng,
        )?;
        if self.finished % self.period() < self.kept.first() {
            motion.leaps.adapt(&flow);
        }
        motion.point = flow.point;
        motion.velocity = flow.velocity;
        Ok(flow.acceptance.iter().sum::<f64>() / times.len() as f64)
    }

    /// Replaces lost chains by copies of the others.
    fn restart(&mut self, motion: &mut Motion, lost: &[bool], rng: &mut Rng) -> Result<()> {
        let sources = restart::replacements(lost, rng);
        let index = restart::index(&sources, &motion.velocity)?;
        motion.point = motion.point.index_select(&index)?;
        motion.velocity = motion.velocity.index_select(&index, 0)?;
        motion.force = motion.force.index_select(&index, 0)?;
        motion.leaps.copy_from(&sources);
        self.fits.copy_from(&sources);
        Ok(())
    }
}

fn likelihood<'a>(problem: &'a Problem) -> impl FnMut(&Tensor) -> Result<(Tensor, Tensor)> + 'a {
    |z| problem.log_likelihood_and_gradient(z)
}

/// Force of the kicks at a noise level, and the denoised positions.
fn force(problem: &Problem, prior: &dyn Denoiser, point: &Point, level: f64) -> Result<(Tensor, Tensor)> {
    let clean = denoised(prior, &point.position, level)?;
    let score = ((&clean - &point.position)? / (level * level))?;
    let force = if problem.is_singular() { score } else { (score + &point.gradient)? };
    Ok((force, clean))
}

/// Chains on which the curvature of the target is measured.
const PROBED: usize = 8;

/// How often velocities are forgotten at least in the iterations at the final level, in terms of 1/e.
const FORGETTING: f64 = 10.0;

/// Standard deviations of the mean squared velocity, 1 +- sqrt(2 / pixels) in equilibrium, and the further excess from
/// which a chain is too hot.
const HOT: (f64, f64) = (10.0, 0.25);

/// Gives fresh velocities and shorter steps to chains that heat up: kicks that fall into step with a fast oscillation
/// of the likelihood pump energy into it. Chains in equilibrium are never touched. Returns the mean temperature.
fn cool(motion: &mut Motion, rng: &mut Rng) -> Result<f64> {
    let pixels = motion.velocity.elem_count() as f64;
    let squares = squared_norm(&motion.velocity)?;
    let temperatures: Vec<f64> = squares.iter().map(|v| v * squares.len() as f64 / pixels).collect();
    let limit = 1.0 + HOT.0 * (2.0 * squares.len() as f64 / pixels).sqrt() + HOT.1;
    let hot: Vec<bool> = temperatures.iter().map(|temperature| *temperature > limit).collect();
    if hot.contains(&true) {
        let fresh = rng.normals(motion.velocity.dims(), &compute_of(&motion.velocity))?;
        let mask: Vec<u8> = hot.iter().map(|hot| u8::from(*hot)).collect();
        let mask = Tensor::from_vec(mask, hot.len(), &Device::Cpu)?.transfer(fresh.device())?;
        motion.velocity = hmc::select(&mask, &fresh, &motion.velocity)?;
        motion.leaps.shorten(&hot);
    }
    Ok(temperatures.iter().sum::<f64>() / temperatures.len() as f64)
}

/// Half of every chain's step, to be broadcast.
fn half_of(steps: &[f64], like: &Tensor) -> Result<Tensor> {
    per_chain(steps.iter().map(|step| step / 2.0).collect(), like)
}

/// Half a step of velocity: v + (h/2) force.
fn kick(motion: &mut Motion, steps: &[f64]) -> Result<()> {
    let half = half_of(steps, &motion.velocity)?;
    motion.velocity = (&motion.velocity + motion.force.broadcast_mul(&half)?)?;
    Ok(())
}

/// Exact damping and noise over a whole step: v e^-gh + sqrt(1 - e^-2gh) n.
/// A step damps by the factor e^-`least` or more.
fn thermostat(motion: &mut Motion, steps: &[f64], friction: f64, least: f64, rng: &mut Rng) -> Result<()> {
    let kept: Vec<f64> = steps.iter().map(|step| (-(friction * step).max(least)).exp()).collect();
    let fresh = kept.iter().map(|kept| (1.0 - kept * kept).sqrt()).collect();
    let noise = rng.normals(motion.velocity.dims(), &compute_of(&motion.velocity))?;
    let old = motion.velocity.broadcast_mul(&per_chain(kept, &noise)?)?;
    motion.velocity = (old + noise.broadcast_mul(&per_chain(fresh, &noise)?)?)?;
    Ok(())
}

impl Solver for Langevin {
    fn steps(&self) -> usize {
        self.settings.cycles * self.period()
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let now = self.finished % self.period();
        let mut motion = match self.motion.take() {
            Some(motion) if now > 0 => motion,
            Some(motion) => {
                self.start = self.heated(&motion.point.position, prior, rng)?;
                self.start(problem, prior, rng)?
            }
            None => self.start(problem, prior, rng)?,
        };
        let level = self.level(now, prior);
        let singular = problem.is_singular();
        let pace = self.pace(&motion, level, singular);
        kick(&mut motion, &pace.steps)?;
        let first = self.drift(problem, &mut motion, &pace, rng)?;
        let friction = self.settings.friction / prior.data_std().hypot(level);
        let least = FORGETTING / self.settings.iterations as f64;
        thermostat(&mut motion, &pace.steps, friction, least, rng)?;
        let second = self.drift(problem, &mut motion, &pace, rng)?;
        if !singular {
            motion.point = Point::new(motion.point.position, &mut likelihood(problem))?;
        }
        let (force, clean) = force(problem, prior, &motion.point, self.level(now + 1, prior))?;
        motion.force = force;
        kick(&mut motion, &pace.steps)?;
        if self.kept.is_due(now) {
            let chains: Vec<usize> = (0..clean.dim(0)?).collect();
            let level = self.level(now + 1, prior);
            let draw = match self.settings.denoise {
                1 => clean,
                count => draw_given_noisy(prior, &motion.point.position, level, count, rng)?,
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
        let temperature = cool(&mut motion, rng)?;
        let metrics = vec![
            ("level", level),
            ("log_likelihood", log_likelihood),
            ("temperature", temperature),
            ("acceptance", (first + second) / 2.0),
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
            put("curvature", Tensor::new(&[motion.curvature], &Device::Cpu)?);
            put("leaps", motion.leaps.state()?);
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
                curvature: to_host(&take("curvature", &[1])?)?.into_iter().sum(),
                leaps: StepSizes::from_state(
                    &take("leaps", &[chains + 1])?,
                    chains,
                    self.settings.acceptance,
                )?,
            });
        }
        Ok(())
    }
}
