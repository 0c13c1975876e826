//! Loops of the convolution: sums over taps of a zero-padded image, with as many sums as fit into registers.
//!
//! A padded image of row length L is a flat array in which a tap (dy, dx) is a constant shift dy L + dx. A row of
//! outputs, the padding between rows included, is then one long vector, and outputs in the padding are dropped.

use std::array;

use super::{
    parallel::each_chunk,
    simd::{Kernel, Real, Vector},
};

/// Numbers that a tile may read past the end of an image.
const SLACK: usize = 64;

/// Sizes of a stack of images `[B, C, Y, X]` under a square kernel of odd width.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) kernel: usize,
}

impl Geometry {
    /// Numbers in one image.
    pub(crate) fn pixels(&self) -> usize {
        self.height * self.width
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    fn border(&self) -> usize {
        self.kernel / 2
    }

    fn row(&self) -> usize {
        self.width + 2 * self.border()
    }

    fn padded(&self) -> usize {
        self.row() * (self.height + 2 * self.border())
    }

    /// Output rows with the padding between them.
    fn flat(&self) -> usize {
        self.row() * self.height
    }

    fn shift(&self, tap: usize) -> usize {
        tap / self.kernel * self.row() + tap % self.kernel
    }

    /// Copies images into zeroed fields of `length` numbers, the first pixel at `origin`, rows [`Geometry::row`] apart.
    fn spread<T: Real>(&self, images: &[T], length: usize, origin: usize) -> Vec<T> {
        let count = images.len() / self.pixels();
        let mut fields = vec![T::default(); count * length + SLACK];
        let per_task = length * (count / self.batch);
        each_chunk(&mut fields[..count * length], per_task, |task, fields| {
            let images = &images[task * per_task / length * self.pixels()..];
            for (field, image) in fields.chunks_mut(length).zip(images.chunks(self.pixels())) {
                for (target, source) in field[origin..].chunks_mut(self.row()).zip(image.chunks(self.width)) {
                    target[..self.width].copy_from_slice(source);
                }
            }
        });
        fields
    }
}

/// How a convolution reads its weights: index = output * row + input * depth + tap offset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    row: usize,
    depth: usize,
    flipped: bool,
}

impl<'a, T: Real> Weights<'a, T> {
    /// Weights `[O, C, k, k]` as they are.
    pub(crate) fn forward(values: &'a [T], outputs: usize, inputs: usize, taps: usize) -> Self {
        Self { values, outputs, inputs, row: inputs * taps, depth: taps, flipped: false }
    }

    /// Weights `[O, C, k, k]` of the adjoint: inputs and outputs exchanged, kernel turned by 180 degrees.
    pub(crate) fn adjoint(values: &'a [T], outputs: usize, inputs: usize, taps: usize) -> Self {
        Self { values, outputs: inputs, inputs: outputs, row: taps, depth: inputs * taps, flipped: true }
    }

    fn tap(&self, tap: usize, taps: usize) -> usize {
        if self.flipped { taps - 1 - tap } else { tap }
    }
}

/// Convolves `[B, C, Y, X]` to `[B, O, Y, X]`, zeros outside; `bias` holds O numbers or none.
pub(crate) fn convolve<T: Real>(g: &Geometry, images: &[T], weights: &Weights<T>, bias: &[T]) -> Vec<T> {
    let padded = g.spread(images, g.padded(), g.border() * g.row() + g.border());
    let taps: Vec<_> = (0..g.taps()).map(|tap| (weights.tap(tap, g.taps()), g.shift(tap))).collect();
    let mut output = vec![T::default(); g.batch * weights.outputs * g.pixels()];
    // Blocks of outputs have the same bounds on every machine.
    const BLOCK: usize = 8;
    let blocks = weights.outputs.div_ceil(BLOCK);
    let mut slots = Vec::with_capacity(g.batch * blocks);
    for image in output.chunks_mut(weights.outputs * g.pixels()) {
        slots.extend(image.chunks_mut(BLOCK * g.pixels()));
    }
    each_chunk(&mut slots, 1, |task, slot| {
        let image = &padded[task / blocks * weights.inputs * g.padded()..];
        let first = task % blocks * BLOCK;
        slot.iter_mut()
            .for_each(|output| T::vectorize(Block { g, taps: &taps, weights, bias, image, first, output }));
    });
    output
}

