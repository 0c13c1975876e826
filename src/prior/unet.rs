//! A small U-Net denoiser with the preconditioning of Karras et al. (2022, EDM).

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{
    Adaptation, Denoiser, Trainable,
    weights::{Parameter, Start, Weights},
};
use crate::{
    Error, Result,
    compute::Compute,
    rng::Rng,
    tensor::{
        conv::conv2d,
        norm::modulated_silu,
        resample::{average2, depth_to_space, repeat2_and_join, space_to_depth},
        residual::{Layers, residual_block},
        scale::scaled,
    },
};

/// Shape of a network and the range it is made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Architecture {
    /// Image side in pixels.
    pub pixels: usize,
    /// Blocks of `patch` x `patch` pixels become channels at the entrance.
    pub patch: usize,
    /// Channels per level; each level halves the resolution.
    pub widths: Vec<usize>,
    /// Residual blocks of each level, on the way down and again on the way up.
    pub blocks: Vec<usize>,
    /// Channels of the noise-level embedding.
    pub embedding: usize,
    /// Groups of the normalisation.
    pub groups: usize,
    /// Standard deviation of the training images, network unit.
    pub data_std: f64,
    /// Smallest and largest noise level, network unit.
    pub noise_range: (f64, f64),
}

impl Default for Architecture {
    fn default() -> Self {
        Self {
            pixels: 64,
            patch: 2,
            widths: vec![32, 64, 128],
            blocks: vec![2, 2, 2],
            embedding: 64,
            groups: 8,
            data_std: 0.5,
            noise_range: (0.005, 80.0),
        }
    }
}

/// Channels of one residual block.
#[derive(Debug, Clone)]
struct Block {
    name: String,
    inputs: usize,
    outputs: usize,
}

/// Angular frequencies of the noise-level features.
const FREQUENCIES: [f64; 8] = [0.5, 1.0, 2.0, 3.0, 4.5, 6.5, 9.0, 12.0];

impl Architecture {
    /// Lists every problem of sizes that do not fit together.
    ///
    /// # Errors
    /// [`Error::Config`] under `architecture`.
    pub fn validate(&self) -> Result<()> {
        let refuse = |problem: String| Err(Error::config("architecture", problem));
        let sizes = [self.pixels, self.patch, self.embedding, self.groups];
        let levels = self.widths.len();
        if !(1..=8).contains(&levels)
            || sizes.iter().chain(&self.widths).chain(&self.blocks).any(|&n| n == 0 || n > 4096)
        {
            return refuse("sizes must lie between 1 and 4096, with at most 8 widths".into());
        }
        if self.blocks.len() != levels {
            let problem = format!("blocks has {} entries; give one per level, {levels}", self.blocks.len());
            return refuse(problem);
        }
        let factor = self.patch << (levels - 1);
        if !self.pixels.is_multiple_of(factor) {
            return refuse(format!("{} pixels are not a multiple of {factor}", self.pixels));
        }
        if let Some(width) = self.widths.iter().find(|&width| width % self.groups != 0) {
            return refuse(format!("{} groups do not divide {width} channels", self.groups));
        }
        let (low, high) = self.noise_range;
        if !(self.data_std > 0.0 && low > 0.0 && low < high && high.is_finite()) {
            return refuse("data_std and noise_range must be positive and increasing".into());
        }
        Ok(())
    }

    /// Residual blocks of a level on the way down.
    fn down(&self, level: usize) -> Vec<Block> {
        let width = self.widths[level];
        let before = self.widths[level.saturating_sub(1)];
        (0..self.blocks[level])
            .map(|i| Block {
                name: format!("down.{level}.{i}"),
                inputs: if i == 0 { before } else { width },
                outputs: width,
            })
            .collect()
    }

    /// Residual blocks of a level on the way up; the first sees the skip connection too.
    fn up(&self, level: usize) -> Vec<Block> {
        let width = self.widths[level];
        (0..self.blocks[level])
            .map(|i| Block {
                name: format!("up.{level}.{i}"),
                inputs: if i == 0 { 2 * width } else { width },
                outputs: width,
            })
            .collect()
    }

    /// Levels that have a way up: all but the coarsest.
    fn rising(&self) -> impl DoubleEndedIterator<Item = usize> {
        0..self.widths.len() - 1
    }

