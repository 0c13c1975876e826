//! Steps of kinetic Langevin dynamics on the posterior with a smoothed prior.
//!
//! The target is p(y|z) p_s(z), where p_s is the prior diffused to the noise level s and
//! grad log p_s = (D(z, s) - z) / s^2. Steps follow the BAOAB splitting (Leimkuhler and Matthews 2013), whose positions are exact
//! for harmonic forces. Where the likelihood acts as a flow its force is left out of the kicks and acts in the drift instead, as
//! a Metropolis-adjusted trajectory of many small steps: a rejected one reverses the velocity, so the likelihood part of the
//! splitting stays exact however steep it is.

use candle_core::{Device, Tensor};

use super::{
    hmc::{self, Point, Reference, per_chain, squared_norm},
    step_sizes::StepSizes,
};
use crate::{
    Result,
    instrument::Problem,
    prior::{Denoiser, reverse::denoised},
    rng::Rng,
    tensor::compute_of,
    transfer::Transfer,
};

/// Standard deviations of the mean squared velocity, 1 +- sqrt(2 / pixels) in equilibrium, and the further excess from
/// which a chain is too hot.
const HOT: (f64, f64) = (10.0, 0.25);

/// What moves the chains.
pub(super) struct Dynamics<'a> {
    pub(super) problem: &'a Problem,
    pub(super) prior: &'a dyn Denoiser,
    pub(super) way: Way,
}

/// How the likelihood acts.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Way {
    /// In the kicks.
    Kicks,
    /// As a flow.
    Flows,
}

/// Where the chains are and how they move.
#[derive(Debug)]
pub(super) struct Motion {
    /// Positions z with the likelihood there.
    pub(super) point: Point,
    /// Of unit variance in equilibrium.
    pub(super) velocity: Tensor,
    /// Force of the kicks: the score, and the likelihood's gradient where it is no flow.
    pub(super) force: Tensor,
}

/// How long the chains drift in one step, and what damps them.
pub(super) struct Pace {
    /// Length of the step of each chain.
    pub(super) steps: Vec<f64>,
    /// Leapfrog steps of half of it.
    leaps: usize,
    /// Rate at which velocities are forgotten, and the least exponent of a step.
    friction: [f64; 2],
}

impl Pace {
    /// Steps of one length for `chains` chains.
    pub(super) fn even(step: f64, chains: usize, friction: [f64; 2]) -> Self {
        Self { steps: vec![step; chains], leaps: 1, friction }
    }

    /// Flows of length `step` with as many `leaps`, of such a size in units of `level`, as the median chain needs; chains that
    /// would need more than the `largest` number take shorter steps.
    pub(super) fn of_flows(
        step: f64,
        leaps: &StepSizes,
        level: f64,
        largest: usize,
        friction: [f64; 2],
    ) -> Self {
        let count = (0.5 * step / (leaps.median() * level)).ceil() as usize;
        let count = count.clamp(1, largest.max(1));
        let steps = leaps.values().iter().map(|leap| step.min(2.0 * count as f64 * leap * level)).collect();
        Self { steps, leaps: count, friction }
    }
}

