//! Kinetic Langevin dynamics on the posterior with a slightly smoothed prior: one denoiser evaluation a step.
//!
//! The target is p(y|z) p_s(z), where p_s is the prior diffused to the noise level s and
//! grad log p_s = (D(z, s) - z) / s^2. Steps follow the BAOAB splitting (Leimkuhler and Matthews 2013), whose
//! positions are exact for harmonic forces. Where the likelihood is singular its force is left out of the kicks and
//! acts in the drift instead, as a Metropolis-adjusted flow: a rejected flow reverses the velocity, so the likelihood
//! part of the splitting stays exact however steep it is.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    instrument::Problem,
    posterior::{
        Solver, Step,
        hmc::{self, Point, Reference, StepSizes, compute_of, per_chain, squared_norm, to_host},
        solver::TensorMap,
        thinning::Thinning,
    },
    prior::{Denoiser, reverse::denoised},
    rng::Rng,
};

/// Settings of [`Langevin`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LangevinSettings {
    /// Steps of the whole run, one denoiser evaluation each.
    pub iterations: usize,
    /// Fraction of the iterations before the first draw.
    pub burn_in: f64,
    /// Draws kept of each chain, evenly spaced over the iterations after burn-in.
    pub draws: usize,
    /// Noise level s of the smoothed prior, units of the prior's standard deviation; below what the data resolve.
    pub level: f64,
    /// Step size in units of 1 / sqrt(largest curvature); stable below 2; positions are exact for harmonic forces.
    pub step: f64,
    /// Friction in units of 1 / (standard deviation of the prior); 2 damps the widest directions critically.
    pub friction: f64,
    /// Leapfrog steps of one flow of a singular likelihood.
    pub leaps: usize,
    /// Acceptance of these flows that each chain's step is adapted to during burn-in.
    pub acceptance: f64,
}

impl Default for LangevinSettings {
    fn default() -> Self {
        Self {
            iterations: 400,
            burn_in: 0.25,
            draws: 16,
            level: 0.05,
            step: 1.0,
            friction: 1.0,
            leaps: 4,
            acceptance: 0.95,
        }
    }
}

/// Kinetic Langevin sampler, one chain per start image.
#[derive(Debug)]
pub struct Langevin {
    settings: LangevinSettings,
    finished: usize,
    z: Tensor,
    motion: Option<Motion>,
    kept: Thinning,
}

/// What exists from the first step on.
#[derive(Debug)]
struct Motion {
    velocity: Tensor,
    force: Tensor,
    /// Likelihood at the positions, kept only where it drives the drift.
    point: Option<Point>,
    steps: StepSizes,
}

