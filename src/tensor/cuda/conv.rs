//! Convolutions as matrix products: every pixel's neighbourhood times the weights.

use candle_core::{
    CudaStorage, DType, Layout, Result,
    backend::BackendStorage,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::{
            cublas::{
                result::gemm_ex,
                sys::{cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType_t},
            },
            driver::{CudaSlice, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, DeviceRepr},
        },
    },
};

use super::{Gpu, Real, blocks, launch, over, parts, size, values, with_real};
use crate::tensor::{conv_kernel::Geometry, layer::Direction, precision::Precision};

/// Numbers of the neighbourhoods that are in memory at a time.
const MOST_NEIGHBOURS: usize = 1 << 26;

/// A tensor's memory and how it is laid out.
pub(in crate::tensor) type Place<'a> = (&'a CudaStorage, &'a Layout);

/// A number type of matrices.
trait Number: DeviceRepr {
    const TYPE: cudaDataType_t;
}

impl Number for f32 {
    const TYPE: cudaDataType_t = cudaDataType_t::CUDA_R_32F;
}

impl Number for f64 {
    const TYPE: cudaDataType_t = cudaDataType_t::CUDA_R_64F;
}

/// The bits of a bfloat16.
impl Number for u16 {
    const TYPE: cudaDataType_t = cudaDataType_t::CUDA_R_16BF;
}

/// Runs `body` with the types of sums `T` and of factors `F`.
macro_rules! with_factors {
    ($storage:expr, $T:ident, $F:ident => $body:expr) => {
        if $storage.dtype() == DType::F32 && Precision::current() == Precision::Bf16 {
            type $T = f32;
            type $F = u16;
            $body
        } else {
            with_real!($storage, $T => {
                type $F = $T;
                $body
            })
        }
    };
}

/// Convolves images `[B, Y, X, C]` with weights `[O, C, k, k]` and adds `bias` `[O]`; the adjoint takes images
/// `[B, Y, X, O]` and flipped weights. `g` is the images' geometry.
pub(in crate::tensor) fn convolve(
    g: &Geometry,
    images: Place,
    weights: Place,
    bias: Option<Place>,
    direction: Direction,
) -> Result<CudaStorage> {
    with_factors!(images.0, T, F => {
        let images = values::<T>(images.0, images.1)?;
        let bias = bias.map(|(storage, layout)| values::<T>(storage, layout)).transpose()?;
        let (outputs, inputs, _, _) = weights.1.shape().dims4()?;
        let device = weights.0.device().clone();
        let gpu = Gpu::new::<T>(&device, Precision::current())?;
        let weights = values::<T>(weights.0, weights.1)?;
        let y = convolved::<T, F>(&gpu, g, &images, &weights, [outputs, inputs], bias.as_ref(), direction)?;
        Ok(T::wrap_cuda_slice(y, device))
    })
}

/// Gradient `[O, C, k, k]` of the weights from that of the outputs `[B, Y, X, O]` and the images `[B, Y, X, C]`.
pub(in crate::tensor) fn correlate(
    g: &Geometry,
    images: Place,
    gradient: Place,
    [outputs, inputs]: [usize; 2],
) -> Result<CudaStorage> {
    with_factors!(images.0, T, F => {
        let device = images.0.device().clone();
        let gpu = Gpu::new::<T>(&device, Precision::current())?;
        let (images, gradient) = (values::<T>(images.0, images.1)?, values::<T>(gradient.0, gradient.1)?);
        let w = correlated::<T, F>(&gpu, g, &images, &gradient, [outputs, inputs])?;
        Ok(T::wrap_cuda_slice(w, device))
    })
}

/// Sums `[C]` over all axes but the last.
pub(in crate::tensor) fn channel_sums(x: Place, channels: usize) -> Result<CudaStorage> {
    with_real!(x.0, T => {
        let device = x.0.device().clone();
        let gpu = Gpu::new::<T>(&device, Precision::Full)?;
        let x = values::<T>(x.0, x.1)?;
        let (rows, parts) = (x.len() / channels.max(1), parts(x.len()));
        let sum = |from: &CudaView<T>, rows: usize, parts: usize| -> Result<CudaSlice<T>> {
            let mut sums = gpu.empty::<T>(parts * channels)?;
            launch!(gpu, "channel_sums", blocks(parts, 1, 0), from, &mut sums, &size(rows)?, &size(channels)?);
            Ok(sums)
        };
        let sums = sum(&x, rows, parts)?;
        let total = if parts > 1 { sum(&sums.as_view(), parts, 1)? } else { sums };
        Ok(T::wrap_cuda_slice(total, device))
    })
}

fn convolved<T: Real + Number, F: Number>(
    gpu: &Gpu,
    g: &Geometry,
    images: &CudaView<T>,
    weights: &CudaView<T>,
    [outputs, inputs]: [usize; 2],
    bias: Option<&CudaView<T>>,
    direction: Direction,
) -> Result<CudaSlice<T>> {
    let taps = g.kernel * g.kernel;
    let (kernel, from, to) = match direction {
        Direction::Forward => ("arrange", inputs, outputs),
        Direction::Adjoint => ("arrange_adjoint", outputs, inputs),
    };
    let mut matrix = gpu.empty::<F>(weights.len())?;
    let sizes = [size(outputs)?, size(inputs)?, size(taps)?];
    launch!(gpu, kernel, over(weights.len()), weights, &mut matrix, &sizes[0], &sizes[1], &sizes[2]);
    let mut y = gpu.empty::<T>(g.batch * g.pixels() * to)?;
    if let Some(bias) = bias {
        let count = y.len();
        launch!(gpu, "repeat_row", over(count), bias, &mut y, &size(to)?, &size(count)?);
    }
    for (first, part) in portions(g, from) {
        let rows = part.batch * g.pixels();
        let here = images.slice(first * g.pixels() * from..(first * g.pixels() + rows) * from);
        let columns = neighbourhoods::<T, F>(gpu, &part, &here, from)?;
        let start = if bias.is_some() { T::one() } else { T::zero() };
        let mut target = y.slice_mut(first * g.pixels() * to..(first * g.pixels() + rows) * to);
        product(gpu, (&columns, false), &matrix, [rows, taps * from, to], start, &mut target)?;
    }
    Ok(y)
}

