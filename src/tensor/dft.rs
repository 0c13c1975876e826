//! Fourier transforms of real volumes as matrix products, for devices without a fast transform: an axis of N values costs N
//! multiplications a value, which a GPU makes in less time than the volume would need to the host and back.

use std::f64::consts::TAU;

use candle_core::{Device, Tensor};

use crate::{Result, compute::Compute, transfer::Transfer};

/// One axis of a transform: values at places 0.. of a period, and what is wanted of the inverse, sums of `width` neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Length of the transform.
    pub period: usize,
    /// Number of values; zeros follow up to the period.
    pub values: usize,
    /// First place that is wanted.
    pub first: usize,
    /// Number of sums that are wanted.
    pub sums: usize,
    /// Places in each of them.
    pub width: usize,
}

impl Axis {
    /// An axis that is transformed as it is.
    pub fn whole(period: usize) -> Self {
        Self { period, values: period, first: 0, sums: period, width: 1 }
    }
}

/// Transform of real volumes `[B, Z, Y, X]` to half spectra and back, padded and summed on the way. The same as
/// [`super::fft3::RealFft3`] computes; differentiable.
#[derive(Debug, Clone)]
pub struct Dft3 {
    axes: [Axis; 3],
    forward: [Tensor; 3],
    inverse: [Tensor; 3],
}

/// Real and imaginary part `[B, X/2 + 1, Y, Z]` of half spectra.
#[derive(Debug, Clone)]
pub struct Spectrum {
    re: Tensor,
    im: Tensor,
}

impl Spectrum {
    /// The half spectrum Z, Y, X/2 + 1 of one volume, given as real and imaginary parts.
    ///
    /// # Errors
    /// Parts of another length.
    pub fn new(re: Vec<f64>, im: Vec<f64>, period: [usize; 3], compute: &Compute) -> Result<Self> {
        Ok(Self { re: gains(re, period, compute)?, im: gains(im, period, compute)? })
    }

    /// Each mode times a complex number.
    ///
    /// # Errors
    /// Spectra of different shapes.
    pub fn times(&self, other: &Self) -> Result<Self> {
        let product = |a: &Tensor, b: &Tensor| a.broadcast_mul(b);
        Ok(Self {
            re: (product(&self.re, &other.re)? - product(&self.im, &other.im)?)?,
            im: (product(&self.re, &other.im)? + product(&self.im, &other.re)?)?,
        })
    }

    /// Each mode times a real number, as [`gains`] arranges them.
    ///
    /// # Errors
    /// Gains of another shape.
    pub fn scaled(&self, gains: &Tensor) -> Result<Self> {
        Ok(Self { re: self.re.broadcast_mul(gains)?, im: self.im.broadcast_mul(gains)? })
    }
}

/// Factors of a half spectrum Z, Y, X/2 + 1 as [`Spectrum::scaled`] wants them.
///
/// # Errors
/// Another number of factors.
pub fn gains(values: Vec<f64>, [z, y, x]: [usize; 3], compute: &Compute) -> Result<Tensor> {
    Ok(compute.tensor(values, &[1, z, y, x / 2 + 1])?.permute((0, 3, 2, 1))?.contiguous()?)
}

impl Dft3 {
    /// Longest period whose matrices are worth their memory: 2 x 2 x 4096^2 numbers an axis and direction.
    const LONGEST: usize = 4096;

    /// True where matrix products serve better than fast transforms in host memory.
    pub fn serves(period: [usize; 3], compute: &Compute) -> bool {
        !compute.device.is_cpu() && period.iter().all(|length| *length <= Self::LONGEST)
    }

