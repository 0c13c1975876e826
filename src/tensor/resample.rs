//! Changes of image size and number of channels, channels last: averaging, repetition, joining, and moving pixels to
//! channels and back.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor, WithDType};

#[cfg(feature = "cuda")]
use super::cuda;
use super::{
    parallel::each_chunk,
    scratch::unwritten,
    simd::{Real, values, with_float},
};
use crate::{Error, Result};

/// Means over 2 x 2 pixels: `[B, Y, X, C]` to `[B, Y/2, X/2, C]`.
///
/// # Errors
/// An odd number of rows or columns.
pub fn average2(x: &Tensor) -> Result<Tensor> {
    let (_, height, width, _) = x.dims4()?;
    require_multiple(height, width, 2)?;
    Ok(x.contiguous()?.apply_op1(Coarsen { factor: 0.25 })?)
}

/// Each pixel four times: `[B, Y, X, C]` to `[B, 2Y, 2X, C]`.
///
/// # Errors
/// Another number of axes.
pub fn repeat2(x: &Tensor) -> Result<Tensor> {
    Ok(x.contiguous()?.apply_op1(Refine { factor: 1.0 })?)
}

/// The channels of `coarse` `[B, Y/2, X/2, C]`, each pixel four times, and of `fine` `[B, Y, X, D]`: `[B, Y, X, C + D]`.
///
/// # Errors
/// Sizes that do not fit.
pub fn repeat2_and_join(coarse: &Tensor, fine: &Tensor) -> Result<Tensor> {
    let ((batch, height, width, channels), (.., others)) = (coarse.dims4()?, fine.dims4()?);
    let expected = [batch, 2 * height, 2 * width, others];
    if fine.dims() != expected {
        let found = fine.dims().to_vec();
        return Err(Error::Shape { what: "features to join", expected: expected.to_vec(), found });
    }
    Ok(coarse.contiguous()?.apply_op2(&fine.contiguous()?, Join { channels, others })?)
}

/// Blocks of `size` x `size` pixels of images to channels of features: `[B, C, Y, X]` to
/// `[B, Y/size, X/size, C size^2]`.
///
/// # Errors
/// An image that is not a whole number of blocks.
pub fn space_to_depth(x: &Tensor, size: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    require_multiple(height, width, size)?;
    let (height, width) = (height / size, width / size);
    let blocks = x.reshape((batch, channels, height, size, width, size))?.permute([0, 2, 4, 1, 3, 5])?;
    Ok(blocks.contiguous()?.reshape((batch, height, width, channels * size * size))?)
}

/// The inverse of [`space_to_depth`].
///
/// # Errors
/// A number of channels that `size`^2 does not divide.
pub fn depth_to_space(x: &Tensor, size: usize) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let blocks = x.reshape((batch, height, width, channels / (size * size), size, size))?;
    let blocks = blocks.permute([0, 3, 1, 4, 2, 5])?.contiguous()?;
    Ok(blocks.reshape((batch, channels / (size * size), height * size, width * size))?)
}

fn require_multiple(height: usize, width: usize, size: usize) -> Result<()> {
    if size == 0 || !height.is_multiple_of(size) || !width.is_multiple_of(size) {
        let problem = format!("{height} x {width} pixels cannot be cut into blocks of {size} x {size}");
        return Err(Error::config("image size", problem));
    }
    Ok(())
}

/// Sums over 2 x 2 pixels, times `factor`.
struct Coarsen {
    factor: f64,
}

/// Each pixel four times, times `factor`.
struct Refine {
    factor: f64,
}

/// So many channels of coarse features, each pixel four times, and then those of others.
struct Join {
    channels: usize,
    others: usize,
}

/// Channels from `first` on of a [`Join`].
struct Part {
    first: usize,
    channels: usize,
}

impl CustomOp1 for Coarsen {
    fn name(&self) -> &'static str {
        "coarsen"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, height, width, channels) = layout.shape().dims4()?;
        let y = with_float!(x, T => {
            T::to_cpu_storage_owned(coarsen::<T>(values(x, layout)?, width, channels, self.factor))
        });
        Ok((y, (batch, height / 2, width / 2, channels).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let (batch, height, width, channels) = layout.shape().dims4()?;
        let y = cuda::coarsen((x, layout), self.factor)?;
        Ok((y, (batch, height / 2, width / 2, channels).into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&Refine { factor: self.factor })?))
    }
}

