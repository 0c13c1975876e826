//! Two-dimensional Fourier transforms of images, differentiable where tensors are involved.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};
use rayon::prelude::*;
use rustfft::{Fft, FftNum, FftPlanner, num_complex::Complex};

use crate::{Error, Result, transfer::Transfer};

/// Planned orthonormal transform of one image: X_k = (1/sqrt(YX)) sum_n x_n exp(-2 pi i k.n / (Y, X)).
pub struct Fft2<T: FftNum> {
    shape: [usize; 2],
    forward: [Arc<dyn Fft<T>>; 2],
    inverse: [Arc<dyn Fft<T>>; 2],
    norm: T,
}

impl<T: FftNum> Fft2<T> {
    /// Plans transforms of images of `shape` Y, X.
    pub fn new(shape: [usize; 2]) -> Self {
        let mut planner = FftPlanner::new();
        let forward = shape.map(|n| planner.plan_fft_forward(n));
        let inverse = shape.map(|n| planner.plan_fft_inverse(n));
        let norm = 1.0 / ((shape[0] * shape[1]).max(1) as f64).sqrt();
        Self { shape, forward, inverse, norm: T::from_f64(norm).unwrap_or_else(T::one) }
    }

    /// Transforms an image, row-major Y, X, in place.
    pub fn forward(&self, image: &mut [Complex<T>]) {
        self.apply(&self.forward, image);
    }

    /// Undoes [`Fft2::forward`] in place.
    pub fn inverse(&self, image: &mut [Complex<T>]) {
        self.apply(&self.inverse, image);
    }

    fn apply(&self, [columns, rows]: &[Arc<dyn Fft<T>>; 2], image: &mut [Complex<T>]) {
        let [y, x] = self.shape;
        rows.process(image);
        let mut turned = transpose(image, x, y);
        columns.process(&mut turned);
        for (value, turned) in image.iter_mut().zip(transpose(&turned, y, x)) {
            *value = turned * self.norm;
        }
    }
}

/// The transpose of a row-major matrix with `from` columns, as a row-major matrix with `to` columns.
fn transpose<T: Copy>(values: &[T], from: usize, to: usize) -> Vec<T> {
    (0..values.len()).map(|i| values[(i % to) * from + i / to]).collect()
}

/// Circular convolution of images `[B, 1, Y, X]` with a kernel whose Fourier transform is `transfer`, real and
/// even, row-major with frequency 0 first: one array Y X for all images, or B of them. Differentiable in `x`.
///
/// # Errors
/// Images of another shape, a transfer function of another length or one that is not even.
pub fn circular_convolve(x: &Tensor, transfer: &[f64]) -> Result<Tensor> {
    let (batch, shape) = images(x)?;
    let pixels = shape[0] * shape[1];
    if transfer.len() != pixels && transfer.len() != batch * pixels {
        return Err(Error::Shape {
            what: "transfer function",
            expected: vec![batch, shape[0], shape[1]],
            found: vec![transfer.len()],
        });
    }
    if !transfer.chunks(pixels).all(|one| is_even(one, shape)) {
        return Err(Error::config("transfer function", "must be even, T(-k) = T(k), for a real kernel"));
    }
    apply_on_host(x, Convolve { shape, transfer: transfer.into() })
}

/// Orthonormal Fourier modes `[B, Y X, 2]` (real, imaginary) of images `[B, 1, Y, X]`, frequency 0 first, with the
/// sign of [`Fft2::forward`]. Differentiable; select modes with `index_select` on axis 1.
///
/// # Errors
/// Images of another shape.
pub fn fourier_modes(x: &Tensor) -> Result<Tensor> {
    let (_, shape) = images(x)?;
    apply_on_host(x, Modes { shape })
}

/// Batch size and Y, X of `[B, 1, Y, X]`.
fn images(x: &Tensor) -> Result<(usize, [usize; 2])> {
    match *x.dims() {
        [batch, 1, rows, columns] => Ok((batch, [rows, columns])),
        _ => {
            let expected = vec![x.dims().first().copied().unwrap_or(1), 1, 64, 64];
            Err(Error::Shape {
                what: "images for a 2-D Fourier transform",
                expected,
                found: x.dims().to_vec(),
            })
        }
    }
}

/// True if values at k and -k agree to rounding.
fn is_even(transfer: &[f64], [rows, columns]: [usize; 2]) -> bool {
    let largest = transfer.iter().fold(0.0, |m: f64, t| m.max(t.abs()));
    transfer.iter().enumerate().all(|(i, t)| {
        let mirror = (rows - i / columns) % rows * columns + (columns - i % columns) % columns;
        (t - transfer[mirror]).abs() <= 1e-9 * largest
    })
}

