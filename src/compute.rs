//! Where tensors live and in which precision: the only place that picks CPU or GPU.

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result, transfer::Transfer};

/// Device and floating-point type of every tensor of a run.
#[derive(Debug, Clone)]
pub struct Compute {
    /// CPU or one GPU.
    pub device: Device,
    /// f32 for runs, f64 where a test needs it.
    pub dtype: DType,
}

impl Compute {
    /// Single precision on the CPU.
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, dtype: DType::F32 }
    }

    /// Double precision on the CPU.
    pub fn cpu_f64() -> Self {
        Self { device: Device::Cpu, dtype: DType::F64 }
    }

    /// The device named on the command line: `auto`, `cpu` or `cuda:N`.
    ///
    /// # Errors
    /// An unknown name, or a GPU that this binary or machine does not have.
    pub fn named(name: &str) -> Result<Self> {
        let cuda = |index| -> candle_core::Result<Device> {
            let device = Device::new_cuda(index)?;
            #[cfg(feature = "cuda")]
            crate::tensor::keep_freed_memory(device.as_cuda_device()?)?;
            Ok(device)
        };
        let device = match name {
            "cpu" => Device::Cpu,
            "auto" => cuda(0).unwrap_or(Device::Cpu),
            _ => {
                let index = name
                    .strip_prefix("cuda:")
                    .and_then(|n| n.parse().ok())
                    .ok_or_else(|| Error::config("--device", format!("`{name}`; use auto, cpu or cuda:N")))?;
                cuda(index).map_err(|_| {
                    Error::config("--device", format!("{name} cannot be used here; use --device cpu"))
                })?
            }
        };
        Ok(Self { device, dtype: DType::F32 })
    }

    /// `cpu`, or `cuda:N`.
    pub fn name(&self) -> String {
        match self.device.location() {
            candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
            candle_core::DeviceLocation::Cpu => "cpu".into(),
        }
    }

    /// A tensor of this device and precision from host values.
    ///
    /// # Errors
    /// A shape that does not hold `values`.
    pub fn tensor(&self, values: Vec<f64>, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype)?.transfer(&self.device)?)
    }
}

/// Keeps freed memory for the next allocation. Each step of a run asks for the same large blocks again; glibc returns
/// such blocks to the system at once, which costs a fifth of the time in page faults.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: both calls only set limits of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}
