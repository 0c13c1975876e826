//! Two-dimensional convolution with bias, channels last, fast on the CPU in both directions.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Shape, Tensor, WithDType, bail};

use super::{
    conv_kernel::{self, Arranged, Geometry, channel_sums},
    layer::Kernels,
    scratch::unwritten,
    simd::{Real, values, with_float},
    winograd,
};
#[cfg(feature = "cuda")]
use super::{cuda, layer::Direction};
use crate::{Error, Result};

/// Convolves `x` `[B, Y, X, C]` with `w` `[O, C, k, k]` (k odd, stride 1, zeros outside) and adds `bias` `[O]`.
///
/// Returns `[B, Y, X, O]`. Gradients are computed only for arguments that are tracked.
///
/// # Errors
/// Shapes that do not fit, or an even kernel.
pub fn conv2d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (_, _, _, inputs) = x.dims4()?;
    let (outputs, _, kernel, _) = w.dims4()?;
    if w.dims() != [outputs, inputs, kernel, kernel] || kernel % 2 == 0 {
        let odd = kernel | 1;
        return Err(Error::Shape {
            what: "convolution weights",
            expected: vec![outputs, inputs, odd, odd],
            found: w.dims().to_vec(),
        });
    }
    let bias = match bias {
        Some(bias) => bias.contiguous()?,
        None => Tensor::zeros(outputs, x.dtype(), x.device())?,
    };
    Ok(x.contiguous()?.apply_op3(&w.contiguous()?, &bias, Convolution)?)
}

/// y = w * x + b.
struct Convolution;

/// Gradient with respect to x, of the gradient `[B, Y, X, O]` and the weights.
struct InputGradient;

/// Gradient with respect to w, of the gradient `[B, Y, X, O]` and x.
struct WeightGradient {
    kernel: usize,
}

