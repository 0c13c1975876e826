//! The Fourier transform from an image to visibilities: V(u, v) = pulse(u, v) sum I exp(+2 pi i (u x + v y)).
//!
//! x points east, y north, column 0 is east and row 0 north (`docs/conventions.md`). Phases are formed in f64 and cast.
//! The pixel grid is symmetric about the phase centre, so the even part of the image alone makes the real part of V and
//! the odd part the imaginary one: half the work of the plain sum.

use std::{f64::consts::TAU, sync::Arc};

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;
use rustfft::num_complex::Complex64;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, compute::Compute, grid::Grid, instrument::Forward};

/// Brightness between pixel centres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Pulse {
    /// Point sources at the pixel centres.
    Delta,
    /// Linear interpolation between them: sinc^2 along each axis (eht-imaging's default).
    #[default]
    Triangle,
}

impl Pulse {
    /// Fourier transform of the pulse for pixels of `pitch` radians along one axis, at a baseline in wavelengths.
    pub fn transform(self, baseline: f64, pitch: f64) -> f64 {
        let half = 0.5 * TAU * baseline * pitch;
        match self {
            Self::Triangle if half != 0.0 => (half.sin() / half).powi(2),
            _ => 1.0,
        }
    }

    fn at(self, [u, v]: [f64; 2], grid: &Grid) -> f64 {
        self.transform(u, grid.pitch[2]) * self.transform(v, grid.pitch[1])
    }
}

/// Exact visibilities in f64 of an image in Jy/pixel, row by row from the north-east.
///
/// # Errors
/// An image of another size than the grid.
pub fn visibilities(pixels: &[f64], grid: &Grid, pulse: Pulse, uv: &[[f64; 2]]) -> Result<Vec<Complex64>> {
    if pixels.len() != grid.len() || grid.is_empty() {
        return Err(Error::Shape { what: "image", expected: grid.shape.to_vec(), found: vec![pixels.len()] });
    }
    let (east, north) = (grid.east(), grid.north());
    let rotation = |baseline: f64, offsets: &[f64]| -> Vec<Complex64> {
        offsets.iter().map(|offset| Complex64::cis(TAU * baseline * offset)).collect()
    };
    let visibility = |&[u, v]: &[f64; 2]| {
        let (columns, rows) = (rotation(u, &east), rotation(v, &north));
        let row_sum = |row: &[f64]| row.iter().zip(&columns).map(|(i, c)| c * *i).sum::<Complex64>();
        let sum: Complex64 =
            pixels.chunks_exact(columns.len()).zip(&rows).map(|(row, r)| r * row_sum(row)).sum();
        sum * pulse.at([u, v], grid)
    };
    Ok(uv.par_iter().map(visibility).collect())
}

/// The transform as a differentiable instrument model: images `[B, 1, Y, X]` to visibilities `[B, M, 2]`.
#[derive(Debug)]
pub struct Fourier {
    grid: Grid,
    plan: Arc<Plan>,
}

/// Above this many entries (256 MB in f32) the phases of all pixels are not stored but factorised.
const DENSE_LIMIT: usize = 64 << 20;

impl Fourier {
    /// The transform of images on `grid` to the points `uv`, in wavelengths.
    ///
    /// # Errors
    /// No points, or a device without memory.
    pub fn new(grid: &Grid, uv: &[[f64; 2]], pulse: Pulse, compute: &Compute) -> Result<Self> {
        match grid.len().saturating_mul(uv.len()) <= DENSE_LIMIT || !compute.device.is_cpu() {
            true => Self::dense(grid, uv, pulse, compute),
            false => Self::separable(grid, uv, pulse, compute),
        }
    }

    /// The phases of all pixels as one matrix.
    fn dense(grid: &Grid, uv: &[[f64; 2]], pulse: Pulse, compute: &Compute) -> Result<Self> {
        let (east, north) = (grid.east(), grid.north());
        let phase = |pixel: usize, [u, v]: [f64; 2]| {
            TAU * (u * east[pixel % east.len()] + v * north[pixel / east.len()])
        };
        let matrix = |wave: fn(f64) -> f64| {
            let row = |pixel| uv.iter().map(move |&uv| pulse.at(uv, grid) * wave(phase(pixel, uv)));
            compute.tensor((0..half(grid.len())).flat_map(row).collect(), &[half(grid.len()), uv.len()])
        };
        let plan = Plan::Dense { cosine: matrix(f64::cos)?, sine: matrix(f64::sin)?, pixels: grid.len() };
        Self::with(grid, uv, plan)
    }

