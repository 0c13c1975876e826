//! Moment-matching posterior sampling: the data see the denoised image with the denoiser's own covariance.
//!
//! Given x_s the clean image has mean D(x_s, s) and covariance s^2 J, J the Jacobian of D (Tweedie's formulae to second
//! order); with both matched by a Gaussian, a linear instrument y = A x + noise of covariance R has
//! grad log p(y|x_s) = J^T A^T (R + s^2 A J A^T)^-1 (y - A D).
//!
//! Sources: Boys et al. 2023, "Tweedie moment projected diffusions for inverse problems"; Rozet et al. 2024, "Learning
//! diffusion priors from observations by expectation maximization", which solves the system by conjugate gradients as is
//! done here. Exact for a Gaussian prior.

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    diffusion::{Diffusion, Ensemble, Levels, Schedule, Transition},
    guidance::{PART, denoised, pulled_back},
};
use crate::{
    Error, Result,
    instrument::{Linear, Problem},
    posterior::{Entry, Solver, hmc::per_chain},
    prior::Denoiser,
    rng::Rng,
    tensor::{by_parts, to_host},
};

/// Settings of moment matching.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MomentMatching {
    /// Number of chains.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// Iterations of conjugate gradients, one vector-Jacobian product each.
    pub iterations: usize,
}

impl Default for MomentMatching {
    fn default() -> Self {
        Self { chains: 32, schedule: Schedule::default(), iterations: 3 }
    }
}

/// The transition, with the instrument's coordinates.
struct Matched {
    iterations: usize,
    linear: Linear,
}

impl Matched {
    /// D(x, s) + s^2 grad log p(y|x): the mean of the clean image given x and the data.
    fn clean(&self, prior: &dyn Denoiser, x: &Tensor, level: f64) -> Result<Tensor> {
        let (variable, clean) = denoised(prior, x, level)?;
        let residual = self.linear.row(self.linear.data.clone(), x)?;
        let residual = residual.broadcast_sub(&self.linear.coordinates(&clean.detach())?)?;
        let solved = self.solve(prior, &variable, &clean, &residual, level)?;
        let pulled = self.pulled_back(prior, &variable, &clean, &solved)?;
        Ok((clean.detach() + (pulled * (level * level))?)?)
    }

    /// J^T V c for coordinates c.
    fn pulled_back(&self, prior: &dyn Denoiser, x: &Var, clean: &Tensor, c: &Tensor) -> Result<Tensor> {
        pulled_back(&(clean * self.linear.image(c, prior.shape())?)?, x)
    }

    /// Solves (R + s^2 V^T J V) u = residual by conjugate gradients; J is symmetric.
    fn solve(
        &self,
        prior: &dyn Denoiser,
        x: &Var,
        clean: &Tensor,
        residual: &Tensor,
        level: f64,
    ) -> Result<Tensor> {
        let noise =
            self.linear.row(self.linear.sigma.iter().map(|sigma| sigma * sigma).collect(), residual)?;
        let apply = |c: &Tensor| -> Result<Tensor> {
            let through = self.linear.coordinates(&self.pulled_back(prior, x, clean, c)?)?;
            Ok((c.broadcast_mul(&noise)? + (through * (level * level))?)?)
        };
        let dot = |a: &Tensor, b: &Tensor| -> Result<Vec<f64>> { to_host(&(a * b)?.sum(1)?) };
        let scaled =
            |c: &Tensor, by: Vec<f64>| -> Result<Tensor> { Ok(c.broadcast_mul(&per_chain(by, c)?)?) };
        let ratio = |a: &[f64], b: &[f64]| -> Vec<f64> {
            a.iter().zip(b).map(|(a, b)| if *b > 0.0 { a / b } else { 0.0 }).collect()
        };
        let mut solved = residual.zeros_like()?;
        let (mut left, mut direction) = (residual.clone(), residual.clone());
        let mut square = dot(&left, &left)?;
        for _ in 0..self.iterations {
            let image = apply(&direction)?;
            let length = ratio(&square, &dot(&direction, &image)?);
            solved = (solved + scaled(&direction, length.clone())?)?;
            left = (left - scaled(&image, length)?)?;
            let next = dot(&left, &left)?;
            direction = (&left + scaled(&direction, ratio(&next, &square))?)?;
            square = next;
        }
        Ok(solved)
    }
}

impl Transition for Matched {
    const NAME: &'static str = "moment-matching";

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        levels: Levels,
        _problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let [clean] = by_parts(&ensemble.x, PART, |part| Ok([self.clean(prior, part, levels.from)?]))?;
        ensemble.x = levels.renoise(&ensemble.x, &clean, 1.0, rng)?;
        Ok(())
    }
}

impl Rival for MomentMatching {
    fn entry(&self) -> Entry {
        Entry {
            name: "moment_matching",
            summary: "moment matching (TMPD, MMPS): guided with the denoiser's own covariance; exact for Gaussian priors",
            needs: &[
                "denoiser gradient",
                "linear instrument",
                "Gaussian noise",
                "singular-value decomposition",
            ],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        if self.iterations == 0 {
            return Err(Error::config("solver.iterations", "needs at least 1; use 3"));
        }
        let linear = given.problem.linear(given.compute)?;
        let transition = Matched { iterations: self.iterations, linear };
        Ok(Box::new(Diffusion::new(transition, self.chains, &self.schedule, given)?))
    }
}
