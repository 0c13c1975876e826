//! A normalising flow fitted to the posterior: an explicit density, trained by the reverse divergence.
//!
//! Sources: Sun and Bouman 2021, "Deep probabilistic imaging", for a real-valued non-volume-preserving flow (Dinh et al. 2017) fitted to
//! -E_q[log p(y|x) + log p(x)] - entropy; Feng et al. 2023, "Score-based diffusion models as principled priors for inverse
//! imaging", for log p(x) from a diffusion model. Of log p only the gradient is needed: the score (D(x, s) - x) / s^2 at a level
//! that falls during the training, while the weight of the data rises; or that of the bound which Feng and Bouman 2023 ("Efficient
//! Bayesian computational imaging with a surrogate score-based prior") put in its place, the denoising loss at one random level
//! for each image. The entropy is exact.

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{Given, Rival, diffusion::Schedule};
use crate::{
    Error, Result,
    compute::Compute,
    instrument::Problem,
    posterior::{
        Draws, Entry, Solver, Step,
        chains::mean,
        ppm::{
            Distance,
            loss::{Comparison, NoiseLevels},
        },
        solver::{TensorMap, take},
    },
    prior::{Denoiser, gaussian::Gaussian, reverse::denoised},
    rng::Rng,
    tensor::{
        adam::{Adam, AdamSettings},
        compute_of, to_host,
    },
    transfer::send,
};

/// Largest |log scale| of a coupling.
const SCALE: f64 = 2.0;
/// Longer gradients of all weights together are shortened to this.
const GRADIENT_NORM: f64 = 10.0;

/// Settings of the flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flow {
    /// Draws of the trained flow.
    pub chains: usize,
    /// Levels at which the score of the prior enters, one step of the training each.
    pub schedule: Schedule,
    /// Images in each step.
    pub batch: usize,
    /// Couplings, each of which moves half of the pixels.
    pub couplings: usize,
    /// Width of their networks.
    pub width: usize,
    /// Learning rate of Adam.
    pub learning_rate: f64,
    /// What stands for the prior's density.
    pub prior: PriorTerm,
}

/// What stands for the prior's log density in the fit of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriorTerm {
    /// Its score at the falling levels of the schedule.
    #[default]
    Score,
    /// The bound by denoising losses at all levels.
    Bound,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            chains: 64,
            schedule: Schedule { steps: 1000, largest: 3.0, smallest: 0.05 },
            batch: 64,
            couplings: 6,
            width: 64,
            learning_rate: 2e-3,
            prior: PriorTerm::Score,
        }
    }
}

/// Moves the pixels `moved` by scales and shifts that a network reads off the pixels `kept`.
struct Coupling {
    kept: Tensor,
    moved: Tensor,
    /// Weight and bias of each layer.
    layers: Vec<(Var, Var)>,
}

/// x = mean + std T(z) with couplings T and z ~ N(0, I).
struct Network {
    couplings: Vec<Coupling>,
    /// Shift and log scale of each pixel `[1, D]`, units of the prior.
    affine: (Var, Var),
    shape: [usize; 3],
}

impl Coupling {
    fn new(dim: usize, width: usize, rng: &mut Rng, compute: &Compute) -> Result<Self> {
        let mut order: Vec<u32> = (0..dim as u32).collect();
        for last in (1..dim).rev() {
            order.swap(last, rng.below(last + 1));
        }
        let (kept, moved) = order.split_at(dim / 2);
        let sizes = [(kept.len(), width), (width, width), (width, 2 * moved.len())];
        let layer = |&(inputs, outputs): &(usize, usize)| -> Result<(Var, Var)> {
            // The last layer starts at zero, and with it the coupling as the identity.
            let gain = if outputs == 2 * moved.len() { 0.0 } else { (2.0 / inputs as f64).sqrt() };
            let weight = Var::from_tensor(&(rng.normals(&[inputs, outputs], compute)? * gain)?)?;
            Ok((weight, Var::from_tensor(&compute.tensor(vec![0.0; outputs], &[1, outputs])?)?))
        };
        let layers = sizes.iter().map(layer).collect::<Result<_>>()?;
        let index = |values: &[u32]| send(values, &compute.device);
        Ok(Self { kept: index(kept)?, moved: index(moved)?, layers })
    }

