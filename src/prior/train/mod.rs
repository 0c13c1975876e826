//! Training of a diffusion prior: denoising at random noise levels, Adam, averaged weights.

mod noisy;
mod settings;

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};
use rayon::prelude::*;

use self::noisy::Noisy;
pub use self::settings::TrainSettings;
use super::{
    Denoiser, Scaling, Trainable,
    images::{ImageSet, TrainingImages, batch},
    unet::{Architecture, UNet},
};
use crate::{
    Error, Result,
    compute::Compute,
    rng::Rng,
    tensor::{
        Packing,
        adam::{Adam, AdamSettings},
    },
    transfer::Transfer,
};

/// Images that are drawn together, and on a CPU pass through the network together; fixed, so that results do not depend
/// on the thread count.
const MICRO_BATCH: usize = 4;
/// Noise levels at which the held-out loss is measured, network unit.
pub const EVALUATION_LEVELS: [f64; 8] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// A training under way.
pub struct Training {
    settings: TrainSettings,
    compute: Compute,
    network: UNet,
    weights: Packing,
    optimiser: Adam,
    /// Averaged weights, flat.
    average: Tensor,
    scaling: Scaling,
    rng: Rng,
}

impl Training {
    /// Starts from random weights. `scaling` maps network units to the images' unit.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn new(
        settings: TrainSettings,
        architecture: Architecture,
        scaling: Scaling,
        compute: &Compute,
    ) -> Result<Self> {
        settings.validate()?;
        let rng = Rng::new(settings.seed);
        let network = UNet::new(architecture, &rng.stream("weights", 0), compute)?;
        let adam =
            AdamSettings { max_gradient_norm: Some(settings.max_gradient_norm), ..AdamSettings::default() };
        let optimiser = Adam::new(network.variables(), adam)?;
        let weights = Packing::new(network.variables());
        let average = weights.values()?;
        Ok(Self { settings, compute: compute.clone(), network, weights, optimiser, average, scaling, rng })
    }

    /// Starts from the weights of another prior of the same widths. Blocks that it lacks start as identities, so a network
    /// can grow deeper while it learns.
    ///
    /// # Errors
    /// Weights of another shape, or without a place here.
    pub fn start_from(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let refuse = |name: &str| {
            let remedy = "use a prior of the same widths with as many blocks or fewer";
            Error::config("start_from", format!("no place for its weight `{name}`; {remedy}"))
        };
        let variables: BTreeMap<String, Var> = self.network.variables().into_iter().collect();
        for (name, tensor) in tensors {
            let place = variables.get(name).filter(|variable| variable.dims() == tensor.dims());
            let variable = place.ok_or_else(|| refuse(name))?;
            variable.set(&tensor.to_dtype(variable.dtype())?.transfer(variable.device())?)?;
        }
        self.average = self.weights.values()?;
        Ok(())
    }

    /// Number of finished steps.
    pub fn finished(&self) -> usize {
        self.optimiser.steps()
    }

    /// One optimiser step; returns the loss of its images.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the gradient is not finite.
    pub fn step(&mut self, images: &ImageSet) -> Result<f64> {
        let step = self.finished();
        let rng = self.rng.stream("step", step as u64);
        let starts: Vec<_> = (0..self.settings.batch).step_by(MICRO_BATCH).collect();
        let drawn = starts.into_par_iter().map(|start| {
            let size = MICRO_BATCH.min(self.settings.batch - start);
            self.draw(images, size, &mut rng.stream("images", start as u64))
        });
        let gradient = |noisy: Noisy| self.gradient(&noisy);
        let parts: Vec<(f64, GradStore)> = if self.compute.device.is_cpu() {
            drawn.map(|noisy| noisy.and_then(gradient)).collect::<Result<_>>()?
        } else {
            vec![gradient(Noisy::together(&drawn.collect::<Result<Vec<_>>>()?)?)?]
        };
        let mut sum = 0.0;
        let mut total: Option<GradStore> = None;
        for (loss, gradients) in parts {
            sum += loss;
            match &mut total {
                Some(total) => total.extend(gradients)?,
                None => total = Some(gradients),
            }
        }
        if let Some(gradients) = total {
            self.optimiser.step(&gradients, self.settings.learning_rate(step))?;
        }
        self.update_average()?;
        Ok(sum)
    }

    /// Part of a batch, on the host.
    fn draw(&self, images: &ImageSet, size: usize, rng: &mut Rng) -> Result<Noisy> {
        let clean = batch(images, self.scaling, size, rng, &self.host())?;
        let architecture = self.network.architecture();
        let levels: Vec<_> = (0..size).map(|_| self.settings.noise_level(architecture, rng)).collect();
        Noisy::draw(clean, levels, rng, &self.host())
    }

    /// Where batches are drawn.
    fn host(&self) -> Compute {
        Compute { device: Device::Cpu, dtype: self.compute.dtype }
    }

    /// The share of `noisy` in the batch's loss, and its gradient.
    fn gradient(&self, noisy: &Noisy) -> Result<(f64, GradStore)> {
        let losses = noisy.losses(&self.network, &self.compute)?;
        let loss = (losses.sum_all()? / self.settings.batch as f64)?;
        let gradients = loss.backward()?;
        Ok((loss.to_dtype(DType::F64)?.read_scalar::<f64>()?, gradients))
    }

    /// Exponential average whose memory grows with the number of steps (Karras et al. 2022, appendix F.3).
    fn update_average(&mut self) -> Result<()> {
        let memory = (self.finished() as f64 / 10.0).clamp(1.0, self.settings.average.max(1) as f64);
        let keep = (-1.0 / memory).exp();
        self.average = ((&self.average * keep)? + (self.weights.values()? * (1.0 - keep))?)?;
        Ok(())
    }

    /// The denoiser with averaged weights.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn averaged(&self) -> Result<UNet> {
        let tensors = self.weights.parts(&self.average)?.into_iter().collect();
        UNet::fixed(self.network.architecture().clone(), tensors, &self.compute)
    }

    /// Mean loss of the averaged weights on held-out images at each of [`EVALUATION_LEVELS`]; the same noise each time.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn held_out_losses(&self, images: &ImageSet) -> Result<Vec<(f64, f64)>> {
        let network = self.averaged()?;
        let rng = self.rng.stream("held out", 0);
        let levels = EVALUATION_LEVELS.len();
        let mean = |(which, &level): (usize, &f64)| {
            let mine: Vec<usize> = (which..images.len()).step_by(levels).collect();
            let mut sum = 0.0;
            for (part, indices) in mine.chunks(MICRO_BATCH).enumerate() {
                let values: Vec<f64> = indices.iter().flat_map(|&i| images.turned(i, 0)).collect();
                let [z, y, x] = network.shape();
                let clean = self.host().tensor(values, &[indices.len(), z, y, x])?;
                let clean = self.scaling.to_network(&clean)?;
                let mut rng = rng.stream("noise", (which * images.len() + part) as u64);
                let noisy = Noisy::draw(clean, vec![level; indices.len()], &mut rng, &self.host())?;
                let losses = noisy.losses(&network, &self.compute)?;
                sum += losses.to_dtype(DType::F64)?.sum_all()?.read_scalar::<f64>()?;
            }
            Ok((level, sum / mine.len().max(1) as f64))
        };
        if self.compute.device.is_cpu() {
            EVALUATION_LEVELS.par_iter().enumerate().map(mean).collect()
        } else {
            EVALUATION_LEVELS.iter().enumerate().map(mean).collect()
        }
    }

    /// Everything needed to continue.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let mut state = self.optimiser.state()?;
        let average = self.weights.parts(&self.average)?.into_iter();
        state.extend(average.map(|(name, tensor)| (format!("average.{name}"), tensor)));
        Ok(state)
    }

    /// Continues from [`Training::state`].
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn restore(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        self.optimiser.restore(state)?;
        self.average = self.weights.packed(|name, variable| {
            let stored = state.get(&format!("average.{name}")).ok_or_else(|| {
                Error::config(
                    "checkpoint",
                    format!("`average.{name}` is missing; use the checkpoint of this training"),
                )
            })?;
            Ok(stored.transfer(variable.device())?)
        })?;
        Ok(())
    }
}

