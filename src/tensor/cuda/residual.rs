//! A residual block in one piece: no gradient is added up outside of it, and none is computed that nobody wants.

use std::ops::Deref;

use candle_core::{
    CudaStorage, Layout, Result, Storage,
    backend::BackendStorage,
    bail,
    cuda_backend::{
        CudaDType,
        cudarc::driver::{CudaSlice, CudaView},
    },
};

use super::{
    Gpu, Real,
    conv::{Place, Start, Weights, convolved, correlated, summed},
    norm::{Gradients, Modulation},
    product::Number,
    values, with_real,
};
use crate::tensor::{
    layer::{Direction, Layer},
    precision::Precision,
    residual::Layers,
};

/// What a block is applied to.
#[derive(Clone, Copy)]
pub(in crate::tensor) struct Arguments<'a> {
    pub(in crate::tensor) layers: &'a Layers,
    pub(in crate::tensor) groups: usize,
    /// `[B, Y, X, C]`.
    pub(in crate::tensor) x: Place<'a>,
    /// `[B, 2 C + 2 O]`.
    pub(in crate::tensor) modulation: Place<'a>,
}

/// The output of a block, and what its backward pass needs: what the first convolution gave, and the moments of both
/// normalisations.
pub(in crate::tensor) fn block(of: Arguments) -> Result<(CudaStorage, [CudaStorage; 3])> {
    with_real!(of.x.0, T => {
        let device = of.x.0.device();
        let gpu = Gpu::new::<T>(device, Precision::Full)?;
        let held = Held::of(of.layers)?;
        let (y, kept) = Pass::<T>::new(&gpu, &held, of)?.forward()?;
        Ok((T::wrap_cuda_slice(y, device.clone()), kept.map(|kept| T::wrap_cuda_slice(kept, device.clone()))))
    })
}

/// Gradients of x and modulation one after the other, and if `of_weights` those of weights and bias of every layer.
pub(in crate::tensor) fn block_gradient(
    of: Arguments,
    kept: [&CudaStorage; 3],
    gradient: Place,
    of_weights: bool,
) -> Result<(CudaStorage, Vec<CudaStorage>)> {
    with_real!(of.x.0, T => {
        let device = of.x.0.device();
        let gpu = Gpu::new::<T>(device, Precision::Full)?;
        let held = Held::of(of.layers)?;
        let [hidden, first, second] = kept.map(|kept| kept.as_cuda_slice::<T>());
        let kept = [hidden?.as_view(), first?.as_view(), second?.as_view()];
        let gradient = values(gradient.0, gradient.1)?;
        let (all, weights) = Pass::<T>::new(&gpu, &held, of)?.backward(&kept, &gradient, of_weights)?;
        let wrap = |numbers| T::wrap_cuda_slice(numbers, device.clone());
        Ok((wrap(all), weights.into_iter().map(wrap).collect()))
    })
}

/// The numbers of a tensor, which stay where they are.
struct Held<'a>(Box<dyn Deref<Target = Storage> + 'a>, &'a Layout);

impl<'a> Held<'a> {
    /// Weights, bias and sizes of every layer.
    fn of(layers: &'a Layers) -> Result<Vec<([Self; 2], [usize; 3])>> {
        let held = |layer: &'a Layer| {
            let (outputs, inputs, kernel, _) = layer.weight.dims4()?;
            let tensors = [&layer.weight, &layer.bias].map(|tensor| {
                let (storage, layout) = tensor.storage_and_layout();
                Self(Box::new(storage), layout)
            });
            Ok((tensors, [outputs, inputs, kernel]))
        };
        layers.all().map(held).collect()
    }

    fn values<T: Real>(&self) -> Result<CudaView<'_, T>> {
        match &**self.0 {
            Storage::Cuda(storage) => values(storage, self.1),
            _ => bail!("the tensor is not on the GPU"),
        }
    }
}

/// A layer's numbers on the device.
struct Convolution<'a, T> {
    weights: CudaView<'a, T>,
    bias: CudaView<'a, T>,
    /// Outputs, inputs, kernel.
    sizes: [usize; 3],
}

impl<T> Convolution<'_, T> {
    fn weights(&self, direction: Direction) -> Weights<'_, T> {
        Weights { values: &self.weights, sizes: self.sizes, direction }
    }
}

/// One pass through a block in either direction.
struct Pass<'a, T> {
    gpu: &'a Gpu<'a>,
    first: Convolution<'a, T>,
    second: Convolution<'a, T>,
    skip: Option<Convolution<'a, T>>,
    groups: usize,
    x: CudaView<'a, T>,
    modulation: CudaView<'a, T>,
    /// Images, height, width.
    image: [usize; 3],
    /// Inputs and outputs.
    channels: [usize; 2],
}

