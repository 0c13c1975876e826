//! Changes of image size: averaging, repetition, and moving pixels to channels and back.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, WithDType};

use super::simd::{Real, values, with_float};
use crate::{Error, Result};

/// Means over 2 x 2 pixels: `[B, C, Y, X]` to `[B, C, Y/2, X/2]`.
///
/// # Errors
/// An odd number of rows or columns.
pub fn average2(x: &Tensor) -> Result<Tensor> {
    require_multiple(x, 2)?;
    if x.device().is_cpu() {
        return Ok(x.contiguous()?.apply_op1(Coarsen { factor: 0.25 })?);
    }
    Ok(x.avg_pool2d(2)?)
}

/// Each pixel four times: `[B, C, Y, X]` to `[B, C, 2Y, 2X]`.
///
/// # Errors
/// Another number of axes.
pub fn repeat2(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        return Ok(x.contiguous()?.apply_op1(Refine { factor: 1.0 })?);
    }
    let (batch, channels, height, width) = x.dims4()?;
    let wide = x.reshape((batch, channels, height, 1, width, 1))?;
    let wide = wide.broadcast_as((batch, channels, height, 2, width, 2))?;
    Ok(wide.contiguous()?.reshape((batch, channels, 2 * height, 2 * width))?)
}

/// Blocks of `size` x `size` pixels to channels: `[B, C, Y, X]` to `[B, C size^2, Y/size, X/size]`.
///
/// # Errors
/// An image that is not a whole number of blocks.
pub fn space_to_depth(x: &Tensor, size: usize) -> Result<Tensor> {
    require_multiple(x, size)?;
    let (batch, channels, height, width) = x.dims4()?;
    let (height, width) = (height / size, width / size);
    let blocks = x.reshape((batch, channels, height, size, width, size))?.permute([0, 1, 3, 5, 2, 4])?;
    Ok(blocks.contiguous()?.reshape((batch, channels * size * size, height, width))?)
}

/// The inverse of [`space_to_depth`].
///
/// # Errors
/// A number of channels that `size`^2 does not divide.
pub fn depth_to_space(x: &Tensor, size: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let blocks = x.reshape((batch, channels / (size * size), size, size, height, width))?;
    let blocks = blocks.permute([0, 1, 4, 2, 5, 3])?.contiguous()?;
    Ok(blocks.reshape((batch, channels / (size * size), height * size, width * size))?)
}

fn require_multiple(x: &Tensor, size: usize) -> Result<()> {
    let (_, _, height, width) = x.dims4()?;
    if size == 0 || height % size != 0 || width % size != 0 {
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

impl CustomOp1 for Coarsen {
    fn name(&self) -> &'static str {
        "coarsen"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let y = with_float!(x, T => T::to_cpu_storage_owned(coarsen::<T>(values(x, layout)?, width, self.factor)));
        Ok((y, (batch, channels, height / 2, width / 2).into()))
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
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let y =
            with_float!(x, T => T::to_cpu_storage_owned(refine::<T>(values(x, layout)?, width, self.factor)));
        Ok((y, (batch, channels, 2 * height, 2 * width).into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&Coarsen { factor: self.factor })?))
    }
}

fn coarsen<T: Real>(x: &[T], width: usize, factor: f64) -> Vec<T> {
    let factor = T::from_f64(factor);
    let mut y = Vec::with_capacity(x.len() / 4);
    for rows in x.chunks_exact(2 * width) {
        let (top, bottom) = rows.split_at(width);
        let pairs = top.chunks_exact(2).zip(bottom.chunks_exact(2));
        y.extend(pairs.map(|(top, bottom)| (top[0] + top[1] + bottom[0] + bottom[1]) * factor));
    }
    y
}

fn refine<T: Real>(x: &[T], width: usize, factor: f64) -> Vec<T> {
    let factor = T::from_f64(factor);
    let mut y = Vec::with_capacity(x.len() * 4);
    for row in x.chunks_exact(width) {
        let start = y.len();
        y.extend(row.iter().flat_map(|&value| [value * factor; 2]));
        y.extend_from_within(start..);
    }
    y
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
        let x = image((1, 1, 2, 4));
        assert_eq!(flat(&average2(&x).unwrap()), [2.5, 4.5]);
        assert_eq!(flat(&repeat2(&image((1, 1, 1, 2))).unwrap()), [0., 0., 1., 1., 0., 0., 1., 1.]);
        assert_eq!(flat(&space_to_depth(&x, 2).unwrap()), [0., 2., 1., 3., 4., 6., 5., 7.]);
    }

    #[test]
    fn depth_and_space_are_inverse() {
        let x = image((2, 3, 4, 8));
        assert_eq!(flat(&depth_to_space(&space_to_depth(&x, 2).unwrap(), 2).unwrap()), flat(&x));
    }

    #[test]
    fn gradients_add_to_those_of_other_terms() {
        let x = Var::from_tensor(&image((2, 3, 4, 6))).unwrap();
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
        let (x, y) = (Var::from_tensor(&image((1, 2, 4, 4))).unwrap(), image((1, 2, 2, 2)));
        let inner = (average2(&x).unwrap() * &y).unwrap().sum_all().unwrap();
        let gradient = inner.backward().unwrap();
        assert_eq!(flat(gradient.get(&x).unwrap()), flat(&repeat2(&(y * 0.25).unwrap()).unwrap()));
    }

    #[test]
    fn refuses_odd_sizes() {
        assert!(average2(&image((1, 1, 3, 4))).is_err() && space_to_depth(&image((1, 1, 4, 6)), 4).is_err());
    }
}