impl Dynamics<'_> {
    /// Chains at `position` `[K, Z, Y, X]` with velocities of equilibrium, and the denoised positions.
    pub(super) fn start(&self, position: Tensor, level: f64, rng: &mut Rng) -> Result<(Motion, Tensor)> {
        let clean = denoised(self.prior, &position, level)?;
        self.start_with(position, clean, level, rng)
    }

    /// [`Dynamics::start`] where the denoised positions are known.
    pub(super) fn start_with(
        &self,
        position: Tensor,
        clean: Tensor,
        level: f64,
        rng: &mut Rng,
    ) -> Result<(Motion, Tensor)> {
        let point = Point::new(position, &mut |z| self.problem.log_likelihood_and_gradient(z))?;
        let force = self.force(&point, &clean, level)?;
        let velocity = rng.normals(force.dims(), &compute_of(&force))?;
        Ok((Motion { point, velocity, force }, clean))
    }

    /// One step, after which the noise level is `level`. Returns the mean acceptance of flows, whose leaps follow it where `leaps` is
    /// given, and the denoised positions.
    pub(super) fn step(
        &self,
        motion: &mut Motion,
        pace: &Pace,
        level: f64,
        mut leaps: Option<&mut StepSizes>,
        rng: &mut Rng,
    ) -> Result<(f64, Tensor)> {
        motion.kick(&pace.steps)?;
        let first = self.drift(motion, pace, leaps.as_deref_mut(), rng)?;
        motion.damp(pace, rng)?;
        let second = self.drift(motion, pace, leaps, rng)?;
        if self.way == Way::Kicks {
            let position = motion.point.position.clone();
            motion.point = Point::new(position, &mut |z| self.problem.log_likelihood_and_gradient(z))?;
        }
        let clean = denoised(self.prior, &motion.point.position, level)?;
        motion.force = self.force(&motion.point, &clean, level)?;
        motion.kick(&pace.steps)?;
        Ok(((first + second) / 2.0, clean))
    }

    /// Force of the kicks at a noise level, from the denoised positions.
    fn force(&self, point: &Point, clean: &Tensor, level: f64) -> Result<Tensor> {
        let score = ((clean - &point.position)? / (level * level))?;
        match self.way {
            Way::Flows => Ok(score),
            Way::Kicks => Ok((score + &point.gradient)?),
        }
    }

    /// Half a drift of every chain; returns the mean acceptance.
    fn drift(
        &self,
        motion: &mut Motion,
        pace: &Pace,
        leaps: Option<&mut StepSizes>,
        rng: &mut Rng,
    ) -> Result<f64> {
        if self.way == Way::Kicks {
            let half = half_of(&pace.steps, &motion.velocity)?;
            motion.point.position = (&motion.point.position + motion.velocity.broadcast_mul(&half)?)?;
            return Ok(1.0);
        }
        let times: Vec<f64> = pace.steps.iter().map(|step| step / (2 * pace.leaps) as f64).collect();
        let flow = hmc::trajectory(
            &mut |z| self.problem.log_likelihood_and_gradient(z),
            &Reference::Flat,
            &motion.point,
            &motion.velocity,
            &times,
            pace.leaps,
            rng,
        )?;
        if let Some(leaps) = leaps {
            leaps.adapt(&flow);
        }
        motion.point = flow.point;
        motion.velocity = flow.velocity;
        Ok(flow.acceptance.iter().sum::<f64>() / times.len() as f64)
    }
}

impl Motion {
    /// Chain i continues as chain `index[i]`.
    pub(super) fn take(&mut self, index: &Tensor) -> Result<()> {
        self.point = self.point.index_select(index)?;
        self.velocity = self.velocity.index_select(index, 0)?;
        self.force = self.force.index_select(index, 0)?;
        Ok(())
    }

    /// Half a step of velocity: v + (h/2) force.
    fn kick(&mut self, steps: &[f64]) -> Result<()> {
        let half = half_of(steps, &self.velocity)?;
        self.velocity = (&self.velocity + self.force.broadcast_mul(&half)?)?;
        Ok(())
    }

    /// Exact damping and noise over a whole step: v e^-gh + sqrt(1 - e^-2gh) n.
    fn damp(&mut self, pace: &Pace, rng: &mut Rng) -> Result<()> {
        let [rate, least] = pace.friction;
        let kept: Vec<f64> = pace.steps.iter().map(|step| (-(rate * step).max(least)).exp()).collect();
        let new = kept.iter().map(|kept| (1.0 - kept * kept).sqrt()).collect();
        let fresh = rng.normals(self.velocity.dims(), &compute_of(&self.velocity))?;
        let old = self.velocity.broadcast_mul(&per_chain(kept, &fresh)?)?;
        self.velocity = (old + fresh.broadcast_mul(&per_chain(new, &fresh)?)?)?;
        Ok(())
    }

    /// Gives fresh velocities and shorter steps to chains that heat up: kicks that fall into step with a fast oscillation
    /// of the likelihood pump energy into it. Chains in equilibrium are never touched. Returns the mean temperature.
    pub(super) fn cool(&mut self, leaps: &mut StepSizes, rng: &mut Rng) -> Result<f64> {
        let pixels = self.velocity.elem_count() as f64;
        let squares = squared_norm(&self.velocity)?;
        let temperatures: Vec<f64> = squares.iter().map(|v| v * squares.len() as f64 / pixels).collect();
        let limit = 1.0 + HOT.0 * (2.0 * squares.len() as f64 / pixels).sqrt() + HOT.1;
        let hot: Vec<bool> = temperatures.iter().map(|temperature| *temperature > limit).collect();
        if hot.contains(&true) {
            let fresh = rng.normals(self.velocity.dims(), &compute_of(&self.velocity))?;
            let mask: Vec<u8> = hot.iter().map(|hot| u8::from(*hot)).collect();
            let mask = Tensor::from_vec(mask, hot.len(), &Device::Cpu)?.transfer(fresh.device())?;
            self.velocity = hmc::select(&mask, &fresh, &self.velocity)?;
            leaps.shorten(&hot);
        }
        Ok(temperatures.iter().sum::<f64>() / temperatures.len() as f64)
    }
}

/// Half of every chain's step, to be broadcast.
fn half_of(steps: &[f64], like: &Tensor) -> Result<Tensor> {
    per_chain(steps.iter().map(|step| step / 2.0).collect(), like)
}
