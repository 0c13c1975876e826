//! What a GPU is told about memory before its first use.

use candle_core::{
    CudaDevice, DeviceLocation, Result,
    backend::BackendDevice,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{
            result::{device, mem_pool},
            sys::CUmemPool_attribute,
        },
    },
};

/// Keeps freed memory for the next allocation, and makes allocations cheap.
///
/// By default the driver takes freed memory back whenever the host waits for the device, and each step of a run would map the
/// same gigabytes again.
pub(crate) fn keep_freed_memory(gpu: &CudaDevice) -> Result<()> {
    let DeviceLocation::Cuda { gpu_id } = gpu.location() else { return Ok(()) };
    let (mut bytes, threshold) = (u64::MAX, CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD);
    // SAFETY: the device exists, and the attribute is a number of 64 bits. The events of tensors, of which every allocation
    // makes two, order nothing while a thread has one stream, as all threads have here.
    unsafe {
        gpu.disable_event_tracking();
        let pool = device::get_mem_pool(device::get(gpu_id as i32).w()?).w()?;
        mem_pool::set_attribute(pool, threshold, (&raw mut bytes).cast()).w()
    }
}
