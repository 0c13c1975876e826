//! Convolution with 3 x 3 kernels in tiles of 4 x 4 outputs: F(4 x 4, 3 x 3) of Lavin and Gray (2016).
//!
//! A tile of outputs is A' [(G w G') . (B' d B)] A, d the 6 x 6 inputs it sees. The sum over channels turns the product
//! of the 36 points into 36 matrix products, with a quarter of the multiplications of the definition.

use candle_core::WithDType;

use super::{
    conv_kernel::{Arranged, Geometry},
    parallel::each_chunk,
    product::{Left, Product, Right, Start},
    simd::{Kernel, Real, Vector, WIDEST},
};

/// Points of a transformed tile.
const POINTS: usize = 36;
/// Side of a tile of outputs.
const SIDE: usize = 4;
/// Numbers of scratch memory that stay in a processor's second-level cache.
const CACHED: usize = 1 << 18;
/// Tasks that a convolution is cut into at least, where it has as many rows of tiles.
const LEAST_TASKS: usize = 8;

/// A linear map along one axis of a tile.
trait Transform<const I: usize, const O: usize> {
    fn apply<V: Vector>(x: [V; I]) -> [V; O];

    /// Along both axes.
    #[inline(always)]
    fn both<V: Vector>(tile: [[V; I]; I]) -> [[V; O]; O] {
        let zero = splat::<V>(0.0);
        let (mut rows, mut result) = ([[zero; I]; O], [[zero; O]; O]);
        for i in 0..I {
            let mut column = [zero; I];
            for j in 0..I {
                column[j] = tile[j][i];
            }
            let column = Self::apply(column);
            for o in 0..O {
                rows[o][i] = column[o];
            }
        }
        for o in 0..O {
            result[o] = Self::apply(rows[o]);
        }
        result
    }
}

/// B': the inputs of a tile.
struct Input;

impl Transform<6, 6> for Input {
    #[inline(always)]
    fn apply<V: Vector>(d: [V; 6]) -> [V; 6] {
        let (two, four, minus_five) = (splat::<V>(2.0), splat::<V>(4.0), splat::<V>(-5.0));
        let (high, low) = (d[4].minus(d[2]), d[3].minus(d[1]).times(two));
        let minus_four = splat::<V>(-4.0);
        [
            four.mul_add(d[0], minus_five.mul_add(d[2], d[4])),
            minus_four.mul_add(d[1].plus(d[2]), d[3].plus(d[4])),
            four.mul_add(d[1].minus(d[2]), d[4].minus(d[3])),
            high.plus(low),
            high.minus(low),
            four.mul_add(d[1], minus_five.mul_add(d[3], d[5])),
        ]
    }
}

/// A': the outputs of a tile.
struct Output;

impl Transform<6, 4> for Output {
    #[inline(always)]
    fn apply<V: Vector>(m: [V; 6]) -> [V; 4] {
        let (two, four, eight) = (splat::<V>(2.0), splat::<V>(4.0), splat::<V>(8.0));
        let (even, odd) = (m[1].plus(m[2]), m[1].minus(m[2]));
        let (far_even, far_odd) = (m[3].plus(m[4]), m[3].minus(m[4]));
        [
            m[0].plus(even).plus(far_even),
            two.mul_add(far_odd, odd),
            four.mul_add(far_even, even),
            eight.mul_add(far_odd, odd.plus(m[5])),
        ]
    }
}

/// A, the adjoint of [`Output`].
struct OutputAdjoint;

impl Transform<4, 6> for OutputAdjoint {
    #[inline(always)]
    fn apply<V: Vector>(y: [V; 4]) -> [V; 6] {
        let (two, four) = (splat::<V>(2.0), splat::<V>(4.0));
        let (even, odd) = (y[0].plus(y[2]), y[1].plus(y[3]));
        let (far_even, far_odd) = (four.mul_add(y[2], y[0]), four.mul_add(y[3], y[1]).times(two));
        [y[0], even.plus(odd), even.minus(odd), far_even.plus(far_odd), far_even.minus(far_odd), y[3]]
    }
}

/// G: the taps of a kernel.
struct Taps;

