//! Amortised Principled Posterior Matching: one generator x = g(z, y) for all data y of an instrument.
//!
//! It learns from simulated data: draws of the prior pass through the instrument, and only the data are kept. The generator and
//! the auxiliary denoiser see y as the gradient of log p(y|x) at the prior's mean, a dirty image. Without it the auxiliary
//! denoiser would learn the average over y, of which a generator without noise is the best fit.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    compute::Compute,
    instrument::{Likelihood, Problem},
    posterior::{
        Draws, Solver, Step,
        chains::mean,
        ppm::{
            annealing::Annealing,
            auxiliary::Auxiliary,
            generator::{GeneratorSettings, images},
            loss::{Comparison, NoiseLevels, auxiliary_loss},
            settings::PpmSettings,
            stage::{ADAM, noise_levels},
        },
        solver::{TensorMap, part, prefixed, take},
    },
    prior::{Denoiser, Trainable, draw::draws, reverse::denoised, told::Told},
    rng::Rng,
    tensor::{adam::Adam, to_host},
    transfer::send,
};

/// Name of the numbers of a [`Setting`] in a checkpoint.
const NUMBERS: &str = "amortized.numbers";

/// Settings of the amortised family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmortizedSettings {
    /// Noise level at which the prior's denoiser becomes the generator, standard deviations of the prior.
    pub level: f64,
    /// Learning rate of the generator's weights.
    pub learning_rate: f64,
    /// Draws of the prior from which data are simulated: too few, and the networks know them by heart.
    pub sources: usize,
    /// Checkpoint of a finished run without correction, whose generator is used as it is: one step instead of a training.
    pub trained: Option<PathBuf>,
}

impl Default for AmortizedSettings {
    fn default() -> Self {
        let GeneratorSettings { level, learning_rate } = GeneratorSettings::default();
        Self { level, learning_rate, sources: 1024, trained: None }
    }
}

impl AmortizedSettings {
    pub(super) fn generator(&self) -> GeneratorSettings {
        GeneratorSettings { level: self.level, learning_rate: self.learning_rate }
    }
}

/// What the first step finds out about prior and instrument.
struct Setting {
    levels: NoiseLevels,
    annealing: Annealing,
    /// Draws of the prior `[S, Z, Y, X]` from which data are simulated.
    sources: Tensor,
    /// Mean of the prior `[1, Z, Y, X]`, where dirty images are taken.
    centre: Tensor,
    /// Root mean square of the dirty image of the data with which the training began, by which all are divided.
    scale: f64,
}

/// One data set and its dirty image `[1, Z, Y, X]`.
struct Task {
    likelihoods: Vec<Arc<dyn Likelihood>>,
    known: Tensor,
}

/// The training of the generator, then its draws for the problem's own data.
pub struct Amortized {
    own: AmortizedSettings,
    settings: PpmSettings,
    generator: Box<dyn Trainable>,
    optimiser: Adam,
    auxiliary: Auxiliary,
    setting: Option<Setting>,
    /// [`Setting::scale`] of the training, if that was another run.
    scale: Option<f64>,
    /// Draws `[K, Z, Y, X]` for the problem's own data, after the last step.
    drawn: Option<Tensor>,
    compute: Compute,
}

impl Setting {
    fn dirty(&self, problem: &Problem, likelihoods: &[Arc<dyn Likelihood>]) -> Result<Tensor> {
        Ok((problem.of_data(likelihoods, &self.centre)?.1 / self.scale)?)
    }

    /// Data of one of the prior's draws.
    fn simulated(&self, problem: &Problem, rng: &mut Rng) -> Result<Task> {
        let source = self.sources.narrow(0, rng.below(self.sources.dim(0)?), 1)?;
        let likelihoods = problem.simulated(&source, rng)?;
        let known = self.dirty(problem, &likelihoods)?;
        Ok(Task { likelihoods, known })
    }
}