/// Images of a training, with the scaling that gives them mean 0 and standard deviation `data_std`.
pub fn scaling_of(images: &TrainingImages, data_std: f64) -> Scaling {
    let (mean, std) = images.training.moments();
    let unit = std / data_std;
    Scaling { unit, dark: -mean / unit }
}

/// Reads a checkpoint.
///
/// # Errors
/// A file that cannot be read.
pub fn read_state(file: &std::path::Path) -> Result<HashMap<String, Tensor>> {
    candle_core::safetensors::load(file, &Device::Cpu)
        .map_err(|e| Error::format(file, "checkpoint", e.to_string().lines().next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gaussian blobs of width 1 pixel at random places.
    fn blobs(count: usize, seed: u64) -> ImageSet {
        let rng = Rng::new(seed);
        let image = |index: usize| {
            let mut rng = rng.stream("blob", index as u64);
            let (y0, x0) = (2.0 + 4.0 * rng.uniform(), 2.0 + 4.0 * rng.uniform());
            let value = move |i: usize| {
                let (y, x) = ((i / 8) as f64 - y0, (i % 8) as f64 - x0);
                (0.16 * (-0.5 * (x * x + y * y)).exp()) as f32
            };
            (0..64).map(value)
        };
        ImageSet::new((0..count).flat_map(image).collect(), 8).unwrap()
    }

    fn training(steps: usize) -> (Training, TrainingImages) {
        let images = TrainingImages { training: blobs(64, 1), held_out: blobs(32, 2) };
        let architecture = Architecture {
            pixels: 8,
            widths: vec![8, 16],
            blocks: vec![1, 1],
            embedding: 16,
            groups: 4,
            ..Architecture::default()
        };
        let settings =
            TrainSettings { steps, batch: 8, warmup: 5, learning_rate: 5e-3, ..TrainSettings::default() };
        let scaling = scaling_of(&images, architecture.data_std);
        (Training::new(settings, architecture, scaling, &Compute::cpu()).unwrap(), images)
    }

    fn bytes(training: &Training) -> BTreeMap<String, Vec<u32>> {
        let bits = |tensor: &Tensor| {
            let tensor = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
            tensor.to_vec1::<f32>().unwrap().iter().map(|v| v.to_bits()).collect()
        };
        training.state().unwrap().iter().map(|(name, tensor)| (name.clone(), bits(tensor))).collect()
    }

    #[test]
    fn training_lowers_the_held_out_loss_where_noise_and_image_are_alike() {
        let (mut training, images) = training(150);
        let before = training.held_out_losses(&images.held_out).unwrap();
        (0..150).for_each(|_| _ = training.step(&images.training).unwrap());
        let after = training.held_out_losses(&images.held_out).unwrap();
        for ((level, before), (_, after)) in before.iter().zip(&after) {
            // The images' standard deviation is 0.5; weaker and stronger noise takes longer to learn.
            if (0.3..=1.0).contains(level) {
                assert!(*after < 0.75 * before, "{level}: {before} {after}");
            }
        }
    }

    #[test]
    fn a_deeper_network_starts_as_the_one_it_grows_from() {
        let (mut small, images) = training(3);
        (0..3).for_each(|_| _ = small.step(&images.training).unwrap());
        let weights = small.averaged().unwrap().tensors().unwrap();
        let deep = Architecture { blocks: vec![1, 3], ..small.network.architecture().clone() };
        let grown = |architecture| {
            let mut grown =
                Training::new(small.settings.clone(), architecture, small.scaling, &Compute::cpu()).unwrap();
            grown.start_from(&weights).map(|()| grown)
        };
        let losses = |training: &Training| training.held_out_losses(&images.held_out).unwrap();
        for ((_, deep), (_, small)) in losses(&grown(deep).unwrap()).iter().zip(losses(&small)) {
            assert!((deep - small).abs() < 1e-5 * small, "{deep} {small}");
        }
        let narrow = Architecture { widths: vec![8, 8], ..small.network.architecture().clone() };
        let refused = grown(narrow).err().unwrap().to_string();
        assert!(refused.contains("start_from") && refused.contains("widths"), "{refused}");
    }

    #[test]
    fn a_resumed_training_on_other_threads_repeats_the_bytes() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (mut whole, images) = training(6);
        pool(1).install(|| (0..6).for_each(|_| _ = whole.step(&images.training).unwrap()));
        let (mut first, _) = training(6);
        let (mut second, _) = training(6);
        pool(2).install(|| {
            (0..3).for_each(|_| _ = first.step(&images.training).unwrap());
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("checkpoint.safetensors");
            candle_core::safetensors::save(&first.state().unwrap(), &file).unwrap();
            second.restore(&read_state(&file).unwrap()).unwrap();
            (3..6).for_each(|_| _ = second.step(&images.training).unwrap());
        });
        assert_eq!(bytes(&whole), bytes(&second));
    }

    #[test]
    fn levels_cover_the_whole_range() {
        let (training, _) = training(1);
        let mut rng = Rng::new(0);
        let architecture = training.network.architecture();
        let levels: Vec<f64> =
            (0..4000).map(|_| training.settings.noise_level(architecture, &mut rng)).collect();
        let share =
            |low: f64, high: f64| levels.iter().filter(|s| (low..high).contains(*s)).count() as f64 / 4000.0;
        assert!(share(0.005, 0.02) > 0.02 && share(0.1, 1.0) > 0.4 && share(10.0, 80.0) > 0.04);
        assert!(levels.iter().all(|s| (0.005..=80.0).contains(s)));
    }
}
