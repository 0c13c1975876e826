//! Convolutions as matrix products, of every pixel's neighbourhood or of every tap.

use candle_core::{
    Result,
    cuda_backend::{
        WrapErr,
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
    Gpu, Real,
    conv::{Start, Weights, arranged},
    cudnn::Job,
    launch, over, size,
};
use crate::tensor::{conv_kernel::Geometry, precision::Precision};

/// Numbers of the neighbourhoods that are in memory at a time.
const MOST_NEIGHBOURS: usize = 1 << 26;

/// A number type of matrices.
pub(super) trait Number: DeviceRepr {
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

/// The products of neighbourhoods and weights, added to `start`.
pub(super) fn products<T: Real + Number, F: Number>(
    gpu: &Gpu,
    job: &Job,
    images: &CudaView<T>,
    weights: Weights<T>,
    start: Option<Start<T>>,
) -> Result<CudaSlice<T>> {
    let &Job { g, from, to } = job;
    let matrix = arranged::<T, F>(gpu, weights)?;
    let mut y = gpu.empty::<T>(g.batch * g.pixels() * to)?;
    let kept = if start.is_some() { T::one() } else { T::zero() };
    if let Some(Start { bias, images }) = start {
        add_row(gpu, bias, images, &mut y)?;
    }
    for (first, part) in portions(&g, from) {
        let (before, rows) = (first * g.pixels(), part.batch * g.pixels());
        let here = images.slice(before * from..(before + rows) * from);
        let columns = neighbourhoods::<T, F>(gpu, &part, &here, from)?;
        let mut target = y.slice_mut(before * to..(before + rows) * to);
        let sizes = [rows, g.kernel * g.kernel * from, to];
        product(gpu, (&columns.view(), false), (&matrix.as_view(), true), sizes, kept, &mut target)?;
    }
    Ok(y)
}

/// The products of pixels and the weights of every tap, collected where each tap wants them: fewer numbers than neighbourhoods
/// where outputs are few.
pub(super) fn spread<T: Real + Number, F: Number>(
    gpu: &Gpu,
    job: &Job,
    images: &CudaView<T>,
    weights: Weights<T>,
    start: Option<Start<T>>,
) -> Result<CudaSlice<T>> {
    let &Job { g, from, to } = job;
    let (matrix, taps) = (arranged::<T, F>(gpu, weights)?, g.kernel * g.kernel);
    let (bias, others) = (start.map(|start| start.bias), start.and_then(|start| start.images));
    let mut y = gpu.empty::<T>(g.batch * g.pixels() * to)?;
    for (first, part) in portions(&g, to) {
        let (before, rows) = (first * g.pixels(), part.batch * g.pixels());
        let here = images.slice(before * from..(before + rows) * from);
        let pixels = neighbourhoods::<T, F>(gpu, &Geometry { kernel: 1, ..part }, &here, from)?;
        let mut products = gpu.empty::<T>(rows * taps * to)?;
        let (pixels, matrix) = ((&pixels.view(), false), (&matrix.as_view(), true));
        product(gpu, pixels, matrix, [rows, from, taps * to], T::zero(), &mut products.slice_mut(..))?;
        let numbers = before * to..(before + rows) * to;
        let others = others.map(|others| others.slice(numbers.clone()));
        let (bias, others) = (gpu.address(bias), gpu.address(others.as_ref()));
        let [height, width, outputs, kernel, total] = [g.height, g.width, to, g.kernel, rows * to].map(size);
        launch!(
            gpu,
            "collect",
            over(rows * to),
            &products,
            &bias,
            &others,
            &mut y.slice_mut(numbers),
            &height?,
            &width?,
            &outputs?,
            &kernel?,
            &total?
        );
    }
    Ok(y)
}

/// Writes images plus bias, or the bias alone.
fn add_row<T: Real>(
    gpu: &Gpu,
    bias: &CudaView<T>,
    images: Option<&CudaView<T>>,
    y: &mut CudaSlice<T>,
) -> Result<()> {
    let count = y.len();
    let images = gpu.address(images);
    launch!(gpu, "add_row", over(count), bias, &images, y, &size(bias.len())?, &size(count)?);
    Ok(())
}

/// Gradient `[to, k, k, from]` of the weights.
pub(super) fn correlations<T: Real + Number, F: Number>(
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
        let (gradient, columns) = ((&gradient.view(), true), (&columns.view(), false));
        product(gpu, gradient, columns, sizes, start, &mut matrix.slice_mut(..))?;
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

/// Numbers that were arranged for a product, or that lie as it needs them.
enum Columns<'a, F> {
    Arranged(CudaSlice<F>),
    Given(CudaView<'a, F>),
}

impl<F: DeviceRepr> Columns<'_, F> {
    fn view(&self) -> CudaView<'_, F> {
        match self {
            Self::Arranged(columns) => columns.as_view(),
            Self::Given(columns) => columns.slice(..),
        }
    }
}

/// The k x k neighbourhood of every pixel, `[B Y X, k k C]`.
fn neighbourhoods<'a, T: Real + Number, F: Number>(
    gpu: &Gpu,
    g: &Geometry,
    images: &CudaView<'a, T>,
    channels: usize,
) -> Result<Columns<'a, F>> {
    let numbers = g.batch * g.pixels() * g.kernel * g.kernel * channels;
    if g.kernel == 1 && T::TYPE == F::TYPE {
        // SAFETY: both are the same type.
        if let Some(given) = unsafe { images.transmute::<F>(numbers) } {
            return Ok(Columns::Given(given));
        }
    }
    let mut columns = gpu.empty::<F>(numbers)?;
    let kernel = gpu.kernel("unfold", channels, &[images]);
    let sizes = [g.height, g.width, kernel.units, g.kernel, numbers / kernel.step].map(size);
    let [height, width, units, taps, total] = sizes;
    launch!(
        gpu,
        kernel.name,
        over(numbers / kernel.step),
        images,
        &mut columns,
        &height?,
        &width?,
        &units?,
        &taps?,
        &total?
    );
    Ok(Columns::Arranged(columns))
}

/// c = a b + start c for matrices a `[rows, inner]` and b `[inner, columns]`, each given as its transpose if so said.
fn product<T: Real + Number, F: Number>(
    gpu: &Gpu,
    (a, a_transposed): (&CudaView<F>, bool),
    (b, b_transposed): (&CudaView<F>, bool),
    [rows, inner, columns]: [usize; 3],
    start: T,
    c: &mut CudaViewMut<T>,
) -> Result<()> {
    let (one, stream) = (T::one(), gpu.device.cuda_stream());
    let compute = match (F::TYPE, Precision::current()) {
        (cudaDataType_t::CUDA_R_64F, _) => cublasComputeType_t::CUBLAS_COMPUTE_64F,
        (cudaDataType_t::CUDA_R_32F, Precision::Tf32 | Precision::Bf16) => {
            cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
        }
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
