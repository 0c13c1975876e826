//! Exact posterior score: a network learns the posterior's own denoiser for the data model of an instrument.
//!
//! Source: Mammadov et al. 2026, "Exact posterior score estimation for solving linear inverse problems" (EPS). Noise of level s and the data's noise together leave a clean image with
//! precision S^-1 = I / s^2 + A^T R^-1 A around the pivot mu = S (x_s / s^2 + A^T R^-1 y), so that
//! E[x | x_s, y] = E[x | x + S^(1/2) n = mu], and the posterior's score is that mean minus x_s, over s^2. A network that starts as the
//! prior's denoiser of mu, with one more input for A^+ y through weights of zero, learns it by |D(mu, A^+ y, s) - x|^2 on
//! draws of the prior with simulated data. Exact if the network is. S is diagonal in the instrument's coordinates, those of a
//! Fourier transform for periodic instruments and of a singular-value decomposition for others.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    diffusion::{Diffusion, Ensemble, Levels, Schedule, Transition},
};
use crate::{
    Error, Result,
    compute::Compute,
    instrument::{Linear, Problem},
    posterior::{
        Draws, Entry, Solver, Step,
        solver::{TensorMap, part, prefixed},
    },
    prior::{Denoiser, Trainable, draw::draws},
    rng::Rng,
    tensor::{
        adam::{Adam, AdamSettings},
        compute_of, to_host,
    },
    transfer::send,
};

/// Largest norm of the gradient of all weights.
const GRADIENT_NORM: f64 = 1.0;

/// Settings of the exact posterior score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Eps {
    /// Number of chains.
    pub chains: usize,
    /// Noise levels of the sampling, whose range is also that of the training.
    pub schedule: Schedule,
    /// Steps of the training.
    pub training: usize,
    /// Images in each of them.
    pub batch: usize,
    /// Draws of the prior from which the training takes its images.
    pub images: usize,
    /// Steps of Heun's method for each of them.
    pub draw_steps: usize,
    /// Learning rate of Adam, which falls to a tenth over the last half of the training.
    pub learning_rate: f64,
}

impl Default for Eps {
    fn default() -> Self {
        Self {
            chains: 32,
            schedule: Schedule { steps: 100, ..Schedule::default() },
            training: 2000,
            batch: 128,
            images: 1024,
            draw_steps: 18,
            learning_rate: 1e-3,
        }
    }
}

/// The network with the instrument's coordinates.
struct Pivoted {
    linear: Linear,
    network: Box<dyn Trainable>,
    optimiser: Adam,
    /// Draws of the prior, made by the first step.
    images: Option<Tensor>,
    compute: Compute,
}

impl Pivoted {
    /// Posterior means `[B, Z, Y, X]` for noisy images, levels `[B]` and data `[B or 1, R]` in the instrument's coordinates.
    fn clean(&self, noisy: &Tensor, level: &Tensor, data: &Tensor) -> Result<Tensor> {
        let data = data.broadcast_as((noisy.dim(0)?, self.linear.rank()))?;
        let own = self.linear.each(noisy, |_, sigma| sigma * sigma)?;
        let square = level.sqr()?.unsqueeze(1)?;
        let total = own.broadcast_add(&square)?;
        let seen = self.linear.coordinates(noisy)?;
        let pivot = (seen.broadcast_mul(&own)? + data.broadcast_mul(&square)?)?.div(&total)?;
        let known = self.linear.image(&data.contiguous()?, self.network.shape())?;
        self.network.denoise_given(&self.linear.replaced(noisy, &pivot)?, level, &known)
    }