impl Transform<3, 6> for Taps {
    #[inline(always)]
    fn apply<V: Vector>(w: [V; 3]) -> [V; 6] {
        let (quarter, sixth, twelfth) = (splat::<V>(0.25), splat::<V>(1.0 / 6.0), splat::<V>(1.0 / 12.0));
        let (outer, middle) = (w[0].plus(w[2]).times(splat(-1.0 / 6.0)), w[1].times(sixth));
        let (far_outer, far_middle) =
            (splat::<V>(1.0 / 24.0).mul_add(w[0], w[2].times(sixth)), w[1].times(twelfth));
        [
            w[0].times(quarter),
            outer.minus(middle),
            outer.plus(middle),
            far_outer.plus(far_middle),
            far_outer.minus(far_middle),
            w[2],
        ]
    }
}

/// G', the adjoint of [`Taps`].
struct TapsAdjoint;

impl Transform<6, 3> for TapsAdjoint {
    #[inline(always)]
    fn apply<V: Vector>(u: [V; 6]) -> [V; 3] {
        let (quarter, sixth, twelfth) = (splat::<V>(0.25), splat::<V>(1.0 / 6.0), splat::<V>(1.0 / 12.0));
        let (even, odd) = (u[1].plus(u[2]).times(sixth), u[2].minus(u[1]));
        let (far_even, far_odd) = (u[3].plus(u[4]), u[3].minus(u[4]));
        [
            quarter.mul_add(u[0], far_even.times(splat(1.0 / 24.0))).minus(even),
            sixth.mul_add(odd, far_odd.times(twelfth)),
            sixth.mul_add(far_even, u[5]).minus(even),
        ]
    }
}

#[inline(always)]
fn splat<V: Vector>(value: f64) -> V {
    V::splat(V::Lane::from_f64(value))
}

/// Tiles that cover all images, one image after the other.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    height: usize,
    width: usize,
    /// Tiles per row, and rows of tiles per image.
    across: usize,
    down: usize,
}

impl Tiles {
    fn new(g: &Geometry) -> Self {
        let (across, down) = (g.width.div_ceil(SIDE), g.height.div_ceil(SIDE));
        Self { height: g.height, width: g.width, across, down }
    }

    fn per_image(&self) -> usize {
        self.across * self.down
    }

    /// First pixel of a tile: its index among all pixels of its image's first row, its row and its column.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (image, within) = (tile / self.per_image(), tile % self.per_image());
        (image * self.height * self.width, within / self.across * SIDE, within % self.across * SIDE)
    }

    /// Transforms the I x I pixels around each of `count` tiles from `first` on, `border` of them on the upper left,
    /// of images `[B, Y, X, C]` to `fields`: [`POINTS`] times `[count, C]`, each with room for more tiles.
    #[inline(always)]
    fn transform<V: Vector, const I: usize, F: Transform<I, 6>>(
        &self,
        images: &[V::Lane],
        channels: usize,
        [first, count]: [usize; 2],
        fields: &mut [V::Lane],
    ) {
        let border = (I - SIDE) / 2;
        let stride = fields.len() / POINTS;
        assert!(stride >= count * channels);
        for slot in 0..count {
            let (image, top, left) = self.place(first + slot);
            let image = &images[image * channels..][..self.height * self.width * channels];
            for channel in (0..channels).step_by(V::LANES) {
                let lanes = (channels - channel).min(V::LANES);
                let mut tile = [[splat::<V>(0.0); I]; I];
                for (i, row) in tile.iter_mut().enumerate() {
                    for (j, value) in row.iter_mut().enumerate() {
                        let (y, x) = ((top + i).wrapping_sub(border), (left + j).wrapping_sub(border));
                        if y < self.height && x < self.width {
                            let at = (y * self.width + x) * channels + channel;
                            // SAFETY: the pixel lies inside the image, and `lanes` of its channels are left.
                            *value = unsafe { V::load_first(image.as_ptr().add(at), lanes) };
                        }
                    }
                }
                let tile = F::both(tile);
                for (i, row) in tile.iter().enumerate() {
                    for (j, value) in row.iter().enumerate() {
                        let at = (i * 6 + j) * stride + slot * channels + channel;
                        // SAFETY: the assertion above bounds the largest offset.
                        unsafe { value.store_first(fields.as_mut_ptr().add(at), lanes) };
                    }
                }
            }
        }
    }

    /// Transforms sums `[POINTS, tiles, padded O]` back to images `[B, Y, X, O]`, which begin with the range's first row.
    #[inline(always)]
    fn write<V: Vector>(
        &self,
        sums: &[V::Lane],
        [outputs, padded]: [usize; 2],
        bias: &[V::Lane],
        [first, count]: [usize; 2],
        images: &mut [V::Lane],
    ) {
        let stride = sums.len() / POINTS;
        assert!(stride >= count * padded);
        let (image, top, _) = self.place(first);
        let start = image + top * self.width;
        for slot in 0..count {
            let (image, top, left) = self.place(first + slot);
            for channel in (0..outputs).step_by(V::LANES) {
                let lanes = (outputs - channel).min(V::LANES);
                let mut tile = [[splat::<V>(0.0); 6]; 6];
                for (point, value) in tile.iter_mut().flatten().enumerate() {
                    // SAFETY: the assertion above bounds the largest offset.
                    *value = unsafe { V::load(sums.as_ptr().add(point * stride + slot * padded + channel)) };
                }
                let mut offset = splat::<V>(0.0);
                if let Some(bias) = bias.get(channel..channel + lanes) {
                    // SAFETY: `bias` holds so many numbers.
                    offset = unsafe { V::load_first(bias.as_ptr(), lanes) };
                }
                let tile = Output::both(tile);
                for (i, row) in tile.iter().enumerate().take(self.height - top) {
                    for (j, value) in row.iter().enumerate().take(self.width - left) {
                        let at = (image + (top + i) * self.width + left + j - start) * outputs + channel;
                        let target = &mut images[at..at + lanes];
                        // SAFETY: `target` holds so many numbers.
                        unsafe { value.plus(offset).store_first(target.as_mut_ptr(), lanes) };
                    }
                }
            }
        }
    }
}

