//! The variational stage of Principled Posterior Matching: a family q descends on E_q\[-log p(y|x)\] + KL(q || p).

use candle_core::{DType, Device, Tensor};

use crate::{
    Result,
    compute::Compute,
    instrument::Problem,
    posterior::{
        Draws, Solver, Step,
        ppm::{
            annealing::Annealing,
            auxiliary::{Auxiliary, some},
            family::{Drawn, Family, family},
            loss::{Comparison, NoiseLevels},
            plateau::Plateau,
            settings::{FamilySettings, PpmSettings},
        },
        restart,
        solver::{TensorMap, part, prefixed, take},
    },
    prior::{Denoiser, draw::draws},
    rng::Rng,
    tensor::{
        adam::{Adam, AdamSettings},
        compute_of, to_host,
    },
    transfer::{Transfer, send},
};

/// Moments of the family's Adam: short memories, for the gradient grows with the likelihood's weight.
pub(super) const ADAM: AdamSettings =
    AdamSettings { beta1: 0.9, beta2: 0.95, epsilon: 1e-12, weight_decay: 0.0, max_gradient_norm: None };

/// The variational stage.
pub struct Ppm {
    settings: PpmSettings,
    family: Box<dyn Family>,
    optimiser: Adam,
    /// None where the family knows its own denoiser.
    auxiliary: Option<Auxiliary>,
    /// Set by the first step: the integral's range and the likelihood's rise.
    started: Option<(NoiseLevels, Annealing)>,
    /// Draws `[K, Z, Y, X]` of q after the latest step.
    drawn: Tensor,
    /// Whether the objective rests; none if that does not matter.
    plateau: Option<Plateau>,
    /// Steps of the whole stage, fewer than its settings say once the objective rests.
    steps: usize,
    compute: Compute,
}

impl Ppm {
    /// A solver whose family starts from draws of `prior` in its first step.
    ///
    /// # Errors
    /// Settings that cannot work, or a prior that cannot be trained.
    pub fn new(settings: PpmSettings, prior: &dyn Denoiser, rng: &Rng, compute: &Compute) -> Result<Self> {
        settings.validate()?;
        let family = family(&settings, prior, rng, compute)?;
        let optimiser = Adam::new(family.variables(), ADAM)?;
        let auxiliary = match family.denoiser()? {
            Some(_) => None,
            None => {
                let mut rng = rng.stream("auxiliary", 0);
                Some(Auxiliary::new(prior, settings.auxiliary.clone(), &mut rng)?)
            }
        };
        let [z, y, x] = prior.shape();
        let drawn = Tensor::zeros((settings.particles, z, y, x), compute.dtype, &compute.device)?;
        let (plateau, steps) = (settings.patience.map(Plateau::new), settings.steps);
        let (started, compute) = (None, compute.clone());
        Ok(Self { settings, family, optimiser, auxiliary, started, drawn, plateau, steps, compute })
    }

