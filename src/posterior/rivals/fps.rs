//! Filtering posterior sampling: the data are diffused too, and particles of the image are filtered along their path.
//!
//! Source: Dou and Song 2024, "Diffusion posterior sampling for linear inverse problem solving: a filtering perspective". With
//! one path y_s of diffused data, the particles' transition is that of the diffusion times N(y_s'; x', sigma^2), drawn from
//! exactly; weights are the predictive density of y_s'. The path is drawn once, from pure noise to the data, as the diffusion would
//! draw it.

use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    diffusion::{Diffusion, Ensemble, Levels, Schedule, Transition},
};
use crate::{
    Result,
    instrument::{Linear, Problem},
    posterior::{Entry, Solver},
    prior::{Denoiser, reverse::denoised},
    rng::Rng,
    tensor::{compute_of, to_host},
};

/// Settings of filtering posterior sampling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fps {
    /// Number of particles.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// Particles are resampled when fewer than this fraction of them are effective.
    pub resample_below: f64,
}

impl Default for Fps {
    fn default() -> Self {
        Self { chains: 32, schedule: Schedule::default(), resample_below: 0.5 }
    }
}

struct Filtered {
    resample_below: f64,
    linear: Linear,
    /// Diffused data after each step.
    path: Vec<Vec<f64>>,
}

/// Data diffused to every level, from the largest to none at all.
fn path(linear: &Linear, levels: &[f64], rng: &mut Rng) -> Vec<Vec<f64>> {
    let mut noisy: Vec<f64> = linear.data.iter().map(|data| data + levels[0] * rng.normal()).collect();
    let step = |(index, pair): (usize, &[f64])| {
        let levels = Levels { index, from: pair[0], to: pair[1] };
        let (kept, spread) = ((pair[1] / pair[0]).powi(2), levels.ancestral().sqrt());
        for (value, data) in noisy.iter_mut().zip(&linear.data) {
            *value = data + kept * (*value - data) + spread * rng.normal();
        }
        noisy.clone()
    };
    levels.windows(2).enumerate().map(step).collect()
}

impl Transition for Filtered {
    const NAME: &'static str = "fps";

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        levels: Levels,
        _problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let (linear, target) = (&self.linear, &self.path[levels.index]);
        let clean = denoised(prior, &ensemble.x, levels.from)?;
        let spread = levels.ancestral();
        let kept = (levels.to / levels.from).powi(2);
        let mut mean = (&clean + ((&ensemble.x - &clean)? * kept)?)?;
        let centres = to_host(&linear.coordinates(&mean)?)?;
        for (log_weight, centre) in ensemble.log_weights.iter_mut().zip(centres.chunks_exact(linear.rank())) {
            let term = |i: usize| (target[i] - centre[i]).powi(2) / (spread + linear.sigma[i].powi(2));
            *log_weight -= 0.5 * (0..linear.rank()).map(term).sum::<f64>();
        }
        if let Some(chosen) = ensemble.resample(self.resample_below, rng)? {
            mean = mean.index_select(&chosen, 0)?;
        }
        let noise = rng.normals(mean.dims(), &compute_of(&mean))?;
        let gain = |sigma: f64| spread / (spread + sigma * sigma);
        let centre = linear.coordinates(&mean)?;
        let misfit = linear.row(target.clone(), &mean)?.broadcast_sub(&centre)?;
        let width = linear.each(&mean, |_, sigma| sigma * gain(sigma).sqrt())?;
        let pulled = misfit.broadcast_mul(&linear.each(&mean, |_, sigma| gain(sigma))?)?;
        let measured = ((centre + pulled)? + linear.coordinates(&noise)?.broadcast_mul(&width)?)?;
        ensemble.x = linear.replaced(&(mean + (noise * spread.sqrt())?)?, &measured)?;
        Ok(())
    }
}

impl Rival for Fps {
    fn entry(&self) -> Entry {
        Entry {
            name: "fps",
            summary: "filtering posterior sampling: particles along a path of diffused data",
            needs: &["denoiser", "linear instrument", "Gaussian noise", "singular-value decomposition"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        let linear = given.problem.linear(given.compute)?;
        let levels = self.schedule.levels(given.prior)?;
        let path = path(&linear, &levels, &mut given.rng.stream("diffused data", 0));
        let transition = Filtered { resample_below: self.resample_below, linear, path };
        Ok(Box::new(Diffusion::new(transition, self.chains, &self.schedule, given)?))
    }
}
