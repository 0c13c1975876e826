//! Two solvers one after the other: the second starts from the draws of the first.

use candle_core::{Device, Tensor};

use crate::{
    Error, Result,
    compute::Compute,
    instrument::Problem,
    posterior::{
        Draws,
        solver::{Solver, Step, TensorMap, take},
    },
    prior::{Denoiser, draw::draws},
    rng::Rng,
    tensor::compute_of,
    transfer::Transfer,
};

/// Name under which the state keeps the numbers of finished steps, of both and of the first.
const FINISHED: &str = "sequence.finished";

/// Makes the second solver from its start images `[K, Z, Y, X]`.
pub type Continue = Box<dyn Fn(Tensor) -> Result<Box<dyn Solver>> + Send>;

/// A solver that continues where another one ends.
pub struct Sequence {
    first: Box<dyn Solver>,
    second: Box<dyn Solver>,
    next: Continue,
    finished: usize,
    /// Steps of the first, once it has come to its end.
    passed: Option<usize>,
}

impl Sequence {
    /// Runs `first`, then what `next` makes of its draws. `start` `[K, Z, Y, X]` has the shape of these draws.
    ///
    /// # Errors
    /// Settings of the second solver that cannot work.
    pub fn new(first: Box<dyn Solver>, start: Tensor, next: Continue) -> Result<Self> {
        Ok(Self { first, second: next(start)?, next, finished: 0, passed: None })
    }

    fn in_first(&self) -> bool {
        self.passed.is_none()
    }
}

impl Solver for Sequence {
    fn steps(&self) -> usize {
        self.passed.unwrap_or_else(|| self.first.steps()) + self.second.steps()
    }

    fn finished_draws(&self) -> usize {
        if self.in_first() { 0 } else { self.second.finished_draws() }
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let active = if self.in_first() { &mut self.first } else { &mut self.second };
        let step = active.step(problem, prior, rng)?;
        self.finished += 1;
        if self.in_first() && self.finished >= self.first.steps() {
            self.passed = Some(self.finished);
            self.second = (self.next)(self.first.draws()?.images)?;
        }
        Ok(step)
    }

    /// Those of the first solver until the second has some.
    fn draws(&self) -> Result<Draws> {
        if self.in_first() { self.first.draws() } else { self.second.draws() }
    }

    fn state(&self) -> Result<TensorMap> {
        let mut state = if self.in_first() { self.first.state()? } else { self.second.state()? };
        let passed = self.passed.map_or(-1, |passed| passed as i64);
        state.insert(FINISHED.into(), Tensor::new(&[self.finished as i64, passed], &Device::Cpu)?);
        Ok(state)
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        let finished = take(&mut state, FINISHED, &[2])?.read_list::<i64>()?;
        let count = |index: usize| usize::try_from(finished[index]).ok();
        (self.finished, self.passed) = (count(0).unwrap_or(0), count(1));
        if self.in_first() { self.first.restore(state) } else { self.second.restore(state) }
    }
}

/// A solver of one step, for chains to start from: a rough image that explains the data, where there is one (chains part in
/// what the data leave open); elsewhere draws of the prior that know nothing of the data.
pub struct PriorDraws {
    images: Tensor,
    steps: usize,
}

impl PriorDraws {
    /// `count` draws by `steps` steps of Heun's method.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn new(prior: &dyn Denoiser, count: usize, steps: usize, compute: &Compute) -> Result<Self> {
        if count == 0 || steps < 2 {
            return Err(Error::config("solver.start", "needs at least 1 chain and 2 draw_steps"));
        }
        let [z, y, x] = prior.shape();
        Ok(Self { images: Tensor::zeros((count, z, y, x), compute.dtype, &compute.device)?, steps })
    }
}

impl Solver for PriorDraws {
    fn steps(&self) -> usize {
        1
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let compute = compute_of(&self.images);
        let count = self.images.dim(0)?;
        self.images = match problem.guess(&compute)? {
            Some(guess) => guess.repeat((count, 1, 1, 1))?,
            None => draws(prior, count, self.steps, rng, &compute)?,
        };
        let values = problem.log_likelihood(&self.images)?.to_dtype(candle_core::DType::F64)?;
        let mean = values.mean_all()?.read_scalar::<f64>()?;
        Ok(Step { stage: "prior", metrics: vec![("log_likelihood", mean)] })
    }

    fn draws(&self) -> Result<Draws> {
        let chains: Vec<usize> = (0..self.images.dim(0)?).collect();
        Ok(Draws::together(self.images.clone(), &chains, 0))
    }

    fn state(&self) -> Result<TensorMap> {
        Ok([("prior.draws".to_string(), self.images.clone())].into())
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        self.images = take(&mut state, "prior.draws", self.images.dims())?;
        Ok(())
    }
}
