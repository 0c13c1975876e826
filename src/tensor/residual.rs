//! A residual block in one piece: it keeps a third of what its parts would keep for the backward pass.

use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Device, Layout, Shape, Tensor, WithDType, bail};

use super::{
    conv::{conv2d, convolve, correlate},
    conv_kernel::{Geometry, channel_sums},
    layer::{Direction, Layer, on_host},
    norm::modulated_silu,
    norm_kernel::Modulation,
    parallel::each_chunk,
    simd::{Real, values, with_float},
};
use crate::Result;

/// The convolutions of a residual block.
#[derive(Debug, Clone)]
pub struct Layers {
    /// C to O channels.
    pub first: Layer,
    /// O to O channels.
    pub second: Layer,
    /// C to O channels, 1 x 1; none if C = O.
    pub skip: Option<Layer>,
}

/// skip(x) + second(f(first(f(x)))), f being [`modulated_silu`] and skip the identity if there is none (He et al. 2016).
///
/// `x` is `[B, Y, X, C]`, `modulation` `[B, 2 C + 2 O]`: scale and shift of the first f, then of the second. Returns
/// `[B, Y, X, O]`. Gradients are computed only for arguments that are tracked.
///
/// # Errors
/// Shapes that do not fit.
pub fn residual_block(x: &Tensor, modulation: &Tensor, layers: &Layers, groups: usize) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return in_parts(x, modulation, layers, groups);
    }
    let (links, gradients) = layers.linked()?;
    let op = Block { groups, layers: layers.detach(), hidden: Mutex::default(), gradients };
    Ok(x.contiguous()?.apply_op3(&modulation.contiguous()?, &links, op)?)
}

/// The definition of [`residual_block`].
fn in_parts(x: &Tensor, modulation: &Tensor, layers: &Layers, groups: usize) -> Result<Tensor> {
    let (inputs, outputs) = (x.dim(3)?, layers.first.weight.dim(0)?);
    let modulated = |x: &Tensor, first: usize, channels: usize| {
        let part = |first| modulation.narrow(1, first, channels);
        modulated_silu(x, &part(first)?, &part(first + channels)?, groups)
    };
    let apply = |layer: &Layer, x: &Tensor| conv2d(x, &layer.weight, Some(&layer.bias));
    let h = apply(&layers.first, &modulated(x, 0, inputs)?)?;
    let h = apply(&layers.second, &modulated(&h, 2 * inputs, outputs)?)?;
    let skip = layers.skip.as_ref().map_or_else(|| Ok(x.clone()), |skip| apply(skip, x))?;
    Ok((h + skip)?)
}

impl Layers {
    fn all(&self) -> impl Iterator<Item = &Layer> {
        [&self.first, &self.second].into_iter().chain(&self.skip)
    }

    /// Links of all weights and biases to the block, one number each, and the places for their gradients; an untracked
    /// number and no places if none of them is tracked.
    fn linked(&self) -> candle_core::Result<(Tensor, Vec<Place>)> {
        let tensors: Vec<&Tensor> = self.all().flat_map(|layer| [&layer.weight, &layer.bias]).collect();
        let one = |tensor: &Tensor| Tensor::zeros(1, tensor.dtype(), tensor.device());
        if !tensors.iter().any(|tensor| tensor.track_op()) {
            return Ok((one(&self.first.weight)?, Vec::new()));
        }
        let places: Vec<Place> = tensors.iter().map(|_| Place::default()).collect();
        let link = |(tensor, place): (&&Tensor, &Place)| match tensor.track_op() {
            true => tensor.apply_op1(Link { gradient: place.clone() }),
            false => one(tensor),
        };
        let links = tensors.iter().zip(&places).map(link).collect::<candle_core::Result<Vec<_>>>()?;
        Ok((Tensor::cat(&links, 0)?, places))
    }

    fn detach(&self) -> Self {
        Self {
            first: self.first.detach(),
            second: self.second.detach(),
            skip: self.skip.as_ref().map(Layer::detach),
        }
    }
}

/// Where a block leaves the gradient of one weight.
type Place = Arc<Mutex<Option<Tensor>>>;

/// Ties a weight to the block that uses it. An operation has three arguments at most, and joining all weights in one would
/// copy them and their gradients several times; so the argument is one number, which stands for the weight, and the
/// weight's gradient is what the block has left in its place.
struct Link {
    gradient: Place,
}

