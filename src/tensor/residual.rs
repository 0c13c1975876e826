//! A residual block in one piece: it keeps a third of what its parts would keep for the backward pass.

use std::sync::{Arc, Mutex, MutexGuard};

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Shape, Storage, Tensor, WithDType, bail};

#[cfg(feature = "cuda")]
use super::cuda;
use super::{
    layer::Layer,
    residual_kernel::Pass,
    simd::{values, with_float},
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

/// skip(x) + second(f(first(f(x)))), f being [`modulated_silu`](super::norm::modulated_silu) and skip the identity if there is none (He et al. 2016).
///
/// `x` is `[B, Y, X, C]`, `modulation` `[B, 2 C + 2 O]`: scale and shift of the first f, then of the second. Returns
/// `[B, Y, X, O]`. Gradients are computed only for arguments that are tracked.
///
/// # Errors
/// Shapes that do not fit.
pub fn residual_block(x: &Tensor, modulation: &Tensor, layers: &Layers, groups: usize) -> Result<Tensor> {
    let (links, gradients) = layers.linked()?;
    let op = Block { groups, layers: layers.detach(), kept: Mutex::default(), gradients };
    Ok(x.contiguous()?.apply_op3(&modulation.contiguous()?, &links, op)?)
}

impl Layers {
    pub(super) fn all(&self) -> impl Iterator<Item = &Layer> {
        [&self.first, &self.second].into_iter().chain(&self.skip)
    }

    /// A number that stands for all weights and biases, and the places for their gradients; an untracked number and no places
    /// if none of them is tracked.
    fn linked(&self) -> candle_core::Result<(Tensor, Vec<Place>)> {
        let tracked = |layer: &Layer| layer.weight.track_op() || layer.bias.track_op();
        if !self.all().any(tracked) {
            let weight = &self.first.weight;
            return Ok((Tensor::zeros(1, weight.dtype(), weight.device())?, Vec::new()));
        }
        let places: Vec<Place> = self.all().flat_map(|_| [Place::default(), Place::default()]).collect();
        let link = |(layer, places): (&Layer, &[Place])| {
            let gradients = [places[0].clone(), places[1].clone()];
            layer.weight.apply_op2(&layer.bias, Link { gradients })
        };
        let links = self.all().zip(places.chunks_exact(2)).map(link);
        let sum = links.reduce(|a, b| a? + b?);
        Ok((sum.unwrap_or_else(|| bail!("a residual block has layers"))?, places))
    }

    /// Shape of a block's output.
    fn output(&self, x: &Layout) -> candle_core::Result<Shape> {
        let (batch, height, width, _) = x.shape().dims4()?;
        Ok((batch, height, width, self.first.weight.dim(0)?).into())
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
pub(super) type Place = Arc<Mutex<Option<Tensor>>>;

/// Ties weight and bias of a layer to the block that uses them. An operation has three arguments at most, and joining all
/// weights in one would copy them and their gradients several times; so the argument is one number, which stands for them, and
/// their gradients are what the block has left in their places.
struct Link {
    gradients: [Place; 2],
}

impl CustomOp2 for Link {
    fn name(&self) -> &'static str {
        "weights-of-residual-block"
    }

    fn cpu_fwd(
        &self,
        weight: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((with_float!(weight, T => T::to_cpu_storage_owned(vec![T::default()])), 1.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        weight: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        use candle_core::backend::{BackendDevice, BackendStorage};
        Ok((weight.device().zeros_impl(&1.into(), weight.dtype())?, 1.into()))
    }

    fn bwd(
        &self,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let left = |place: usize| locked(&self.gradients[place]).map(|mut gradient| gradient.take());
        let (of_weight, of_bias) = (left(0)?, left(1)?);
        Ok((of_weight.filter(|_| weight.track_op()), of_bias.filter(|_| bias.track_op())))
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> candle_core::Result<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| candle_core::Error::Msg("a thread of this residual block panicked".into()))
}

/// The block.
struct Block {
    groups: usize,
    layers: Layers,
    /// What the first convolution gave, and on a GPU the moments of both normalisations.
    kept: Mutex<Vec<Storage>>,
    /// Of all weights and biases; none if they have no gradients.
    gradients: Vec<Place>,
}

/// Gradients of x and modulation one after the other in a flat tensor; those of the weights go to their places.
struct BlockGradient<'a> {
    block: &'a Block,
}

#[cfg(feature = "cuda")]
impl Block {
    fn on_gpu<'a>(&'a self, x: cuda::Place<'a>, modulation: cuda::Place<'a>) -> cuda::Arguments<'a> {
        cuda::Arguments { layers: &self.layers, groups: self.groups, x, modulation }
    }
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
        let y = with_float!(x, T => {
            let (x, modulation) = (values::<T>(x, x_layout)?, values(modulation, modulation_layout)?);
            let pass = Pass::new(&self.layers, self.groups, x_layout, modulation)?;
            let (hidden, y) = pass.forward(x)?;
            *locked(&self.kept)? = vec![Storage::Cpu(T::to_cpu_storage_owned(hidden))];
            T::to_cpu_storage_owned(y)
        });
        Ok((y, self.layers.output(x_layout)?))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        modulation: &CudaStorage,
        modulation_layout: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let (y, kept) = cuda::block(self.on_gpu((x, x_layout), (modulation, modulation_layout)))?;
        *locked(&self.kept)? = kept.into_iter().map(Storage::Cuda).collect();
        Ok((y, self.layers.output(x_layout)?))
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
        let kept = locked(&self.block.kept)?;
        let [Storage::Cpu(hidden)] = kept.as_slice() else { bail!("{NO_FORWARD_PASS}") };
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

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        modulation: &CudaStorage,
        modulation_layout: &Layout,
        gradient: &CudaStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let kept = locked(&self.block.kept)?;
        let [Storage::Cuda(hidden), Storage::Cuda(first), Storage::Cuda(second)] = kept.as_slice() else {
            bail!("{NO_FORWARD_PASS}")
        };
        let (block, places) = (self.block, &self.block.gradients);
        let arguments = block.on_gpu((x, x_layout), (modulation, modulation_layout));
        let gradient = (gradient, gradient_layout);
        let (all, weights) =
            cuda::block_gradient(arguments, [hidden, first, second], gradient, !places.is_empty())?;
        let like = block.layers.all().flat_map(|layer| [&layer.weight, &layer.bias]);
        for ((place, of), like) in places.iter().zip(weights).zip(like) {
            let of = Tensor::from_storage(
                Storage::Cuda(of),
                like.shape(),
                candle_core::op::BackpropOp::none(),
                false,
            );
            *locked(place)? = Some(of);
        }
        let count = x_layout.shape().elem_count() + modulation_layout.shape().elem_count();
        Ok((all, count.into()))
    }
}

const NO_FORWARD_PASS: &str = "residual block: no forward pass to go back from";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Var};

    use super::*;
    use crate::{
        compute::Compute,
        rng::Rng,
        tensor::{conv::conv2d, norm::modulated_silu, simd::ALLOWED},
    };

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
