//! A residual block on the CPU, forward and backward.

use candle_core::{Device, Layout, Tensor, bail};

use super::{
    conv::{convolve, correlate},
    conv_kernel::{Geometry, channel_sums},
    layer::{Direction, Layer, on_host},
    norm_kernel::Modulation,
    parallel::each_chunk,
    residual::{Layers, Place, locked},
    simd::Real,
};

/// One pass through a block in either direction.
pub(super) struct Pass<'a, T> {
    layers: &'a Layers,
    groups: usize,
    image: [usize; 3],
    channels: [usize; 2],
    /// Scale and shift of the first and of the second normalisation, each `[B, channels]`.
    modulation: [[Vec<T>; 2]; 2],
}

impl<'a, T: Real> Pass<'a, T> {
    pub(super) fn new(
        layers: &'a Layers,
        groups: usize,
        x: &Layout,
        modulation: &[T],
    ) -> candle_core::Result<Self> {
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
    pub(super) fn forward(&self, x: &[T]) -> candle_core::Result<(Vec<T>, Vec<T>)> {
        let hidden = self.apply(&self.layers.first, &self.modulation(0, x).forward())?;
        let mut y = self.apply(&self.layers.second, &self.modulation(1, &hidden).forward())?;
        match &self.layers.skip {
            Some(skip) => add(&mut y, &self.apply(skip, x)?),
            None => add(&mut y, x),
        }
        Ok((hidden, y))
    }

    /// Gradients of x and modulation one after the other; those of weights and biases go to `places`, if there are any.
    pub(super) fn backward(
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