/// Distance between the points of `count` tiles: a cache line more than their numbers, so that points do not compete
/// for the same lines of the cache.
fn point_stride(count: usize, channels: usize) -> usize {
    (count * channels).next_multiple_of(WIDEST) + WIDEST
}

/// Kernels transformed to [`POINTS`] matrices `[C, padded O]`.
pub(crate) struct Transformed<T> {
    values: Vec<T>,
    inputs: usize,
    outputs: usize,
}

impl<T: Real> Transformed<T> {
    pub(crate) fn new(weights: &Arranged<T>) -> Self {
        let (inputs, outputs) = (weights.inputs, weights.outputs);
        let mut values = vec![T::default(); POINTS * inputs * padded(outputs)];
        T::vectorize(TransformKernels { weights, values: &mut values });
        Self { values, inputs, outputs }
    }
}

/// Channels of a matrix whose rows are whole registers.
fn padded(channels: usize) -> usize {
    channels.next_multiple_of(WIDEST)
}

struct TransformKernels<'a, T> {
    weights: &'a Arranged<T>,
    values: &'a mut [T],
}

impl<T: Real> Kernel<T> for TransformKernels<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let Arranged { values, inputs, outputs, .. } = self.weights;
        let (taps, width) = (inputs * outputs, padded(*outputs));
        assert!(values.len() >= 9 * taps && self.values.len() >= POINTS * inputs * width);
        for input in 0..*inputs {
            for output in (0..*outputs).step_by(V::LANES) {
                let mut kernel = [[splat::<V>(0.0); 3]; 3];
                for (tap, weight) in kernel.iter_mut().flatten().enumerate() {
                    let source = values[tap * taps + input * outputs + output..].as_ptr();
                    // SAFETY: so many outputs are left in this row.
                    *weight = unsafe { V::load_first(source, outputs - output) };
                }
                for (point, value) in Taps::both(kernel).iter().flatten().enumerate() {
                    let at = (point * inputs + input) * width + output;
                    // SAFETY: the assertion above bounds the largest offset; rows are whole registers.
                    unsafe { value.store(self.values.as_mut_ptr().add(at)) };
                }
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
    let rows = fit.min((g.batch * tiles.down).div_ceil(LEAST_TASKS)).max(1);
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

/// Tiles that one task transforms at a time for [`correlate`].
const BLOCK: usize = 32;
/// Blocks that are transformed before they are summed.
const PANEL: usize = 16;

/// Gradient with respect to the weights, `[3, 3, C, O]`, from images `[B, Y, X, C]` and the outputs' gradient
/// `[B, Y, X, O]`.
pub(crate) fn correlate<T: Real>(g: &Geometry, images: &[T], outputs: &[T]) -> Vec<T> {
    let tiles = Tiles::new(g);
    let pixels = g.batch * g.pixels();
    let channels = [images.len() / pixels, outputs.len() / pixels];
    let all = g.batch * tiles.per_image();
    let sizes = channels.map(|channels| POINTS * point_stride(BLOCK, channels));
    let size = sizes[0] + sizes[1];
    let mut panel = vec![T::default(); PANEL.min(all.div_ceil(BLOCK)) * size];
    let mut sums = vec![T::default(); POINTS * channels[0] * channels[1]];
    for first in (0..all).step_by(PANEL * BLOCK) {
        let blocks = (all - first).div_ceil(BLOCK).min(PANEL);
        each_chunk(&mut panel[..blocks * size], size, |task, fields| {
            let first = first + task * BLOCK;
            let range = [first, BLOCK.min(all - first)];
            let fields = fields.split_at_mut(sizes[0]);
            T::vectorize(TransformBoth { tiles, range, images: [images, outputs], channels, fields });
        });
        each_chunk(&mut sums, channels[0] * channels[1], |point, sums| {
            T::vectorize(Correlation { point, blocks, sizes, channels, panel: &panel, sums });
        });
    }
    let mut gradient = vec![T::default(); 9 * channels[0] * channels[1]];
    T::vectorize(TransformBack { sums: &sums, gradient: &mut gradient });
    gradient
}

/// Transformed images and output gradients of one block of tiles.
struct TransformBoth<'a, T> {
    tiles: Tiles,
    range: [usize; 2],
    images: [&'a [T]; 2],
    channels: [usize; 2],
    fields: (&'a mut [T], &'a mut [T]),
}

impl<T: Real> Kernel<T> for TransformBoth<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let Self { tiles, range, images, channels, fields: (seen, made) } = self;
        if range[1] < BLOCK {
            // Tiles past the end count as zero.
            seen.fill(T::default());
            made.fill(T::default());
        }
        tiles.transform::<V, 6, Input>(images[0], channels[0], range, seen);
        tiles.transform::<V, 4, OutputAdjoint>(images[1], channels[1], range, made);
    }
}