/// rustfft works in host memory, so images of another device travel.
fn apply_on_host(x: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
    Ok(x.transfer(&Device::Cpu)?.contiguous()?.apply_op1(op)?.transfer(x.device())?)
}

/// Runs `each(plan, input image, index) -> output` over the images of a batch and joins the outputs.
fn batch<T: FftNum>(
    values: &[T],
    layout: &Layout,
    shape: [usize; 2],
    each: impl Fn(&Fft2<T>, &[T], usize) -> Vec<T> + Sync,
) -> candle_core::Result<Vec<T>> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("Fourier transforms need contiguous images");
    };
    let plan = Fft2::new(shape);
    let size = layout.dims().iter().skip(1).product::<usize>().max(1);
    let outputs: Vec<Vec<T>> =
        values[start..end].par_chunks(size).enumerate().map(|(i, image)| each(&plan, image, i)).collect();
    Ok(outputs.concat())
}

/// Dispatches a generic function on the two supported floating-point types.
macro_rules! on_floats {
    ($storage:expr, $values:ident => $body:expr) => {
        match $storage {
            CpuStorage::F32($values) => CpuStorage::F32($body),
            CpuStorage::F64($values) => CpuStorage::F64($body),
            _ => candle_core::bail!("Fourier transforms need f32 or f64 tensors"),
        }
    };
}

struct Convolve {
    shape: [usize; 2],
    transfer: Arc<[f64]>,
}

impl Convolve {
    fn image<T: FftNum>(&self, plan: &Fft2<T>, image: &[T], index: usize) -> Vec<T> {
        let start = if self.transfer.len() > image.len() { index * image.len() } else { 0 };
        let mut modes: Vec<_> = image.iter().map(|&v| Complex::new(v, T::zero())).collect();
        plan.forward(&mut modes);
        for (mode, &gain) in modes.iter_mut().zip(&self.transfer[start..]) {
            *mode = *mode * T::from_f64(gain).unwrap_or_else(T::zero);
        }
        plan.inverse(&mut modes);
        modes.into_iter().map(|mode| mode.re).collect()
    }
}

impl CustomOp1 for Convolve {
    fn name(&self) -> &'static str {
        "circular-convolution"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let each =
            on_floats!(storage, values => batch(values, layout, self.shape, |p, v, i| self.image(p, v, i))?);
        Ok((each, layout.shape().clone()))
    }

    /// A real even transfer function makes the convolution its own adjoint.
    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let op = Self { shape: self.shape, transfer: self.transfer.clone() };
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&op)?))
    }
}

struct Modes {
    shape: [usize; 2],
}

impl CustomOp1 for Modes {
    fn name(&self) -> &'static str {
        "fourier-modes"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn image<T: FftNum>(plan: &Fft2<T>, image: &[T]) -> Vec<T> {
            let mut modes: Vec<_> = image.iter().map(|&v| Complex::new(v, T::zero())).collect();
            plan.forward(&mut modes);
            modes.iter().flat_map(|mode| [mode.re, mode.im]).collect()
        }
        let modes = on_floats!(storage, values => batch(values, layout, self.shape, |p, v, _| image(p, v))?);
        let [rows, columns] = self.shape;
        Ok((modes, (layout.dims()[0], rows * columns, 2).into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&ModesAdjoint { shape: self.shape })?))
    }
}

/// The adjoint of [`Modes`]: the real part of the inverse transform.
struct ModesAdjoint {
    shape: [usize; 2],
}