    /// Moved pixels `[B, D]` and the log determinant `[B]`.
    fn apply(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let mut hidden = x.index_select(&self.kept, 1)?;
        for (index, (weight, bias)) in self.layers.iter().enumerate() {
            hidden = if index > 0 { hidden.silu()? } else { hidden };
            hidden = hidden.matmul(weight.as_tensor())?.broadcast_add(bias.as_tensor())?;
        }
        let count = self.moved.dim(0)?;
        let log_scale = ((hidden.narrow(1, 0, count)? / SCALE)?.tanh()? * SCALE)?;
        let old = x.index_select(&self.moved, 1)?;
        let change = ((&old * log_scale.exp()?)? + hidden.narrow(1, count, count)? - &old)?;
        Ok((x.index_add(&self.moved, &change, 1)?, log_scale.sum(1)?))
    }
}

impl Network {
    fn new(settings: &Flow, shape: [usize; 3], rng: &mut Rng, compute: &Compute) -> Result<Self> {
        let dim = shape.iter().product();
        // A single pixel leaves a coupling nothing to read.
        let count = if dim > 1 { settings.couplings } else { 0 };
        let couplings = (0..count).map(|_| Coupling::new(dim, settings.width, rng, compute));
        let zeros = || -> Result<Var> { Ok(Var::from_tensor(&compute.tensor(vec![0.0; dim], &[1, dim])?)?) };
        Ok(Self { couplings: couplings.collect::<Result<_>>()?, affine: (zeros()?, zeros()?), shape })
    }

    fn variables(&self) -> Vec<(String, Var)> {
        let own =
            [("shift".to_string(), self.affine.0.clone()), ("scale".to_string(), self.affine.1.clone())];
        let layers = self.couplings.iter().enumerate().flat_map(|(i, coupling)| {
            coupling.layers.iter().enumerate().flat_map(move |(j, (weight, bias))| {
                [(format!("{i}.{j}.weight"), weight.clone()), (format!("{i}.{j}.bias"), bias.clone())]
            })
        });
        own.into_iter().chain(layers).collect()
    }

    /// Images `[B, Z, Y, X]` in units of `std` and log determinants `[B]`, differentiable in the weights.
    fn apply(&self, z: &Tensor, std: f64) -> Result<(Tensor, Tensor)> {
        let mut x = z.clone();
        let mut log_determinant = self.affine.1.as_tensor().sum(1)?.broadcast_as(z.dim(0)?)?;
        for coupling in &self.couplings {
            let (moved, log) = coupling.apply(&x)?;
            x = moved;
            log_determinant = (log_determinant + log)?;
        }
        let scaled = x.broadcast_mul(&self.affine.1.as_tensor().exp()?)?;
        let x = (scaled.broadcast_add(self.affine.0.as_tensor())? * std)?;
        let [planes, rows, columns] = self.shape;
        Ok((x.reshape((z.dim(0)?, planes, rows, columns))?, log_determinant))
    }
}

/// The flow in training, then its draws.
struct Fit {
    settings: Flow,
    network: Network,
    optimiser: Adam,
    levels: Vec<f64>,
    /// Levels of the bound.
    range: NoiseLevels,
    drawn: Option<Tensor>,
}

/// Gradient of the bound on log p at `images`. The denoising loss of N(0, c^2 I), whose density is known, takes the constant
/// and most of the noise away.
fn bound_gradient(
    prior: &dyn Denoiser,
    images: &Tensor,
    levels: NoiseLevels,
    rng: &mut Rng,
) -> Result<Tensor> {
    let (pixels, variance) = (prior.shape().iter().product::<usize>(), levels.data_std.powi(2));
    let white =
        Gaussian::diagonal(vec![0.0; pixels], vec![variance; pixels], prior.shape(), &compute_of(images))?;
    let comparison =
        Comparison { prior, own: &white, variables: &[], levels, count: 1, distance: Distance::Squared };
    let excess = comparison.of(images, rng)?.gradient;
    Ok(((images / -variance)? - excess)?)
}

impl Fit {
    fn dim(&self) -> usize {
        self.network.shape.iter().product()
    }

    /// Weight of the data: from the inverse of the first fit to 1 in the first half of the training.
    fn weight(&self, index: usize) -> f64 {
        let time = (2.0 * index as f64 / self.levels.len() as f64).min(1.0);
        1e-3f64.powf(1.0 - time)
    }
}

