//! Weighted diffusion guided by the likelihood of the noisy image itself, in three forms.
//!
//! Source: Chen et al. 2025, "Solving inverse problems via diffusion-based priors: an approximation-free ensemble sampling approach"
//! (AFDPS), in its stochastic and deterministic forms; the form without guidance corrects by weights alone, as the Feynman-Kac
//! correctors of Skreta et al. 2025 do. The target at level s is p_s(x) exp(-m_s(x)) with
//! m_s = sum of (data_i - x_i)^2 / 2 (sigma_i^2 + gamma^2 s^2). With S the prior's score and u the variance that has been removed,
//! du = -d(s^2), the weights follow from the Fokker-Planck equation:
//!
//! * stochastic, dx = (S - kappa grad m) du + dW: d log w = -dm_s - kappa S.grad m du + (kappa - 1/2) |grad m|^2 du,
//! * deterministic, dx = S du / 2: d log w = -dm_s - S.grad m du / 2,
//!
//! where dm_s is the change of m with s at fixed x, and the Laplacian of m, constant for a linear instrument, is left out. kappa is
//! 1 for guidance and 0 for weights alone. Exact as particles and steps grow in number.

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

/// Settings that the three forms share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weighted {
    /// Number of particles.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// gamma: how much the data's noise grows with the level.
    pub softening: f64,
    /// Particles are resampled when fewer than this fraction of them are effective.
    pub resample_below: f64,
}

impl Default for Weighted {
    fn default() -> Self {
        Self { chains: 64, schedule: Schedule::default(), softening: 1.0, resample_below: 0.5 }
    }
}

/// Settings of the stochastic form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AfdpsSde(pub Weighted);

/// Settings of the form without guidance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FkCorrector(pub Weighted);

/// Settings of the deterministic form with Langevin steps at every level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AfdpsOde {
    /// Number of particles.
    pub chains: usize,
    /// Noise levels.
    pub schedule: Schedule,
    /// gamma: how much the data's noise grows with the level.
    pub softening: f64,
    /// Particles are resampled when fewer than this fraction of them are effective.
    pub resample_below: f64,
    /// Langevin steps on the target at every level, one denoiser evaluation each.
    pub corrections: usize,
    /// Their length over the inverse of the largest curvature.
    pub step: f64,
}

impl Default for AfdpsOde {
    fn default() -> Self {
        let Weighted { chains, schedule, softening, resample_below } = Weighted::default();
        Self { chains, schedule, softening, resample_below, corrections: 2, step: 0.2 }
    }
}

/// How particles move between levels.
enum Form {
    /// With this strength kappa of the guidance.
    Stochastic(f64),
    /// With so many Langevin steps of this relative length.
    Deterministic(usize, f64),
}

struct FeynmanKac {
    form: Form,
    softening: f64,
    resample_below: f64,
    linear: Linear,
}

impl FeynmanKac {
    /// Variance of a measurement at `level`.
    fn variance(&self, sigma: f64, level: f64) -> f64 {
        sigma * sigma + (self.softening * level).powi(2)
    }

    /// m of each image at `level`.
    fn misfit(&self, coordinates: &Tensor, level: f64) -> Result<Vec<f64>> {
        let linear = &self.linear;
        let scale = linear.each(coordinates, |_, sigma| self.variance(sigma, level).sqrt().recip())?;
        let residual = linear.row(linear.data.clone(), coordinates)?.broadcast_sub(coordinates)?;
        to_host(&(residual.broadcast_mul(&scale)?.sqr()?.sum(1)? * 0.5)?)
    }

    /// Coordinates of grad m at `level`.
    fn slope(&self, coordinates: &Tensor, level: f64) -> Result<Tensor> {
        let linear = &self.linear;
        let weight = linear.each(coordinates, |_, sigma| self.variance(sigma, level).recip())?;
        let residual = linear.row(linear.data.clone(), coordinates)?.broadcast_sub(coordinates)?;
        Ok(residual.broadcast_mul(&weight)?.neg()?)
    }