    /// The phases of the columns as matrices, those of the rows as a list: exp(i(a + b)) = exp(ia) exp(ib).
    fn separable(grid: &Grid, uv: &[[f64; 2]], pulse: Pulse, compute: &Compute) -> Result<Self> {
        let (east, north) = (grid.east(), grid.north());
        let chunk = |uv: &[[f64; 2]]| {
            let columns = |wave: fn(f64) -> f64| {
                let column = |j: usize| uv.iter().map(|&[u, _]| wave(TAU * u * east[j])).collect::<Vec<_>>();
                compute
                    .tensor((0..half(east.len())).flat_map(column).collect(), &[half(east.len()), uv.len()])
            };
            let rows = |wave: fn(f64) -> f64| -> Vec<f64> {
                let row = |&y: &f64| {
                    uv.iter()
                        .map(move |&[u, v]| pulse.at([u, v], grid) * wave(TAU * v * y))
                        .collect::<Vec<_>>()
                };
                north.iter().flat_map(row).collect()
            };
            Ok(Chunk {
                cosine: columns(f64::cos)?,
                sine: columns(f64::sin)?,
                row_cosine: rows(f64::cos),
                row_sine: rows(f64::sin),
            })
        };
        /// Visibilities transformed at a time, which bounds the memory between the two stages.
        const CHUNK: usize = 256;
        let chunks = uv.chunks(CHUNK).map(chunk).collect::<Result<_>>()?;
        let plan = Plan::Separable { chunks, rows: north.len(), columns: east.len(), count: uv.len() };
        Self::with(grid, uv, plan)
    }

    fn with(grid: &Grid, uv: &[[f64; 2]], plan: Plan) -> Result<Self> {
        match uv.is_empty() || grid.is_empty() {
            true => Err(Error::config("data", "no visibilities to model")),
            false => Ok(Self { grid: *grid, plan: Arc::new(plan) }),
        }
    }
}

impl Forward for Fourier {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn apply(&self, image: &Tensor) -> Result<Tensor> {
        let [z, y, x] = self.grid.shape;
        let batch = match image.dims() {
            &[batch, a, b, c] if [a, b, c] == [z, y, x] => batch,
            found => {
                return Err(Error::Shape {
                    what: "image",
                    expected: vec![0, z, y, x],
                    found: found.to_vec(),
                });
            }
        };
        let flat = image.reshape((batch, z * y * x))?;
        if image.device().is_cpu() {
            return Ok(flat.contiguous()?.apply_op1(Transform { plan: self.plan.clone() })?);
        }
        Ok(self.plan.on_device(&flat)?)
    }
}

fn half(length: usize) -> usize {
    length.div_ceil(2)
}

#[derive(Debug)]
enum Plan {
    /// `[pixels / 2, M]` each, pulse included.
    Dense {
        cosine: Tensor,
        sine: Tensor,
        pixels: usize,
    },
    Separable {
        chunks: Vec<Chunk>,
        rows: usize,
        columns: usize,
        count: usize,
    },
}

/// Phases of some of the visibilities, M of them.
#[derive(Debug)]
struct Chunk {
    /// `[columns / 2, M]`.
    cosine: Tensor,
    sine: Tensor,
    /// `[rows, M]`, pulse included.
    row_cosine: Vec<f64>,
    row_sine: Vec<f64>,
}

impl Chunk {
    fn count(&self) -> usize {
        self.cosine.elem_count() / self.cosine.dims().first().copied().unwrap_or(1)
    }
}

/// Even and odd part under reversal of each row of `values` `[n, length]`, as `[n, half(length)]` each; the middle
/// element of an odd length belongs to the even part.
fn fold<T: WithDType>(values: &[T], length: usize) -> candle_core::Result<(Tensor, Tensor)> {
    let (mut even, mut odd) = (Vec::new(), Vec::new());
    for row in values.chunks_exact(length) {
        for i in 0..half(length) {
            let mirrored = if i == length - 1 - i { T::zero() } else { row[length - 1 - i] };
            even.push(row[i] + mirrored);
            odd.push(row[i] - mirrored);
        }
    }
    let shape = (values.len() / length, half(length));
    Ok((Tensor::from_vec(even, shape, &Device::Cpu)?, Tensor::from_vec(odd, shape, &Device::Cpu)?))
}