    fn parameters(&self) -> Vec<Parameter> {
        let mut all = Vec::new();
        let mut add =
            |name: String, shape: &[usize], start| all.push(Parameter { name, shape: shape.to_vec(), start });
        let mut layer = |name: String, shape: &[usize], start| {
            add(format!("{name}.weight"), shape, start);
            add(format!("{name}.bias"), &shape[..1], Start::Zero);
        };
        let (depth, width) = (self.patch * self.patch, self.widths[0]);
        layer("embed.0".into(), &[self.embedding, 2 * FREQUENCIES.len()], Start::Scaled);
        layer("embed.1".into(), &[self.embedding, self.embedding], Start::Scaled);
        layer("stem".into(), &[width, depth, 3, 3], Start::Scaled);
        let down = (0..self.widths.len()).flat_map(|level| self.down(level));
        for Block { name, inputs, outputs } in down.chain(self.rising().flat_map(|level| self.up(level))) {
            layer(format!("{name}.first"), &[outputs, inputs, 3, 3], Start::Scaled);
            layer(format!("{name}.second"), &[outputs, outputs, 3, 3], Start::Zero);
            layer(format!("{name}.before"), &[2 * inputs, self.embedding], Start::Zero);
            layer(format!("{name}.between"), &[2 * outputs, self.embedding], Start::Zero);
            if inputs != outputs {
                layer(format!("{name}.skip"), &[outputs, inputs, 1, 1], Start::Scaled);
            }
        }
        for level in self.rising() {
            layer(
                format!("narrow.{level}"),
                &[self.widths[level], self.widths[level + 1], 1, 1],
                Start::Scaled,
            );
        }
        layer("last".into(), &[2 * width, self.embedding], Start::Zero);
        layer("head".into(), &[depth, width, 3, 3], Start::Zero);
        all
    }
}

/// The denoiser D(x, s) = c_skip x + c_out F(c_in x, ln(s) / 4) (Karras et al. 2022, table 1), F a U-Net.
#[derive(Debug, Clone)]
pub struct UNet {
    architecture: Architecture,
    weights: Weights,
    /// Images that the network is told besides the noisy one.
    known: usize,
    /// [`FREQUENCIES`] `[1, 8]` on the device.
    frequencies: Tensor,
    compute: Compute,
}

/// Weight of the convolution through which a network sees what it is told.
const TOLD: &str = "told.weight";

impl UNet {
    /// An untrained network with free weights.
    ///
    /// # Errors
    /// Sizes that do not fit together.
    pub fn new(architecture: Architecture, rng: &Rng, compute: &Compute) -> Result<Self> {
        architecture.validate()?;
        let weights = Weights::start(&architecture.parameters(), rng, compute)?;
        Self::of(architecture, weights, compute)
    }

    /// A network with fixed weights.
    ///
    /// # Errors
    /// Tensors that do not fit the architecture.
    pub fn fixed(
        architecture: Architecture,
        tensors: BTreeMap<String, Tensor>,
        compute: &Compute,
    ) -> Result<Self> {
        architecture.validate()?;
        let weights = Weights::fixed(&architecture.parameters(), tensors, compute)?;
        Self::of(architecture, weights, compute)
    }

    fn of(architecture: Architecture, weights: Weights, compute: &Compute) -> Result<Self> {
        let frequencies = compute.tensor(FREQUENCIES.to_vec(), &[1, FREQUENCIES.len()])?;
        Ok(Self { architecture, weights, known: 0, frequencies, compute: compute.clone() })
    }