impl Solver for Fit {
    fn steps(&self) -> usize {
        self.levels.len() + 1
    }

    fn step(&mut self, problem: &Problem, prior: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        let compute = compute_of(self.network.affine.0.as_tensor());
        let (index, std) = (self.optimiser.steps(), prior.data_std());
        let Some(&level) = self.levels.get(index) else {
            let z = rng.normals(&[self.settings.chains, self.dim()], &compute)?;
            let drawn = self.network.apply(&z, std)?.0.detach();
            let value = mean(&to_host(&problem.log_likelihood(&drawn)?)?);
            self.drawn = Some(drawn);
            return Ok(Step { stage: "flow-draws", metrics: vec![("log_likelihood", value)] });
        };
        let batch = self.settings.batch;
        let z = rng.normals(&[batch, self.dim()], &compute)?;
        let (x, log_determinant) = self.network.apply(&z, std)?;
        let images = x.detach();
        let score = match self.settings.prior {
            PriorTerm::Score => ((denoised(prior, &images, level)? - &images)? / (level * level))?,
            PriorTerm::Bound => bound_gradient(prior, &images, self.range, rng)?,
        };
        let (value, slope) = problem.log_likelihood_and_gradient(&images)?;
        let slope = ((slope * self.weight(index))? + score)?;
        let gain = ((x * slope)?.sum_all()? + log_determinant.sum_all()?)?;
        let late = (2.0 * index as f64 / self.levels.len() as f64 - 1.0).max(0.0);
        let rate = self.settings.learning_rate * 0.05f64.powf(late);
        let norm = self.optimiser.step(&(gain / -(batch as f64))?.backward()?, rate)?;
        let metrics =
            vec![("level", level), ("log_likelihood", mean(&to_host(&value)?)), ("gradient_norm", norm)];
        Ok(Step { stage: "flow", metrics })
    }

    fn draws(&self) -> Result<Draws> {
        match &self.drawn {
            Some(images) => {
                let chains: Vec<usize> = (0..images.dim(0)?).collect();
                Ok(Draws::together(images.clone(), &chains, 0))
            }
            None => Draws::all(&[]),
        }
    }

    fn state(&self) -> Result<TensorMap> {
        let mut state: TensorMap = self
            .optimiser
            .state()?
            .into_iter()
            .map(|(name, tensor)| (format!("flow.optimiser.{name}"), tensor))
            .collect();
        if let Some(images) = &self.drawn {
            state.insert("flow.drawn".into(), images.clone());
        }
        Ok(state)
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        let [z, y, x] = self.network.shape;
        if state.contains_key("flow.drawn") {
            self.drawn = Some(take(&mut state, "flow.drawn", &[self.settings.chains, z, y, x])?);
        }
        let named =
            |(name, tensor): (String, Tensor)| Some((name.strip_prefix("flow.optimiser.")?.into(), tensor));
        self.optimiser.restore(&state.into_iter().filter_map(named).collect())
    }
}

impl Rival for Flow {
    fn entry(&self) -> Entry {
        Entry {
            name: "flow",
            summary: "a normalising flow fitted by the reverse divergence (DPI with a score prior): explicit density, misses modes",
            needs: &["denoiser", "likelihood gradient"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        let sizes = [self.chains, self.batch, self.couplings, self.width];
        if sizes.contains(&0) || !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            let problem =
                "needs chains, batch, couplings and width of at least 1 and a positive learning_rate";
            return Err(Error::config("solver", problem));
        }
        let mut levels = self.schedule.levels(given.prior)?;
        levels.pop();
        let mut rng = given.rng.stream("flow", 0);
        let network = Network::new(self, given.prior.shape(), &mut rng, given.compute)?;
        let adam = AdamSettings { max_gradient_norm: Some(GRADIENT_NORM), ..AdamSettings::default() };
        let optimiser = Adam::new(network.variables(), adam)?;
        let range = given.prior.noise_range();
        let range = NoiseLevels { smallest: range.0, largest: range.1, data_std: given.prior.data_std() };
        Ok(Box::new(Fit { settings: self.clone(), network, optimiser, levels, range, drawn: None }))
    }
}