impl CustomOp1 for Link {
    fn name(&self) -> &'static str {
        "weight-of-residual-block"
    }

    fn cpu_fwd(&self, weight: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((with_float!(weight, T => T::to_cpu_storage_owned(vec![T::default()])), 1.into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(locked(&self.gradient)?.take())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> candle_core::Result<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| candle_core::Error::Msg("a thread of this residual block panicked".into()))
}

/// The block; `hidden` is what the first convolution gave.
struct Block {
    groups: usize,
    layers: Layers,
    hidden: Mutex<Option<CpuStorage>>,
    /// Of all weights and biases; none if they have no gradients.
    gradients: Vec<Place>,
}

/// Gradients of x and modulation one after the other in a flat tensor; those of the weights go to their places.
struct BlockGradient<'a> {
    block: &'a Block,
}

impl CustomOp3 for Block {
    fn name(&self) -> &'static str {
        "residual-block"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        modulation: &CpuStorage,
        modulation_layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, height, width, _) = x_layout.shape().dims4()?;
        let y = with_float!(x, T => {
            let (x, modulation) = (values::<T>(x, x_layout)?, values(modulation, modulation_layout)?);
            let pass = Pass::new(&self.layers, self.groups, x_layout, modulation)?;
            let (hidden, y) = pass.forward(x)?;
            *locked(&self.hidden)? = Some(T::to_cpu_storage_owned(hidden));
            T::to_cpu_storage_owned(y)
        });
        Ok((y, (batch, height, width, self.layers.first.weight.dim(0)?).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        modulation: &Tensor,
        links: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let all = x.apply_op3_no_bwd(modulation, &gradient.contiguous()?, &BlockGradient { block: self })?;
        let (pixels, channels) = (x.elem_count(), modulation.elem_count());
        Ok((
            Some(all.narrow(0, 0, pixels)?.reshape(x.shape())?),
            Some(all.narrow(0, pixels, channels)?.reshape(modulation.shape())?),
            links.track_op().then(|| links.zeros_like()).transpose()?,
        ))
    }
}

impl CustomOp3 for BlockGradient<'_> {
    fn name(&self) -> &'static str {
        "residual-block-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        modulation: &CpuStorage,
        modulation_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let hidden = locked(&self.block.hidden)?;
        let Some(hidden) = &*hidden else { bail!("residual block: no forward pass to go back from") };
        let (all, count) = with_float!(x, T => {
            let (x, modulation) = (values::<T>(x, x_layout)?, values(modulation, modulation_layout)?);
            let pass = Pass::new(&self.block.layers, self.block.groups, x_layout, modulation)?;
            let places = &self.block.gradients;
            let all = pass.backward(x, hidden.as_slice()?, values(gradient, gradient_layout)?, places)?;
            let count = all.len();
            (T::to_cpu_storage_owned(all), count)
        });
        Ok((all, count.into()))
    }
}

/// One pass through a block in either direction.
struct Pass<'a, T> {
    layers: &'a Layers,
    groups: usize,
    image: [usize; 3],
    channels: [usize; 2],
    /// Scale and shift of the first and of the second normalisation, each `[B, channels]`.
    modulation: [[Vec<T>; 2]; 2],
}

impl<'a, T: Real> Pass<'a, T> {
    fn new(layers: &'a Layers, groups: usize, x: &Layout, modulation: &[T]) -> candle_core::Result<Self> {
        let (batch, height, width, inputs) = x.shape().dims4()?;
        let outputs = layers.first.weight.dim(0)?;
        let width_of = 2 * (inputs + outputs);
        if modulation.len() != batch * width_of
            || groups == 0
            || inputs % groups != 0
            || outputs % groups != 0
        {
            bail!("residual block: modulation or groups do not fit {inputs} and {outputs} channels");
        }
        let part = |first: usize, count: usize| -> Vec<T> {
            modulation.chunks(width_of).flat_map(|row| row[first..first + count].iter().copied()).collect()
        };
        let pair = |first, count| [part(first, count), part(first + count, count)];
        let modulation = [pair(0, inputs), pair(2 * inputs, outputs)];
        Ok(Self { layers, groups, image: [batch, height, width], channels: [inputs, outputs], modulation })
    }

