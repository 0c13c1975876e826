//! The gradient of a convolution with respect to its weights.

use std::ops::Range;

use super::{
    CACHED, LEAST_TASKS, POINTS,
    tiles::{Tiles, point_stride},
    transform::{Input, OutputAdjoint, TapsAdjoint, Transform, splat},
};
use crate::tensor::{
    conv_kernel::Geometry,
    parallel::{each_chunk, parts},
    product::{Left, Product, Right, Start},
    scratch::unwritten,
    simd::{Kernel, Real, Vector, WIDEST},
};

/// Tiles that are transformed at a time.
const BLOCK: usize = 16;
/// Tiles of a task at least: each has sums of its own, which are added in the end.
const SHARE: usize = 256;

/// Gradient with respect to the weights, `[3, 3, C, O]`, from images `[B, Y, X, C]` and the outputs' gradient
/// `[B, Y, X, O]`.
pub(crate) fn correlate<T: Real>(g: &Geometry, images: &[T], outputs: &[T]) -> Vec<T> {
    let tiles = Tiles::new(g);
    let pixels = g.batch * g.pixels();
    let channels = [images.len() / pixels, outputs.len() / pixels];
    let (all, pairs) = (g.batch * tiles.per_image(), channels[0] * channels[1]);
    let tasks = (all / SHARE).clamp(1, LEAST_TASKS);
    let share = all.div_ceil(tasks);
    let mut sums = unwritten(tasks * POINTS * pairs);
    let correlation = Correlation { tiles, images: [images, outputs], channels };
    each_chunk(&mut sums, POINTS * pairs, |task, sums| {
        correlation.sum(task * share..all.min((task + 1) * share), sums);
    });
    let mut gradient = unwritten(9 * pairs);
    let length = pairs.div_ceil(LEAST_TASKS).next_multiple_of(WIDEST);
    each_chunk(&mut parts(&mut gradient, pairs, length), 1, |task, kernels| {
        for taps in kernels {
            T::vectorize(TransformBack { sums: &sums, size: POINTS * pairs, first: task * length, taps });
        }
    });
    gradient
}

/// Sums over tiles of products of images and output gradients, both transformed.
struct Correlation<'a, T> {
    tiles: Tiles,
    images: [&'a [T]; 2],
    channels: [usize; 2],
}

impl<T: Real> Correlation<'_, T> {
    /// The sums `[POINTS, C, O]` over a range of tiles.
    fn sum(&self, range: Range<usize>, sums: &mut [T]) {
        let [inputs, outputs] = self.channels;
        let sizes = self.channels.map(|channels| POINTS * point_stride(BLOCK, channels));
        let size = sizes[0] + sizes[1];
        // A panel of blocks stays in the cache, but is large against the sums, which are read and written for each.
        let tiles = (CACHED / (POINTS * (inputs + outputs))).max(inputs * outputs / 128);
        let panel = tiles.min(range.len()).div_ceil(BLOCK);
        T::scratch(panel * size, |memory| {
            for first in range.clone().step_by(panel * BLOCK) {
                let blocks = (range.end - first).div_ceil(BLOCK).min(panel);
                each_chunk(&mut memory[..blocks * size], size, |block, fields| {
                    let first = first + block * BLOCK;
                    let range = [first, BLOCK.min(range.end - first)];
                    let fields = fields.split_at_mut(sizes[0]);
                    T::vectorize(TransformBoth { correlation: self, range, fields });
                });
                let memory = &memory[..blocks * size];
                each_chunk(sums, inputs * outputs, |point, sums| {
                    let at = sizes.map(|size| point * (size / POINTS));
                    let product = Product {
                        a: Left { values: &memory[at[0]..], row: 1, column: inputs, run: size },
                        b: Right { values: &memory[sizes[0] + at[1]..], row: outputs, run: size },
                        rows: inputs,
                        columns: outputs,
                        run: BLOCK,
                        runs: blocks,
                    };
                    let start = if first == range.start { Start::Zero } else { Start::Output };
                    T::vectorize(Add { product, start, sums });
                });
            }
        });
    }
}

/// Transformed images and output gradients of one block of tiles.
struct TransformBoth<'a, 'b, T> {
    correlation: &'a Correlation<'b, T>,
    range: [usize; 2],
    fields: (&'a mut [T], &'a mut [T]),
}

impl<T: Real> Kernel<T> for TransformBoth<'_, '_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let Self { correlation, range, fields: (seen, made) } = self;
        let Correlation { tiles, images, channels } = *correlation;
        if range[1] < BLOCK {
            // Tiles past the end count as zero.
            seen.fill(T::default());
            made.fill(T::default());
        }
        tiles.transform::<V, 6, Input>(images[0], channels[0], range, seen);
        tiles.transform::<V, 4, OutputAdjoint>(images[1], channels[1], range, made);
    }
}

/// Adds a product to the sums of one point, `[C, O]`.
struct Add<'a, T> {
    product: Product<'a, T>,
    start: Start<'a, T>,
    sums: &'a mut [T],
}

impl<T: Real> Kernel<T> for Add<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        self.product.write::<V>(self.start, self.sums, self.product.columns);
    }
}

/// Part of the taps `[3, 3, C, O]` of sums `[N, POINTS, C, O]` of N tasks: of every tap the numbers from `first` on.
struct TransformBack<'a, 'b, T> {
    sums: &'a [T],
    /// Of one task.
    size: usize,
    first: usize,
    taps: &'a mut [&'b mut [T]],
}

impl<T: Real> Kernel<T> for TransformBack<'_, '_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let Self { sums, size, first, taps } = self;
        let length = taps.first().map_or(0, |tap| tap.len());
        assert!(taps.len() == 9 && taps.iter().all(|tap| tap.len() == length));
        for at in (0..length).step_by(V::LANES) {
            let point = |i: usize, j: usize| {
                let mut total = splat::<V>(0.0);
                for sums in sums.chunks_exact(size) {
                    let sums = &sums[(6 * i + j) * (size / POINTS) + first + at..][..length - at];
                    // SAFETY: so many numbers of this part are left.
                    total = total.plus(unsafe { V::load_first(sums.as_ptr(), length - at) });
                }
                total
            };
            TapsAdjoint::both(point, |i, j, value: V| {
                let target = &mut taps[3 * i + j][at..];
                // SAFETY: so many numbers of this tap are left.
                unsafe { value.store_first(target.as_mut_ptr(), target.len()) };
            });
        }
    }
}