/// Sums over all axes but the last.
struct ChannelSums;

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (outputs, inputs, kernel, _) = w_layout.shape().dims4()?;
        let g = geometry(x_layout, kernel)?;
        if bias_layout.dims() != [outputs] {
            bail!("convolution: biases {:?} for {outputs} outputs", bias_layout.dims());
        }
        let y = with_float!(x, T => {
            let kernels = Kernels::new(Arranged::forward(values(w, w_layout)?, outputs, inputs));
            T::to_cpu_storage_owned(convolve::<T>(&g, values(x, x_layout)?, &kernels, values(bias, bias_layout)?))
        });
        Ok((y, (g.batch, g.height, g.width, outputs).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        w: &CudaStorage,
        w_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let (outputs, _, kernel, _) = w_layout.shape().dims4()?;
        let g = geometry(x_layout, kernel)?;
        let bias = Some((bias, bias_layout));
        let y = cuda::convolve(&g, (x, x_layout), (w, w_layout), bias, Direction::Forward)?;
        Ok((y, (g.batch, g.height, g.width, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let kernel = w.dim(2)?;
        let of_x = || gradient.apply_op2_no_bwd(w, &InputGradient);
        let of_w = || gradient.apply_op2_no_bwd(x, &WeightGradient { kernel });
        let of_bias = || gradient.apply_op1_no_bwd(&ChannelSums);
        Ok((
            x.track_op().then(of_x).transpose()?,
            w.track_op().then(of_w).transpose()?,
            bias.track_op().then(of_bias).transpose()?,
        ))
    }
}

impl CustomOp2 for InputGradient {
    fn name(&self) -> &'static str {
        "convolution-input-gradient"
    }

    fn cpu_fwd(
        &self,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (outputs, inputs, kernel, _) = w_layout.shape().dims4()?;
        let g = geometry(gradient_layout, kernel)?;
        let x = with_float!(gradient, T => {
            let kernels = Kernels::new(Arranged::adjoint(values(w, w_layout)?, outputs, inputs));
            T::to_cpu_storage_owned(convolve::<T>(&g, values(gradient, gradient_layout)?, &kernels, &[]))
        });
        Ok((x, (g.batch, g.height, g.width, inputs).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        gradient: &CudaStorage,
        gradient_layout: &Layout,
        w: &CudaStorage,
        w_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let (_, inputs, kernel, _) = w_layout.shape().dims4()?;
        let g = geometry(gradient_layout, kernel)?;
        let (gradient, w) = ((gradient, gradient_layout), (w, w_layout));
        let x = cuda::convolve(&g, gradient, w, None, Direction::Adjoint)?;
        Ok((x, (g.batch, g.height, g.width, inputs).into()))
    }
}

impl CustomOp2 for WeightGradient {
    fn name(&self) -> &'static str {
        "convolution-weight-gradient"
    }

    fn cpu_fwd(
        &self,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let g = geometry(x_layout, self.kernel)?;
        let (outputs, inputs) = (gradient_layout.dims()[3], x_layout.dims()[3]);
        let w = with_float!(x, T => {
            let (x, gradient) = (values::<T>(x, x_layout)?, values(gradient, gradient_layout)?);
            T::to_cpu_storage_owned(correlate(&g, x, gradient, outputs, inputs))
        });
        Ok((w, (outputs, inputs, self.kernel, self.kernel).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        gradient: &CudaStorage,
        gradient_layout: &Layout,
        x: &CudaStorage,
        x_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let g = geometry(x_layout, self.kernel)?;
        let (outputs, inputs) = (gradient_layout.dims()[3], x_layout.dims()[3]);
        let w = cuda::correlate(&g, (x, x_layout), (gradient, gradient_layout), [outputs, inputs])?;
        Ok((w, (outputs, inputs, self.kernel, self.kernel).into()))
    }
}

impl CustomOp1 for ChannelSums {
    fn name(&self) -> &'static str {
        "channel-sums"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, _, _, channels) = layout.shape().dims4()?;
        let sums =
            with_float!(x, T => T::to_cpu_storage_owned(channel_sums::<T>(values(x, layout)?, channels)));
        Ok((sums, channels.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let (_, _, _, channels) = layout.shape().dims4()?;
        Ok((cuda::channel_sums((x, layout), channels)?, channels.into()))
    }
}

fn geometry(images: &Layout, kernel: usize) -> candle_core::Result<Geometry> {
    let (batch, height, width, _) = images.shape().dims4()?;
    Ok(Geometry { batch, height, width, kernel })
}

/// Whether tiles of transformed pixels win: not for images of a few tiles or channels, whose transforms cost more.
fn by_tiles(g: &Geometry, inputs: usize, outputs: usize) -> bool {
    let tiles = g.batch * g.height.div_ceil(4) * g.width.div_ceil(4);
    g.kernel == 3 && inputs >= 8 && outputs >= 8 && tiles >= 16
}

/// Convolves `[B, Y, X, C]` to `[B, Y, X, O]`; `bias` holds O numbers or none.
pub(super) fn convolve<T: Real>(g: &Geometry, images: &[T], kernels: &Kernels<T>, bias: &[T]) -> Vec<T> {
    let weights = &kernels.arranged;
    let mut output = unwritten(g.batch * g.pixels() * weights.outputs);
    if by_tiles(g, weights.inputs, weights.outputs) {
        winograd::convolve(g, images, kernels.transformed(), bias, &mut output);
    } else {
        conv_kernel::convolve(g, images, weights, bias, &mut output);
    }
    output
}

/// Gradient `[O, C, k, k]` of the weights from the gradient `[B, Y, X, O]` of the outputs and images `[B, Y, X, C]`.
pub(super) fn correlate<T: Real>(
    g: &Geometry,
    images: &[T],
    gradient: &[T],
    outputs: usize,
    inputs: usize,
) -> Vec<T> {
    let arranged = if by_tiles(g, inputs, outputs) {
        winograd::correlate(g, images, gradient)
    } else {
        conv_kernel::correlate(g, images, gradient)
    };
    Arranged::restore(&arranged, outputs, inputs)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::*;
    use crate::{
        compute::Compute,
        rng::Rng,
        tensor::{channels_last, planar},
    };

    /// The definition: y[b,i,j,o] = bias[o] + sum_{c,k,l} w[o,c,k,l] x[b,i+k-p,j+l-p,c].
    fn slow(x: &Tensor, w: &Tensor, bias: &Tensor) -> Tensor {
        let x = &planar(x).unwrap();
        let (x, w) = (x.to_dtype(DType::F64).unwrap(), w.to_dtype(DType::F64).unwrap());
        let bias = bias.to_dtype(DType::F64).unwrap();
        let pad = w.dim(2).unwrap() / 2;
        let (_, _, height, width) = x.dims4().unwrap();
        let x = x.pad_with_zeros(2, pad, pad).unwrap().pad_with_zeros(3, pad, pad).unwrap();
        let mut y = bias.reshape((1, (), 1, 1)).unwrap();
        for k in 0..w.dim(2).unwrap() {
            for l in 0..w.dim(3).unwrap() {
                let x = x.narrow(2, k, height).unwrap().narrow(3, l, width).unwrap();
                let w = w
                    .narrow(2, k, 1)
                    .unwrap()
                    .narrow(3, l, 1)
                    .unwrap()
                    .squeeze(3)
                    .unwrap()
                    .unsqueeze(0)
                    .unwrap();
                let x = x.unsqueeze(1).unwrap();
                let w = w.unsqueeze(4).unwrap();
                y = y.broadcast_add(&x.broadcast_mul(&w).unwrap().sum(2).unwrap()).unwrap();
            }
        }
        channels_last(&y).unwrap()
    }

    fn arguments(shape: [usize; 4], outputs: usize, kernel: usize, compute: &Compute) -> [Var; 3] {
        let mut rng = Rng::new(3);
        [&shape[..], &[outputs, shape[3], kernel, kernel], &[outputs]]
            .map(|shape| Var::from_tensor(&rng.normals(shape, compute).unwrap()).unwrap())
    }

    /// Largest difference, in units of the largest exact value.
    fn relative(fast: &Tensor, exact: &Tensor) -> f64 {
        let largest = |x: Tensor| x.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>();
        let exact = exact.to_dtype(DType::F64).unwrap();
        let difference = (fast.to_dtype(DType::F64).unwrap() - &exact).unwrap();
        largest(difference).unwrap() / largest(exact).unwrap()
    }

    #[test]
    fn value_and_gradients_agree_with_the_definition() {
        let cases = [
            ([2, 5, 7, 3], 5, 3),
            ([1, 8, 8, 16], 19, 3),
            ([3, 16, 16, 4], 8, 1),
            ([2, 1, 2, 1], 1, 3),
            ([1, 6, 40, 2], 9, 5),
            ([5, 7, 9, 11], 17, 3),
            ([2, 16, 16, 24], 40, 3),
            ([90, 3, 2, 8], 8, 3),
        ];
        for compute in [Compute::cpu(), Compute::cpu_f64()] {
            // Of the largest value: tiles lose a digit and a half against the definition.
            let tolerance = if compute.dtype == DType::F32 { 3e-5 } else { 1e-13 };
            for (shape, outputs, kernel) in cases {
                let [x, w, bias] = arguments(shape, outputs, kernel, &compute);
                let fast = conv2d(&x, &w, Some(&bias)).unwrap();
                let exact = slow(&x, &w, &bias);
                assert!(relative(&fast, &exact) < tolerance, "{shape:?} {kernel}");
                // A weighted sum, so that the gradient differs from pixel to pixel.
                let factor = Rng::new(5).normals(fast.dims(), &compute).unwrap();
                let gradients = |y: &Tensor| {
                    let factor = factor.to_dtype(y.dtype()).unwrap();
                    (y * factor).unwrap().sum_all().unwrap().backward().unwrap()
                };
                let (fast, exact) = (gradients(&fast), gradients(&exact));
                for variable in [&x, &w, &bias] {
                    let (a, b) = (fast.get(variable).unwrap(), exact.get(variable).unwrap());
                    assert!(relative(a, b) < tolerance, "{shape:?} {kernel} {}", relative(a, b));
                }
            }
        }
    }

    #[test]
    fn constants_get_no_gradient() {
        let [x, w, bias] = arguments([1, 4, 4, 2], 3, 3, &Compute::cpu());
        let gradients =
            conv2d(&x, &w.detach(), Some(&bias.detach())).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&x).is_some() && gradients.get(&w).is_none());
    }

    /// The gradient of the weights is one task for 48 tiles, and the sum of four for 1155 of them.
    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let run = |shape, threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let [x, w, bias] = arguments(shape, 20, 3, &Compute::cpu());
                let y = conv2d(&x, &w, Some(&bias)).unwrap();
                let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                [&x, &w, &bias].map(|v| {
                    let gradient = gradients.get(v).unwrap().flatten_all().unwrap();
                    gradient.to_vec1::<f32>().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
                })
            })
        };
        for shape in [[3, 16, 16, 8], [7, 44, 60, 8]] {
            assert!(run(shape, 1) == run(shape, 2), "{shape:?}");
        }
    }

    #[test]
    fn refuses_weights_that_do_not_fit() {
        let [x, w, _] = arguments([1, 4, 4, 2], 3, 3, &Compute::cpu());
        assert!(conv2d(&x, &w.narrow(1, 0, 1).unwrap(), None).is_err());
        assert!(conv2d(&x, &w.narrow(2, 0, 2).unwrap().narrow(3, 0, 2).unwrap(), None).is_err());
    }
}
