//! How the sum over pixels is computed: one dense matrix, or matrices for columns and rows.

use std::f64::consts::TAU;

use candle_core::{Device, Tensor, WithDType, bail};

use super::Pulse;
use crate::{Result, compute::Compute, grid::Grid};

/// Above this many entries (256 MB in f32) the phases of all pixels are not stored but factorised.
const DENSE_LIMIT: usize = 64 << 20;

fn half(length: usize) -> usize {
    length.div_ceil(2)
}

/// How images become visibilities.
#[derive(Debug)]
pub(super) enum Plan {
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
pub(super) struct Chunk {
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

pub(super) fn flat<T: WithDType>(tensor: &Tensor) -> candle_core::Result<Vec<T>> {
    tensor.flatten_all()?.to_vec1()
}

impl Plan {
    /// The faster plan for images on `grid`.
    ///
    /// # Errors
    /// A device without memory.
    pub(super) fn new(grid: &Grid, uv: &[[f64; 2]], pulse: Pulse, compute: &Compute) -> Result<Self> {
        match grid.len().saturating_mul(uv.len()) <= DENSE_LIMIT || !compute.device.is_cpu() {
            true => Self::dense(grid, uv, pulse, compute),
            false => Self::separable(grid, uv, pulse, compute),
        }
    }

    /// The phases of all pixels as one matrix.
    pub(super) fn dense(grid: &Grid, uv: &[[f64; 2]], pulse: Pulse, compute: &Compute) -> Result<Self> {
        let (east, north) = (grid.east(), grid.north());
        let phase = |pixel: usize, [u, v]: [f64; 2]| {
            TAU * (u * east[pixel % east.len()] + v * north[pixel / east.len()])
        };
        let matrix = |wave: fn(f64) -> f64| {
            let row = |pixel| uv.iter().map(move |&uv| pulse.at(uv, grid) * wave(phase(pixel, uv)));
            compute.tensor((0..half(grid.len())).flat_map(row).collect(), &[half(grid.len()), uv.len()])
        };
        Ok(Self::Dense { cosine: matrix(f64::cos)?, sine: matrix(f64::sin)?, pixels: grid.len() })
    }

    /// The phases of the columns as matrices, those of the rows as a list: exp(i(a + b)) = exp(ia) exp(ib).
    pub(super) fn separable(grid: &Grid, uv: &[[f64; 2]], pulse: Pulse, compute: &Compute) -> Result<Self> {
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
        Ok(Self::Separable { chunks, rows: north.len(), columns: east.len(), count: uv.len() })
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Self::Dense { cosine, .. } => cosine.elem_count() / cosine.dims().first().copied().unwrap_or(1),
            Self::Separable { count, .. } => *count,
        }
    }

    /// Images `[B, pixels]` to `[B, M, 2]`, flattened.
    pub(super) fn apply<T: WithDType>(&self, images: &[T], batch: usize) -> candle_core::Result<Vec<T>> {
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
    pub(super) fn adjoint<T: WithDType>(
        &self,
        visibilities: &[T],
        batch: usize,
    ) -> candle_core::Result<Vec<T>> {
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
    pub(super) fn on_device(&self, images: &Tensor) -> candle_core::Result<Tensor> {
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