/// Adds the sum over the tiles of a panel at one point, `[C, O]`.
struct Correlation<'a, T> {
    point: usize,
    blocks: usize,
    sizes: [usize; 2],
    channels: [usize; 2],
    panel: &'a [T],
    sums: &'a mut [T],
}

impl<T: Real> Kernel<T> for Correlation<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let Self { point, blocks, sizes, channels: [inputs, outputs], panel, sums } = self;
        let size = sizes[0] + sizes[1];
        let at = sizes.map(|size| point * (size / POINTS));
        let product = Product {
            a: Left { values: &panel[at[0]..], row: 1, column: inputs, run: size },
            b: Right { values: &panel[sizes[0] + at[1]..], row: outputs, run: size },
            rows: inputs,
            columns: outputs,
            run: BLOCK,
            runs: blocks,
        };
        product.write::<V>(Start::Output, sums, outputs);
    }
}

/// Taps `[3, 3, C, O]` of points `[POINTS, C, O]`.
struct TransformBack<'a, T> {
    sums: &'a [T],
    gradient: &'a mut [T],
}

impl<T: Real> Kernel<T> for TransformBack<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let size = self.sums.len() / POINTS;
        assert!(self.gradient.len() >= 9 * size);
        for at in (0..size).step_by(V::LANES) {
            let mut points = [[splat::<V>(0.0); 6]; 6];
            for (point, value) in points.iter_mut().flatten().enumerate() {
                // SAFETY: so many numbers of this point are left.
                *value = unsafe { V::load_first(self.sums.as_ptr().add(point * size + at), size - at) };
            }
            for (tap, value) in TapsAdjoint::both(points).iter().flatten().enumerate() {
                // SAFETY: as above, and the assertion bounds the taps.
                unsafe { value.store_first(self.gradient.as_mut_ptr().add(tap * size + at), size - at) };
            }
        }
    }
}
