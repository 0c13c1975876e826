//! The reverse diffusion that most rivals share: noise levels fall to zero, and one rule moves all images from each
//! level to the next.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::Given;
use crate::{
    Error, Result,
    instrument::Problem,
    posterior::{
        Draws, Solver, Step,
        resampling::{effective_count, systematic},
        restart,
        solver::{TensorMap, take},
    },
    prior::Denoiser,
    rng::Rng,
    tensor::{compute_of, to_host},
    transfer::Transfer,
};

/// The noise levels of a reverse diffusion, units of the prior's standard deviation per pixel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// Number of levels, which fall geometrically; zero follows.
    pub steps: usize,
    /// First level, or the largest that the prior knows if that is smaller.
    pub largest: f64,
    /// Last level, or the smallest that the prior knows if that is larger.
    pub smallest: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { steps: 200, largest: 100.0, smallest: 0.01 }
    }
}

impl Schedule {
    /// The levels in network unit, then zero.
    ///
    /// # Errors
    /// Fewer than two steps, or levels that do not fall.
    pub fn levels(&self, prior: &dyn Denoiser) -> Result<Vec<f64>> {
        let ((lowest, highest), std) = (prior.noise_range(), prior.data_std());
        let (first, last) = ((self.largest * std).min(highest), (self.smallest * std).max(lowest));
        if self.steps < 2 || !(last > 0.0 && last < first) {
            let problem =
                "needs at least 2 steps and levels that fall; use {steps: 200, largest: 100, smallest: 0.01}";
            return Err(Error::config("solver.schedule", problem));
        }
        let level = |i: usize| first * (last / first).powf(i as f64 / (self.steps - 1) as f64);
        Ok((0..self.steps).map(level).chain([0.0]).collect())
    }
}

/// Images of one noise level; weighted where the method is sequential Monte Carlo.
#[derive(Debug, Clone)]
pub struct Ensemble {
    /// Images `[K, Z, Y, X]`, network unit.
    pub x: Tensor,
    /// Log weight of each, up to a constant.
    pub log_weights: Vec<f64>,
}

impl Ensemble {
    /// Number of equally weighted images that would tell as much: (sum w)^2 / sum w^2.
    pub fn effective_size(&self) -> f64 {
        effective_count(&self.log_weights)
    }

    /// Resamples if the effective size is below `threshold` times the number of images, and tells which images took
    /// whose places.
    ///
    /// # Errors
    /// Weights that are no numbers.
    pub fn resample(&mut self, threshold: f64, rng: &mut Rng) -> Result<Option<Tensor>> {
        let size = self.effective_size();
        if !size.is_finite() {
            return Err(Error::Diverged { what: "the particles' weight".into(), step: 0 });
        }
        if size >= threshold * self.log_weights.len() as f64 {
            return Ok(None);
        }
        let chosen = restart::index(&systematic(&self.log_weights, rng.uniform()), &self.x)?;
        self.x = self.x.index_select(&chosen, 0)?;
        self.log_weights.fill(0.0);
        Ok(Some(chosen))
    }
}

/// How images of one noise level become images of the next.
pub trait Transition: Send {
    /// Name of the stage in the metrics.
    const NAME: &'static str;

    /// Images at the first `level` from white noise of that level.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn start(&self, noise: Tensor, _level: f64) -> Result<Tensor> {
        Ok(noise)
    }

    /// Moves the images from one level to the next; the last `to` is zero.
    ///
    /// # Errors
    /// A failure of problem or prior.
    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        levels: Levels,
        problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()>;

    /// What the rule has to report after a step besides the fit of the images.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn metrics(&self) -> Result<Vec<(&'static str, f64)>> {
        Ok(Vec::new())
    }

    /// What the rule remembers from level to level, for a checkpoint.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn memory(&self) -> Result<TensorMap> {
        Ok(TensorMap::new())
    }

    /// Continues with what [`Transition::memory`] gave.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    fn recall(&mut self, _memory: TensorMap) -> Result<()> {
        Ok(())
    }
}

/// Two neighbouring noise levels.
#[derive(Debug, Clone, Copy)]
pub struct Levels {
    /// Number of the step.
    pub index: usize,
    /// Where the images are.
    pub from: f64,
    /// Where they go.
    pub to: f64,
}

impl Levels {
    /// s^2 - s'^2.
    pub fn variance(&self) -> f64 {
        self.from * self.from - self.to * self.to
    }

    /// Variance of x' given x and the clean image: s'^2 (s^2 - s'^2) / s^2.
    pub fn ancestral(&self) -> f64 {
        (self.to / self.from).powi(2) * self.variance()
    }

