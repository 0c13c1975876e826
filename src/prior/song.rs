//! The U-Net of Song et al. (2021) in the form of Karras et al. (2022, "DDPM++"), for weights that others have trained.

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
        attention::attention,
        resample::{average2, repeat2},
    },
};

/// Shape of a network inside the preconditioning of the variance-preserving diffusion (Karras et al. 2022, table 1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SongArchitecture {
    /// Image side in pixels.
    pub pixels: usize,
    /// Channels of the first level.
    pub channels: usize,
    /// Channels of each level, in units of those of the first; each level halves the resolution.
    pub multipliers: Vec<usize>,
    /// Blocks of a level on the way down; one more on the way up.
    pub down_blocks: usize,
    /// Image sides at which the network attends to all pixels.
    pub attention: Vec<usize>,
    /// Standard deviation of the training images, network unit.
    pub data_std: f64,
    /// Smallest and largest noise level, network unit.
    pub noise_range: (f64, f64),
}

/// Increase of the noise rate and its start, and the number of times that the network was trained with.
const RATE: (f64, f64) = (19.9, 0.1);
const TIMES: f64 = 1000.0;
/// What the sum of a block and its input is divided by: the root of 2.
const SKIP: f64 = std::f64::consts::FRAC_1_SQRT_2;
const EPSILON: f64 = 1e-6;
/// Longest period of the embedding of times.
const PERIOD: f64 = 1e4;

/// What a block does with the resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Down,
    Up,
}

/// One residual block.
#[derive(Debug, Clone)]
struct Block {
    name: String,
    inputs: usize,
    outputs: usize,
    change: Change,
    attention: bool,
}

impl Block {
    fn has_skip(&self) -> bool {
        self.inputs != self.outputs || self.change != Change::None
    }
}

impl SongArchitecture {
    /// Lists the first problem of sizes that do not fit together.
    ///
    /// # Errors
    /// [`Error::Config`] under `architecture`.
    pub fn validate(&self) -> Result<()> {
        let refuse = |problem: String| Err(Error::config("architecture", problem));
        let levels = self.multipliers.len();
        let sizes = [self.pixels, self.channels, self.down_blocks];
        if !(1..=8).contains(&levels)
            || sizes.iter().chain(&self.multipliers).any(|&n| n == 0 || n > 4096)
            || !self.channels.is_multiple_of(4)
        {
            return refuse(
                "sizes must lie between 1 and 4096, channels in fours, with at most 8 levels".into(),
            );
        }
        let factor = 1 << (levels - 1);
        if !self.pixels.is_multiple_of(factor) {
            return refuse(format!("{} pixels are not a multiple of {factor}", self.pixels));
        }
        let (low, high) = self.noise_range;
        if !(self.data_std > 0.0 && low > 0.0 && low < high && high.is_finite()) {
            return refuse("data_std and noise_range must be positive and increasing".into());
        }
        Ok(())
    }

    fn side(&self, level: usize) -> String {
        let side = self.pixels >> level;
        format!("{side}x{side}")
    }

    fn attends(&self, level: usize) -> bool {
        self.attention.contains(&(self.pixels >> level))
    }

    /// Blocks on the way down, after the first convolution.
    fn encoder(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut channels = self.channels;
        let mut add = |name, outputs, change, attention| {
            blocks.push(Block { name, inputs: channels, outputs, change, attention });
            channels = outputs;
        };
        let mut before = self.channels;
        for (level, multiplier) in self.multipliers.iter().enumerate() {
            let side = self.side(level);
            if level > 0 {
                add(format!("enc.{side}_down"), before, Change::Down, false);
            }
            before = self.channels * multiplier;
            for block in 0..self.down_blocks {
                add(format!("enc.{side}_block{block}"), before, Change::None, self.attends(level));
            }
        }
        blocks
    }