    /// Adds the growth of the log weights over a step from x with score coordinates `score`.
    fn weigh(&self, ensemble: &mut Ensemble, levels: &Levels, x: &Tensor, score: &Tensor) -> Result<()> {
        let slope = self.slope(x, levels.from)?;
        let along = to_host(&(score * &slope)?.sum(1)?)?;
        let square = to_host(&slope.sqr()?.sum(1)?)?;
        let (before, after) = (self.misfit(x, levels.from)?, self.misfit(x, levels.to)?);
        let growth = |i: usize| match self.form {
            Form::Stochastic(kappa) => -kappa * along[i] + (kappa - 0.5) * square[i],
            Form::Deterministic(..) => -0.5 * along[i],
        };
        for (i, log_weight) in ensemble.log_weights.iter_mut().enumerate() {
            if levels.index == 0 {
                *log_weight -= before[i];
            }
            *log_weight += before[i] - after[i] + growth(i) * levels.variance();
        }
        Ok(())
    }

    /// Unadjusted Langevin steps on the target at `level`.
    fn correct(
        &self,
        prior: &dyn Denoiser,
        mut x: Tensor,
        level: f64,
        (count, step): (usize, f64),
        rng: &mut Rng,
    ) -> Result<Tensor> {
        let sharpest = self.linear.sigma.iter().map(|&sigma| self.variance(sigma, level).recip());
        let length = step / (level.powi(-2) + sharpest.fold(0.0, f64::max));
        for _ in 0..count {
            let score = ((denoised(prior, &x, level)? - &x)? / (level * level))?;
            let slope = self.slope(&self.linear.coordinates(&x)?, level)?;
            let drift = ((score - self.linear.image(&slope, prior.shape())?)? * length)?;
            let noise = (rng.normals(x.dims(), &compute_of(&x))? * (2.0 * length).sqrt())?;
            x = ((x + drift)? + noise)?;
        }
        Ok(x)
    }
}

impl Transition for FeynmanKac {
    const NAME: &'static str = "afdps";

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        levels: Levels,
        _problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let clean = denoised(prior, &ensemble.x, levels.from)?;
        let coordinates = self.linear.coordinates(&ensemble.x)?;
        let score = ((self.linear.coordinates(&clean)? - &coordinates)? / levels.from.powi(2))?;
        let x = ensemble.x.clone();
        self.weigh(ensemble, &levels, &coordinates, &score)?;
        ensemble.x = match self.form {
            _ if levels.to == 0.0 => clean,
            Form::Stochastic(kappa) => {
                let slope = (self.slope(&coordinates, levels.from)? * (kappa * levels.variance()))?;
                (levels.renoise(&x, &clean, 1.0, rng)? - self.linear.image(&slope, prior.shape())?)?
            }
            Form::Deterministic(..) => levels.renoise(&x, &clean, 0.0, rng)?,
        };
        ensemble.resample(self.resample_below, rng)?;
        if let Form::Deterministic(count, step) = self.form
            && levels.to > 0.0
        {
            ensemble.x = self.correct(prior, ensemble.x.clone(), levels.to, (count, step), rng)?;
        }
        Ok(())
    }
}

const NEEDS: &[&str] = &["denoiser", "linear instrument", "Gaussian noise", "singular-value decomposition"];

impl Weighted {
    fn build(&self, form: Form, given: &Given) -> Result<Box<dyn Solver>> {
        let linear = given.problem.linear(given.compute)?;
        let Self { softening, resample_below, .. } = *self;
        let transition = FeynmanKac { form, softening, resample_below, linear };
        Ok(Box::new(Diffusion::new(transition, self.chains, &self.schedule, given)?))
    }
}

impl Rival for AfdpsSde {
    fn entry(&self) -> Entry {
        let summary =
            "guided stochastic particles with Feynman-Kac weights; exact for many particles and steps";
        Entry { name: "afdps_sde", summary, needs: NEEDS }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.0.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        self.0.build(Form::Stochastic(1.0), given)
    }
}

impl Rival for FkCorrector {
    fn entry(&self) -> Entry {
        let summary =
            "unguided particles with Feynman-Kac weights; exact in the limit, weights of high variance";
        Entry { name: "fk_corrector", summary, needs: NEEDS }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.0.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        self.0.build(Form::Stochastic(0.0), given)
    }
}

impl Rival for AfdpsOde {
    fn entry(&self) -> Entry {
        let summary =
            "deterministic particles with Feynman-Kac weights and Langevin corrections; exact in the limit";
        Entry { name: "afdps_ode", summary, needs: NEEDS }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        let Self { chains, schedule, softening, resample_below, corrections, step } = self.clone();
        Weighted { chains, schedule, softening, resample_below }
            .build(Form::Deterministic(corrections, step), given)
    }
}