    /// One step of the training: the loss, weighted by (s^2 + c^2) / (s c)^2, per pixel.
    fn train(&mut self, settings: &Eps, range: [f64; 2], prior: &dyn Denoiser, rng: &mut Rng) -> Result<f64> {
        let compute = self.compute.clone();
        let images = match &self.images {
            Some(images) => images.clone(),
            None => draws(prior, settings.images, settings.draw_steps, rng, &compute)?,
        };
        let chosen: Vec<u32> = (0..settings.batch).map(|_| rng.below(settings.images) as u32).collect();
        let clean = images.index_select(&send(chosen, images.device())?, 0)?;
        self.images = Some(images);
        let [low, high] = range.map(f64::ln);
        let levels: Vec<f64> =
            (0..settings.batch).map(|_| (low + (high - low) * rng.uniform()).exp()).collect();
        let variance = prior.data_std().powi(2);
        let weights = levels.iter().map(|s| s.powi(-2) + variance.recip()).collect();
        let level = compute.tensor(levels, &[settings.batch])?;
        let noise = rng.normals(clean.dims(), &compute)?;
        let noisy = (&clean + noise.broadcast_mul(&level.reshape(((), 1, 1, 1))?)?)?;
        let errors = rng.normals(&[settings.batch, self.linear.rank()], &compute)?;
        let errors = errors.broadcast_mul(&self.linear.each(&clean, |_, sigma| sigma)?)?;
        let data = (self.linear.coordinates(&clean)? + errors)?;
        let misfit = (self.clean(&noisy, &level, &data)? - &clean)?.sqr()?.flatten_from(1)?.mean(1)?;
        let loss = (misfit * compute.tensor(weights, &[settings.batch])?)?.mean_all()?;
        let late = (2.0 * self.optimiser.steps() as f64 / settings.training as f64 - 1.0).max(0.0);
        self.optimiser.step(&loss.backward()?, settings.learning_rate * 0.1f64.powf(late))?;
        Ok(to_host(&loss.unsqueeze(0)?)?[0])
    }
}

impl Transition for Pivoted {
    const NAME: &'static str = "eps";

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        levels: Levels,
        _problem: &Problem,
        _prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let x = &ensemble.x;
        let level = compute_of(x).tensor(vec![levels.from; x.dim(0)?], &[x.dim(0)?])?;
        let data = self.linear.row(self.linear.data.clone(), x)?;
        let clean = self.clean(x, &level, &data)?.detach();
        ensemble.x = levels.renoise(x, &clean, 1.0, rng)?;
        Ok(())
    }

    fn memory(&self) -> Result<TensorMap> {
        let images = self.images.iter().map(|images| ("images".to_string(), images.clone()));
        Ok(prefixed("optimiser.", self.optimiser.state()?).chain(images).collect())
    }

    fn recall(&mut self, mut memory: TensorMap) -> Result<()> {
        self.optimiser.restore(&part(&memory, "optimiser."))?;
        self.images = memory.remove("images");
        Ok(())
    }
}

/// The training, then the sampling.
struct Learned {
    settings: Eps,
    range: [f64; 2],
    sampling: Diffusion<Pivoted>,
}

impl Learned {
    fn in_training(&self) -> bool {
        self.sampling.transition().optimiser.steps() < self.settings.training
    }
}

impl Solver for Learned {
    fn steps(&self) -> usize {
        self.settings.training + self.sampling.steps()
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        if !self.in_training() {
            return self.sampling.step(problem, prior, rng);
        }
        let loss = self.sampling.transition_mut().train(&self.settings, self.range, prior, rng)?;
        Ok(Step { stage: "eps-training", metrics: vec![("loss", loss)] })
    }

    fn draws(&self) -> Result<Draws> {
        self.sampling.draws()
    }

    fn state(&self) -> Result<TensorMap> {
        self.sampling.state()
    }

    fn restore(&mut self, state: TensorMap) -> Result<()> {
        self.sampling.restore(state)
    }
}

impl Rival for Eps {
    fn entry(&self) -> Entry {
        Entry {
            name: "eps",
            summary: "a network learns the posterior's own denoiser on simulated data of the instrument (EPS): exact if the network is",
            needs: &[
                "trainable prior",
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
        let sizes = [self.training, self.batch, self.images, self.draw_steps];
        if sizes.contains(&0) || !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            let problem =
                "needs training, batch, images and draw_steps of at least 1 and a positive learning_rate";
            return Err(Error::config("solver", problem));
        }
        let levels = self.schedule.levels(given.prior)?;
        let range = [levels[levels.len() - 2], levels[0]];
        let linear = given.problem.linear(given.compute)?;
        let planes = given.prior.shape()[0];
        let network = given.prior.conditional(planes, &mut given.rng.stream("network", 0))?;
        let adam = AdamSettings { max_gradient_norm: Some(GRADIENT_NORM), ..AdamSettings::default() };
        let optimiser = Adam::new(network.variables(), adam)?;
        let transition = Pivoted { linear, network, optimiser, images: None, compute: given.compute.clone() };
        let sampling = Diffusion::new(transition, self.chains, &self.schedule, given)?;
        Ok(Box::new(Learned { settings: self.clone(), range, sampling }))
    }
}
