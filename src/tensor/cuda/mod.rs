//! The operations of this module's parent on NVIDIA GPUs: own kernels, compiled when first used, cuBLAS and cuDNN.

mod conv;
mod correlation;
mod cudnn;
mod memory;
mod norm;
mod product;
mod resample;
mod residual;
mod scale;

use std::sync::OnceLock;

use super::precision::Precision;

use candle_core::{
    CudaDevice, CudaStorage, Layout, Result, WithDType, bail,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::{
            driver::{
                CudaFunction, CudaSlice, CudaView, DevicePtr, DeviceRepr, LaunchConfig, ValidAsZeroBits,
            },
            nvrtc::{CompileOptions, compile_ptx_with_opts},
        },
    },
};

pub(crate) use self::memory::keep_freed_memory;
pub(super) use self::{
    conv::{Place, channel_sums, convolve, correlate},
    norm::{modulated, modulated_gradient},
    resample::{coarsen, join, part, refine},
    residual::{Arguments, block, block_gradient},
    scale::scaled,
};

const SOURCE: &str = concat!(
    include_str!("kernels/common.cu"),
    include_str!("kernels/conv.cu"),
    include_str!("kernels/norm.cu"),
    include_str!("kernels/resample.cu"),
);
const ON_TENSOR_CORES: &str = include_str!("kernels/correlation.cu");
/// Threads of a block; `channel_totals` has room for as many.
const THREADS: u32 = 256;
/// Blocks of a loop over numbers: enough to fill the largest cards several times.
const MOST_BLOCKS: u32 = 1 << 14;
/// Blocks of a walk over the pixels of one image.
const MOST_PARTS: usize = 1 << 10;
/// The kernels count in 32 bits.
const MOST_NUMBERS: usize = i32::MAX as usize;

/// f32 or f64 on a GPU.
pub(super) trait Real: CudaDType + DeviceRepr + ValidAsZeroBits + WithDType {
    /// Name in CUDA.
    const NAME: &'static str;
    /// Where compiled kernels are kept: those that multiply in full precision, and in 16 bits.
    fn compiled() -> &'static [OnceLock<String>; 2];
}

impl Real for f32 {
    const NAME: &'static str = "float";
    fn compiled() -> &'static [OnceLock<String>; 2] {
        static COMPILED: [OnceLock<String>; 2] = [const { OnceLock::new() }; 2];
        &COMPILED
    }
}

impl Real for f64 {
    const NAME: &'static str = "double";
    fn compiled() -> &'static [OnceLock<String>; 2] {
        static COMPILED: [OnceLock<String>; 2] = [const { OnceLock::new() }; 2];
        &COMPILED
    }
}

/// Runs `body` with the type `T` of the numbers in `storage`.
macro_rules! with_real {
    ($storage:expr, $T:ident => $body:expr) => {
        match candle_core::backend::BackendStorage::dtype($storage) {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => candle_core::bail!("{other:?} is neither f32 nor f64"),
        }
    };
}
pub(super) use with_real;

/// What a kernel reads: the numbers of a contiguous tensor.
fn values<'a, T: Real>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("a tensor is not contiguous") };
    if end - start > MOST_NUMBERS {
        bail!("a tensor of {} numbers is too large for the GPU; use smaller batches", end - start);
    }
    Ok(storage.as_cuda_slice::<T>()?.slice(start..end))
}

/// Kernels of one number type on one device.
struct Gpu<'a> {
    device: &'a CudaDevice,
    ptx: &'static str,
    module: &'static str,
}

impl<'a> Gpu<'a> {
    /// Kernels for `T` whose matrix products multiply in the given precision.
    fn new<T: Real>(device: &'a CudaDevice, precision: Precision) -> Result<Self> {
        let brain = precision == Precision::Bf16 && T::NAME == f32::NAME;
        let (factor, module) = match (brain, T::NAME) {
            (true, _) => ("BRAIN", "antumbra-brain"),
            (false, "float") => ("float", "antumbra-float"),
            (false, _) => ("double", "antumbra-double"),
        };
        let slot = &T::compiled()[usize::from(brain)];
        let ptx = match slot.get() {
            Some(ptx) => ptx,
            None => {
                let ptx = compile(SOURCE, vec![format!("-DREAL={}", T::NAME), format!("-DFACTOR={factor}")])?;
                slot.get_or_init(|| ptx)
            }
        };
        Ok(Self { device, ptx, module })
    }

