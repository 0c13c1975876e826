//! Principled Posterior Matching with particles: q is a set of images that descend on
//! E_q\[-log p(y|x)\] + KL(q || p).

use candle_core::{DType, Tensor, Var};

use crate::{
    Result,
    compute::Compute,
    instrument::Problem,
    posterior::{
        Draws, Solver, Step,
        ppm::{
            annealing::Annealing,
            auxiliary::Auxiliary,
            loss::{NoiseLevels, matching},
            settings::PpmSettings,
        },
        solver::{TensorMap, take},
    },
    prior::{Denoiser, draw::draws},
    rng::Rng,
    tensor::adam::{Adam, AdamSettings},
};

/// Moments of the particles' Adam: short memories, for the gradient grows with the likelihood's weight.
const ADAM: AdamSettings =
    AdamSettings { beta1: 0.9, beta2: 0.95, epsilon: 1e-12, weight_decay: 0.0, max_gradient_norm: None };
/// Name of the only variable of the particles' optimiser.
const PARTICLES: &str = "particles";

/// The variational stage with particles.
pub struct Ppm {
    settings: PpmSettings,
    particles: Var,
    optimiser: Adam,
    auxiliary: Auxiliary,
    /// Set by the first step: the integral's range and the likelihood's rise.
    started: Option<(NoiseLevels, Annealing)>,
}

impl Ppm {
    /// A solver whose particles are drawn from `prior` by its first step.
    ///
    /// # Errors
    /// Settings that cannot work, or a prior that cannot be trained.
    pub fn new(settings: PpmSettings, prior: &dyn Denoiser, rng: &Rng, compute: &Compute) -> Result<Self> {
        settings.validate()?;
        let [z, y, x] = prior.shape();
        let empty = Tensor::zeros((settings.particles, z, y, x), compute.dtype, &compute.device)?;
        let particles = Var::from_tensor(&empty)?;
        let optimiser = Adam::new(vec![(PARTICLES.into(), particles.clone())], ADAM)?;
        let auxiliary = Auxiliary::new(prior, settings.auxiliary.clone(), &mut rng.stream("auxiliary", 0))?;
        Ok(Self { settings, particles, optimiser, auxiliary, started: None })
    }

    /// The particles `[K, Z, Y, X]`, network unit.
    pub fn particles(&self) -> Tensor {
        self.particles.as_tensor().detach()
    }

    /// Steps over which the likelihood rises.
    fn rising(&self) -> usize {
        (self.settings.annealing * self.settings.steps as f64).round() as usize
    }

    fn start(
        &mut self,
        problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<(NoiseLevels, Annealing)> {
        let particles = self.particles.as_tensor();
        let compute = Compute { device: particles.device().clone(), dtype: particles.dtype() };
        let images = draws(prior, self.settings.particles, self.settings.draw_steps, rng, &compute)?;
        self.particles.set(&images)?;
        let (log_likelihoods, _) = problem.log_likelihood_and_gradient(&images)?;
        let levels = noise_levels(problem, prior, &images, rng)?;
        Ok((levels, Annealing::new(&host(&log_likelihoods)?, self.rising())))
    }

    /// Lets the particles with the given indices take the places of all.
    fn resample(&mut self, chosen: &[usize]) -> Result<()> {
        let chosen: Vec<u32> = chosen.iter().map(|&i| i as u32).collect();
        let chosen = Tensor::new(chosen, self.particles.device())?;
        let mut state = self.optimiser.state()?;
        for tensor in state.values_mut().filter(|t| t.rank() > 1) {
            *tensor = tensor.index_select(&chosen, 0)?;
        }
        self.optimiser.restore(&state)
    }

    /// Both learning rates fall to a tenth over the last third of the run, so that particles come to rest.
    fn decay(&self, step: usize) -> f64 {
        let late = (step as f64 / self.settings.steps as f64 - 2.0 / 3.0) * 3.0;
        0.1f64.powf(late.max(0.0))
    }

    /// Moves the particles against `gradient`.
    fn descend(&mut self, gradient: &Tensor, learning_rate: f64) -> Result<f64> {
        let slope = (self.particles.as_tensor() * gradient.detach())?.sum_all()?;
        self.optimiser.step(&slope.backward()?, learning_rate)
    }
}

impl Solver for Ppm {
    fn steps(&self) -> usize {
        self.settings.steps
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let index = self.optimiser.steps();
        let (levels, mut annealing) = match self.started.take() {
            Some(started) => started,
            None => self.start(problem, prior, rng)?,
        };
        let (mut values, mut slope) = problem.log_likelihood_and_gradient(&self.particles())?;
        if self.settings.particles >= self.settings.resample_from
            && let Some(chosen) = annealing.advance(index, &host(&values)?, rng)
        {
            self.resample(&chosen)?;
            (values, slope) = problem.log_likelihood_and_gradient(&self.particles())?;
        }
        let particles = self.particles();
        let auxiliary = self.auxiliary.denoiser();
        let matched = matching(&particles, prior, auxiliary, &levels, self.settings.noise_levels, rng)?;
        let weight = annealing.weight(index);
        let gradient = (matched.gradient - (slope * weight)?)?;
        let decay = self.decay(index);
        let norm = self.descend(&gradient, self.settings.learning_rate * prior.data_std() * decay)?;
        self.auxiliary.update(&matched.auxiliary, decay, &particles, &levels, rng)?;
        self.started = Some((levels, annealing));
        let metrics = vec![
            ("kl_bound", matched.bound),
            ("log_likelihood", mean(&host(&values)?)),
            ("likelihood_weight", weight),
            ("auxiliary_loss", matched.auxiliary_loss),
            ("gradient_norm", norm),
        ];
        Ok(Step { stage: "ppm", metrics })
    }