    /// x' given x and the clean image (Song et al. 2021, "Denoising diffusion implicit models", eq. 12 and 16):
    /// `eta` 1 draws it as the diffusion would, 0 adds no noise.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn renoise(&self, x: &Tensor, clean: &Tensor, eta: f64, rng: &mut Rng) -> Result<Tensor> {
        let noise = eta * self.ancestral().sqrt();
        let kept = (self.to * self.to - noise * noise).max(0.0).sqrt() / self.from;
        let mean = (clean + ((x - clean)? * kept)?)?;
        if noise == 0.0 { Ok(mean) } else { Ok((mean + (rng.normals(x.dims(), &compute_of(x))? * noise)?)?) }
    }
}

/// A solver that applies a [`Transition`] from level to level.
pub struct Diffusion<T> {
    transition: T,
    levels: Vec<f64>,
    finished: usize,
    ensemble: Ensemble,
}

impl<T: Transition> Diffusion<T> {
    /// `chains` images that follow `schedule`.
    ///
    /// # Errors
    /// No chain, or a schedule that cannot work.
    pub fn new(transition: T, chains: usize, schedule: &Schedule, given: &Given) -> Result<Self> {
        if chains == 0 {
            return Err(Error::config("solver.chains", "needs at least 1"));
        }
        let [z, y, x] = given.prior.shape();
        let x = Tensor::zeros((chains, z, y, x), given.compute.dtype, &given.compute.device)?;
        let ensemble = Ensemble { x, log_weights: vec![0.0; chains] };
        Ok(Self { transition, levels: schedule.levels(given.prior)?, finished: 0, ensemble })
    }

    /// The rule.
    pub fn transition(&self) -> &T {
        &self.transition
    }

    /// The rule, to be changed between the steps.
    pub fn transition_mut(&mut self) -> &mut T {
        &mut self.transition
    }
}

impl<T: Transition> Solver for Diffusion<T> {
    fn steps(&self) -> usize {
        self.levels.len() - 1
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let [from, to] = [self.levels[self.finished], self.levels[self.finished + 1]];
        if self.finished == 0 {
            let x = &self.ensemble.x;
            let noise = (rng.normals(x.dims(), &compute_of(x))? * from)?;
            self.ensemble.x = self.transition.start(noise, from)?;
        }
        self.transition.step(
            &mut self.ensemble,
            Levels { index: self.finished, from, to },
            problem,
            prior,
            rng,
        )?;
        self.finished += 1;
        let size = self.ensemble.effective_size();
        if self.finished == self.steps() && self.ensemble.log_weights.iter().any(|w| *w != 0.0) {
            self.ensemble.resample(f64::INFINITY, rng)?;
        }
        let values = to_host(&problem.log_likelihood(&self.ensemble.x)?)?;
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let mut metrics = vec![("level", to), ("log_likelihood", mean), ("effective_size", size)];
        metrics.extend(self.transition.metrics()?);
        Ok(Step { stage: T::NAME, metrics })
    }

    fn draws(&self) -> Result<Draws> {
        if self.finished < self.steps() {
            return Draws::all(&[]);
        }
        let chains: Vec<usize> = (0..self.ensemble.log_weights.len()).collect();
        Ok(Draws::together(self.ensemble.x.clone(), &chains, 0))
    }

    fn state(&self) -> Result<TensorMap> {
        let finished = Tensor::new(&[self.finished as i64], &Device::Cpu)?;
        let weights = Tensor::new(self.ensemble.log_weights.as_slice(), &Device::Cpu)?;
        let named = [("finished", finished), ("log_weights", weights), ("x", self.ensemble.x.clone())];
        let own = named.into_iter().map(|(name, tensor)| (format!("diffusion.{name}"), tensor));
        let memory = self.transition.memory()?.into_iter();
        Ok(own.chain(memory.map(|(name, tensor)| (format!("memory.{name}"), tensor))).collect())
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        let named = |(name, tensor): (&String, &Tensor)| {
            Some((name.strip_prefix("memory.")?.to_string(), tensor.clone()))
        };
        self.transition.recall(state.iter().filter_map(named).collect())?;
        let mut take = |name: &str, shape: &[usize]| take(&mut state, &format!("diffusion.{name}"), shape);
        let finished = take("finished", &[1])?.read_list::<i64>()?;
        self.finished = finished.first().map_or(0, |n| n.unsigned_abs() as usize);
        self.ensemble.log_weights = to_host(&take("log_weights", &[self.ensemble.log_weights.len()])?)?;
        self.ensemble.x = take("x", self.ensemble.x.dims())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renoising_keeps_the_law_of_the_diffusion() {
        let compute = crate::compute::Compute::cpu_f64();
        let levels = Levels { index: 0, from: 2.0, to: 1.5 };
        for eta in [0.0, 0.5, 1.0] {
            let mut rng = Rng::new(1);
            let clean = Tensor::zeros((20000, 1, 1, 1), compute.dtype, &compute.device).unwrap();
            let x = (rng.normals(clean.dims(), &compute).unwrap() * levels.from).unwrap();
            let moved = levels.renoise(&x, &clean, eta, &mut rng).unwrap();
            let variance = moved.sqr().unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap();
            assert!((variance / 2.25 - 1.0).abs() < 0.03, "eta {eta}: {variance}");
        }
    }
}