    /// Blocks on the way up; those that have more inputs than there are channels take in a skip connection.
    fn decoder(&self) -> Vec<Block> {
        let mut skips: Vec<usize> =
            [self.channels].into_iter().chain(self.encoder().iter().map(|b| b.outputs)).collect();
        let mut blocks = Vec::new();
        let coarsest = self.multipliers.len() - 1;
        let mut channels = self.channels * self.multipliers[coarsest];
        for (level, multiplier) in self.multipliers.iter().enumerate().rev() {
            let side = self.side(level);
            let keeps = |part: &str, change, attention| Block {
                name: format!("dec.{side}_{part}"),
                inputs: channels,
                outputs: channels,
                change,
                attention,
            };
            if level == coarsest {
                blocks.push(keeps("in0", Change::None, true));
                blocks.push(keeps("in1", Change::None, false));
            } else {
                blocks.push(keeps("up", Change::Up, false));
            }
            for block in 0..=self.down_blocks {
                let outputs = self.channels * multiplier;
                blocks.push(Block {
                    name: format!("dec.{side}_block{block}"),
                    inputs: channels + skips.pop().unwrap_or(0),
                    outputs,
                    change: Change::None,
                    attention: block == self.down_blocks && self.attends(level),
                });
                channels = outputs;
            }
        }
        blocks
    }

    /// All weights in the order in which they were stored.
    pub(super) fn parameters(&self) -> Vec<Parameter> {
        let mut all = Vec::new();
        let mut add = |name: String, shape: &[usize]| {
            for (part, shape) in [("weight", shape), ("bias", &shape[..1])] {
                all.push(Parameter {
                    name: format!("{name}.{part}"),
                    shape: shape.to_vec(),
                    start: Start::Scaled,
                });
            }
        };
        let (first, embedding) = (self.channels, 4 * self.channels);
        add("map_layer0".into(), &[embedding, first]);
        add("map_layer1".into(), &[embedding, embedding]);
        let finest = self.side(0);
        add(format!("enc.{finest}_conv"), &[first, 1, 3, 3]);
        for block in self.encoder().into_iter().chain(self.decoder()) {
            let Block { ref name, inputs, outputs, attention, .. } = block;
            add(format!("{name}.norm0"), &[inputs]);
            add(format!("{name}.conv0"), &[outputs, inputs, 3, 3]);
            add(format!("{name}.affine"), &[outputs, embedding]);
            add(format!("{name}.norm1"), &[outputs]);
            add(format!("{name}.conv1"), &[outputs, outputs, 3, 3]);
            if block.has_skip() {
                add(format!("{name}.skip"), &[outputs, inputs, 1, 1]);
            }
            if attention {
                add(format!("{name}.norm2"), &[outputs]);
                add(format!("{name}.qkv"), &[3 * outputs, outputs, 1, 1]);
                add(format!("{name}.proj"), &[outputs, outputs, 1, 1]);
            }
        }
        let last = self.channels * self.multipliers[0];
        add(format!("dec.{finest}_aux_norm"), &[last]);
        add(format!("dec.{finest}_aux_conv"), &[1, last, 3, 3]);
        all
    }
}

/// D(x, s) = x - s F(x / sqrt(1 + s^2), 999 t(s)), F the network, which predicts the noise.
#[derive(Debug, Clone)]
pub struct SongUNet {
    architecture: SongArchitecture,
    weights: Weights,
    compute: Compute,
}

impl SongUNet {
    /// A network with fixed weights.
    ///
    /// # Errors
    /// Tensors that do not fit the architecture.
    pub fn fixed(
        architecture: SongArchitecture,
        tensors: BTreeMap<String, Tensor>,
        compute: &Compute,
    ) -> Result<Self> {
        architecture.validate()?;
        let weights = Weights::fixed(&architecture.parameters(), tensors, compute)?;
        Ok(Self { architecture, weights, compute: compute.clone() })
    }

    /// F: noise `[B, 1, Y, X]` of scaled images at embedded times `[B, E]`.
    fn network(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let finest = self.architecture.side(0);
        let mut h = self.weights.convolve(&format!("enc.{finest}_conv"), &x.permute([0, 2, 3, 1])?)?;
        let mut skips = vec![h.clone()];
        for block in self.architecture.encoder() {
            h = self.block(&block, &h, embedding)?;
            skips.push(h.clone());
        }
        for block in self.architecture.decoder() {
            if h.dim(3)? != block.inputs
                && let Some(skip) = skips.pop()
            {
                h = Tensor::cat(&[h, skip], 3)?;
            }
            h = self.block(&block, &h, embedding)?;
        }
        let h = self.norm(&format!("dec.{finest}_aux_norm"), &h)?.silu()?;
        Ok(self.weights.convolve(&format!("dec.{finest}_aux_conv"), &h)?.permute([0, 3, 1, 2])?)
    }