    /// Kernels that multiply on tensor cores, in single precision.
    fn with_tensor_cores(device: &'a CudaDevice) -> Result<Self> {
        static COMPILED: OnceLock<String> = OnceLock::new();
        let ptx = match COMPILED.get() {
            Some(ptx) => ptx,
            None => {
                let ptx = compile(ON_TENSOR_CORES, vec!["--gpu-architecture=compute_80".into()])?;
                COMPILED.get_or_init(|| ptx)
            }
        };
        Ok(Self { device, ptx, module: "antumbra-tensor-cores" })
    }

    fn empty<T: DeviceRepr>(&self, count: usize) -> Result<CudaSlice<T>> {
        // SAFETY: every kernel writes all numbers of its result.
        unsafe { self.device.alloc(count) }
    }

    /// The kernel `name` for so many channels of these numbers: where they come in fours at a suitable address, it reads
    /// four at a time.
    fn kernel<T>(&self, name: &str, channels: usize, numbers: &[&CudaView<T>]) -> ByChannels {
        let stream = self.device.cuda_stream();
        let aligned = numbers.iter().all(|numbers| numbers.device_ptr(&stream).0 % 16 == 0);
        match aligned && channels.is_multiple_of(4) {
            true => ByChannels { name: format!("{name}_four"), step: 4, units: channels / 4 },
            false => ByChannels { name: name.into(), step: 1, units: channels },
        }
    }

    /// Where numbers are that a kernel can do without.
    fn address<T>(&self, numbers: Option<&CudaView<T>>) -> u64 {
        numbers.map_or(0, |numbers| numbers.device_ptr(&self.device.cuda_stream()).0)
    }

    fn function(&self, name: &str) -> Result<CudaFunction> {
        Ok(self.device.get_or_load_custom_func(name, self.module, self.ptx)?.into_cuda_function())
    }
}

/// A kernel that reads `step` channels at a time.
struct ByChannels {
    name: String,
    step: usize,
    /// Channels / `step`.
    units: usize,
}

impl ByChannels {
    /// Blocks that walk over `pixels` so that each thread sees about `each` of them.
    fn parts(&self, pixels: usize, each: usize) -> usize {
        let threads = THREADS as usize;
        let down = threads / self.units.clamp(1, threads);
        pixels.div_ceil(down * each).clamp(1, MOST_PARTS)
    }
}

/// Launches a kernel of a [`Gpu`] with these arguments.
macro_rules! launch {
    ($gpu:expr, $kernel:expr, $config:expr, $($argument:expr),+ $(,)?) => {{
        use candle_core::cuda_backend::cudarc::driver::PushKernelArg as _;
        let (function, stream) = ($gpu.function(&$kernel)?, $gpu.device.cuda_stream());
        // SAFETY: the arguments have the kernel's types and the sizes that are passed with them.
        unsafe { stream.launch_builder(&function)$(.arg($argument))+.launch($config) }.w()?;
    }};
}
use launch;

/// A loop over `count` numbers.
fn over(count: usize) -> LaunchConfig {
    let blocks = (count.min(MOST_NUMBERS) as u32).div_ceil(THREADS).clamp(1, MOST_BLOCKS);
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}

/// `parts` blocks for each of `images`, each with room for `shared` bytes.
fn blocks(parts: usize, images: usize, shared: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (parts as u32, images as u32, 1),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: shared as u32,
    }
}

/// A size as the kernels take it.
fn size(count: usize) -> Result<u32> {
    match u32::try_from(count) {
        Ok(size) if count <= MOST_NUMBERS => Ok(size),
        _ => bail!("{count} numbers are too many for one kernel of the GPU; use smaller batches"),
    }
}

/// The kernels' machine code for any card that knows their instructions.
fn compile(source: &str, options: Vec<String>) -> Result<String> {
    let options = CompileOptions { options, ..CompileOptions::default() };
    Ok(compile_ptx_with_opts(source, options).w()?.to_src())
}
