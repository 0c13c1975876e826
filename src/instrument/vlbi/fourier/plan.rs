//! How the sum over pixels is computed: one dense matrix, or matrices for columns and rows.

use std::{f64::consts::TAU, sync::OnceLock};

use candle_core::{Tensor, WithDType, bail};

use super::Pulse;
use crate::{
    Result,
    compute::Compute,
    grid::Grid,
    tensor::{Matrix, Real},
    transfer::send,
};

/// Above this many entries (256 MB in f32, both ways) the phases of all pixels are not stored but factorised.
const DENSE_LIMIT: usize = 32 << 20;

fn half(length: usize) -> usize {
    length.div_ceil(2)
}

/// How images become visibilities.
#[derive(Debug)]
pub(super) enum Plan {
    Dense {
        /// `[pixels / 2, M]`, pulse included.
        waves: Waves,
        pixels: usize,
        /// Cosines and sines `[pixels, M]`, known from the first use by [`Plan::on_device`] on.
        whole: OnceLock<[Tensor; 2]>,
    },
    Separable {
        chunks: Vec<Chunk>,
        rows: usize,
        columns: usize,
        count: usize,
    },
}

/// Cosines and sines of phases, each with its transpose.
#[derive(Debug)]
pub(super) struct Waves {
    cosine: [Matrix; 2],
    sine: [Matrix; 2],
}

impl Waves {
    fn new(cosine: &Tensor, sine: &Tensor) -> Result<Self> {
        let both = |matrix: &Tensor| -> Result<[Matrix; 2]> {
            Ok([Matrix::new(matrix)?, Matrix::new(&matrix.t()?.contiguous()?)?])
        };
        Ok(Self { cosine: both(cosine)?, sine: both(sine)? })
    }

    /// Number of visibilities.
    fn count(&self) -> usize {
        self.cosine[0].columns()
    }

    /// Cosines and sines `[length, M]` of both halves: the second mirrors the first, with its sine negated.
    fn whole(&self, length: usize) -> candle_core::Result<[Tensor; 2]> {
        let (cosine, sine) = (self.cosine[0].plain()?, self.sine[0].plain()?);
        let mirrored: Vec<u32> = (0..length / 2).rev().map(|i| i as u32).collect();
        let mirrored = send(mirrored, cosine.device())?;
        Ok([
            Tensor::cat(&[&cosine, &cosine.index_select(&mirrored, 0)?], 0)?,
            Tensor::cat(&[&sine, &sine.index_select(&mirrored, 0)?.neg()?], 0)?,
        ])
    }

    /// Real and imaginary parts `[n, M]` of the rows `[n, length]` of `values`.
    ///
    /// A row's even part under reversal meets the cosines, its odd part the sines; the middle element of an odd length
    /// belongs to the even part.
    fn apply<T: Real>(&self, values: &[T], length: usize) -> candle_core::Result<[Vec<T>; 2]> {
        let half = half(length);
        let count = values.len() / length * half;
        let (mut even, mut odd) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for row in values.chunks_exact(length) {
            let mirrored = row.iter().rev();
            even.extend(row.iter().zip(mirrored.clone()).map(|(&a, &b)| a + b).take(half));
            odd.extend(row.iter().zip(mirrored).map(|(&a, &b)| a - b).take(half));
            if length % 2 == 1 {
                even.pop();
                even.push(row[half - 1]);
            }
        }
        Ok([self.cosine[0].product(&even)?, self.sine[0].product(&odd)?])
    }

    /// The adjoint of [`Waves::apply`].
    fn adjoint<T: Real>(&self, parts: [&[T]; 2], length: usize) -> candle_core::Result<Vec<T>> {
        let half = half(length);
        let (even, odd) = (self.cosine[1].product(parts[0])?, self.sine[1].product(parts[1])?);
        let mut values = vec![T::zero(); even.len() / half * length];
        let halves = even.chunks_exact(half).zip(odd.chunks_exact(half));
        for (row, (even, odd)) in values.chunks_exact_mut(length).zip(halves) {
            for (i, (&even, &odd)) in even.iter().zip(odd).enumerate() {
                row[length - 1 - i] = even - odd;
                row[i] = even + odd;
            }
        }
        Ok(values)
    }
}

/// Phases of some of the visibilities, M of them.
#[derive(Debug)]
pub(super) struct Chunk {
    /// `[columns / 2, M]`.
    columns: Waves,
    /// `[rows, M]`, pulse included.
    row_cosine: Vec<f64>,
    row_sine: Vec<f64>,
}

/// Values of a tensor in host memory.
#[expect(clippy::disallowed_methods, reason = "nothing crosses: only the CPU's kernel reads its gradient so")]
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
        let waves = Waves::new(&matrix(f64::cos)?, &matrix(f64::sin)?)?;
        Ok(Self::Dense { waves, pixels: grid.len(), whole: OnceLock::new() })
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
                columns: Waves::new(&columns(f64::cos)?, &columns(f64::sin)?)?,
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
            Self::Dense { waves, .. } => waves.count(),
            Self::Separable { count, .. } => *count,
        }
    }

    /// Images `[B, pixels]` to `[B, M, 2]`, flattened.
    pub(super) fn apply<T: Real>(&self, images: &[T], batch: usize) -> candle_core::Result<Vec<T>> {
        let count = self.count();
        let mut result = vec![T::zero(); batch * count * 2];
        match self {
            Self::Dense { waves, pixels, .. } => {
                let [real, imaginary] = waves.apply(images, *pixels)?;
                for (pair, (real, imaginary)) in
                    result.chunks_exact_mut(2).zip(real.into_iter().zip(imaginary))
                {
                    pair.copy_from_slice(&[real, imaginary]);
                }
            }
            Self::Separable { chunks, rows, columns, .. } => {
                let mut start = 0;
                for chunk in chunks {
                    let m = chunk.columns.count();
                    let [real, imaginary] = chunk.columns.apply(images, *columns)?;
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
    pub(super) fn adjoint<T: Real>(&self, visibilities: &[T], batch: usize) -> candle_core::Result<Vec<T>> {
        let count = self.count();
        match self {
            Self::Dense { waves, pixels, .. } => {
                let part = |offset: usize| -> Vec<T> {
                    visibilities.iter().skip(offset).step_by(2).copied().collect()
                };
                waves.adjoint([&part(0), &part(1)], *pixels)
            }
            Self::Separable { chunks, rows, columns, .. } => {
                let mut images = vec![T::zero(); batch * rows * columns];
                let mut start = 0;
                for chunk in chunks {
                    let m = chunk.columns.count();
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
                    let part = chunk.columns.adjoint([&real, &imaginary], *columns)?;
                    images.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                    start += m;
                }
                Ok(images)
            }
        }
    }

    /// The same with stock tensor operations, for devices other than the CPU.
    pub(super) fn on_device(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        let Self::Dense { waves, pixels, whole } = self else {
            bail!("the transform was planned for the CPU")
        };
        let [cosine, sine] = match whole.get() {
            Some(whole) => whole,
            None => {
                let made = waves.whole(*pixels)?;
                whole.get_or_init(|| made)
            }
        };
        Tensor::stack(&[images.matmul(cosine)?, images.matmul(sine)?], 2)
    }
}