    fn draws(&self) -> Result<Draws> {
        let chains: Vec<usize> = (0..self.particles.dim(0)?).collect();
        Ok(Draws::together(self.particles(), &chains, 0))
    }

    fn state(&self) -> Result<TensorMap> {
        let prefixed = |prefix: &'static str, map: TensorMap| {
            map.into_iter().map(move |(name, tensor)| (format!("ppm.{prefix}.{name}"), tensor))
        };
        let mut state: TensorMap = prefixed("optimiser", self.optimiser.state()?).collect();
        state.extend(prefixed("auxiliary", self.auxiliary.state()?));
        if let Some((levels, annealing)) = &self.started {
            let device = self.particles.device();
            let range = [levels.smallest, levels.largest, levels.data_std, annealing.first()];
            state.insert("ppm.range".into(), Tensor::new(&range, device)?);
            let weights = Tensor::new(annealing.log_weights.as_slice(), device)?;
            state.insert("ppm.log_weights".into(), weights);
        }
        Ok(state)
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        let range = host(&take(&mut state, "ppm.range", &[4])?)?;
        let weights = host(&take(&mut state, "ppm.log_weights", &[self.settings.particles])?)?;
        let part = |prefix: &str| -> TensorMap {
            let named = |(name, tensor): (&String, &Tensor)| {
                Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()))
            };
            state.iter().filter_map(named).collect()
        };
        self.optimiser.restore(&part("ppm.optimiser."))?;
        self.auxiliary.restore(&part("ppm.auxiliary."))?;
        let levels = NoiseLevels { smallest: range[0], largest: range[1], data_std: range[2] };
        self.started = Some((levels, Annealing::resume(range[3], self.rising(), weights)));
        Ok(())
    }
}

/// From 0.01 standard deviations of the prior, or 0.3 times the precision of the data per pixel if that is smaller, to
/// the largest level of the prior; never beyond the levels that the prior knows.
fn noise_levels(
    problem: &Problem,
    prior: &dyn Denoiser,
    images: &Tensor,
    rng: &mut Rng,
) -> Result<NoiseLevels> {
    let std = prior.data_std();
    let (lowest, largest) = prior.noise_range();
    let precision = pixel_precision(problem, images, std, rng)?;
    let smallest = (0.01 * std).min(0.3 * precision).max(lowest);
    Ok(NoiseLevels { smallest, largest, data_std: std })
}

/// Standard deviation with which the data alone fix a pixel: the root of the inverse mean diagonal of minus the
/// log likelihood's Hessian, by a random probe (Hutchinson 1990) and central differences.
fn pixel_precision(problem: &Problem, images: &Tensor, data_std: f64, rng: &mut Rng) -> Result<f64> {
    let compute = Compute { device: images.device().clone(), dtype: images.dtype() };
    let step = 1e-2 * data_std;
    let probe = rng.normals(images.dims(), &compute)?;
    let gradient = |offset: f64| -> Result<Tensor> {
        Ok(problem.log_likelihood_and_gradient(&(images + (&probe * offset)?)?)?.1)
    };
    let change = (gradient(-step)? - gradient(step)?)?;
    let total = (change * &probe)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    let curvature = total / (2.0 * step * images.elem_count() as f64);
    Ok(if curvature > 0.0 { curvature.sqrt().recip() } else { f64::INFINITY })
}

fn host(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.to_vec1()?)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