impl CustomOp1 for Refine {
    fn name(&self) -> &'static str {
        "refine"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, height, width, channels) = layout.shape().dims4()?;
        let y = with_float!(x, T => {
            T::to_cpu_storage_owned(refine::<T>(values(x, layout)?, width, channels, self.factor))
        });
        Ok((y, (batch, 2 * height, 2 * width, channels).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let (batch, height, width, channels) = layout.shape().dims4()?;
        let y = cuda::refine((x, layout), self.factor)?;
        Ok((y, (batch, 2 * height, 2 * width, channels).into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&Coarsen { factor: self.factor })?))
    }
}

impl Join {
    fn shape(&self, fine: &Layout) -> candle_core::Result<Shape> {
        let (batch, height, width, _) = fine.shape().dims4()?;
        Ok((batch, height, width, self.channels + self.others).into())
    }
}

impl CustomOp2 for Join {
    fn name(&self) -> &'static str {
        "join"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let joined = with_float!(x, T => {
            let (x, y) = (values::<T>(x, x_layout)?, values::<T>(y, y_layout)?);
            T::to_cpu_storage_owned(join(x, y, y_layout.dims()[2], [self.channels, self.others]))
        });
        Ok((joined, self.shape(y_layout)?))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        y: &CudaStorage,
        y_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        Ok((cuda::join((x, x_layout), (y, y_layout))?, self.shape(y_layout)?))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let part = |first, channels| gradient.apply_op1_no_bwd(&Part { first, channels });
        let of_coarse = part(0, self.channels)?.apply_op1_no_bwd(&Coarsen { factor: 1.0 })?;
        Ok((Some(of_coarse), Some(part(self.channels, self.others)?)))
    }
}

impl CustomOp1 for Part {
    fn name(&self) -> &'static str {
        "part"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, height, width, channels) = layout.shape().dims4()?;
        let y = with_float!(x, T => {
            let mut y = Vec::with_capacity(batch * height * width * self.channels);
            for pixel in values::<T>(x, layout)?.chunks_exact(channels) {
                y.extend_from_slice(&pixel[self.first..self.first + self.channels]);
            }
            T::to_cpu_storage_owned(y)
        });
        Ok((y, (batch, height, width, self.channels).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let (batch, height, width, channels) = layout.shape().dims4()?;
        let y = cuda::part((x, layout), [self.first, self.channels, channels])?;
        Ok((y, (batch, height, width, self.channels).into()))
    }
}

fn coarsen<T: Real>(x: &[T], width: usize, channels: usize, factor: f64) -> Vec<T> {
    let factor = T::from_f64(factor);
    let row = width * channels;
    let mut y = unwritten(x.len() / 4);
    each_chunk(&mut y, row / 2, |index, y| {
        let (top, bottom) = x[2 * index * row..][..2 * row].split_at(row);
        let pairs = top.chunks_exact(2 * channels).zip(bottom.chunks_exact(2 * channels));
        for (y, (top, bottom)) in y.chunks_exact_mut(channels).zip(pairs) {
            let (a, b) = top.split_at(channels);
            let (c, d) = bottom.split_at(channels);
            for channel in 0..channels {
                y[channel] = (a[channel] + b[channel] + c[channel] + d[channel]) * factor;
            }
        }
    });
    y
}

fn refine<T: Real>(x: &[T], width: usize, channels: usize, factor: f64) -> Vec<T> {
    let factor = T::from_f64(factor);
    let row = width * channels;
    let mut y = unwritten(x.len() * 4);
    each_chunk(&mut y, 4 * row, |index, y| {
        let (top, bottom) = y.split_at_mut(2 * row);
        for (pair, x) in
            top.chunks_exact_mut(2 * channels).zip(x[index * row..][..row].chunks_exact(channels))
        {
            let (left, right) = pair.split_at_mut(channels);
            for channel in 0..channels {
                left[channel] = x[channel] * factor;
            }
            right.copy_from_slice(left);
        }
        bottom.copy_from_slice(top);
    });
    y
}

