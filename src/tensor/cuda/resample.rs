//! Changes of image size and number of channels.

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

fn resampled(name: &str, x: Place, factor: f64, shape: [usize; 4]) -> Result<CudaStorage> {
    with_real!(x.0, T => {
        let device = x.0.device();
        let gpu = Gpu::new::<T>(device, Precision::Full)?;
        let x = values::<T>(x.0, x.1)?;
        let count: usize = shape.iter().product();
        let mut y = gpu.empty::<T>(count)?;
        let kernel = gpu.kernel(name, shape[3], &[&x]);
        let total = count / kernel.step;
        let [height, width, units, total_size] = [shape[1], shape[2], kernel.units, total].map(size);
        let factor = <T as candle_core::WithDType>::from_f64(factor);
        launch!(
            gpu, kernel.name, over(total), &x, &mut y, &height?, &width?, &units?, &factor, &total_size?
        );
        Ok(T::wrap_cuda_slice(y, device.clone()))
    })
}

/// `[B, Y/2, X/2, C]`, each pixel four times, and `[B, Y, X, D]` as `[B, Y, X, C + D]`.
pub(in crate::tensor) fn join(x: Place, y: Place) -> Result<CudaStorage> {
    let ((.., channels), (batch, height, width, others)) = (x.1.shape().dims4()?, y.1.shape().dims4()?);
    with_real!(x.0, T => {
        let device = x.0.device();
        let gpu = Gpu::new::<T>(device, Precision::Full)?;
        let (x, y) = (values::<T>(x.0, x.1)?, values::<T>(y.0, y.1)?);
        let count = batch * height * width * (channels + others);
        let mut joined = gpu.empty::<T>(count)?;
        // Both parts come in fours, or neither is read so.
        let kernel = gpu.kernel("join", channels | others, &[&x, &y]);
        let (total, step) = (count / kernel.step, kernel.step);
        let [height, width, units, others, total_size] =
            [height, width, channels / step, others / step, total].map(size);
        launch!(
            gpu,
            kernel.name,
            over(total),
            &x,
            &y,
            &mut joined,
            &height?,
            &width?,
            &units?,
            &others?,
            &total_size?
        );
        Ok(T::wrap_cuda_slice(joined, device.clone()))
    })
}

/// `chosen` channels from `first` on of `[pixels, channels]`.
pub(in crate::tensor) fn part(x: Place, [first, chosen, channels]: [usize; 3]) -> Result<CudaStorage> {
    with_real!(x.0, T => {
        let device = x.0.device();
        let gpu = Gpu::new::<T>(device, Precision::Full)?;
        let x = values::<T>(x.0, x.1)?;
        let count = x.len() / channels * chosen;
        let mut y = gpu.empty::<T>(count)?;
        let kernel = gpu.kernel("part", first | chosen | channels, &[&x]);
        let total = count / kernel.step;
        let [units, first, chosen, total_size] =
            [channels / kernel.step, first / kernel.step, chosen / kernel.step, total].map(size);
        launch!(gpu, kernel.name, over(total), &x, &mut y, &units?, &first?, &chosen?, &total_size?);
        Ok(T::wrap_cuda_slice(y, device.clone()))
    })
}