    fn start(
        &mut self,
        problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<(NoiseLevels, Annealing)> {
        let (count, steps) = (self.settings.particles, self.settings.rising());
        let total = count * self.settings.candidates;
        let mut images = draws(prior, total, self.settings.draw_steps, rng, &self.compute)?;
        let values = to_host(&problem.log_likelihood(&images)?)?;
        let annealing = if total == count {
            Annealing::new(&values, steps)
        } else {
            let (annealing, chosen) = Annealing::choosing(&values, &images, count, steps, rng)?;
            images = images.index_select(&restart::index(&chosen, &images)?, 0)?;
            annealing
        };
        self.family.start(&images)?;
        let levels = noise_levels(problem, prior, &images, rng)?;
        Ok((levels, annealing))
    }

    /// Lets the members with the given indices take the places of all.
    fn resample(&mut self, chosen: &[usize]) -> Result<()> {
        let chosen = restart::index(chosen, &self.drawn)?;
        let mut state = self.optimiser.state()?;
        for tensor in state.values_mut().filter(|t| t.rank() > 1) {
            *tensor = tensor.index_select(&chosen, 0)?;
        }
        self.optimiser.restore(&state)
    }

    /// Takes in the objective after `finished` steps. Where it rests, the learning rates' fall begins, a third of the whole stage.
    fn rest(&mut self, finished: usize, objective: f64) {
        let falls = 3 * finished >= 2 * self.steps;
        if !falls && self.plateau.as_mut().is_some_and(|plateau| plateau.is_reached(objective)) {
            self.steps = self.steps.min(finished + finished.div_ceil(2));
        }
    }

    fn learning_rate(&self) -> f64 {
        match &self.settings.family {
            FamilySettings::Generator(generator) => generator.learning_rate,
            _ => self.settings.learning_rate,
        }
    }

    /// Moves the family against the average of `objective` `[K]` over q, whose gradient at each image is `gradient`.
    fn descend(&mut self, drawn: &Drawn, objective: &Tensor, gradient: &Tensor, rate: f64) -> Result<f64> {
        let slopes = (&drawn.images * gradient)?.flatten_from(1)?.sum(1)?;
        let slope = match &drawn.weights {
            None => slopes.sum_all()?,
            Some(weights) => {
                let centred = objective.broadcast_sub(&objective.mean_all()?)?;
                ((slopes * weights.detach())? + (weights * centred)?)?.sum_all()?
            }
        };
        self.optimiser.step(&slope.backward()?, rate)
    }
}

impl Solver for Ppm {
    fn steps(&self) -> usize {
        self.steps
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let index = self.optimiser.steps();
        let (levels, mut annealing) = match self.started.take() {
            Some(started) => started,
            None => self.start(problem, prior, rng)?,
        };
        let mut drawn = self.family.draw(rng)?;
        let (mut values, mut slope) = problem.log_likelihood_and_gradient(&drawn.images.detach())?;
        if self.family.has_members()
            && self.settings.particles * self.settings.candidates >= self.settings.resample_from
            && let Some(chosen) = annealing.advance(index, &to_host(&values)?, &drawn.images.detach(), rng)?
        {
            self.resample(&chosen)?;
            drawn = self.family.draw(rng)?;
            (values, slope) = problem.log_likelihood_and_gradient(&drawn.images.detach())?;
        }
        let exact = self.family.denoiser()?;
        let trained = self.auxiliary.as_ref().map(|auxiliary| auxiliary.denoiser());
        let comparison = Comparison {
            prior,
            own: match (&exact, trained) {
                (Some(exact), _) => exact.as_ref(),
                (None, Some(trained)) => trained,
                (None, None) => prior,
            },
            variables: &trained.map_or(Vec::new(), |trained| trained.variables()),
            levels,
            count: self.settings.noise_levels,
            distance: self.settings.distance,
        };
        let matched = comparison.of(&drawn.images.detach(), rng)?;
        let weight = annealing.weight(index);
        let objective = (&matched.values - (&values * weight)?)?;
        let gradient = (matched.gradient - (slope * weight)?)?.detach();
        let decay = PpmSettings::decay(index, self.steps);
        let norm = self.descend(&drawn, &objective, &gradient, self.learning_rate() * decay)?;
        if let Some(auxiliary) = &mut self.auxiliary {
            // Particles of before the step: those that the comparison saw.
            let members = self.family.has_members().then(|| drawn.images.detach());
            let family = &self.family;
            let draw = |count, rng: &mut Rng| match &members {
                Some(members) => some(members, count, rng),
                None => family.sample(count, rng),
            };
            auxiliary.update(&matched.own, decay, &draw, &levels, rng)?;
        }
        self.started = Some((levels, annealing));
        self.drawn = self.family.sample(self.settings.particles, rng)?;
        let [divergence, log_likelihood] = averages([&matched.values, &values], drawn.weights.as_ref())?;
        if weight == 1.0 {
            self.rest(index + 1, divergence - log_likelihood);
        }
        let metrics = vec![
            (self.settings.distance.metric(), divergence),
            ("log_likelihood", log_likelihood),
            ("likelihood_weight", weight),
            ("auxiliary_loss", matched.own_loss),
            ("gradient_norm", norm),
        ];
        Ok(Step { stage: "ppm", metrics })
    }