impl Amortized {
    /// A solver that trains in [`PpmSettings::steps`] steps, or in none if there is a trained generator.
    ///
    /// # Errors
    /// Settings that cannot work, or a prior whose network cannot be told about data.
    pub fn new(
        own: AmortizedSettings,
        settings: PpmSettings,
        prior: &dyn Denoiser,
        rng: &Rng,
        compute: &Compute,
    ) -> Result<Self> {
        settings.validate()?;
        if own.sources == 0 {
            return Err(Error::config("solver.matching.family.sources", "needs at least 1; use 1024"));
        }
        let planes = prior.shape()[0];
        let generator = prior.conditional(planes, &mut rng.stream("generator", 0))?;
        let mut optimiser = Adam::new(generator.variables(), ADAM)?;
        let denoiser = prior.conditional(planes, &mut rng.stream("auxiliary", 0))?;
        let auxiliary = Auxiliary::training(denoiser, settings.auxiliary.clone())?;
        let mut scale = None;
        if let Some(file) = &own.trained {
            let foreign = |_| Error::format(file, "weights", "not the checkpoint of an amortised run");
            let mut state = candle_core::safetensors::load(file, &compute.device).map_err(foreign)?;
            optimiser.restore(&part(&state, "amortized.generator."))?;
            scale = to_host(&take(&mut state, NUMBERS, &[5])?)?.last().copied();
        }
        let (setting, drawn, compute) = (None, None, compute.clone());
        Ok(Self { own, settings, generator, optimiser, auxiliary, setting, scale, drawn, compute })
    }

    /// Draws of the prior; a trained generator needs no more than what tells the range of levels.
    fn sources(&self) -> usize {
        if self.own.trained.is_some() { 1 } else { self.own.sources }
    }

    /// Level of the generator's noise, network unit.
    fn level(&self) -> f64 {
        self.own.level * self.generator.data_std()
    }

    fn images(&self, known: &Tensor, count: usize, rng: &mut Rng) -> Result<Tensor> {
        let told = Told::new(self.generator.as_ref(), known.clone());
        images(&told, self.level(), count, rng, &self.compute)
    }

