//! The devices of this machine: laws hold on each of them.

use antumbra::compute::Compute;
use candle_core::{DType, Device};

fn all(dtype: DType) -> Vec<Compute> {
    let gpu = Device::new_cuda(0).ok();
    [Device::Cpu].into_iter().chain(gpu).map(|device| Compute { device, dtype }).collect()
}

/// Every device in single precision.
pub fn single() -> Vec<Compute> {
    all(DType::F32)
}

/// Every device in double precision.
pub fn double() -> Vec<Compute> {
    all(DType::F64)
}
