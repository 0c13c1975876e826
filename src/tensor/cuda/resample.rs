//! Changes of image size.

use candle_core::{
    CudaStorage, Result,
    backend::BackendStorage,
    cuda_backend::{CudaDType, WrapErr},
};

use super::{Gpu, conv::Place, launch, over, size, values, with_real};
use crate::tensor::precision::Precision;

/// Sums over 2 x 2 pixels of `[B, Y, X, C]`, times `factor`.
pub(in crate::tensor) fn coarsen(x: Place, factor: f64) -> Result<CudaStorage> {
    let (batch, height, width, channels) = x.1.shape().dims4()?;
    resampled("coarsen", x, factor, [batch, height / 2, width / 2, channels])
}

/// Each pixel of `[B, Y, X, C]` four times, times `factor`.
pub(in crate::tensor) fn refine(x: Place, factor: f64) -> Result<CudaStorage> {
    let (batch, height, width, channels) = x.1.shape().dims4()?;
    resampled("refine", x, factor, [batch, 2 * height, 2 * width, channels])
}

fn resampled(kernel: &str, x: Place, factor: f64, shape: [usize; 4]) -> Result<CudaStorage> {
    with_real!(x.0, T => {
        let device = x.0.device().clone();
        let gpu = Gpu::new::<T>(&device, Precision::Full)?;
        let x = values::<T>(x.0, x.1)?;
        let count = shape.iter().product();
        let mut y = gpu.empty::<T>(count)?;
        let [height, width, channels, total] = [shape[1], shape[2], shape[3], count].map(size);
        let factor = <T as candle_core::WithDType>::from_f64(factor);
        launch!(
            gpu, kernel, over(count), &x, &mut y, &height?, &width?, &channels?, &factor, &total?
        );
        Ok(T::wrap_cuda_slice(y, device))
    })
}