impl<'a, T: Real + Number> Pass<'a, T> {
    fn new(gpu: &'a Gpu<'a>, held: &'a [([Held<'a>; 2], [usize; 3])], of: Arguments<'a>) -> Result<Self> {
        let (batch, height, width, inputs) = of.x.1.shape().dims4()?;
        let layer = |([weights, bias], sizes): &'a ([Held<'a>; 2], [usize; 3])| {
            Ok(Convolution { weights: weights.values()?, bias: bias.values()?, sizes: *sizes })
        };
        let mut layers = held.iter().map(layer).collect::<Result<Vec<_>>>()?.into_iter();
        let (Some(first), Some(second), skip) = (layers.next(), layers.next(), layers.next()) else {
            bail!("a residual block has two layers")
        };
        let (outputs, groups) = (first.sizes[0], of.groups);
        let modulation = values::<T>(of.modulation.0, of.modulation.1)?;
        if modulation.len() != batch * 2 * (inputs + outputs)
            || groups == 0
            || inputs % groups != 0
            || outputs % groups != 0
        {
            bail!("residual block: modulation or groups do not fit {inputs} and {outputs} channels");
        }
        let (x, image) = (values(of.x.0, of.x.1)?, [batch, height, width]);
        Ok(Self { gpu, first, second, skip, groups, x, modulation, image, channels: [inputs, outputs] })
    }

    /// The modulation of the first normalisation or of the second.
    fn modulation<'b>(&'b self, which: usize, x: &'b CudaView<T>) -> Modulation<'b, T> {
        let ([batch, height, width], [inputs, outputs]) = (self.image, self.channels);
        let (channels, first) = [(inputs, 0), (outputs, 2 * inputs)][which];
        Modulation {
            gpu: self.gpu,
            x: x.slice(..),
            scale: self.modulation.slice(first..),
            shift: self.modulation.slice(first + channels..),
            stride: 2 * (inputs + outputs),
            groups: self.groups,
            sizes: [batch, height * width, channels],
        }
    }

    fn apply(
        &self,
        layer: &Convolution<T>,
        direction: Direction,
        x: &CudaView<T>,
        start: Option<Start<T>>,
    ) -> Result<CudaSlice<T>> {
        convolved(self.gpu.device, self.image, x, layer.weights(direction), start)
    }

    fn adjoint(&self, layer: &Convolution<T>, gradient: &CudaView<T>) -> Result<CudaSlice<T>> {
        self.apply(layer, Direction::Adjoint, gradient, None)
    }

    fn forward(&self) -> Result<(CudaSlice<T>, [CudaSlice<T>; 3])> {
        let modulation = self.modulation(0, &self.x);
        let moments = modulation.moments()?;
        let inner = modulation.forward(&moments.as_view())?;
        let start = Some(Start { bias: &self.first.bias, images: None });
        let hidden = self.apply(&self.first, Direction::Forward, &inner.as_view(), start)?;
        let skipped = match &self.skip {
            Some(skip) => {
                let start = Some(Start { bias: &skip.bias, images: None });
                Some(self.apply(skip, Direction::Forward, &self.x, start)?)
            }
            None => None,
        };
        let (of_inner, seen) = (moments, hidden.as_view());
        let modulation = self.modulation(1, &seen);
        let moments = modulation.moments()?;
        let inner = modulation.forward(&moments.as_view())?;
        let skipped = skipped.as_ref().map_or(self.x.slice(..), |skipped| skipped.as_view());
        let start = Some(Start { bias: &self.second.bias, images: Some(&skipped) });
        let y = self.apply(&self.second, Direction::Forward, &inner.as_view(), start)?;
        Ok((y, [hidden, of_inner, moments]))
    }

    /// Gradients of x and modulation one after the other, and those of weights and bias of every layer.
    fn backward(
        &self,
        [hidden, of_x, of_hidden]: &[CudaView<T>; 3],
        gradient: &CudaView<T>,
        of_weights: bool,
    ) -> Result<(CudaSlice<T>, Vec<CudaSlice<T>>)> {
        let ([batch, ..], [inputs, outputs], gpu) = (self.image, self.channels, self.gpu);
        let (before, between) = (self.modulation(0, &self.x), self.modulation(1, hidden));
        let mut all = gpu.empty::<T>(self.x.len() + batch * 2 * (inputs + outputs))?;
        let (mut x, mut modulation) = all.split_at_mut(self.x.len());

        let inner = self.adjoint(&self.second, gradient)?;
        let mut gradient_of_hidden = gpu.empty::<T>(hidden.len())?;
        let (scale, step) = (modulation.slice_mut(2 * inputs..), outputs);
        let of = Gradients { x: gradient_of_hidden.slice_mut(..), scale, step };
        between.backward(of_hidden, &inner.as_view(), None, of)?;

        let seen = gradient_of_hidden.as_view();
        let inner = self.adjoint(&self.first, &seen)?;
        let skipped = self.skip.as_ref().map(|skip| self.adjoint(skip, gradient)).transpose()?;
        let skipped = skipped.as_ref().map_or(gradient.slice(..), |skipped| skipped.as_view());
        let of = Gradients { x: x.slice_mut(..), scale: modulation.slice_mut(..), step: inputs };
        before.backward(of_x, &inner.as_view(), Some(&skipped), of)?;
        drop(inner);

        let mut weights = Vec::new();
        if of_weights {
            weights.push(self.correlated(&self.first, &before.forward(of_x)?.as_view(), &seen)?);
            weights.push(summed(gpu, &seen, outputs)?);
            weights.push(self.correlated(&self.second, &between.forward(of_hidden)?.as_view(), gradient)?);
            weights.push(summed(gpu, gradient, outputs)?);
            if let Some(skip) = &self.skip {
                weights.push(self.correlated(skip, &self.x, gradient)?);
                weights.push(summed(gpu, gradient, outputs)?);
            }
        }
        Ok((all, weights))
    }

    /// Gradient of the weights of a layer that was applied to x.
    fn correlated(
        &self,
        layer: &Convolution<T>,
        x: &CudaView<T>,
        gradient: &CudaView<T>,
    ) -> Result<CudaSlice<T>> {
        correlated(self.gpu.device, layer.weights(Direction::Forward).job(self.image), x, gradient)
    }
}