impl Langevin {
    /// A sampler whose chains start at the images `start` `[K, Z, Y, X]`, network unit.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(settings: LangevinSettings, start: Tensor) -> Result<Self> {
        let wrong = |place: &str, problem: &str| Err(Error::config(format!("solver.{place}"), problem));
        if settings.draws == 0 || settings.iterations < settings.draws {
            return wrong("draws", "must be between 1 and solver.iterations");
        }
        if !(0.0..1.0).contains(&settings.burn_in) {
            return wrong("burn_in", "is a fraction between 0 and 1; use 0.25");
        }
        if !(settings.step > 0.0 && settings.step < 2.0) {
            return wrong("step", "must lie between 0 and 2; use 1");
        }
        if !(settings.level > 0.0 && settings.friction > 0.0) {
            return wrong("level", "and solver.friction must be positive");
        }
        let burn_in = (settings.iterations as f64 * settings.burn_in) as usize;
        let kept = Thinning::new(burn_in, settings.iterations, settings.draws);
        Ok(Self { settings, finished: 0, z: start, motion: None, kept })
    }

    fn level(&self, prior: &dyn Denoiser) -> f64 {
        (self.settings.level * prior.data_std()).max(prior.noise_range().0)
    }

    /// Force on the velocity at the kicks, and the denoised image.
    fn force(&self, problem: &Problem, prior: &dyn Denoiser) -> Result<(Tensor, Tensor)> {
        let level = self.level(prior);
        let clean = denoised(prior, &self.z, level)?;
        let score = ((&clean - &self.z)? / (level * level))?;
        if problem.is_singular() {
            return Ok((score, clean));
        }
        let (_, gradient) = problem.log_likelihood_and_gradient(&self.z)?;
        Ok(((score + gradient)?, clean))
    }

    fn start(&self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Motion> {
        let level = self.level(prior);
        let (mut curvature, mut point) = (level.powi(-2), None);
        if problem.is_singular() {
            let mut target = |z: &Tensor| problem.log_likelihood_and_gradient(z);
            point = Some(Point::new(self.z.clone(), &mut target)?);
        } else {
            curvature += largest_curvature(problem, &self.z, 0.1 * level, rng)?;
        }
        let step = self.settings.step / curvature.sqrt();
        Ok(Motion {
            velocity: rng.normals(self.z.dims(), &compute_of(&self.z))?,
            force: self.force(problem, prior)?.0,
            point,
            steps: StepSizes::new(self.z.dim(0)?, step, step, self.settings.acceptance),
        })
    }

    /// Half a drift of every chain; returns the mean acceptance.
    fn drift(&mut self, problem: &Problem, motion: &mut Motion, steps: &[f64], rng: &mut Rng) -> Result<f64> {
        let Some(point) = &motion.point else {
            let half = per_chain(steps.iter().map(|step| step / 2.0).collect(), &self.z)?;
            self.z = (&self.z + motion.velocity.broadcast_mul(&half)?)?;
            return Ok(1.0);
        };
        let leaps = self.settings.leaps.max(1);
        let times: Vec<f64> = steps.iter().map(|step| step / (2 * leaps) as f64).collect();
        let mut target = |z: &Tensor| problem.log_likelihood_and_gradient(z);
        let flow =
            hmc::trajectory(&mut target, &Reference::Flat, point, &motion.velocity, &times, leaps, rng)?;
        if self.finished < self.kept.first() {
            motion.steps.adapt(&flow.acceptance);
        }
        self.z = flow.point.position.clone();
        motion.velocity = flow.velocity;
        motion.point = Some(flow.point);
        Ok(flow.acceptance.iter().sum::<f64>() / steps.len() as f64)
    }
}

/// Half a step of velocity: v + (h/2) force.
fn kick(motion: &mut Motion, steps: &[f64]) -> Result<()> {
    let half = per_chain(steps.iter().map(|step| step / 2.0).collect(), &motion.velocity)?;
    motion.velocity = (&motion.velocity + motion.force.broadcast_mul(&half)?)?;
    Ok(())
}

/// Exact damping and noise over a whole step: v e^-gh + sqrt(1 - e^-2gh) n.
fn thermostat(motion: &mut Motion, steps: &[f64], friction: f64, rng: &mut Rng) -> Result<()> {
    let kept: Vec<f64> = steps.iter().map(|step| (-friction * step).exp()).collect();
    let fresh = kept.iter().map(|kept| (1.0 - kept * kept).sqrt()).collect();
    let noise = rng.normals(motion.velocity.dims(), &compute_of(&motion.velocity))?;
    let old = motion.velocity.broadcast_mul(&per_chain(kept, &noise)?)?;
    motion.velocity = (old + noise.broadcast_mul(&per_chain(fresh, &noise)?)?)?;
    Ok(())
}

/// Power iterations of [`largest_curvature`].
const POWER_ITERATIONS: usize = 12;