fn correlated<T: Real + Number, F: Number>(
    gpu: &Gpu,
    g: &Geometry,
    images: &CudaView<T>,
    gradient: &CudaView<T>,
    [outputs, inputs]: [usize; 2],
) -> Result<CudaSlice<T>> {
    let taps = g.kernel * g.kernel;
    let count = outputs * inputs * taps;
    let mut matrix = gpu.empty::<T>(count)?;
    for (first, part) in portions(g, inputs) {
        let (start, rows) = (first * g.pixels(), part.batch * g.pixels());
        let here = images.slice(start * inputs..(start + rows) * inputs);
        let columns = neighbourhoods::<T, F>(gpu, &part, &here, inputs)?;
        let here = gradient.slice(start * outputs..(start + rows) * outputs);
        let gradient = neighbourhoods::<T, F>(gpu, &Geometry { kernel: 1, ..part }, &here, outputs)?;
        let before = if first > 0 { T::one() } else { T::zero() };
        let mut target = matrix.slice_mut(..);
        product(gpu, (&columns, true), &gradient, [taps * inputs, rows, outputs], before, &mut target)?;
    }
    let mut w = gpu.empty::<T>(count)?;
    let sizes = [size(outputs)?, size(inputs)?, size(taps)?];
    launch!(gpu, "restore", over(count), &matrix, &mut w, &sizes[0], &sizes[1], &sizes[2]);
    Ok(w)
}

/// First image and geometry of the parts whose neighbourhoods fit into memory together.
fn portions(g: &Geometry, channels: usize) -> impl Iterator<Item = (usize, Geometry)> + use<> {
    let g = *g;
    let image = g.pixels() * g.kernel * g.kernel * channels;
    let most = (MOST_NEIGHBOURS / image.max(1)).max(1);
    (0..g.batch).step_by(most).map(move |first| (first, Geometry { batch: most.min(g.batch - first), ..g }))
}

/// The k x k neighbourhood of every pixel, `[B Y X, k k C]`.
fn neighbourhoods<T: Real, F: Number>(
    gpu: &Gpu,
    g: &Geometry,
    images: &CudaView<T>,
    channels: usize,
) -> Result<CudaSlice<F>> {
    let numbers = g.batch * g.pixels() * g.kernel * g.kernel * channels;
    let mut columns = gpu.empty::<F>(numbers)?;
    // Four numbers at a time, where they are four neighbouring channels at a suitable address.
    let stream = gpu.device.cuda_stream();
    let aligned = images.device_ptr(&stream).0 % 16 == 0 && channels.is_multiple_of(4);
    let (kernel, step) = if aligned { ("unfold_four", 4) } else { ("unfold", 1) };
    let sizes = [g.height, g.width, channels / step, g.kernel, numbers / step].map(size);
    let [height, width, units, taps, total] = sizes;
    launch!(
        gpu,
        kernel,
        over(numbers / step),
        images,
        &mut columns,
        &height?,
        &width?,
        &units?,
        &taps?,
        &total?
    );
    Ok(columns)
}

/// c = a b + start c for matrices a `[rows, inner]` (given as its transpose if so said), b `[inner, columns]`.
fn product<T: Real + Number, F: Number>(
    gpu: &Gpu,
    (a, transposed): (&CudaSlice<F>, bool),
    b: &CudaSlice<F>,
    [rows, inner, columns]: [usize; 3],
    start: T,
    c: &mut CudaViewMut<T>,
) -> Result<()> {
    let (one, stream) = (T::one(), gpu.device.cuda_stream());
    let compute = match (T::TYPE, Precision::current()) {
        (cudaDataType_t::CUDA_R_64F, _) => cublasComputeType_t::CUBLAS_COMPUTE_64F,
        (_, Precision::Tf32) => cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
        _ => cublasComputeType_t::CUBLAS_COMPUTE_32F,
    };
    let (operation, stride) = match transposed {
        true => (cublasOperation_t::CUBLAS_OP_T, rows),
        false => (cublasOperation_t::CUBLAS_OP_N, inner),
    };
    let [rows, inner, columns, stride] = [rows, inner, columns, stride].map(|n| size(n).map(|n| n as i32));
    let (rows, inner, columns, stride) = (rows?, inner?, columns?, stride?);
    let ((a, _a), (b, _b), (c, _c)) =
        (a.device_ptr(&stream), b.device_ptr(&stream), c.device_ptr_mut(&stream));
    // SAFETY: cuBLAS is told the sizes with which the callers allocated the matrices. It counts columns first, so
    // this is c' = b' a'.
    unsafe {
        gemm_ex(
            *gpu.device.cublas_handle().handle(),
            cublasOperation_t::CUBLAS_OP_N,
            operation,
            columns,
            rows,
            inner,
            (&raw const one).cast(),
            b as *const _,
            F::TYPE,
            columns,
            a as *const _,
            F::TYPE,
            stride,
            (&raw const start).cast(),
            c as *mut _,
            T::TYPE,
            columns,
            compute,
            cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    }
    .w()
}