    fn block(&self, block: &Block, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let part = |part: &str| format!("{}.{part}", block.name);
        let resize = |x: &Tensor| match block.change {
            Change::None => Ok(x.clone()),
            Change::Down => average2(x),
            Change::Up => repeat2(x),
        };
        let h = self.weights.convolve(&part("conv0"), &resize(&self.norm(&part("norm0"), x)?.silu()?)?)?;
        let shift = self.weights.linear(&part("affine"), embedding)?.unsqueeze(1)?.unsqueeze(1)?;
        let h = self.norm(&part("norm1"), &h.broadcast_add(&shift)?)?.silu()?;
        let h = self.weights.convolve(&part("conv1"), &h)?;
        let skip = match block.has_skip() {
            true => self.weights.convolve(&part("skip"), &resize(x)?)?,
            false => x.clone(),
        };
        let h = ((h + skip)? * SKIP)?;
        match block.attention {
            true => Ok(((self.attend(block, &h)? + h)? * SKIP)?),
            false => Ok(h),
        }
    }

    /// What every pixel gathers from all pixels, one head; queries, keys and values alternate channel by channel.
    fn attend(&self, block: &Block, x: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let part = |part: &str| format!("{}.{part}", block.name);
        let all = self.weights.convolve(&part("qkv"), &self.norm(&part("norm2"), x)?)?;
        let all = all.reshape((batch, height * width, channels, 3))?;
        let kind = |which| all.narrow(3, which, 1)?.squeeze(3);
        let gathered = attention(&kind(0)?, &kind(1)?, &kind(2)?)?.reshape(x.shape())?;
        self.weights.convolve(&part("proj"), &gathered)
    }

    /// Group normalisation with weights (Wu & He 2018), at least four channels a group, at most 32 groups.
    fn norm(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let groups = (channels / 4).min(32);
        let grouped = x.reshape((batch, height * width, groups, channels / groups))?;
        let mean = |x: &Tensor| x.mean_keepdim(1)?.mean_keepdim(3);
        let centred = grouped.broadcast_sub(&mean(&grouped)?)?;
        let deviation = (mean(&centred.sqr()?)? + EPSILON)?.sqrt()?;
        let normal = centred.broadcast_div(&deviation)?.reshape(x.shape())?;
        let (weight, bias) =
            (self.weights.get(&format!("{name}.weight"))?, self.weights.get(&format!("{name}.bias"))?);
        Ok(normal.broadcast_mul(&weight)?.broadcast_add(&bias)?)
    }

    /// Embedding `[B, E]` of noise levels `[B]`, through the time t at which the diffusion has that level.
    fn embed(&self, noise_level: &Tensor) -> Result<Tensor> {
        let (rate, start) = RATE;
        let grown = ((noise_level.sqr()? + 1.0)?.log()? * (2.0 * rate))?;
        let time = (((grown + start * start)?.sqrt()? - start)? * ((TIMES - 1.0) / rate))?;
        let half = self.architecture.channels / 2;
        let frequency = |i: usize| PERIOD.powf(-(i as f64) / (half - 1).max(1) as f64);
        let frequencies = self.compute.tensor((0..half).map(frequency).collect(), &[1, half])?;
        let angles = time.unsqueeze(1)?.broadcast_mul(&frequencies)?;
        let features = Tensor::cat(&[angles.sin()?, angles.cos()?], 1)?;
        let hidden = self.weights.linear("map_layer0", &features)?.silu()?;
        Ok(self.weights.linear("map_layer1", &hidden)?.silu()?)
    }
}

impl Denoiser for SongUNet {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        let batch = noisy.dim(0)?;
        let [z, y, x] = self.shape();
        if noisy.dims() != [batch, z, y, x] {
            let found = noisy.dims().to_vec();
            return Err(Error::Shape { what: "image for the prior", expected: vec![batch, z, y, x], found });
        }
        let level = noise_level.broadcast_as(batch)?.contiguous()?.to_dtype(self.compute.dtype)?;
        let per_image = |factor: &Tensor| factor.reshape((batch, 1, 1, 1));
        let scaled = noisy.broadcast_div(&per_image(&(level.sqr()? + 1.0)?.sqrt()?)?)?;
        let noise = self.network(&scaled, &self.embed(&level)?)?;
        Ok((noisy - noise.broadcast_mul(&per_image(&level)?)?)?)
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
}

impl Trainable for SongUNet {
    fn variables(&self) -> Vec<(String, Var)> {
        self.weights.variables()
    }
}
