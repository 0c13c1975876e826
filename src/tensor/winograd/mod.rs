//! Convolution with 3 x 3 kernels in tiles of 4 x 4 outputs: F(4 x 4, 3 x 3) of Lavin and Gray (2016).
//!
//! A tile of outputs is A' [(G w G') . (B' d B)] A, d the 6 x 6 inputs it sees. The sum over channels turns the product
//! of the 36 points into 36 matrix products, with a quarter of the multiplications of the definition.

mod correlate;
mod tiles;
mod transform;

pub(crate) use self::correlate::correlate;
use self::{
    tiles::{Tiles, point_stride},
    transform::{Input, Taps, Transform},
};
use super::{
    conv_kernel::{Arranged, Geometry},
    parallel::{each_chunk, parts},
    product::{Left, Product, Right, Start},
    scratch::unwritten,
    simd::{Kernel, Real, Vector, WIDEST},
};

/// Points of a transformed tile.
const POINTS: usize = 36;
/// Side of a tile of outputs.
const SIDE: usize = 4;
/// Numbers of scratch memory that stay in a processor's second-level cache.
const CACHED: usize = 1 << 18;
/// Tasks that a convolution is cut into at least, where they hold tiles enough.
const LEAST_TASKS: usize = 8;
/// Tiles of a task at least: each task reads all weights, and this many rows fill the registers of a product.
const LEAST_TILES: usize = 12;

/// Kernels transformed to [`POINTS`] matrices `[C, padded O]`.
pub(crate) struct Transformed<T> {
    values: Vec<T>,
    inputs: usize,
    outputs: usize,
}

impl<T: Real> Transformed<T> {
    pub(crate) fn new(weights: &Arranged<T>) -> Self {
        let (inputs, outputs) = (weights.inputs, weights.outputs);
        let width = padded(outputs);
        let mut values = unwritten(POINTS * inputs * width);
        let rows = inputs.div_ceil(LEAST_TASKS).max(1);
        each_chunk(&mut parts(&mut values, inputs * width, rows * width), 1, |task, points| {
            for points in points {
                T::vectorize(TransformKernels { weights, first: task * rows, points });
            }
        });
        Self { values, inputs, outputs }
    }
}

/// Channels of a matrix whose rows are whole registers.
fn padded(channels: usize) -> usize {
    channels.next_multiple_of(WIDEST)
}

/// Transforms the kernels of the inputs from `first` on.
struct TransformKernels<'a, 'b, T> {
    weights: &'a Arranged<T>,
    first: usize,
    /// Rows `[inputs, padded O]` of every point.
    points: &'a mut [&'b mut [T]],
}

impl<T: Real> Kernel<T> for TransformKernels<'_, '_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let Arranged { values, inputs, outputs, .. } = self.weights;
        let (taps, width) = (inputs * outputs, padded(*outputs));
        let rows = self.points.first().map_or(0, |rows| rows.len() / width);
        assert!(self.points.len() == POINTS && self.points.iter().all(|point| point.len() == rows * width));
        assert!(values.len() >= 9 * taps && self.first + rows <= *inputs);
        for row in 0..rows {
            let input = self.first + row;
            for output in (0..*outputs).step_by(V::LANES) {
                let tap = |i: usize, j: usize| {
                    let source = values[(3 * i + j) * taps + input * outputs + output..].as_ptr();
                    // SAFETY: so many outputs are left in this row.
                    unsafe { V::load_first(source, outputs - output) }
                };
                Taps::both(tap, |i, j, value: V| {
                    let target = self.points[6 * i + j][row * width + output..].as_mut_ptr();
                    // SAFETY: rows are whole registers.
                    unsafe { value.store(target) };
                });
            }
        }
    }
}

/// Convolves `[B, Y, X, C]` to `output` `[B, Y, X, O]`, zeros outside; `bias` holds O numbers or none.
pub(crate) fn convolve<T: Real>(
    g: &Geometry,
    images: &[T],
    weights: &Transformed<T>,
    bias: &[T],
    output: &mut [T],
) {
    let tiles = Tiles::new(g);
    let (row, image) = (g.width * weights.outputs, g.pixels() * weights.outputs);
    // Whole rows of tiles of one image, or whole images: as many as fit into the cache and still occupy many threads.
    let fit = CACHED / (POINTS * (weights.inputs + padded(weights.outputs)) * tiles.across);
    let shared = (g.batch * tiles.down).div_ceil(LEAST_TASKS).max(LEAST_TILES.div_ceil(tiles.across));
    let rows = fit.min(shared).max(1);
    let parts: Vec<_> = if rows < tiles.down {
        output.chunks_mut(image).flat_map(|image| image.chunks_mut(rows * SIDE * row)).collect()
    } else {
        output.chunks_mut(rows / tiles.down * image).collect()
    };
    let mut first = 0;
    let mut slots = Vec::with_capacity(parts.len());
    for part in parts {
        let count =
            part.len() / image * tiles.per_image() + (part.len() % image / row).div_ceil(SIDE) * tiles.across;
        slots.push((first, count, part));
        first += count;
    }
    each_chunk(&mut slots, 1, |_, slots| {
        for (first, count, output) in slots {
            let strides = [weights.inputs, padded(weights.outputs)].map(|c| point_stride(*count, c));
            T::scratch(POINTS * (strides[0] + strides[1]), |scratch| {
                let scratch = scratch.split_at_mut(POINTS * strides[0]);
                T::vectorize(Outputs {
                    tiles,
                    images,
                    weights,
                    bias,
                    range: [*first, *count],
                    scratch,
                    output,
                });
            });
        }
    });
}

/// Outputs of a range of tiles.
struct Outputs<'a, T> {
    tiles: Tiles,
    images: &'a [T],
    weights: &'a Transformed<T>,
    bias: &'a [T],
    range: [usize; 2],
    /// Transformed inputs and outputs.
    scratch: (&'a mut [T], &'a mut [T]),
    output: &'a mut [T],
}

impl<T: Real> Kernel<T> for Outputs<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let Transformed { values, inputs, outputs } = self.weights;
        let Self { tiles, range, scratch: (fields, sums), .. } = self;
        let width = padded(*outputs);
        let strides = [fields.len() / POINTS, sums.len() / POINTS];
        tiles.transform::<V, 6, Input>(self.images, *inputs, range, fields);
        for point in 0..POINTS {
            let product = Product {
                a: Left { values: &fields[point * strides[0]..], row: *inputs, column: 1, run: 0 },
                b: Right { values: &values[point * inputs * width..], row: width, run: 0 },
                rows: range[1],
                columns: width,
                run: *inputs,
                runs: 1,
            };
            product.write::<V>(Start::Zero, &mut sums[point * strides[1]..], width);
        }
        tiles.write::<V>(sums, [*outputs, width], self.bias, range, self.output);
    }
}