/// Outputs `first..` of one image, as many as `output` holds.
struct Block<'a, T> {
    g: &'a Geometry,
    taps: &'a [(usize, usize)],
    weights: &'a Weights<'a, T>,
    bias: &'a [T],
    image: &'a [T],
    first: usize,
    output: &'a mut [T],
}

impl<T: Real> Kernel<T> for Block<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(mut self) {
        let rows = self.output.len() / self.g.pixels();
        let mut first = 0;
        while first < rows {
            first += match (V::MANY, rows - first) {
                (true, 8..) => self.rows::<V, 8>(first),
                (_, 4..) => self.rows::<V, 4>(first),
                _ => self.rows::<V, 1>(first),
            };
        }
    }
}

impl<T: Real> Block<'_, T> {
    /// Computes M outputs at all positions.
    #[inline(always)]
    fn rows<V: Vector<Lane = T>, const M: usize>(&mut self, first: usize) -> usize {
        let flat = self.g.flat();
        let length = flat.next_multiple_of(V::LANES);
        let mut sums = vec![T::default(); M * length];
        let mut at = 0;
        while at < length {
            at += match (length - at) / V::LANES {
                3.. => self.tile::<V, M, 3>(first, at, &mut sums),
                2 => self.tile::<V, M, 2>(first, at, &mut sums),
                _ => self.tile::<V, M, 1>(first, at, &mut sums),
            };
        }
        let outputs = self.output.chunks_mut(self.g.pixels()).skip(first);
        for (output, sums) in outputs.zip(sums.chunks(length)) {
            for (target, source) in output.chunks_mut(self.g.width).zip(sums.chunks(self.g.row())) {
                target.copy_from_slice(&source[..self.g.width]);
            }
        }
        M
    }

    /// Computes M outputs at N registers of positions.
    #[inline(always)]
    fn tile<V: Vector<Lane = T>, const M: usize, const N: usize>(
        &self,
        first: usize,
        at: usize,
        sums: &mut [T],
    ) -> usize {
        let Weights { values, inputs, row, depth, .. } = *self.weights;
        let first = self.first + first;
        let last = self.taps.iter().fold((0, 0), |a, b| (a.0.max(b.0), a.1.max(b.1)));
        assert!((first + M - 1) * row + (inputs - 1) * depth + last.0 < values.len());
        assert!((inputs - 1) * self.g.padded() + last.1 + at + N * V::LANES <= self.image.len());
        let mut total: [[V; N]; M] =
            array::from_fn(|m| [V::splat(self.bias.get(first + m).copied().unwrap_or_default()); N]);
        for input in 0..inputs {
            for &(tap, shift) in self.taps {
                // SAFETY: the assertions above bound the largest offsets of both arrays.
                unsafe {
                    let image = self.image.as_ptr().add(input * self.g.padded() + shift + at);
                    let weight = values.as_ptr().add(first * row + input * depth + tap);
                    let pixels: [V; N] = array::from_fn(|n| V::load(image.add(n * V::LANES)));
                    for (m, total) in total.iter_mut().enumerate() {
                        let weight = V::splat(*weight.add(m * row));
                        for (total, &pixels) in total.iter_mut().zip(&pixels) {
                            *total = weight.mul_add(pixels, *total);
                        }
                    }
                }
            }
        }
        let length = sums.len() / M;
        for (m, total) in total.iter().enumerate() {
            let target = &mut sums[m * length + at..][..N * V::LANES];
            for (n, total) in total.iter().enumerate() {
                // SAFETY: the slice holds N registers.
                unsafe { total.store(target.as_mut_ptr().add(n * V::LANES)) };
            }
        }
        N * V::LANES
    }
}