/// Rows of `fine`, `width` pixels each, behind the pixels of `coarse` that they lie in.
fn join<T: Real>(coarse: &[T], fine: &[T], width: usize, [channels, others]: [usize; 2]) -> Vec<T> {
    let mut joined = unwritten(fine.len() / others * (channels + others));
    each_chunk(&mut joined, width * (channels + others), |row, joined| {
        let coarse = &coarse[row / 2 * (width / 2) * channels..];
        let fine = &fine[row * width * others..];
        for (column, joined) in joined.chunks_exact_mut(channels + others).enumerate() {
            joined[..channels].copy_from_slice(&coarse[column / 2 * channels..][..channels]);
            joined[channels..].copy_from_slice(&fine[column * others..][..others]);
        }
    });
    joined
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;

    fn image(shape: (usize, usize, usize, usize)) -> Tensor {
        let count = shape.0 * shape.1 * shape.2 * shape.3;
        Tensor::arange(0.0, count as f64, &Device::Cpu).unwrap().reshape(shape).unwrap()
    }

    fn flat(x: &Tensor) -> Vec<f64> {
        x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn known_values() {
        let x = image((1, 2, 4, 1));
        assert_eq!(flat(&average2(&x).unwrap()), [2.5, 4.5]);
        assert_eq!(flat(&repeat2(&image((1, 1, 2, 1))).unwrap()), [0., 0., 1., 1., 0., 0., 1., 1.]);
        assert_eq!(flat(&space_to_depth(&image((1, 1, 2, 4)), 2).unwrap()), [0., 1., 4., 5., 2., 3., 6., 7.]);
    }

    #[test]
    fn depth_and_space_are_inverse() {
        let x = image((2, 3, 4, 8));
        assert_eq!(flat(&depth_to_space(&space_to_depth(&x, 2).unwrap(), 2).unwrap()), flat(&x));
    }

    #[test]
    fn gradients_add_to_those_of_other_terms() {
        let x = Var::from_tensor(&image((2, 4, 6, 3))).unwrap();
        type Resample = fn(&Tensor) -> Result<Tensor>;
        for (function, slope) in [(average2 as Resample, 0.25), (repeat2 as Resample, 4.0)] {
            for swapped in [false, true] {
                let own = function(&x).unwrap().sum_all().unwrap();
                let other = (x.as_tensor() * 3.0).unwrap().sum_all().unwrap();
                let loss = if swapped { other + own } else { own + other };
                let gradients = loss.unwrap().backward().unwrap();
                assert!(flat(gradients.get(&x).unwrap()).iter().all(|g| *g == 3.0 + slope));
            }
        }
    }

    #[test]
    fn adjoints_match() {
        let (x, y) = (Var::from_tensor(&image((1, 4, 4, 2))).unwrap(), image((1, 2, 2, 2)));
        let inner = (average2(&x).unwrap() * &y).unwrap().sum_all().unwrap();
        let gradient = inner.backward().unwrap();
        assert_eq!(flat(gradient.get(&x).unwrap()), flat(&repeat2(&(y * 0.25).unwrap()).unwrap()));
    }

    #[test]
    fn joined_features_pass_their_gradients_on() {
        let (x, y) = (
            Var::from_tensor(&image((2, 2, 1, 3))).unwrap(),
            Var::from_tensor(&image((2, 4, 2, 2))).unwrap(),
        );
        let (joined, repeated) = (repeat2_and_join(&x, &y).unwrap(), repeat2(&x).unwrap());
        assert_eq!(flat(&joined), flat(&Tensor::cat(&[&repeated, y.as_tensor()], 3).unwrap()));
        let factor = image((2, 4, 2, 5));
        let gradients = (joined * &factor).unwrap().sum_all().unwrap().backward().unwrap();
        let of_coarse = average2(&factor.narrow(3, 0, 3).unwrap()).unwrap();
        assert_eq!(flat(gradients.get(&x).unwrap()), flat(&(of_coarse * 4.0).unwrap()));
        assert_eq!(flat(gradients.get(&y).unwrap()), flat(&factor.narrow(3, 3, 2).unwrap()));
        assert!(repeat2_and_join(&y, &x).is_err());
    }

    #[test]
    fn refuses_odd_sizes() {
        assert!(average2(&image((1, 3, 4, 1))).is_err() && space_to_depth(&image((1, 1, 4, 6)), 4).is_err());
    }
}
