//! Monte Carlo guided diffusion: sequential Monte Carlo towards the data, each coordinate measured at its own noise level.
//!
//! Source: Cardoso et al. 2024, "Monte Carlo guided diffusion for Bayesian linear inverse problems". A coordinate measured with
//! noise sigma is the diffused coordinate at level sigma. Above it the potential of a particle is N(data; x, s^2 - sigma^2), under
//! which the next particles can be drawn exactly, so weights depend on the present ones only; the step that passes sigma goes
//! through the data; below, the diffusion is left alone. As particles grow in number the law of their draws tends to the
//! posterior under the discretised diffusion.

use candle_core::Tensor;
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

/// Settings of Monte Carlo guided diffusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mcgdiff {
    /// Number of particles.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// Particles are resampled when fewer than this fraction of them are effective.
    pub resample_below: f64,
}

impl Default for Mcgdiff {
    fn default() -> Self {
        Self { chains: 128, schedule: Schedule::default(), resample_below: 0.5 }
    }
}

struct Guided {
    resample_below: f64,
    linear: Linear,
}

/// x' = `clean` D + `old` x + `data` y + `noise` n for one coordinate, and the Gaussian that the data are drawn from
/// given x: mean (1 - `ahead`) D + `ahead` x and `variance`; the present potential has variance `potential`.
#[derive(Default)]
struct Rule {
    clean: f64,
    old: f64,
    data: f64,
    noise: f64,
    /// None where the data no longer act.
    weight: Option<(f64, f64, f64)>,
}

impl Rule {
    /// The rule of a coordinate measured with noise `sigma`.
    fn new(sigma: f64, levels: &Levels) -> Self {
        let Levels { from, to, .. } = *levels;
        let (square, here, next) = (sigma * sigma, from * from, to * to);
        let (spread, ahead) = (levels.ancestral(), next / here);
        if sigma >= from {
            return Self { clean: 1.0 - ahead, old: ahead, noise: spread.sqrt(), ..Self::default() };
        }
        let potential = here - square;
        if sigma > to {
            // From the data at level sigma on, as the diffusion would.
            let ahead = square / here;
            let weight = Some((ahead, square * potential / here, potential));
            let kept = next / square;
            let noise = (next * (square - next) / square).max(0.0).sqrt();
            return Self { clean: 1.0 - kept, data: kept, noise, weight, ..Self::default() };
        }
        let left = next - square;
        let gain = spread / (spread + left);
        Self {
            clean: (1.0 - gain) * (1.0 - ahead),
            old: (1.0 - gain) * ahead,
            data: gain,
            noise: (gain * left).sqrt(),
            weight: Some((ahead, spread + left, potential)),
        }
    }
}

/// Log density of N(0, variance) up to a constant.
fn log_normal(difference: f64, variance: f64) -> f64 {
    -0.5 * (difference * difference / variance + variance.ln())
}

impl Guided {
    /// Adds to each particle's weight how well the data agree with where it will be, over how well they agreed with where
    /// it is.
    fn weigh(&self, ensemble: &mut Ensemble, clean: &Tensor, rules: &[Rule]) -> Result<()> {
        let x = to_host(&self.linear.coordinates(&ensemble.x)?)?;
        let clean = to_host(&self.linear.coordinates(clean)?)?;
        let rank = rules.len();
        for (particle, log_weight) in ensemble.log_weights.iter_mut().enumerate() {
            for (i, rule) in rules.iter().enumerate() {
                let Some((ahead, variance, potential)) = rule.weight else { continue };
                let (x, clean) = (x[particle * rank + i], clean[particle * rank + i]);
                let data = self.linear.data[i];
                let mean = (1.0 - ahead) * clean + ahead * x;
                *log_weight += log_normal(data - mean, variance) - log_normal(data - x, potential);
            }
        }
        Ok(())
    }
}

impl Transition for Guided {
    const NAME: &'static str = "mcgdiff";

    /// White noise conditioned on the potential of the data.
    fn start(&self, noise: Tensor, level: f64) -> Result<Tensor> {
        let linear = &self.linear;
        let left = |sigma: f64| (level * level - sigma * sigma).max(0.0);
        let gain = |sigma: f64| {
            if sigma < level { level * level / (level * level + left(sigma)) } else { 0.0 }
        };
        let data = linear.each(&noise, |data, sigma| gain(sigma) * data)?;
        let share = linear.each(&noise, |_, sigma| (1.0 - gain(sigma)).sqrt())?;
        let coordinates = linear.coordinates(&noise)?.broadcast_mul(&share)?.broadcast_add(&data)?;
        linear.replaced(&noise, &coordinates)
    }

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        levels: Levels,
        _problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let linear = &self.linear;
        let rules: Vec<Rule> = linear.sigma.iter().map(|&sigma| Rule::new(sigma, &levels)).collect();
        let mut clean = denoised(prior, &ensemble.x, levels.from)?;
        self.weigh(ensemble, &clean, &rules)?;
        if let Some(chosen) = ensemble.resample(self.resample_below, rng)? {
            clean = clean.index_select(&chosen, 0)?;
        }
        let x = &ensemble.x;
        let noise = rng.normals(x.dims(), &compute_of(x))?;
        let kept = (levels.to / levels.from).powi(2);
        let spread = levels.ancestral().sqrt();
        let free = ((&clean + ((x - &clean)? * kept)?)? + (&noise * spread)?)?;
        let row = |of: fn(&Rule) -> f64| linear.row(rules.iter().map(of).collect(), x);
        let data = (linear.row(linear.data.clone(), x)? * row(|rule| rule.data)?)?;
        let measured = linear.coordinates(&clean)?.broadcast_mul(&row(|rule| rule.clean)?)?;
        let measured = (measured + linear.coordinates(x)?.broadcast_mul(&row(|rule| rule.old)?)?)?;
        let measured = (measured + linear.coordinates(&noise)?.broadcast_mul(&row(|rule| rule.noise)?)?)?;
        ensemble.x = linear.replaced(&free, &measured.broadcast_add(&data)?)?;
        Ok(())
    }
}

impl Rival for Mcgdiff {
    fn entry(&self) -> Entry {
        Entry {
            name: "mcgdiff",
            summary: "Monte Carlo guided diffusion: particles towards the data; exact for many particles",
            needs: &["denoiser", "linear instrument", "Gaussian noise", "singular-value decomposition"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        let linear = given.problem.linear(given.compute)?;
        let transition = Guided { resample_below: self.resample_below, linear };
        Ok(Box::new(Diffusion::new(transition, self.chains, &self.schedule, given)?))
    }
}