/// Gradient `[O, C, k, k]` with respect to the weights: correlation of images `[B, C, Y, X]` with the outputs'
/// gradient `[B, O, Y, X]`.
pub(crate) fn correlate<T: Real>(g: &Geometry, images: &[T], outputs: &[T]) -> Vec<T> {
    let per_image = g.batch * g.pixels();
    let (inputs, output_count) = (images.len() / per_image, outputs.len() / per_image);
    let images = g.spread(images, g.padded(), g.border() * g.row() + g.border());
    // Zeros between rows and up to a full register leave the sums alone.
    let length = g.flat().next_multiple_of(16);
    let outputs = g.spread(outputs, length, 0);
    let columns: Vec<_> = (0..inputs * g.taps())
        .map(|column| column / g.taps() * g.padded() + g.shift(column % g.taps()))
        .collect();
    let mut gradient = vec![T::default(); output_count * columns.len()];
    const BLOCK: usize = 4;
    each_chunk(&mut gradient, BLOCK * columns.len(), |task, gradient| {
        let outputs = &outputs[task * BLOCK * length..];
        let strides = [inputs * g.padded(), output_count * length];
        T::vectorize(Correlation {
            batch: g.batch,
            length,
            strides,
            images: &images,
            outputs,
            columns: &columns,
            gradient,
        });
    });
    gradient
}

/// Some rows of the weight gradient, as many as `gradient` holds.
struct Correlation<'a, T> {
    batch: usize,
    length: usize,
    /// From one element of the batch to the next, in `images` and `outputs`.
    strides: [usize; 2],
    images: &'a [T],
    outputs: &'a [T],
    columns: &'a [usize],
    gradient: &'a mut [T],
}

impl<T: Real> Kernel<T> for Correlation<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(mut self) {
        let rows = self.gradient.len() / self.columns.len();
        let mut row = 0;
        while row < rows {
            row += match (V::MANY, rows - row) {
                (true, 4..) => self.rows::<V, 4, 6>(row),
                (false, 2..) => self.rows::<V, 2, 6>(row),
                _ => self.rows::<V, 1, 6>(row),
            };
        }
    }
}

impl<T: Real> Correlation<'_, T> {
    #[inline(always)]
    fn rows<V: Vector<Lane = T>, const M: usize, const N: usize>(&mut self, row: usize) -> usize {
        for first in (0..self.columns.len()).step_by(N) {
            let total = self.tile::<V, M, N>(row, first);
            for (m, total) in total.iter().enumerate() {
                let start = (row + m) * self.columns.len();
                let target = &mut self.gradient[start..][..self.columns.len()][first..];
                target.iter_mut().zip(total).for_each(|(target, total)| *target = total.sum());
            }
        }
        M
    }

    /// Sums over batch and positions for M rows and N columns; columns past the end repeat the last.
    #[inline(always)]
    fn tile<V: Vector<Lane = T>, const M: usize, const N: usize>(
        &self,
        row: usize,
        first: usize,
    ) -> [[V; N]; M] {
        let columns: [usize; N] = array::from_fn(|n| self.columns[(first + n).min(self.columns.len() - 1)]);
        let last = self.batch - 1;
        let furthest = columns.iter().fold(0, |a, &b| a.max(b));
        assert!(last * self.strides[0] + furthest + self.length <= self.images.len());
        assert!(last * self.strides[1] + (row + M) * self.length <= self.outputs.len());
        let mut total = [[V::splat(T::default()); N]; M];
        for b in 0..self.batch {
            for at in (0..self.length).step_by(V::LANES) {
                // SAFETY: the assertions above bound the largest offsets of both arrays.
                unsafe {
                    let image = self.images.as_ptr().add(b * self.strides[0] + at);
                    let output = self.outputs.as_ptr().add(b * self.strides[1] + row * self.length + at);
                    let output: [V; M] = array::from_fn(|m| V::load(output.add(m * self.length)));
                    for n in 0..N {
                        let pixels = V::load(image.add(columns[n]));
                        for m in 0..M {
                            total[m][n] = output[m].mul_add(pixels, total[m][n]);
                        }
                    }
                }
            }
        }
        total
    }
}
