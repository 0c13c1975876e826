//! Images times one number each.

use candle_core::{
    CudaStorage, Result,
    backend::BackendStorage,
    cuda_backend::{CudaDType, WrapErr},
};

use super::{Gpu, conv::Place, launch, over, size, values, with_real};
use crate::tensor::precision::Precision;

/// Every image of `x` `[B, ...]` times its number in `factors` `[B]`.
pub(in crate::tensor) fn scaled(x: Place, factors: Place) -> Result<CudaStorage> {
    with_real!(x.0, T => {
        let device = x.0.device();
        let gpu = Gpu::new::<T>(device, Precision::Full)?;
        let (x, factors) = (values::<T>(x.0, x.1)?, values::<T>(factors.0, factors.1)?);
        let count = x.len();
        let mut y = gpu.empty::<T>(count)?;
        let (each, total) = (size(count / factors.len().max(1))?, size(count)?);
        launch!(gpu, "scale", over(count), &x, &factors, &mut y, &each, &total);
        Ok(T::wrap_cuda_slice(y, device.clone()))
    })
}