impl CustomOp1 for ModesAdjoint {
    fn name(&self) -> &'static str {
        "fourier-modes-adjoint"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn image<T: FftNum>(plan: &Fft2<T>, modes: &[T]) -> Vec<T> {
            let mut modes: Vec<_> = modes.chunks_exact(2).map(|c| Complex::new(c[0], c[1])).collect();
            plan.inverse(&mut modes);
            modes.into_iter().map(|value| value.re).collect()
        }
        let [rows, columns] = self.shape;
        let images = on_floats!(storage, values => batch(values, layout, self.shape, |p, v, _| image(p, v))?);
        Ok((images, (layout.dims()[0], 1, rows, columns).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compute::Compute, rng::Rng, tensor::value_and_gradient};

    fn dot(a: &Tensor, b: &Tensor) -> f64 {
        (a * b).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    }

    /// Compares with the sum that defines the transform, at a size that is no power of two and not square.
    #[test]
    fn modes_follow_their_definition() {
        let (rows, columns) = (3, 5);
        let x = Rng::new(1).normals(&[1, 1, rows, columns], &Compute::cpu_f64()).unwrap();
        let values: Vec<f64> = x.flatten_all().unwrap().to_vec1().unwrap();
        let modes: Vec<f64> = fourier_modes(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        for k in 0..rows * columns {
            let expected: Complex<f64> = (0..rows * columns)
                .map(|n| {
                    let turns = (k / columns * (n / columns)) as f64 / rows as f64
                        + (k % columns * (n % columns)) as f64 / columns as f64;
                    Complex::from_polar(values[n], -2.0 * std::f64::consts::PI * turns)
                })
                .sum::<Complex<f64>>()
                / ((rows * columns) as f64).sqrt();
            assert!((expected - Complex::new(modes[2 * k], modes[2 * k + 1])).norm() < 1e-12);
        }
    }

    #[test]
    fn mode_gradient_is_the_adjoint() {
        let compute = Compute::cpu_f64();
        let mut rng = Rng::new(2);
        let x = rng.normals(&[2, 1, 6, 4], &compute).unwrap();
        let weight = rng.normals(&[2, 24, 2], &compute).unwrap();
        let direction = rng.normals(&[2, 1, 6, 4], &compute).unwrap();
        let weighted = |x: &Tensor| Ok((fourier_modes(x)? * &weight)?.sum((1, 2))?);
        let (_, gradient) = value_and_gradient(&x, weighted).unwrap();
        let expected = dot(&fourier_modes(&direction).unwrap(), &weight);
        assert!((dot(&gradient, &direction) - expected).abs() < 1e-12 * expected.abs().max(1.0));
    }

    /// A transfer function cos(2 pi k / Y) shifts by one row both ways and averages; one array per image is honoured.
    #[test]
    fn convolution_shifts_and_its_gradient_is_itself() {
        let compute = Compute::cpu_f64();
        let (rows, columns) = (5, 4);
        let shift: Vec<f64> = (0..rows * columns)
            .map(|i| (2.0 * std::f64::consts::PI * (i / columns) as f64 / rows as f64).cos())
            .collect();
        let both = [shift.clone(), vec![2.0; rows * columns]].concat();
        let x = Rng::new(3).normals(&[2, 1, rows, columns], &compute).unwrap();
        let moved = |x: &Tensor, by: i64| {
            let values: Vec<f64> = x.flatten_all().unwrap().to_vec1().unwrap();
            (0..rows * columns)
                .map(|i| {
                    values
                        [((i / columns) as i64 + by).rem_euclid(rows as i64) as usize * columns + i % columns]
                })
                .collect::<Vec<f64>>()
        };
        let result: Vec<f64> =
            circular_convolve(&x, &both).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let values: Vec<f64> = x.flatten_all().unwrap().to_vec1().unwrap();
        for (i, (up, down)) in moved(&x, 1).into_iter().zip(moved(&x, -1)).enumerate() {
            assert!((result[i] - (up + down) / 2.0).abs() < 1e-12);
            assert!((result[i + rows * columns] - 2.0 * values[i + rows * columns]).abs() < 1e-12);
        }
        let square = |x: &Tensor| Ok((circular_convolve(x, &both)?.sqr()?.sum((1, 2, 3))? * 0.5)?);
        let (_, gradient) = value_and_gradient(&x, square).unwrap();
        let twice = circular_convolve(&circular_convolve(&x, &both).unwrap(), &both).unwrap();
        assert!(dot(&(&gradient - &twice).unwrap(), &(&gradient - &twice).unwrap()) < 1e-20);
    }

    #[test]
    fn wrong_transfer_functions_are_refused() {
        let x = Rng::new(4).normals(&[1, 1, 4, 4], &Compute::cpu()).unwrap();
        assert!(circular_convolve(&x, &[1.0; 15]).is_err());
        let odd: Vec<f64> = (0..16).map(f64::from).collect();
        assert!(circular_convolve(&x, &odd).is_err());
    }

    /// Single precision agrees with double.
    #[test]
    fn single_precision_agrees() {
        let x = Rng::new(5).normals(&[3, 1, 16, 16], &Compute::cpu_f64()).unwrap();
        let single = fourier_modes(&x.to_dtype(candle_core::DType::F32).unwrap()).unwrap();
        let difference =
            (single.to_dtype(candle_core::DType::F64).unwrap() - fourier_modes(&x).unwrap()).unwrap();
        assert!(dot(&difference, &difference).sqrt() < 1e-4);
    }
}