/// The adjoint of [`fold`].
fn unfold<T: WithDType>(even: &Tensor, odd: &Tensor, length: usize) -> candle_core::Result<Vec<T>> {
    let (even, odd) = (flat::<T>(even)?, flat::<T>(odd)?);
    let mut values = vec![T::zero(); even.len() / half(length) * length];
    let halves = even.chunks_exact(half(length)).zip(odd.chunks_exact(half(length)));
    for (row, (even, odd)) in values.chunks_exact_mut(length).zip(halves) {
        for (i, (&even, &odd)) in even.iter().zip(odd).enumerate() {
            row[length - 1 - i] = even - odd;
            row[i] = even + odd;
        }
    }
    Ok(values)
}

fn flat<T: WithDType>(tensor: &Tensor) -> candle_core::Result<Vec<T>> {
    tensor.flatten_all()?.to_vec1()
}

impl Plan {
    fn count(&self) -> usize {
        match self {
            Self::Dense { cosine, .. } => cosine.elem_count() / cosine.dims().first().copied().unwrap_or(1),
            Self::Separable { count, .. } => *count,
        }
    }

    /// Images `[B, pixels]` to `[B, M, 2]`, flattened.
    fn apply<T: WithDType>(&self, images: &[T], batch: usize) -> candle_core::Result<Vec<T>> {
        let count = self.count();
        let mut result = vec![T::zero(); batch * count * 2];
        match self {
            Self::Dense { cosine, sine, pixels } => {
                let (even, odd) = fold(images, *pixels)?;
                let (real, imaginary) = (flat::<T>(&even.matmul(cosine)?)?, flat::<T>(&odd.matmul(sine)?)?);
                for (pair, (real, imaginary)) in
                    result.chunks_exact_mut(2).zip(real.into_iter().zip(imaginary))
                {
                    pair.copy_from_slice(&[real, imaginary]);
                }
            }
            Self::Separable { chunks, rows, columns, .. } => {
                let (even, odd) = fold(images, *columns)?;
                let mut start = 0;
                for chunk in chunks {
                    let m = chunk.count();
                    let real = flat::<T>(&even.matmul(&chunk.cosine)?)?;
                    let imaginary = flat::<T>(&odd.matmul(&chunk.sine)?)?;
                    for b in 0..batch {
                        let out = &mut result[2 * (b * count + start)..2 * (b * count + start + m)];
                        for i in 0..*rows {
                            let row = (b * rows + i) * m..(b * rows + i + 1) * m;
                            let terms = real[row.clone()].iter().zip(&imaginary[row]);
                            let phases = chunk.row_cosine[i * m..].iter().zip(&chunk.row_sine[i * m..]);
                            for ((pair, (&re, &im)), (&c, &s)) in
                                out.chunks_exact_mut(2).zip(terms).zip(phases)
                            {
                                let (c, s) = (T::from_f64(c), T::from_f64(s));
                                pair[0] += re * c - im * s;
                                pair[1] += re * s + im * c;
                            }
                        }
                    }
                    start += m;
                }
            }
        }
        Ok(result)
    }