    fn draws(&self) -> Result<Draws> {
        let chains: Vec<usize> = (0..self.drawn.dim(0)?).collect();
        Ok(Draws::together(self.drawn.clone(), &chains, 0))
    }

    fn state(&self) -> Result<TensorMap> {
        let mut state: TensorMap = prefixed("ppm.optimiser.", self.optimiser.state()?).collect();
        if let Some(auxiliary) = &self.auxiliary {
            state.extend(prefixed("ppm.auxiliary.", auxiliary.state()?));
        }
        state.insert("ppm.drawn".into(), self.drawn.clone());
        if let Some((levels, annealing)) = &self.started {
            let device = &self.compute.device;
            let range = [levels.smallest, levels.largest, levels.data_std, annealing.first()];
            state.insert("ppm.range".into(), send(&range, device)?);
            let weights = send(annealing.log_weights.as_slice(), device)?;
            state.insert("ppm.log_weights".into(), weights);
        }
        if let Some(plateau) = &self.plateau {
            state.insert("ppm.objective".into(), plateau.state()?);
            state.insert("ppm.steps".into(), Tensor::new(&[self.steps as i64], &Device::Cpu)?);
        }
        Ok(state)
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        self.drawn = take(&mut state, "ppm.drawn", self.drawn.dims())?;
        let range = to_host(&take(&mut state, "ppm.range", &[4])?)?;
        let weights = to_host(&take(&mut state, "ppm.log_weights", &[self.settings.particles])?)?;
        self.optimiser.restore(&part(&state, "ppm.optimiser."))?;
        if let Some(auxiliary) = &mut self.auxiliary {
            auxiliary.restore(&part(&state, "ppm.auxiliary."))?;
        }
        if let Some(plateau) = &mut self.plateau {
            let count = state.get("ppm.objective").map_or(0, Tensor::elem_count);
            plateau.restore(&take(&mut state, "ppm.objective", &[count])?)?;
            let steps = take(&mut state, "ppm.steps", &[1])?.read_list::<i64>()?;
            self.steps = steps[0].unsigned_abs() as usize;
        }
        let levels = NoiseLevels { smallest: range[0], largest: range[1], data_std: range[2] };
        self.started = Some((levels, Annealing::resume(range[3], self.settings.rising(), weights)));
        Ok(())
    }
}

/// From 0.01 standard deviations of the prior, or 0.3 times the precision of the data per pixel if that is smaller, to
/// the largest level of the prior; never beyond the levels that the prior knows.
pub(super) fn noise_levels(
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
    let compute = compute_of(images);
    let step = 1e-2 * data_std;
    let probe = rng.normals(images.dims(), &compute)?;
    let gradient = |offset: f64| -> Result<Tensor> {
        Ok(problem.log_likelihood_and_gradient(&(images + (&probe * offset)?)?)?.1)
    };
    let change = (gradient(-step)? - gradient(step)?)?;
    let total = (change * &probe)?.sum_all()?.to_dtype(DType::F64)?.read_scalar::<f64>()?;
    let curvature = total / (2.0 * step * images.elem_count() as f64);
    Ok(if curvature > 0.0 { curvature.sqrt().recip() } else { f64::INFINITY })
}

/// Averages over q of values `[K]`, read together: each reading stops the device.
fn averages(values: [&Tensor; 2], weights: Option<&Tensor>) -> Result<[f64; 2]> {
    let both = Tensor::stack(&values, 1)?;
    let both = match weights {
        Some(weights) => both.broadcast_mul(&weights.detach().unsqueeze(1)?)?,
        None => both,
    };
    let both = to_host(&both)?;
    let column = |index: usize| both.iter().skip(index).step_by(2).sum::<f64>() / (both.len() / 2) as f64;
    Ok([column(0), column(1)])
}
