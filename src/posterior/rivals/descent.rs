//! Images that descend on the data's misfit plus a gradient from the prior's denoiser: what score distillation and its
//! relatives share.

use candle_core::{Tensor, Var};

use super::{Given, diffusion::Schedule};
use crate::{
    Error, Result,
    instrument::Problem,
    posterior::{
        Draws, Solver, Step,
        solver::{TensorMap, part, prefixed},
    },
    prior::{Denoiser, reverse::denoised},
    rng::Rng,
    tensor::{
        adam::{Adam, AdamSettings},
        compute_of, to_host,
    },
};

/// Moments of Adam as the authors of RED-diff set them.
const ADAM: AdamSettings =
    AdamSettings { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.0, max_gradient_norm: None };
/// Name of the only variable.
const IMAGES: &str = "images";

/// The gradient that the prior adds to that of the data.
pub trait Pull: Send {
    /// Name of the stage in the metrics.
    const NAME: &'static str;

    /// Noise level of step `index`.
    fn level(&self, index: usize, levels: &[f64], rng: &mut Rng) -> f64;

    /// First images, of the shape of `images`. By default what the denoiser makes of noise of the first `level`: near the
    /// prior's mean.
    ///
    /// # Errors
    /// Those of the prior.
    fn start(&self, images: &Tensor, level: f64, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Tensor> {
        let noise = rng.normals(images.dims(), &compute_of(images))?;
        denoised(prior, &(noise * level)?, level)
    }

    /// Gradient, shape of `images`, of the prior's part of the loss.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn gradient(&mut self, images: &Tensor, noisy: &Noisy, rng: &mut Rng) -> Result<Tensor>;

    /// What the pull remembers from step to step, for a checkpoint.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn memory(&self) -> Result<TensorMap> {
        Ok(TensorMap::new())
    }

    /// Continues with what [`Pull::memory`] gave.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    fn recall(&mut self, _memory: &TensorMap) -> Result<()> {
        Ok(())
    }
}

/// Images with noise, and the same denoised.
pub struct Noisy {
    /// Noise level s.
    pub level: f64,
    /// Standard deviation of the prior.
    pub data_std: f64,
    /// Noisy images x + s n.
    pub image: Tensor,
    /// Denoised images D(x + s n, s).
    pub clean: Tensor,
}

/// Settings that a descent has besides those of its pull.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Number of images.
    pub chains: usize,
    /// Step of Adam, standard deviations of the prior per pixel.
    pub learning_rate: f64,
}

/// A solver that moves images by Adam.
pub struct Descent<P> {
    pull: P,
    learning_rate: f64,
    levels: Vec<f64>,
    images: Var,
    optimiser: Adam,
}

impl<P: Pull> Descent<P> {
    /// `pace.chains` images, one step for each level of `schedule`.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(pull: P, pace: Pace, schedule: &Schedule, given: &Given) -> Result<Self> {
        if pace.chains == 0 || !(pace.learning_rate > 0.0 && pace.learning_rate.is_finite()) {
            return Err(Error::config("solver", "needs at least 1 chain and a positive learning_rate"));
        }
        let mut levels = schedule.levels(given.prior)?;
        levels.pop();
        let [z, y, x] = given.prior.shape();
        let dark = Tensor::zeros((pace.chains, z, y, x), given.compute.dtype, &given.compute.device)?;
        let images = Var::from_tensor(&dark)?;
        let optimiser = Adam::new(vec![(IMAGES.into(), images.clone())], ADAM)?;
        Ok(Self {
            pull,
            learning_rate: pace.learning_rate * given.prior.data_std(),
            levels,
            images,
            optimiser,
        })
    }
}

impl<P: Pull> Solver for Descent<P> {
    fn steps(&self) -> usize {
        self.levels.len()
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let index = self.optimiser.steps();
        if index == 0 {
            self.images.set(&self.pull.start(self.images.as_tensor(), self.levels[0], prior, rng)?)?;
        }
        let images = self.images.as_tensor().detach();
        let level = self.pull.level(index, &self.levels, rng);
        let image = (&images + (rng.normals(images.dims(), &compute_of(&images))? * level)?)?;
        let clean = denoised(prior, &image, level)?;
        let noisy = Noisy { level, data_std: prior.data_std(), image, clean };
        let (value, slope) = problem.log_likelihood_and_gradient(&images)?;
        let gradient = (self.pull.gradient(&images, &noisy, rng)? - slope)?;
        let descent = (self.images.as_tensor() * gradient.detach())?.sum_all()?;
        let norm = self.optimiser.step(&descent.backward()?, self.learning_rate)?;
        let values = to_host(&value)?;
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let metrics = vec![("level", level), ("log_likelihood", mean), ("gradient_norm", norm)];
        Ok(Step { stage: P::NAME, metrics })
    }

    fn draws(&self) -> Result<Draws> {
        let chains: Vec<usize> = (0..self.images.dim(0)?).collect();
        Ok(Draws::together(self.images.as_tensor().detach(), &chains, 0))
    }

    fn state(&self) -> Result<TensorMap> {
        let own = prefixed("descent.optimiser.", self.optimiser.state()?);
        Ok(own.chain(prefixed("descent.pull.", self.pull.memory()?)).collect())
    }

    fn restore(&mut self, state: TensorMap) -> Result<()> {
        self.pull.recall(&part(&state, "descent.pull."))?;
        self.optimiser.restore(&part(&state, "descent.optimiser."))
    }
}