    /// The adjoint of [`Plan::apply`]: `[B, M, 2]` to `[B, pixels]`, flattened.
    fn adjoint<T: WithDType>(&self, visibilities: &[T], batch: usize) -> candle_core::Result<Vec<T>> {
        let count = self.count();
        match self {
            Self::Dense { cosine, sine, pixels } => {
                let part = |offset: usize| {
                    let values: Vec<T> = visibilities[offset..].iter().step_by(2).copied().collect();
                    Tensor::from_vec(values, (batch, count), &Device::Cpu)
                };
                let (even, odd) = (part(0)?.matmul(&cosine.t()?)?, part(1)?.matmul(&sine.t()?)?);
                unfold(&even, &odd, *pixels)
            }
            Self::Separable { chunks, rows, columns, .. } => {
                let mut images = vec![T::zero(); batch * rows * columns];
                let mut start = 0;
                for chunk in chunks {
                    let m = chunk.count();
                    let (mut real, mut imaginary) = (Vec::new(), Vec::new());
                    for b in 0..batch {
                        let pairs = &visibilities[2 * (b * count + start)..2 * (b * count + start + m)];
                        for i in 0..*rows {
                            let phases = chunk.row_cosine[i * m..].iter().zip(&chunk.row_sine[i * m..]);
                            for (pair, (&c, &s)) in pairs.chunks_exact(2).zip(phases) {
                                let (c, s) = (T::from_f64(c), T::from_f64(s));
                                real.push(pair[0] * c + pair[1] * s);
                                imaginary.push(pair[1] * c - pair[0] * s);
                            }
                        }
                    }
                    let even = Tensor::from_vec(real, (batch * rows, m), &Device::Cpu)?
                        .matmul(&chunk.cosine.t()?)?;
                    let odd = Tensor::from_vec(imaginary, (batch * rows, m), &Device::Cpu)?
                        .matmul(&chunk.sine.t()?)?;
                    let part = unfold::<T>(&even, &odd, *columns)?;
                    images.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                    start += m;
                }
                Ok(images)
            }
        }
    }

    /// The same with stock tensor operations, for devices other than the CPU.
    fn on_device(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        let Self::Dense { cosine, sine, pixels } = self else {
            bail!("the transform was planned for the CPU")
        };
        // The second half of the pixels mirrors the first: same cosine, negated sine.
        let mirrored: Vec<u32> = (0..pixels / 2).rev().map(|i| i as u32).collect();
        let mirrored = Tensor::new(mirrored, images.device())?;
        let cosine = Tensor::cat(&[cosine, &cosine.index_select(&mirrored, 0)?], 0)?;
        let sine = Tensor::cat(&[sine, &sine.index_select(&mirrored, 0)?.neg()?], 0)?;
        Tensor::stack(&[images.matmul(&cosine)?, images.matmul(&sine)?], 2)
    }
}

/// The differentiable operation on the CPU.
struct Transform {
    plan: Arc<Plan>,
}

impl CustomOp1 for Transform {
    fn name(&self) -> &'static str {
        "fourier"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let batch = layout.dims()[0];
        let shape = Shape::from((batch, self.plan.count(), 2));
        let storage = match storage {
            CpuStorage::F32(_) => self.forward::<f32>(storage, layout, batch)?,
            CpuStorage::F64(_) => self.forward::<f64>(storage, layout, batch)?,
            _ => bail!("visibilities need an image of f32 or f64"),
        };
        Ok((storage, shape))
    }

    fn bwd(&self, image: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let batch = image.dim(0)?;
        Ok(Some(match gradient.dtype() {
            DType::F64 => Tensor::from_vec(
                self.plan.adjoint(&flat::<f64>(gradient)?, batch)?,
                image.shape(),
                &Device::Cpu,
            )?,
            _ => Tensor::from_vec(
                self.plan.adjoint(&flat::<f32>(gradient)?, batch)?,
                image.shape(),
                &Device::Cpu,
            )?,
        }))
    }
}