    fn modulation<'b>(&'b self, which: usize, x: &'b [T]) -> Modulation<'b, T> {
        let [scale, shift] = &self.modulation[which];
        let [_, height, width] = self.image;
        Modulation::new(self.groups, [height * width, self.channels[which]], x, scale, shift)
    }

    fn geometry(&self, layer: &Layer) -> candle_core::Result<Geometry> {
        let [batch, height, width] = self.image;
        Ok(Geometry { batch, height, width, kernel: layer.weight.dim(2)? })
    }

    fn apply(&self, layer: &Layer, x: &[T]) -> candle_core::Result<Vec<T>> {
        let kernels = layer.kernels(Direction::Forward)?;
        on_host(&layer.bias, |bias| Ok(convolve(&self.geometry(layer)?, x, &kernels, bias)))
    }

    fn adjoint(&self, layer: &Layer, gradient: &[T]) -> candle_core::Result<Vec<T>> {
        let kernels = layer.kernels(Direction::Adjoint)?;
        Ok(convolve(&self.geometry(layer)?, gradient, &kernels, &[]))
    }

    /// What the first convolution gives, and the block's output.
    fn forward(&self, x: &[T]) -> candle_core::Result<(Vec<T>, Vec<T>)> {
        let hidden = self.apply(&self.layers.first, &self.modulation(0, x).forward())?;
        let mut y = self.apply(&self.layers.second, &self.modulation(1, &hidden).forward())?;
        match &self.layers.skip {
            Some(skip) => add(&mut y, &self.apply(skip, x)?),
            None => add(&mut y, x),
        }
        Ok((hidden, y))
    }

    /// Gradients of x and modulation one after the other; those of weights and biases go to `places`, if there are any.
    fn backward(
        &self,
        x: &[T],
        hidden: &[T],
        gradient: &[T],
        places: &[Place],
    ) -> candle_core::Result<Vec<T>> {
        let Layers { first, second, skip } = self.layers;
        let mut places = places.chunks_exact(2);
        let (of_first, of_second, of_skip) = (places.next(), places.next(), places.next());
        if let Some(places) = of_second {
            self.weights(second, &self.modulation(1, hidden).forward(), gradient, places)?;
        }
        let inner = self.modulation(1, hidden).backward(&self.adjoint(second, gradient)?);
        let (of_hidden, of_second) = inner.split_at(hidden.len());
        if let Some(places) = of_first {
            self.weights(first, &self.modulation(0, x).forward(), of_hidden, places)?;
        }
        let mut all = self.modulation(0, x).backward(&self.adjoint(first, of_hidden)?);
        let of_first = all.split_off(x.len());
        match skip {
            Some(skip) => {
                add(&mut all, &self.adjoint(skip, gradient)?);
                if let Some(places) = of_skip {
                    self.weights(skip, x, gradient, places)?;
                }
            }
            None => add(&mut all, gradient),
        }
        let [inputs, outputs] = self.channels;
        let halves = |of: &'_ [T], channels: usize, image: usize| -> Vec<T> {
            let (scale, shift) = of.split_at(of.len() / 2);
            let range = image * channels..(image + 1) * channels;
            [&scale[range.clone()], &shift[range]].concat()
        };
        for image in 0..self.image[0] {
            all.extend(halves(&of_first, inputs, image));
            all.extend(halves(of_second, outputs, image));
        }
        Ok(all)
    }

    /// Leaves the gradients of weights and bias of a layer with input x in their places.
    fn weights(&self, layer: &Layer, x: &[T], gradient: &[T], places: &[Place]) -> candle_core::Result<()> {
        let (outputs, inputs, _, _) = layer.weight.dims4()?;
        let of_weight = correlate(&self.geometry(layer)?, x, gradient, outputs, inputs);
        let of_bias = channel_sums(gradient, outputs);
        for (place, (of, like)) in places.iter().zip([(of_weight, &layer.weight), (of_bias, &layer.bias)]) {
            *locked(place)? = Some(Tensor::from_vec(of, like.shape(), &Device::Cpu)?);
        }
        Ok(())
    }
}

