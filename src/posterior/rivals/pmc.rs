//! Annealed Langevin sampling with a denoiser's score: plug-and-play Monte Carlo.
//!
//! Source: Sun et al. 2024, "Provable probabilistic imaging using score-based generative priors", the form with the gradient of the
//! likelihood: x <- x + h (grad log p(y|x) + S(x, s)) + sqrt(2 h) n while s falls. Unadjusted. The step is a fraction of
//! the inverse of the target's largest curvature, that of the likelihood plus 1 / s^2.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    diffusion::{Diffusion, Ensemble, Levels, Schedule, Transition},
};
use crate::{
    Error, Result,
    instrument::Problem,
    posterior::{Entry, Solver, curvature::largest_curvature, solver::TensorMap},
    prior::{Denoiser, reverse::denoised},
    rng::Rng,
    tensor::{compute_of, to_host},
};

/// Settings of plug-and-play Monte Carlo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pmc {
    /// Number of chains.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// Langevin steps at each level.
    pub iterations: usize,
    /// Step over the inverse of the largest curvature; stable below 2.
    pub step: f64,
}

impl Default for Pmc {
    fn default() -> Self {
        // Steps as short as the data ask for do not come back from far outside the prior.
        let schedule = Schedule { largest: 3.0, ..Schedule::default() };
        Self { chains: 32, schedule, iterations: 5, step: 0.3 }
    }
}

struct Annealed {
    settings: Pmc,
    /// Largest curvature of the likelihood, from the first step on.
    curvature: Option<f64>,
}

impl Transition for Annealed {
    const NAME: &'static str = "pmc";

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        Levels { from, to, .. }: Levels,
        problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let mut x = ensemble.x.clone();
        let curvature = match self.curvature {
            Some(curvature) => curvature,
            None => largest_curvature(problem, &x, 0.1 * prior.data_std(), rng)?,
        };
        self.curvature = Some(curvature);
        let length = self.settings.step / (curvature + from.powi(-2));
        for _ in 0..self.settings.iterations {
            let score = ((denoised(prior, &x, from)? - &x)? / (from * from))?;
            let (_, gradient) = problem.log_likelihood_and_gradient(&x)?;
            let noise = (rng.normals(x.dims(), &compute_of(&x))? * (2.0 * length).sqrt())?;
            x = ((x + ((score + gradient)? * length)?)? + noise)?;
        }
        ensemble.x = if to == 0.0 { denoised(prior, &x, from)? } else { x };
        Ok(())
    }

    fn memory(&self) -> Result<TensorMap> {
        let named = |curvature| Ok(("curvature".to_string(), Tensor::new(&[curvature], &Device::Cpu)?));
        self.curvature.into_iter().map(named).collect()
    }

    fn recall(&mut self, memory: TensorMap) -> Result<()> {
        self.curvature = match memory.get("curvature") {
            Some(curvature) => to_host(curvature)?.first().copied(),
            None => None,
        };
        Ok(())
    }
}

impl Rival for Pmc {
    fn entry(&self) -> Entry {
        Entry {
            name: "pmc",
            summary: "annealed unadjusted Langevin sampling (plug-and-play Monte Carlo); smooth likelihoods",
            needs: &["denoiser", "likelihood gradient", "smooth likelihood"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        if given.problem.is_singular() {
            let problem = "needs a smooth likelihood, which closures have not; choose ppm or gibbs";
            return Err(Error::config("solver", problem));
        }
        let transition = Annealed { settings: self.clone(), curvature: None };
        Ok(Box::new(Diffusion::new(transition, self.chains, &self.schedule, given)?))
    }
}