impl Transform {
    fn forward<T: WithDType>(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        batch: usize,
    ) -> candle_core::Result<CpuStorage> {
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("the image must be contiguous") };
        let images = &T::cpu_storage_as_slice(storage)?[start..end];
        Ok(T::to_cpu_storage_owned(self.plan.apply(images, batch)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{rng::Rng, tensor::value_and_gradient, units::MICROARCSECOND};

    fn points(count: usize, rng: &mut Rng) -> Vec<[f64; 2]> {
        let mut uv: Vec<_> = (1..count).map(|_| [3e9 * rng.normal(), 3e9 * rng.normal()]).collect();
        uv.push([0.0, 0.0]);
        uv
    }

    /// The definition, term by term.
    fn naive(pixels: &[f64], grid: &Grid, pulse: Pulse, uv: [f64; 2]) -> Complex64 {
        let mut sum = Complex64::ZERO;
        for (i, y) in grid.north().iter().enumerate() {
            for (j, x) in grid.east().iter().enumerate() {
                sum += pixels[i * grid.shape[2] + j] * Complex64::cis(TAU * (uv[0] * x + uv[1] * y));
            }
        }
        sum * pulse.transform(uv[0], grid.pitch[2]) * pulse.transform(uv[1], grid.pitch[1])
    }

    #[test]
    fn all_transforms_agree_with_the_plain_sum() {
        let compute = Compute::cpu_f64();
        let mut rng = Rng::new(1);
        for shape in [[1, 8, 8], [1, 7, 5], [1, 6, 9]] {
            let grid = Grid { shape, pitch: [1.0, 12.0 * MICROARCSECOND, 15.0 * MICROARCSECOND] };
            let uv = points(300, &mut rng);
            let image = rng.normals(&[2, shape[0], shape[1], shape[2]], &compute).unwrap();
            let pixels = image.get(1).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for pulse in [Pulse::Delta, Pulse::Triangle] {
                let host = visibilities(&pixels, &grid, pulse, &uv).unwrap();
                let dense = Fourier::dense(&grid, &uv, pulse, &compute).unwrap().apply(&image).unwrap();
                let separable =
                    Fourier::separable(&grid, &uv, pulse, &compute).unwrap().apply(&image).unwrap();
                let dense = dense.get(1).unwrap().to_vec2::<f64>().unwrap();
                let separable = separable.get(1).unwrap().to_vec2::<f64>().unwrap();
                for (k, &point) in uv.iter().enumerate() {
                    let expected = naive(&pixels, &grid, pulse, point);
                    for found in [
                        host[k],
                        Complex64::new(dense[k][0], dense[k][1]),
                        Complex64::new(separable[k][0], separable[k][1]),
                    ] {
                        assert!((found - expected).norm() < 1e-11, "{k}: {found} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_gradient_is_the_adjoint() {
        let compute = Compute::cpu_f64();
        let mut rng = Rng::new(2);
        let grid = Grid { shape: [1, 9, 6], pitch: [10.0 * MICROARCSECOND; 3] };
        let uv = points(400, &mut rng);
        for forward in [
            Fourier::dense(&grid, &uv, Pulse::Triangle, &compute).unwrap(),
            Fourier::separable(&grid, &uv, Pulse::Triangle, &compute).unwrap(),
        ] {
            let image = rng.normals(&[3, 1, 9, 6], &compute).unwrap();
            let weights = rng.normals(&[3, 400, 2], &compute).unwrap();
            let (value, gradient) =
                value_and_gradient(&image, |image| Ok((forward.apply(image)? * &weights)?.sum(2)?.sum(1)?))
                    .unwrap();
            let total = value.sum_all().unwrap().to_scalar::<f64>().unwrap();
            let dual = (&gradient * &image).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
            assert!((total - dual).abs() < 1e-12 * total.abs().max(1.0) * 10.0, "{total} {dual}");
        }
    }

    #[test]
    fn stock_operations_give_the_same() {
        let compute = Compute::cpu_f64();
        let mut rng = Rng::new(3);
        for side in [5, 6] {
            let grid = Grid { shape: [1, side, side], pitch: [10.0 * MICROARCSECOND; 3] };
            let forward = Fourier::dense(&grid, &points(20, &mut rng), Pulse::Triangle, &compute).unwrap();
            let image = rng.normals(&[2, 1, side, side], &compute).unwrap();
            let stock = forward.plan.on_device(&image.flatten_from(1).unwrap()).unwrap();
            let difference = (forward.apply(&image).unwrap() - stock).unwrap().abs().unwrap();
            assert!(difference.max_all().unwrap().to_scalar::<f64>().unwrap() < 1e-12);
        }
    }

    #[test]
    fn an_image_of_another_size_is_refused() {
        let grid = Grid::sky(8, 100.0 * MICROARCSECOND).unwrap();
        let forward = Fourier::new(&grid, &[[0.0, 0.0]], Pulse::Delta, &Compute::cpu()).unwrap();
        assert!(forward.apply(&Tensor::zeros((1, 1, 8, 9), DType::F32, &Device::Cpu).unwrap()).is_err());
        assert!(visibilities(&[0.0; 63], &grid, Pulse::Delta, &[]).is_err());
    }
}