/// Largest curvature of -log p(y|x) over the chains at `x`, by power iteration on central differences of the
/// gradient over a distance `reach` per pixel.
///
/// # Errors
/// Those of the problem.
pub fn largest_curvature(problem: &Problem, x: &Tensor, reach: f64, rng: &mut Rng) -> Result<f64> {
    let pixels = (x.elem_count() / x.dim(0)?) as f64;
    let mut direction = rng.normals(x.dims(), &compute_of(x))?;
    let mut curvature = 0.0f64;
    for _ in 0..POWER_ITERATIONS {
        let norms = squared_norm(&direction)?;
        let scale = norms.iter().map(|n| reach * (pixels / n.max(f64::MIN_POSITIVE)).sqrt()).collect();
        let offset = direction.broadcast_mul(&per_chain(scale, x)?)?;
        let (_, ahead) = problem.log_likelihood_and_gradient(&(x + &offset)?)?;
        let (_, behind) = problem.log_likelihood_and_gradient(&(x - &offset)?)?;
        direction = ((behind - ahead)? / (2.0 * reach * pixels.sqrt()))?;
        curvature = squared_norm(&direction)?.into_iter().fold(0.0, f64::max).sqrt();
    }
    if curvature.is_finite() {
        return Ok(curvature);
    }
    Err(Error::Diverged { what: "curvature of the likelihood".into(), step: 0 })
}

impl Solver for Langevin {
    fn steps(&self) -> usize {
        self.settings.iterations
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let mut motion = match self.motion.take() {
            Some(motion) => motion,
            None => self.start(problem, prior, rng)?,
        };
        let steps = motion.steps.values();
        kick(&mut motion, &steps)?;
        let first = self.drift(problem, &mut motion, &steps, rng)?;
        thermostat(&mut motion, &steps, self.settings.friction / prior.data_std(), rng)?;
        let second = self.drift(problem, &mut motion, &steps, rng)?;
        let (force, clean) = self.force(problem, prior)?;
        motion.force = force;
        kick(&mut motion, &steps)?;
        self.kept.offer(self.finished, &clean);
        self.finished += 1;
        let temperature = squared_norm(&motion.velocity)?.iter().sum::<f64>() / self.z.elem_count() as f64;
        let mut metrics = vec![
            ("step", motion.steps.median()),
            ("temperature", temperature),
            ("acceptance", (first + second) / 2.0),
        ];
        if let Some(point) = &motion.point {
            let values = to_host(&point.log_density)?;
            metrics.push(("log_likelihood", values.iter().sum::<f64>() / values.len() as f64));
        }
        self.motion = Some(motion);
        Ok(Step { stage: "langevin", metrics })
    }

    fn draws(&self) -> Result<Tensor> {
        self.kept.draws()
    }

    fn state(&self) -> Result<TensorMap> {
        let mut state = TensorMap::from([
            ("langevin.finished".into(), Tensor::new(self.finished as i64, &Device::Cpu)?),
            ("langevin.z".into(), self.z.clone()),
        ]);
        if let Some(motion) = &self.motion {
            state.insert("langevin.velocity".into(), motion.velocity.clone());
            state.insert("langevin.force".into(), motion.force.clone());
            state.insert("langevin.steps".into(), motion.steps.state()?);
            if let Some(point) = &motion.point {
                state.insert("langevin.log_density".into(), point.log_density.clone());
                state.insert("langevin.gradient".into(), point.gradient.clone());
            }
        }
        if self.kept.has_draws() {
            state.insert("langevin.draws".into(), self.draws()?);
        }
        Ok(state)
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        let mut take = |name: &str| state.remove(&format!("langevin.{name}"));
        let missing = || Error::config("--resume", "the checkpoint belongs to another solver; start again");
        let (finished, z) = (take("finished").ok_or_else(missing)?, take("z").ok_or_else(missing)?);
        if z.dims() != self.z.dims() {
            let (expected, found) = (self.z.dims().to_vec(), z.dims().to_vec());
            return Err(Error::Shape { what: "chains of the checkpoint", expected, found });
        }
        self.motion = match (take("velocity"), take("force"), take("steps")) {
            (Some(velocity), Some(force), Some(saved)) => {
                let steps = StepSizes::from_state(&saved, z.dim(0)?, self.settings.acceptance)?;
                let point = match (take("log_density"), take("gradient")) {
                    (Some(log_density), Some(gradient)) => {
                        Some(Point { position: z.clone(), log_density, gradient })
                    }
                    _ => None,
                };
                Some(Motion { velocity, force, point, steps })
            }
            _ => None,
        };
        self.finished = finished.to_scalar::<i64>()?.unsigned_abs() as usize;
        self.z = z;
        self.kept.restore(take("draws"))
    }
}