    /// Plans transforms along Z, Y and X.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn new(axes: [Axis; 3], compute: &Compute) -> Result<Self> {
        let [z, y, x] = axes;
        let put = |matrix: Tensor| -> Result<Tensor> {
            Ok(matrix.to_dtype(compute.dtype)?.transfer(&compute.device)?)
        };
        let of_real = Tensor::cat(&forward(x, x.period / 2 + 1)?, 1)?;
        let to_real = Tensor::cat(&inverse_to_real(x)?, 0)?;
        let complex = |axis: Axis, direction: fn(Axis, usize) -> Result<[Tensor; 2]>| {
            put(complex(direction(axis, axis.period)?)?)
        };
        Ok(Self {
            axes,
            forward: [complex(z, forward)?, complex(y, forward)?, put(of_real)?],
            inverse: [complex(z, inverse)?, complex(y, inverse)?, put(to_real)?],
        })
    }

    /// Half spectra of volumes `[B, Z, Y, X]`.
    ///
    /// # Errors
    /// Volumes of another shape.
    pub fn forward(&self, volumes: &Tensor) -> Result<Spectrum> {
        let (batch, planes, rows, _) = volumes.dims4()?;
        let [z, y, x] = self.axes;
        let columns = x.period / 2 + 1;
        let modes = along_last(volumes, &self.forward[2])?.reshape((batch, planes, rows, 2, columns))?;
        // [B, Z, Y, 2, X] to [B, Z, X, 2, Y], then [B, X, Y, 2, Z].
        let modes = modes.permute((0, 1, 4, 3, 2))?.reshape((batch, planes, columns, 2 * rows))?;
        let modes = along_last(&modes, &self.forward[1])?.reshape((batch, planes, columns, 2, y.period))?;
        let modes = modes.permute((0, 2, 4, 3, 1))?.reshape((batch, columns, y.period, 2 * planes))?;
        let modes = if z.period == 1 { modes } else { along_last(&modes, &self.forward[0])? };
        let part = |index: usize| modes.narrow(3, index * z.period, z.period)?.contiguous();
        Ok(Spectrum { re: part(0)?, im: part(1)? })
    }

    /// What is wanted of the volumes of half spectra.
    ///
    /// # Errors
    /// Spectra of another shape.
    pub fn inverse(&self, spectra: &Spectrum) -> Result<Tensor> {
        let (batch, columns, height, _) = spectra.re.dims4()?;
        let [z, y, _] = self.axes;
        let modes = Tensor::cat(&[&spectra.re, &spectra.im], 3)?;
        let modes = if z.period == 1 { modes } else { along_last(&modes, &self.inverse[0])? };
        // [B, X, Y, 2, Z] to [B, Z, X, 2, Y], then [B, Z, Y, 2, X].
        let modes = modes.reshape((batch, columns, height, 2, z.sums))?.permute((0, 4, 1, 3, 2))?;
        let modes = along_last(&modes.reshape((batch, z.sums, columns, 2 * height))?, &self.inverse[1])?;
        let modes = modes.reshape((batch, z.sums, columns, 2, y.sums))?.permute((0, 1, 4, 3, 2))?;
        along_last(&modes.reshape((batch, z.sums, y.sums, 2 * columns))?, &self.inverse[2])
    }
}

/// The rows along the last axis times a matrix.
fn along_last(x: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    let (inputs, outputs) = matrix.dims2()?;
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    Ok(x.contiguous()?.reshape((x.elem_count() / inputs.max(1), inputs))?.matmul(matrix)?.reshape(shape)?)
}

/// exp(-2 pi i k n / period) of values n (rows) and modes k (columns): real and imaginary parts.
fn forward(axis: Axis, modes: usize) -> Result<[Tensor; 2]> {
    let circle = circle(axis.period);
    table(axis.values, modes, |n, k| {
        let (sin, cos) = circle[n * k % axis.period];
        (cos, -sin)
    })
}

/// Sums over places n of exp(2 pi i k n / period) / period, of modes k (rows) and sums (columns).
fn inverse(axis: Axis, modes: usize) -> Result<[Tensor; 2]> {
    let (circle, norm) = (circle(axis.period), 1.0 / axis.period as f64);
    table(modes, axis.sums, |k, sum| {
        let first = axis.first + sum * axis.width;
        (first..first + axis.width).fold((0.0, 0.0), |(re, im), n| {
            let (sin, cos) = circle[n * k % axis.period];
            (re + norm * cos, im + norm * sin)
        })
    })
}

/// [`inverse`] of a half spectrum, whose modes stand for their conjugates too: real parts of the volume from real and
/// imaginary parts of the modes.
fn inverse_to_real(axis: Axis) -> Result<[Tensor; 2]> {
    let modes = axis.period / 2 + 1;
    let [re, im] = inverse(axis, modes)?;
    let stands_for = |k: usize| if k == 0 || 2 * k == axis.period { 1.0 } else { 2.0 };
    let weights = Tensor::from_vec((0..modes).map(stands_for).collect(), (modes, 1), &Device::Cpu)?;
    Ok([re.broadcast_mul(&weights)?, im.broadcast_mul(&weights)?.neg()?])
}

fn table(rows: usize, columns: usize, entry: impl Fn(usize, usize) -> (f64, f64)) -> Result<[Tensor; 2]> {
    let (re, im): (Vec<f64>, Vec<f64>) = (0..rows * columns).map(|i| entry(i / columns, i % columns)).unzip();
    let part = |values| Tensor::from_vec(values, (rows, columns), &Device::Cpu);
    Ok([part(re)?, part(im)?])
}

/// The matrix that takes real and imaginary parts, one after the other, to the same of the product with a complex matrix.
fn complex([re, im]: [Tensor; 2]) -> Result<Tensor> {
    let of_real = Tensor::cat(&[&re, &im], 1)?;
    let of_imaginary = Tensor::cat(&[&im.neg()?, &re], 1)?;
    Ok(Tensor::cat(&[of_real, of_imaginary], 0)?)
}

