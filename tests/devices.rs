//! The devices of this machine: laws hold on each of them.

use antumbra::compute::Compute;
use candle_core::{DType, Device};

/// The CPU and every GPU.
fn all(dtype: DType) -> Vec<Compute> {
    let gpus = (0..).map_while(|index| Device::new_cuda(index).ok());
    [Device::Cpu].into_iter().chain(gpus).map(|device| Compute { device, dtype }).collect()
}

/// Every device in single precision.
pub fn single() -> Vec<Compute> {
    all(DType::F32)
}

/// Every device in double precision.
pub fn double() -> Vec<Compute> {
    all(DType::F64)
}
