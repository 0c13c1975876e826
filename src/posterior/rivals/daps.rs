//! Decoupled annealing: at every level a clean image is estimated, drawn anew given the data, and diffused again.
//!
//! Source: Zhang et al. 2025, "Improving diffusion inverse problem solving with decoupled noise annealing": x^ is where the
//! probability flow takes x_s, and the clean image given x_s is taken as N(x^, s^2 I). The draw of
//! p(y|x) N(x; x^, s^2 I) is exact where the instrument is linear, and elsewhere made by Metropolis-adjusted Hamiltonian steps in
//! place of the paper's unadjusted Langevin steps.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    diffusion::{Diffusion, Ensemble, Levels, Schedule, Transition},
};
use crate::{
    Error, Result,
    instrument::{Linear, Problem},
    posterior::{
        Entry, Solver,
        hmc::{self, Point, QUARTER_TURN, Reference},
        solver::{TensorMap, take},
        step_sizes::StepSizes,
    },
    prior::{Denoiser, reverse::denoised},
    rng::Rng,
    tensor::compute_of,
};

/// Acceptance that the steps are adapted to.
const ACCEPTANCE: f64 = 0.8;

/// Settings of decoupled annealing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Daps {
    /// Number of chains.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// Denoiser evaluations of the probability flow at each level.
    pub flow_steps: usize,
    /// Hamiltonian trajectories at each level where the instrument is not linear.
    pub trajectories: usize,
    /// Largest number of leapfrog steps of a trajectory.
    pub leaps: usize,
}

impl Default for Daps {
    fn default() -> Self {
        Self { chains: 32, schedule: Schedule::default(), flow_steps: 5, trajectories: 4, leaps: 64 }
    }
}

struct Decoupled {
    settings: Daps,
    linear: Option<Linear>,
    steps: StepSizes,
}

impl Decoupled {
    /// The end of the probability flow from `level`, by steps over geometrically falling levels.
    fn flow(&self, prior: &dyn Denoiser, x: &Tensor, level: f64) -> Result<Tensor> {
        let count = self.settings.flow_steps;
        let last = prior.noise_range().0.min(level);
        let at = |i: usize| level * (last / level).powf(i as f64 / count as f64);
        let mut x = x.clone();
        for i in 1..count {
            let clean = denoised(prior, &x, at(i - 1))?;
            x = (&clean + ((&x - &clean)? * (at(i) / at(i - 1)))?)?;
        }
        denoised(prior, &x, at(count - 1))
    }

    /// A draw of p(y|x) N(x; centre, width^2 I).
    fn draw(&mut self, problem: &Problem, centre: &Tensor, width: f64, rng: &mut Rng) -> Result<Tensor> {
        let spread = (rng.normals(centre.dims(), &compute_of(centre))? * width)?;
        let Some(linear) = &self.linear else {
            let mut target = |x: &Tensor| problem.log_likelihood_and_gradient(x);
            let mut point = Point::new(centre.clone(), &mut target)?;
            let reference = Reference::Gaussian { centre: centre.clone(), width };
            for _ in 0..self.settings.trajectories {
                let leaps = self.settings.leaps;
                let outcome = hmc::draw(&mut target, &reference, &point, &self.steps, leaps, rng)?;
                self.steps.adapt(&outcome);
                point = outcome.point;
            }
            return Ok(point.position);
        };
        // A draw without data is moved by the gain times the misfit of its simulated data.
        let x = (centre + spread)?;
        let noise = rng.normals(&[x.dim(0)?, linear.rank()], &compute_of(&x))?;
        let noise = noise.broadcast_mul(&linear.each(&x, |_, sigma| sigma)?)?;
        let coordinates = linear.coordinates(&x)?;
        let misfit = linear.row(linear.data.clone(), &x)?.broadcast_sub(&(&coordinates + noise)?)?;
        let gain = linear.each(&x, |_, sigma| width * width / (width * width + sigma * sigma))?;
        linear.replaced(&x, &(coordinates + misfit.broadcast_mul(&gain)?)?)
    }
}

impl Transition for Decoupled {
    const NAME: &'static str = "daps";

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        Levels { from, to, .. }: Levels,
        problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let centre = self.flow(prior, &ensemble.x, from)?;
        let clean = self.draw(problem, &centre, from, rng)?;
        ensemble.x = (&clean + (rng.normals(clean.dims(), &compute_of(&clean))? * to)?)?;
        Ok(())
    }

    fn memory(&self) -> Result<TensorMap> {
        Ok([("steps".to_string(), self.steps.state()?)].into())
    }

    fn recall(&mut self, mut memory: TensorMap) -> Result<()> {
        let chains = self.settings.chains;
        let steps = take(&mut memory, "steps", &[chains + 1])?;
        self.steps = StepSizes::from_state(&steps, chains, ACCEPTANCE)?;
        Ok(())
    }
}

impl Rival for Daps {
    fn entry(&self) -> Entry {
        Entry {
            name: "daps",
            summary: "decoupled annealing: clean images drawn given the data at every level; any likelihood, approximate",
            needs: &["denoiser", "likelihood gradient"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        if self.flow_steps == 0 || self.trajectories == 0 {
            return Err(Error::config("solver", "needs at least 1 of flow_steps and of trajectories"));
        }
        let linear = given.problem.linear(given.compute).ok();
        let steps = StepSizes::new(self.chains, QUARTER_TURN / 8.0, QUARTER_TURN, ACCEPTANCE);
        let transition = Decoupled { settings: self.clone(), linear, steps };
        Ok(Box::new(Diffusion::new(transition, self.chains, &self.schedule, given)?))
    }
}
