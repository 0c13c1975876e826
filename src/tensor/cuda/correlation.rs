//! Gradients of the weights of 3 x 3 convolutions in TF32, for fewer channels than cuDNN's kernels are made for.

use candle_core::{
    CudaDevice, Result,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{
            CudaSlice, CudaView, LaunchConfig,
            sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        },
    },
};

use super::{Gpu, Real, cudnn::Job, launch, over, size};

/// Inputs or outputs of one block, as the kernel has them.
const CHANNELS: usize = 32;
/// Blocks that a multiprocessor runs at a time, and threads of each.
const BLOCKS: usize = 3;
const THREADS: u32 = 9 * 32;
/// With more inputs or outputs, cuDNN is as fast.
const MOST_CHANNELS: usize = 64;

/// Whether these kernels are the faster ones.
pub(super) fn serves(job: &Job) -> bool {
    job.g.kernel == 3 && job.from.max(job.to) <= MOST_CHANNELS
}

/// Gradient `[to, from, 3, 3]` of the weights from that of the outputs, in single precision.
pub(super) fn correlated<T: Real>(
    device: &CudaDevice,
    Job { g, from, to }: Job,
    images: &CudaView<T>,
    gradient: &CudaView<T>,
) -> Result<CudaSlice<T>> {
    let gpu = Gpu::with_tensor_cores(device)?;
    let processors =
        device.cuda_stream().context().attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).w()?;
    let (inputs, outputs) = (from.div_ceil(CHANNELS), to.div_ceil(CHANNELS));
    let parts = (BLOCKS * processors as usize / (inputs * outputs)).clamp(1, g.batch * g.pixels());
    let count = to * 9 * from;
    let mut sums = gpu.empty::<T>(parts * count)?;
    let blocks = LaunchConfig {
        grid_dim: (size(parts)?, size(inputs)?, size(outputs)?),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: 0,
    };
    let [batch, height, width, from, to] = [g.batch, g.height, g.width, from, to].map(size);
    let from = from?;
    launch!(gpu, "correlate", blocks, images, gradient, &mut sums, &batch?, &height?, &width?, &from, &to?);
    let mut weights = gpu.empty::<T>(count)?;
    launch!(gpu, "gather", over(count), &sums, &mut weights, &size(parts)?, &from, &size(count)?);
    Ok(weights)
}
