//! Convolutions: by cuDNN where it serves them, elsewhere as matrix products of every pixel's neighbourhood and the weights.

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

use super::{
    Gpu, Real, blocks,
    cudnn::{self, Job},
    launch, over, parts, size, values, with_real,
};
use crate::tensor::{conv_kernel::Geometry, layer::Direction, precision::Precision};

/// Numbers of the neighbourhoods that are in memory at a time.
const MOST_NEIGHBOURS: usize = 1 << 26;

/// Numbers of images from which cuDNN is faster.
const LEAST_FOR_CUDNN: usize = 1 << 23;

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

/// Whether cuDNN takes a convolution: in TF32, of images so large that its kernels make up for the time that it takes to
/// start them, and four channels at a time.
fn serves(images: &CudaStorage, job: &Job) -> bool {
    images.dtype() == DType::F32
        && Precision::current() == Precision::Tf32
        && job.g.kernel > 1
        && job.g.batch * job.g.pixels() * job.from >= LEAST_FOR_CUDNN
        && [job.from, job.to].iter().all(|channels| channels.is_multiple_of(4))
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
    let device = images.0.device().clone();
    let (outputs, inputs, _, _) = weights.1.shape().dims4()?;
    let (from, to) = match direction {
        Direction::Forward => (inputs, outputs),
        Direction::Adjoint => (outputs, inputs),
    };
    let job = Job { g: *g, from, to };
    if serves(images.0, &job) {
        let gpu = Gpu::new::<f32>(&device, Precision::current())?;
        let matrix = arranged::<f32, f32>(&gpu, weights, direction)?;
        let (mut y, start) = biased::<f32>(&gpu, &job, bias)?;
        cudnn::convolve(&gpu, job, &values(images.0, images.1)?, &matrix, start, &mut y)?;
        return Ok(f32::wrap_cuda_slice(y, device));
    }
    with_factors!(images.0, T, F => {
        let gpu = Gpu::new::<T>(&device, Precision::current())?;
        let matrix = arranged::<T, F>(&gpu, weights, direction)?;
        let (mut y, start) = biased::<T>(&gpu, &job, bias)?;
        add_products::<T, F>(&gpu, &job, &values(images.0, images.1)?, &matrix, start, &mut y)?;
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
    let device = images.0.device().clone();
    let job = Job { g: *g, from: inputs, to: outputs };
    if serves(images.0, &job) {
        let gpu = Gpu::new::<f32>(&device, Precision::current())?;
        let (images, gradient) = (values(images.0, images.1)?, values(gradient.0, gradient.1)?);
        let w = restored(&gpu, &job, &cudnn::correlated(&gpu, job, &images, &gradient)?)?;
        return Ok(f32::wrap_cuda_slice(w, device));
    }
    with_factors!(images.0, T, F => {
        let gpu = Gpu::new::<T>(&device, Precision::current())?;
        let (images, gradient) = (values::<T>(images.0, images.1)?, values::<T>(gradient.0, gradient.1)?);
        let w = restored(&gpu, &job, &correlated::<T, F>(&gpu, &job, &images, &gradient)?)?;
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

/// Weights `[O, C, k, k]` as `[O, k, k, C]`, or flipped as `[C, k, k, O]`.
fn arranged<T: Real, F: Number>(gpu: &Gpu, weights: Place, direction: Direction) -> Result<CudaSlice<F>> {
    let (outputs, inputs, height, width) = weights.1.shape().dims4()?;
    let kernel = match direction {
        Direction::Forward => "arrange",
        Direction::Adjoint => "arrange_adjoint",
    };
    let weights = values::<T>(weights.0, weights.1)?;
    let mut matrix = gpu.empty::<F>(weights.len())?;
    let sizes = [size(outputs)?, size(inputs)?, size(height * width)?];
    launch!(gpu, kernel, over(weights.len()), &weights, &mut matrix, &sizes[0], &sizes[1], &sizes[2]);
    Ok(matrix)
}

/// A gradient `[O, k, k, C]` as `[O, C, k, k]`.
fn restored<T: Real>(gpu: &Gpu, job: &Job, matrix: &CudaSlice<T>) -> Result<CudaSlice<T>> {
    let mut w = gpu.empty::<T>(matrix.len())?;
    let sizes = [size(job.to)?, size(job.from)?, size(job.g.kernel * job.g.kernel)?];
    launch!(gpu, "restore", over(matrix.len()), matrix, &mut w, &sizes[0], &sizes[1], &sizes[2]);
    Ok(w)
}

/// Where a convolution is added, and how much of what is there counts: the bias, or nothing.
fn biased<T: Real>(gpu: &Gpu, job: &Job, bias: Option<Place>) -> Result<(CudaSlice<T>, T)> {
    let mut y = gpu.empty::<T>(job.g.batch * job.g.pixels() * job.to)?;
    let Some((storage, layout)) = bias else { return Ok((y, T::zero())) };
    let (bias, count) = (values::<T>(storage, layout)?, y.len());
    launch!(gpu, "repeat_row", over(count), &bias, &mut y, &size(job.to)?, &size(count)?);
    Ok((y, T::one()))
}

/// Adds the products of neighbourhoods and weights to `start` times `y`.
fn add_products<T: Real + Number, F: Number>(
    gpu: &Gpu,
    &Job { g, from, to }: &Job,
    images: &CudaView<T>,
    matrix: &CudaSlice<F>,
    start: T,
    y: &mut CudaSlice<T>,
) -> Result<()> {
    for (first, part) in portions(&g, from) {
        let (before, rows) = (first * g.pixels(), part.batch * g.pixels());
        let here = images.slice(before * from..(before + rows) * from);
        let columns = neighbourhoods::<T, F>(gpu, &part, &here, from)?;
        let mut target = y.slice_mut(before * to..(before + rows) * to);
        let sizes = [rows, g.kernel * g.kernel * from, to];
        product(gpu, (&columns, false), (matrix, true), sizes, start, &mut target)?;
    }
    Ok(())
}

/// Gradient `[to, k, k, from]` of the weights.
fn correlated<T: Real + Number, F: Number>(
    gpu: &Gpu,
    &Job { g, from, to }: &Job,
    images: &CudaView<T>,
    gradient: &CudaView<T>,
) -> Result<CudaSlice<T>> {
    let taps = g.kernel * g.kernel;
    let mut matrix = gpu.empty::<T>(to * taps * from)?;
    for (first, part) in portions(&g, from) {
        let (before, rows) = (first * g.pixels(), part.batch * g.pixels());
        let here = images.slice(before * from..(before + rows) * from);
        let columns = neighbourhoods::<T, F>(gpu, &part, &here, from)?;
        let here = gradient.slice(before * to..(before + rows) * to);
        let gradient = neighbourhoods::<T, F>(gpu, &Geometry { kernel: 1, ..part }, &here, to)?;
        let start = if first > 0 { T::one() } else { T::zero() };
        let sizes = [to, rows, taps * from];
        product(gpu, (&gradient, true), (&columns, false), sizes, start, &mut matrix.slice_mut(..))?;
    }
    Ok(matrix)
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

/// c = a b + start c for matrices a `[rows, inner]` and b `[inner, columns]`, each given as its transpose if so said.
fn product<T: Real + Number, F: Number>(
    gpu: &Gpu,
    (a, a_transposed): (&CudaSlice<F>, bool),
    (b, b_transposed): (&CudaSlice<F>, bool),
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
    let given = |transposed, [height, width]: [usize; 2]| match transposed {
        true => (cublasOperation_t::CUBLAS_OP_T, size(height)),
        false => (cublasOperation_t::CUBLAS_OP_N, size(width)),
    };
    let (a_operation, a_stride) = given(a_transposed, [rows, inner]);
    let (b_operation, b_stride) = given(b_transposed, [inner, columns]);
    let (a_stride, b_stride) = (a_stride? as i32, b_stride? as i32);
    let [rows, inner, columns] = [rows, inner, columns].map(|n| size(n).map(|n| n as i32));
    let (rows, inner, columns) = (rows?, inner?, columns?);
    let ((a, _a), (b, _b), (c, _c)) =
        (a.device_ptr(&stream), b.device_ptr(&stream), c.device_ptr_mut(&stream));
    // SAFETY: cuBLAS is told the sizes with which the callers allocated the matrices. It counts columns first, so
    // this is c' = b' a'.
    unsafe {
        gemm_ex(
            *gpu.device.cublas_handle().handle(),
            b_operation,
            a_operation,
            columns,
            rows,
            inner,
            (&raw const one).cast(),
            b as *const _,
            F::TYPE,
            b_stride,
            a as *const _,
            F::TYPE,
            a_stride,
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