/// Sines and cosines at `period` even steps of a circle.
fn circle(period: usize) -> Vec<(f64, f64)> {
    (0..period).map(|step| (TAU * step as f64 / period as f64).sin_cos()).collect()
}

#[cfg(test)]
mod tests {
    use rustfft::num_complex::Complex;

    use super::*;
    use crate::{
        rng::Rng,
        tensor::{fft3::RealFft3, to_host, value_and_gradient},
    };

    /// Sizes that are even, odd and 1.
    const SHAPES: [[usize; 3]; 3] = [[1, 4, 6], [3, 5, 7], [4, 1, 8]];

    fn normals(shape: [usize; 3]) -> Tensor {
        let [z, y, x] = shape;
        Rng::new(1).normals(&[2, z, y, x], &Compute::cpu_f64()).unwrap()
    }

    fn close(found: &[f64], expected: &[f64]) -> bool {
        found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12)
    }

    /// Filters with a spectrum as [`RealFft3`] filters.
    #[test]
    fn filters_as_the_fast_transform_does() {
        for shape in SHAPES {
            let fft = RealFft3::<f64>::new(shape);
            let volumes = normals(shape);
            let mut rng = Rng::new(2);
            let mut kernel: Vec<f64> = (0..fft.volume()).map(|_| rng.normal()).collect();
            let transfer = fft.forward(&mut kernel);
            let filtered = |volume: &[f64]| {
                let mut modes = fft.forward(&mut volume.to_vec());
                modes.iter_mut().zip(&transfer).for_each(|(mode, gain)| *mode *= *gain);
                fft.inverse(&mut modes)
            };
            let values = to_host(&volumes).unwrap();
            let expected: Vec<f64> = values.chunks(fft.volume()).flat_map(filtered).collect();
            let compute = Compute::cpu_f64();
            let dft = Dft3::new(shape.map(Axis::whole), &compute).unwrap();
            let part = |part: fn(&Complex<f64>) -> f64| transfer.iter().map(part).collect();
            let transfer =
                Spectrum::new(part(|mode| mode.re), part(|mode| mode.im), shape, &compute).unwrap();
            let found = dft.inverse(&dft.forward(&volumes).unwrap().times(&transfer).unwrap()).unwrap();
            assert!(close(&to_host(&found).unwrap(), &expected), "{shape:?}");
        }
    }

    /// Zeros behind the values, and sums of what comes back.
    #[test]
    fn pads_and_sums() {
        let compute = Compute::cpu_f64();
        let axes = [
            Axis { period: 3, values: 2, first: 1, sums: 2, width: 1 },
            Axis { period: 7, values: 4, first: 0, sums: 2, width: 2 },
            Axis { period: 8, values: 5, first: 1, sums: 2, width: 2 },
        ];
        let dft = Dft3::new(axes, &compute).unwrap();
        let volumes = normals([2, 4, 5]);
        let found = dft.inverse(&dft.forward(&volumes).unwrap()).unwrap();
        let sum = |axis: Axis, dim: usize, x: &Tensor| {
            let places = x.pad_with_zeros(dim, 0, axis.period - axis.values).unwrap();
            let sums = (0..axis.sums).map(|i| {
                let part = places.narrow(dim, axis.first + i * axis.width, axis.width).unwrap();
                part.sum_keepdim(dim).unwrap()
            });
            Tensor::cat(&sums.collect::<Vec<_>>(), dim).unwrap()
        };
        let expected = (0..3).fold(volumes, |x, axis| sum(axes[axis], axis + 1, &x));
        assert!(close(&to_host(&found).unwrap(), &to_host(&expected).unwrap()));
    }

    #[test]
    fn the_gradient_is_the_adjoint() {
        let compute = Compute::cpu_f64();
        let axes = [1usize, 6, 8].map(|period| Axis { values: period.div_ceil(2), ..Axis::whole(period) });
        let dft = Dft3::new(axes, &compute).unwrap();
        let mut rng = Rng::new(3);
        let [x, direction] = [0, 1].map(|_| rng.normals(&[2, 1, 3, 4], &compute).unwrap());
        let weight = rng.normals(&[2, 1, 6, 8], &compute).unwrap();
        let gains = gains((0..30).map(f64::from).collect(), [1, 6, 8], &compute).unwrap();
        let apply = |x: &Tensor| dft.inverse(&dft.forward(x)?.scaled(&gains)?);
        let (_, gradient) =
            value_and_gradient(&x, |x| Ok((apply(x)? * &weight)?.flatten_from(1)?.sum(1)?)).unwrap();
        let dot = |a: &Tensor, b: &Tensor| to_host(&(a * b).unwrap()).unwrap().iter().sum::<f64>();
        let expected = dot(&apply(&direction).unwrap(), &weight);
        assert!((dot(&gradient, &direction) / expected - 1.0).abs() < 1e-12);
    }
}
