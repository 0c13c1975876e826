//! Convolutions, each in the way that is fastest for it.

use candle_core::{
    CudaDevice, CudaStorage, Layout, Result,
    backend::BackendStorage,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::driver::{CudaSlice, CudaView},
    },
};

use super::{
    Gpu, Real, blocks, correlation,
    cudnn::{self, Job},
    launch, over,
    product::{Number, correlations, products, spread},
    size, values, with_real,
};
use crate::tensor::{conv_kernel::Geometry, layer::Direction, precision::Precision};

/// Numbers of images from which cuDNN is faster, whose calls take the host 0.2 ms each, and from which single precision is no
/// slower to read than to round.
const LARGE: usize = 1 << 23;

/// Inputs for each output from which [`spread`] is faster.
const MANY: usize = 4;

/// A tensor's memory and how it is laid out.
pub(in crate::tensor) type Place<'a> = (&'a CudaStorage, &'a Layout);

/// How a convolution is computed.
enum Way {
    /// In TF32, which is exact enough where bfloat16 is: large images, four channels at a time.
    Cudnn,
    /// By products of the images' own numbers.
    Own,
    /// By products of numbers rounded to bfloat16.
    Rounded,
}

impl Way {
    fn of<T: Real>(job: &Job) -> Self {
        let large = job.g.batch * job.g.pixels() * job.from >= LARGE;
        let fours = [job.from, job.to].iter().all(|channels| channels.is_multiple_of(4));
        match Precision::current() {
            _ if T::NAME != f32::NAME => Self::Own,
            Precision::Full => Self::Own,
            _ if large && fours && job.g.kernel > 1 => Self::Cudnn,
            Precision::Bf16 if !large => Self::Rounded,
            _ => Self::Own,
        }
    }
}

/// What a convolution is added to.
#[derive(Clone, Copy)]
pub(super) struct Start<'a, T> {
    /// `[O]`.
    pub(super) bias: &'a CudaView<'a, T>,
    /// Other images `[B, Y, X, O]`.
    pub(super) images: Option<&'a CudaView<'a, T>>,
}

/// Weights `[O, C, k, k]` on the device and how they are used.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a, T> {
    pub(super) values: &'a CudaView<'a, T>,
    pub(super) sizes: [usize; 3],
    pub(super) direction: Direction,
}

impl<T> Weights<'_, T> {
    /// The convolution of `batch` images of `height` x `width` pixels.
    pub(super) fn job(&self, [batch, height, width]: [usize; 3]) -> Job {
        let [outputs, inputs, kernel] = self.sizes;
        let (from, to) = match self.direction {
            Direction::Forward => (inputs, outputs),
            Direction::Adjoint => (outputs, inputs),
        };
        Job { g: Geometry { batch, height, width, kernel }, from, to }
    }
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
    let (outputs, inputs, kernel, _) = weights.1.shape().dims4()?;
    with_real!(images.0, T => {
        let device = images.0.device();
        let bias = bias.map(|(storage, layout)| values::<T>(storage, layout)).transpose()?;
        let start = bias.as_ref().map(|bias| Start { bias, images: None });
        let weights = Weights {
            values: &values::<T>(weights.0, weights.1)?,
            sizes: [outputs, inputs, kernel],
            direction,
        };
        let y = convolved(device, [g.batch, g.height, g.width], &values(images.0, images.1)?, weights, start)?;
        Ok(T::wrap_cuda_slice(y, device.clone()))
    })
}

/// Gradient `[O, C, k, k]` of the weights from that of the outputs `[B, Y, X, O]` and the images `[B, Y, X, C]`.
pub(in crate::tensor) fn correlate(
    g: &Geometry,
    images: Place,
    gradient: Place,
    [outputs, inputs]: [usize; 2],
) -> Result<CudaStorage> {
    let job = Job { g: *g, from: inputs, to: outputs };
    with_real!(images.0, T => {
        let device = images.0.device();
        let (images, gradient) = (values::<T>(images.0, images.1)?, values::<T>(gradient.0, gradient.1)?);
        Ok(T::wrap_cuda_slice(correlated(device, job, &images, &gradient)?, device.clone()))
    })
}