    /// The shape of the network.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Values of all weights, detached.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        self.weights.tensors()
    }

    /// F: network output of scaled images `[B, 1, Y, X]`, noise embedding `[B, E]` and what is known `[B, C, Y, X]`.
    fn network(&self, x: &Tensor, embedding: &Tensor, known: Option<&Tensor>) -> Result<Tensor> {
        let Architecture { patch, ref widths, .. } = self.architecture;
        let mut h = self.weights.convolve("stem", &space_to_depth(x, patch)?)?;
        if let Some(known) = known {
            h = (h + conv2d(&space_to_depth(known, patch)?, &self.weights.get(TOLD)?, None)?)?;
        }
        let mut skips = Vec::with_capacity(widths.len());
        for level in 0..widths.len() {
            if level > 0 {
                h = average2(&h)?;
            }
            for block in self.architecture.down(level) {
                h = self.block(&block, &h, embedding)?;
            }
            skips.push(h.clone());
        }
        for level in self.architecture.rising().rev() {
            h = repeat2_and_join(&self.weights.convolve(&format!("narrow.{level}"), &h)?, &skips[level])?;
            for block in self.architecture.up(level) {
                h = self.block(&block, &h, embedding)?;
            }
        }
        let h = self.modulate("last", &h, embedding)?;
        depth_to_space(&self.weights.convolve("head", &h)?, patch)
    }

    /// x + conv(silu(modulated(conv(silu(modulated(x)))))).
    fn block(&self, block: &Block, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let Block { name, inputs, outputs } = block;
        let part = |part: &str| format!("{name}.{part}");
        let modulation = [
            self.weights.linear(&part("before"), embedding)?,
            self.weights.linear(&part("between"), embedding)?,
        ];
        let layers = Layers {
            first: self.weights.layer(&part("first"))?,
            second: self.weights.layer(&part("second"))?,
            skip: (inputs != outputs).then(|| self.weights.layer(&part("skip"))).transpose()?,
        };
        residual_block(x, &Tensor::cat(&modulation, 1)?, &layers, self.architecture.groups)
    }

    fn modulate(&self, name: &str, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let modulation = self.weights.linear(name, embedding)?;
        let channels = x.dim(3)?;
        let (scale, shift) = (modulation.narrow(1, 0, channels)?, modulation.narrow(1, channels, channels)?);
        modulated_silu(x, &scale, &shift, self.architecture.groups)
    }

    /// Embedding `[B, E]` of noise levels `[B]`.
    fn embed(&self, noise_level: &Tensor) -> Result<Tensor> {
        let angles = (noise_level.log()? / 4.0)?.unsqueeze(1)?.broadcast_mul(&self.frequencies)?;
        let features = Tensor::cat(&[angles.cos()?, angles.sin()?], 1)?;
        let hidden = self.weights.linear("embed.0", &features)?.silu()?;
        Ok(self.weights.linear("embed.1", &hidden)?.silu()?)
    }

    /// D of noisy images at noise levels, told `known` if it was made for that.
    fn clean(&self, noisy: &Tensor, noise_level: &Tensor, known: Option<&Tensor>) -> Result<Tensor> {
        let batch = noisy.dim(0)?;
        let [z, y, x] = self.shape();
        if noisy.dims() != [batch, z, y, x] {
            let found = noisy.dims().to_vec();
            return Err(Error::Shape { what: "image for the prior", expected: vec![batch, z, y, x], found });
        }
        let told = known.map_or(Ok(0), |known| known.dim(1))?;
        if told != self.known {
            let (expected, found) = (vec![self.known], vec![told]);
            return Err(Error::Shape { what: "images that a network is told", expected, found });
        }
        let noise_level = noise_level.broadcast_as(batch)?.contiguous()?.to_dtype(self.compute.dtype)?;
        let variance = self.architecture.data_std.powi(2);
        let square = noise_level.sqr()?;
        let total = (&square + variance)?;
        let (skip, scale) = ((total.recip()? * variance)?, total.sqrt()?.recip()?);
        let out = ((&noise_level * self.architecture.data_std)? * &scale)?;
        let network = self.network(&scaled(noisy, &scale)?, &self.embed(&noise_level)?, known)?;
        Ok((scaled(noisy, &skip)? + scaled(&network, &out)?)?)
    }
}

impl Denoiser for UNet {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        self.clean(noisy, noise_level, None)
    }

    fn shape(&self) -> [usize; 3] {
        [1, self.architecture.pixels, self.architecture.pixels]
    }

    fn noise_range(&self) -> (f64, f64) {
        self.architecture.noise_range
    }

    fn data_std(&self) -> f64 {
        self.architecture.data_std
    }

    fn trainable(&self, adaptation: Adaptation, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        Ok(Box::new(Self { weights: self.weights.adapted(adaptation, rng)?, ..self.clone() }))
    }

    fn conditional(&self, images: usize, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        let Architecture { patch, ref widths, .. } = self.architecture;
        let shape = [widths[0], images * patch * patch, 3, 3];
        let weights = self.weights.adapted(Adaptation::Copy, rng)?.with_zeros(TOLD, &shape, &self.compute)?;
        Ok(Box::new(Self { weights, known: images, ..self.clone() }))
    }
}

impl Trainable for UNet {
    fn denoise_given(&self, noisy: &Tensor, noise_level: &Tensor, known: &Tensor) -> Result<Tensor> {
        self.clean(noisy, noise_level, Some(known))
    }