/// total += term.
fn add<T: Real>(total: &mut [T], term: &[T]) {
    const PART: usize = 1 << 15;
    each_chunk(total, PART, |part, total| {
        total.iter_mut().zip(&term[part * PART..]).for_each(|(total, term)| *total += *term);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Var};

    use super::*;
    use crate::{compute::Compute, rng::Rng, tensor::simd::ALLOWED};

    fn variables(inputs: usize, outputs: usize, compute: &Compute) -> Vec<Var> {
        let mut rng = Rng::new(3);
        let mut shapes = vec![
            vec![2, 8, 12, inputs],
            vec![2, 2 * (inputs + outputs)],
            vec![outputs, inputs, 3, 3],
            vec![outputs],
            vec![outputs, outputs, 3, 3],
            vec![outputs],
        ];
        if inputs != outputs {
            shapes.extend([vec![outputs, inputs, 1, 1], vec![outputs]]);
        }
        let mut normal = |shape: Vec<usize>| {
            let scale = if shape.len() == 4 && shape[0] == outputs { 0.2 } else { 1.0 };
            Var::from_tensor(&(rng.normals(&shape, compute).unwrap() * scale).unwrap()).unwrap()
        };
        shapes.into_iter().map(&mut normal).collect()
    }

    fn layers(variables: &[Var]) -> Layers {
        let layer = |pair: &[Var]| Layer {
            weight: pair[0].as_tensor().clone(),
            bias: pair[1].as_tensor().clone(),
            kept: None,
        };
        let mut pairs = variables[2..].chunks(2).map(layer);
        Layers { first: pairs.next().unwrap(), second: pairs.next().unwrap(), skip: pairs.next() }
    }

    fn flat(x: &Tensor) -> Vec<f64> {
        x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn one_piece_equals_its_parts() {
        for (compute, tolerance) in [(Compute::cpu(), 1e-4), (Compute::cpu_f64(), 1e-12)] {
            for (inputs, outputs) in [(8, 8), (8, 12)] {
                let variables = variables(inputs, outputs, &compute);
                let factor = Rng::new(5).normals(&[2, 8, 12, outputs], &compute).unwrap();
                let run = |block: fn(&Tensor, &Tensor, &Layers, usize) -> Result<Tensor>| {
                    let y = block(&variables[0], &variables[1], &layers(&variables), 4).unwrap();
                    let gradients = (&y * &factor).unwrap().sum_all().unwrap().backward().unwrap();
                    let mut all = vec![flat(&y)];
                    all.extend(variables.iter().map(|v| flat(gradients.get(v).unwrap())));
                    all
                };
                for (which, (a, b)) in run(residual_block).iter().zip(run(in_parts)).enumerate() {
                    let largest = b.iter().fold(0.0, |largest: f64, b| largest.max(b.abs()));
                    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(a.len() == b.len() && worst < tolerance * largest, "{which} {inputs} {worst}");
                }
            }
        }
    }

    #[test]
    fn every_kind_of_register_gives_the_same() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let run = |lanes| {
            pool.install(|| {
                ALLOWED.set(lanes);
                let variables = variables(8, 12, &Compute::cpu());
                let y = residual_block(&variables[0], &variables[1], &layers(&variables), 4).unwrap();
                let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                variables.iter().map(|v| flat(gradients.get(v).unwrap())).collect::<Vec<_>>()
            })
        };
        let widest = run(16);
        for lanes in [4, 8] {
            for (a, b) in run(lanes).iter().zip(&widest) {
                let largest = b.iter().fold(0.0, |largest: f64, b| largest.max(b.abs()));
                let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-4 * largest, "{lanes}: {worst}");
            }
        }
    }

    #[test]
    fn kept_arrangements_change_no_bit() {
        let variables = variables(8, 12, &Compute::cpu());
        let run = |layers: &Layers| {
            let y = residual_block(&variables[0], &variables[1], layers, 4).unwrap();
            let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            [flat(&y), flat(gradients.get(&variables[0]).unwrap())]
        };
        let plain = layers(&variables).detach();
        let keep = |layer: &Layer| Layer { kept: Some(Arc::default()), ..layer.clone() };
        let keeping = Layers {
            first: keep(&plain.first),
            second: keep(&plain.second),
            skip: plain.skip.as_ref().map(keep),
        };
        let expected = run(&plain);
        assert!((0..2).all(|_| run(&keeping) == expected));
    }

    #[test]
    fn constant_weights_get_no_gradient() {
        let variables = variables(8, 8, &Compute::cpu());
        let layers = layers(&variables).detach();
        let y = residual_block(&variables[0], &variables[1].detach(), &layers, 4).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&variables[0]).is_some() && gradients.get(&variables[2]).is_none());
    }
}
