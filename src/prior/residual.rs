//! An exact denoiser plus a small network that starts at zero: the trainable form of the exact priors.

use candle_core::{Tensor, Var};

use crate::{
    Error, Result,
    compute::Compute,
    prior::{Denoiser, Trainable},
    rng::Rng,
    tensor::conv::conv2d,
};

/// Width of the dense network and its number of hidden layers.
const DENSE: (usize, usize) = (96, 2);
/// Channels of the convolutional network and its number of hidden layers.
const CONVOLUTION: (usize, usize) = (16, 2);
/// Images with more pixels than this get the convolutional network, unless they are one row: those have no neighbourhoods.
const LARGEST_DENSE: usize = 64;

/// D(x_s, s) = exact(x_s, s) + c_out network(c_in x_s, ln s / c), with the scalings c_in = 1 / sqrt(s^2 + c^2) and
/// c_out = s c / sqrt(s^2 + c^2) of Karras et al. (2022, table 1), c the prior's standard deviation.
pub struct Residual<P> {
    exact: P,
    /// Images that the network is told besides the noisy one.
    known: usize,
    /// Weight and bias of each layer, first layer first.
    layers: Vec<(Var, Var)>,
}

impl<P: Denoiser> Residual<P> {
    /// Equal to `exact` until it is trained; `rng` draws the hidden weights.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn new(exact: P, rng: &mut Rng, compute: &Compute) -> Result<Self> {
        Self::told(exact, 0, rng, compute)
    }

    /// The same for a network that is told `known` images besides the noisy one.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn told(exact: P, known: usize, rng: &mut Rng, compute: &Compute) -> Result<Self> {
        let [z, y, x] = exact.shape();
        let (channels, size) = if is_dense(&exact) { (z * y * x, DENSE) } else { (z, CONVOLUTION) };
        let plane = if is_dense(&exact) { y * x } else { 1 };
        let sizes = layer_sizes(channels, known * plane, size);
        let taps: &[usize] = if is_dense(&exact) { &[] } else { &[3, 3] };
        let last = sizes.len() - 1;
        let layer = |(index, &(inputs, outputs)): (usize, &(usize, usize))| {
            let shape = [&[outputs, inputs], taps].concat();
            let fan_in = inputs * taps.iter().product::<usize>();
            let gain = if index == last { 0.0 } else { (2.0 / fan_in as f64).sqrt() };
            let weight = Var::from_tensor(&(rng.normals(&shape, compute)? * gain)?)?;
            let bias = Var::from_tensor(&compute.tensor(vec![0.0; outputs], &[outputs])?)?;
            Ok((weight, bias))
        };
        let layers = sizes.iter().enumerate().map(layer).collect::<Result<_>>()?;
        Ok(Self { exact, known, layers })
    }

    /// The network on scaled images `[B, Z, Y, X]`; the log noise level and what is known enter as more inputs.
    fn network(&self, scaled: &Tensor, log_level: &Tensor, known: Option<&Tensor>) -> Result<Tensor> {
        let dense = is_dense(&self.exact);
        let flat = |x: &Tensor| if dense { x.flatten_from(1) } else { Ok(x.clone()) };
        let level = if dense {
            log_level.unsqueeze(1)?
        } else {
            let [_, y, x] = self.exact.shape();
            log_level.reshape(((), 1, 1, 1))?.broadcast_as((scaled.dim(0)?, 1, y, x))?
        };
        let mut inputs = vec![flat(scaled)?, level];
        inputs.extend(known.map(flat).transpose()?);
        let mut hidden = Tensor::cat(&inputs, 1)?;
        if !dense {
            hidden = hidden.permute((0, 2, 3, 1))?;
        }
        for (index, (weight, bias)) in self.layers.iter().enumerate() {
            if index > 0 {
                hidden = hidden.silu()?;
            }
            hidden = if dense {
                hidden.matmul(&weight.t()?)?.broadcast_add(bias)?
            } else {
                conv2d(&hidden, weight, Some(bias))?
            };
        }
        Ok(if dense { hidden.reshape(scaled.dims())? } else { hidden.permute((0, 3, 1, 2))?.contiguous()? })
    }

    fn clean(&self, noisy: &Tensor, noise_level: &Tensor, known: Option<&Tensor>) -> Result<Tensor> {
        let images = known.map_or(Ok(0), |known| known.dim(1))?;
        if images != self.known {
            let (expected, found) = (vec![self.known], vec![images]);
            return Err(Error::Shape { what: "images that a network is told", expected, found });
        }
        let c = self.data_std();
        let total = noise_level.sqr()?.affine(1.0, c * c)?.sqrt()?;
        let per_image = |t: &Tensor| t.reshape(((), 1, 1, 1));
        let scaled = noisy.broadcast_div(&per_image(&total)?)?;
        let change = self.network(&scaled, &(noise_level / c)?.log()?, known)?;
        let output_scale = ((noise_level * c)? / &total)?;
        Ok((self.exact.denoise(noisy, noise_level)? + change.broadcast_mul(&per_image(&output_scale)?)?)?)
    }
}

/// Inputs and outputs of each layer of a network of `channels` plus the noise level plus `known` inputs.
fn layer_sizes(channels: usize, known: usize, (width, hidden): (usize, usize)) -> Vec<(usize, usize)> {
    let inner = std::iter::repeat_n((width, width), hidden - 1);
    std::iter::once((channels + 1 + known, width)).chain(inner).chain([(width, channels)]).collect()
}

fn is_dense(denoiser: &dyn Denoiser) -> bool {
    let [z, y, x] = denoiser.shape();
    z * y == 1 || z * y * x <= LARGEST_DENSE
}

impl<P: Denoiser> Denoiser for Residual<P> {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        self.clean(noisy, noise_level, None)
    }

    fn shape(&self) -> [usize; 3] {
        self.exact.shape()
    }

    fn noise_range(&self) -> (f64, f64) {
        self.exact.noise_range()
    }

    fn data_std(&self) -> f64 {
        self.exact.data_std()
    }
}

impl<P: Denoiser> Trainable for Residual<P> {
    fn denoise_given(&self, noisy: &Tensor, noise_level: &Tensor, known: &Tensor) -> Result<Tensor> {
        self.clean(noisy, noise_level, Some(known))
    }

    fn variables(&self) -> Vec<(String, Var)> {
        let named = |(index, (weight, bias)): (usize, &(Var, Var))| {
            [(format!("{index}.weight"), weight.clone()), (format!("{index}.bias"), bias.clone())]
        };
        self.layers.iter().enumerate().flat_map(named).collect()
    }
}