    fn variables(&self) -> Vec<(String, Var)> {
        self.weights.variables()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::value_and_gradient;

    fn tiny() -> Architecture {
        Architecture {
            pixels: 8,
            widths: vec![8, 16],
            blocks: vec![2, 2],
            embedding: 8,
            groups: 4,
            ..Architecture::default()
        }
    }

    /// A network whose weights are all random, so that no path is switched off.
    fn random(compute: &Compute) -> UNet {
        let rng = Rng::new(4);
        let parameters = tiny().parameters().into_iter().map(|p| Parameter { start: Start::Scaled, ..p });
        let weights = Weights::start(&parameters.collect::<Vec<_>>(), &rng, compute).unwrap();
        UNet::fixed(tiny(), weights.tensors().unwrap(), compute).unwrap()
    }

    fn images(batch: usize, compute: &Compute) -> Tensor {
        Rng::new(9).normals(&[batch, 1, 8, 8], compute).unwrap()
    }

    fn flat(x: &Tensor) -> Vec<f64> {
        x.to_dtype(candle_core::DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn worst(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn a_batch_equals_single_images() {
        let compute = Compute::cpu();
        let (net, x) = (random(&compute), images(3, &compute));
        let levels = compute.tensor(vec![0.01, 1.0, 30.0], &[3]).unwrap();
        let together = flat(&net.denoise(&x, &levels).unwrap());
        let single = |i| {
            let (x, level) = (x.narrow(0, i, 1).unwrap(), levels.narrow(0, i, 1).unwrap());
            flat(&net.denoise(&x, &level).unwrap())
        };
        assert!(worst(&together, &(0..3).flat_map(single).collect::<Vec<_>>()) < 1e-5);
    }

    #[test]
    fn without_noise_the_image_stays() {
        let compute = Compute::cpu_f64();
        let (net, x) = (random(&compute), images(2, &compute));
        let distance = |level: f64| {
            let levels = compute.tensor(vec![level; 2], &[2]).unwrap();
            worst(&flat(&net.denoise(&x, &levels).unwrap()), &flat(&x))
        };
        assert!(distance(1e-7) < 1e-5 && distance(0.5) > 1e-2);
    }

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        let compute = Compute::cpu_f64();
        let (net, x) = (random(&compute), images(2, &compute));
        let levels = compute.tensor(vec![0.3, 2.0], &[2]).unwrap();
        let factor = Rng::new(1).normals(x.dims(), &compute).unwrap();
        let value = |x: &Tensor| Ok((net.denoise(x, &levels)? * &factor)?.flatten_from(1)?.sum(1)?);
        let gradient = value_and_gradient(&x, value).unwrap().1;
        let direction = Rng::new(2).normals(x.dims(), &compute).unwrap();
        let slope: f64 = flat(&(&gradient * &direction).unwrap()).iter().sum();
        let at = |step: f64| {
            flat(&value(&(&x + (&direction * step).unwrap()).unwrap()).unwrap()).iter().sum::<f64>()
        };
        let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((slope - numeric).abs() < 1e-7 * numeric.abs().max(1.0), "{slope} {numeric}");
    }

    #[test]
    fn adapted_networks_start_equal_and_learn() {
        let compute = Compute::cpu();
        let (net, x) = (random(&compute), images(1, &compute));
        let level = compute.tensor(vec![0.5], &[1]).unwrap();
        let before = flat(&net.denoise(&x, &level).unwrap());
        for adaptation in [Adaptation::Copy, Adaptation::LowRank(2)] {
            let copy = net.trainable(adaptation, &mut Rng::new(0)).unwrap();
            assert_eq!(flat(&copy.denoise(&x, &level).unwrap()), before);
            let gradients =
                copy.denoise(&x, &level).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
            for (name, variable) in copy.variables() {
                let gradient = gradients.get(&variable).unwrap_or_else(|| panic!("{name}"));
                variable.set(&(variable.as_tensor().detach() - gradient * 1e-3).unwrap()).unwrap();
            }
            assert_ne!(flat(&copy.denoise(&x, &level).unwrap()), before);
            assert_eq!(flat(&net.denoise(&x, &level).unwrap()), before);
        }
        assert!(net.trainable(Adaptation::LowRank(0), &mut Rng::new(0)).is_err());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let compute = Compute::cpu();
        let net = random(&compute);
        let level = compute.tensor(vec![0.5], &[1]).unwrap();
        assert!(net.denoise(&images(1, &compute).narrow(2, 0, 4).unwrap(), &level).is_err());
        let mut tensors = net.tensors().unwrap();
        tensors.remove("stem.bias");
        let error = UNet::fixed(tiny(), tensors, &compute).unwrap_err();
        assert!(error.to_string().contains("stem.bias"), "{error}");
        assert!(UNet::new(Architecture { pixels: 10, ..tiny() }, &Rng::new(0), &compute).is_err());
    }
}