/// Sums `[C]` over all axes but the last.
pub(in crate::tensor) fn channel_sums(x: Place, channels: usize) -> Result<CudaStorage> {
    with_real!(x.0, T => {
        let device = x.0.device();
        let gpu = Gpu::new::<T>(device, Precision::Full)?;
        Ok(T::wrap_cuda_slice(summed(&gpu, &values::<T>(x.0, x.1)?, channels)?, device.clone()))
    })
}

/// Sums `[channels]` over rows.
pub(super) fn summed<T: Real>(gpu: &Gpu, x: &CudaView<T>, channels: usize) -> Result<CudaSlice<T>> {
    /// Pixels that one thread adds up.
    const EACH: usize = 32;
    let rows = x.len() / channels.max(1);
    let sum = |from: &CudaView<T>, rows: usize, parts: usize| -> Result<CudaSlice<T>> {
        let mut sums = gpu.empty::<T>(parts * channels)?;
        let kernel = gpu.kernel("channel_sums", channels, &[from]);
        launch!(gpu, kernel.name, blocks(parts, 1, 0), from, &mut sums, &size(rows)?, &size(channels)?);
        Ok(sums)
    };
    let parts = gpu.kernel("channel_sums", channels, &[x]).parts(rows, EACH);
    let sums = sum(x, rows, parts)?;
    if parts > 1 { sum(&sums.as_view(), parts, 1) } else { Ok(sums) }
}

/// The convolution of `images` added to `start`, or to nothing.
pub(super) fn convolved<T: Real + Number>(
    device: &CudaDevice,
    sizes: [usize; 3],
    images: &CudaView<T>,
    weights: Weights<T>,
    start: Option<Start<T>>,
) -> Result<CudaSlice<T>> {
    let job = weights.job(sizes);
    let many = job.g.kernel > 1 && job.from >= MANY * job.to;
    let gpu = Gpu::new::<T>(device, Precision::Full)?;
    match Way::of::<T>(&job) {
        Way::Cudnn if !many => {
            let matrix = arranged::<T, T>(&gpu, weights)?;
            cudnn::convolved(&gpu, job, images, &matrix.as_view(), start)
        }
        Way::Rounded => {
            let gpu = Gpu::new::<T>(device, Precision::Bf16)?;
            let convolved = if many { spread::<T, u16> } else { products::<T, u16> };
            convolved(&gpu, &job, images, weights, start)
        }
        Way::Cudnn | Way::Own => {
            let convolved = if many { spread::<T, T> } else { products::<T, T> };
            convolved(&gpu, &job, images, weights, start)
        }
    }
}

/// Gradient `[to, from, k, k]` of the weights.
pub(super) fn correlated<T: Real + Number>(
    device: &CudaDevice,
    job: Job,
    images: &CudaView<T>,
    gradient: &CudaView<T>,
) -> Result<CudaSlice<T>> {
    let gpu = Gpu::new::<T>(device, Precision::Full)?;
    let matrix = match Way::of::<T>(&job) {
        Way::Cudnn if correlation::serves(&job) => {
            return correlation::correlated(device, job, images, gradient);
        }
        Way::Cudnn => cudnn::correlated(&gpu, job, images, gradient)?,
        Way::Own => correlations::<T, T>(&gpu, &job, images, gradient)?,
        Way::Rounded => {
            correlations::<T, u16>(&Gpu::new::<T>(device, Precision::Bf16)?, &job, images, gradient)?
        }
    };
    let mut w = gpu.empty::<T>(matrix.len())?;
    let sizes = [size(job.to)?, size(job.from)?, size(job.g.kernel * job.g.kernel)?];
    launch!(gpu, "restore", over(matrix.len()), &matrix, &mut w, &sizes[0], &sizes[1], &sizes[2]);
    Ok(w)
}

/// Weights `[O, C, k, k]` as `[O, k, k, C]`, or flipped as `[C, k, k, O]`.
pub(super) fn arranged<T: Real, F: Number>(gpu: &Gpu, weights: Weights<T>) -> Result<CudaSlice<F>> {
    let [outputs, inputs, kernel] = weights.sizes;
    let name = match weights.direction {
        Direction::Forward => "arrange",
        Direction::Adjoint => "arrange_adjoint",
    };
    let count = weights.values.len();
    let mut matrix = gpu.empty::<F>(count)?;
    let sizes = [size(outputs)?, size(inputs)?, size(kernel * kernel)?];
    launch!(gpu, name, over(count), weights.values, &mut matrix, &sizes[0], &sizes[1], &sizes[2]);
    Ok(matrix)
}