    fn start(&self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Setting> {
        let [z, y, x] = prior.shape();
        let sources = draws(prior, self.sources(), self.settings.draw_steps, rng, &self.compute)?;
        let values = to_host(&problem.log_likelihood(&sources)?)?;
        let annealing = Annealing::new(&values, self.settings.rising());
        let levels = noise_levels(problem, prior, &sources, rng)?;
        let dark = Tensor::zeros((1, z, y, x), self.compute.dtype, &self.compute.device)?;
        let centre = denoised(prior, &dark, levels.largest)?.detach();
        let unscaled = Setting { levels, annealing, sources, centre, scale: 1.0 };
        if let Some(scale) = self.scale {
            return Ok(Setting { scale, ..unscaled });
        }
        let first = unscaled.dirty(problem, &problem.likelihoods)?;
        let square = mean(&to_host(&first.sqr()?.flatten_all()?)?);
        Ok(Setting { scale: square.sqrt().max(f64::MIN_POSITIVE), ..unscaled })
    }

    /// One step of the generator on one data set, and the auxiliary denoiser's on this one and on others.
    fn train(
        &mut self,
        setting: &Setting,
        problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<Step> {
        let index = self.optimiser.steps();
        let (decay, weight) =
            (PpmSettings::decay(index, self.settings.steps), setting.annealing.weight(index));
        let task = setting.simulated(problem, rng)?;
        let tracked = self.images(&task.known, self.settings.particles, rng)?;
        let (values, slope) = problem.of_data(&task.likelihoods, &tracked.detach())?;
        let own = Told::new(self.auxiliary.denoiser(), task.known);
        let comparison = Comparison {
            prior,
            own: &own,
            variables: &own.variables(),
            levels: setting.levels,
            count: self.settings.noise_levels,
            distance: self.settings.distance,
        };
        let matched = comparison.of(&tracked.detach(), rng)?;
        let gradient = (&matched.gradient - (slope * weight)?)?.detach();
        let descent = (tracked * gradient)?.sum_all()?;
        let norm = self.optimiser.step(&descent.backward()?, self.own.learning_rate * decay)?;
        self.auxiliary.descend(&matched.own, decay)?;
        for _ in 1..self.settings.auxiliary.updates {
            let task = setting.simulated(problem, rng)?;
            let drawn = self.images(&task.known, self.settings.auxiliary.batch, rng)?.detach();
            let told = Told::new(self.auxiliary.denoiser(), task.known);
            let (_, gradient) = auxiliary_loss(&drawn, &told, &setting.levels, rng)?;
            self.auxiliary.descend(&gradient, decay)?;
        }
        let metrics = vec![
            (self.settings.distance.metric(), matched.bound()?),
            ("log_likelihood", mean(&to_host(&values)?)),
            ("likelihood_weight", weight),
            ("auxiliary_loss", matched.own_loss),
            ("gradient_norm", norm),
        ];
        Ok(Step { stage: "amortized", metrics })
    }
}

impl Solver for Amortized {
    fn steps(&self) -> usize {
        if self.own.trained.is_some() { 1 } else { self.settings.steps + 1 }
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let setting = match self.setting.take() {
            Some(setting) => setting,
            None => self.start(problem, prior, rng)?,
        };
        let trained = self.own.trained.is_some() || self.optimiser.steps() >= self.settings.steps;
        let step = if trained {
            let known = setting.dirty(problem, &problem.likelihoods)?;
            let drawn = self.images(&known, self.settings.particles, rng)?.detach();
            let value = mean(&to_host(&problem.log_likelihood(&drawn)?)?);
            self.drawn = Some(drawn);
            Step { stage: "amortized-draws", metrics: vec![("log_likelihood", value)] }
        } else {
            self.train(&setting, problem, prior, rng)?
        };
        self.setting = Some(setting);
        Ok(step)
    }

    fn draws(&self) -> Result<Draws> {
        let Some(images) = &self.drawn else { return Draws::all(&[]) };
        let chains: Vec<usize> = (0..images.dim(0)?).collect();
        Ok(Draws::together(images.clone(), &chains, 0))
    }

    fn state(&self) -> Result<TensorMap> {
        let device = &self.compute.device;
        let mut state: TensorMap = prefixed("amortized.generator.", self.optimiser.state()?).collect();
        state.extend(prefixed("amortized.auxiliary.", self.auxiliary.state()?));
        if let Some(Setting { levels, annealing, sources, centre, scale }) = &self.setting {
            let numbers = [levels.smallest, levels.largest, levels.data_std, annealing.first(), *scale];
            state.insert(NUMBERS.into(), send(&numbers, device)?);
            state.insert("amortized.sources".into(), sources.clone());
            state.insert("amortized.centre".into(), centre.clone());
        }
        if let Some(drawn) = &self.drawn {
            state.insert("amortized.drawn".into(), drawn.clone());
        }
        Ok(state)
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        let [z, y, x] = self.generator.shape();
        let count = self.settings.particles;
        if state.contains_key("amortized.drawn") {
            self.drawn = Some(take(&mut state, "amortized.drawn", &[count, z, y, x])?);
        }
        let sources = self.sources();
        let numbers = to_host(&take(&mut state, NUMBERS, &[5])?)?;
        self.setting = Some(Setting {
            levels: NoiseLevels { smallest: numbers[0], largest: numbers[1], data_std: numbers[2] },
            annealing: Annealing::resume(numbers[3], self.settings.rising(), Vec::new()),
            sources: take(&mut state, "amortized.sources", &[sources, z, y, x])?,
            centre: take(&mut state, "amortized.centre", &[1, z, y, x])?,
            scale: numbers[4],
        });
        self.optimiser.restore(&part(&state, "amortized.generator."))?;
        self.auxiliary.restore(&part(&state, "amortized.auxiliary."))
    }
}
