//! The gradient of a convolution with respect to its weights.

use super::{
    LEAST_TASKS, POINTS,
    tiles::{Tiles, point_stride},
    transform::{Input, OutputAdjoint, TapsAdjoint, Transform, splat},
};
use crate::tensor::{
    conv_kernel::Geometry,
    parallel::{each_chunk, parts},
    product::{Left, Product, Right, Start},
    simd::{Kernel, Real, Vector, WIDEST},
};

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
    let taps = channels[0] * channels[1];
    let mut gradient = vec![T::default(); 9 * taps];
    let length = taps.div_ceil(LEAST_TASKS).next_multiple_of(WIDEST);
    each_chunk(&mut parts(&mut gradient, taps, length), 1, |task, kernels| {
        for taps in kernels {
            T::vectorize(TransformBack { sums: &sums, first: task * length, taps });
        }
    });
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

/// Part of the taps `[3, 3, C, O]` of points `[POINTS, C, O]`: of every tap the numbers from `first` on.
struct TransformBack<'a, 'b, T> {
    sums: &'a [T],
    first: usize,
    taps: &'a mut [&'b mut [T]],
}

impl<T: Real> Kernel<T> for TransformBack<'_, '_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let Self { sums, first, taps } = self;
        let size = sums.len() / POINTS;
        let length = taps.first().map_or(0, |tap| tap.len());
        assert!(taps.len() == 9 && taps.iter().all(|tap| tap.len() == length) && first + length <= size);
        for at in (0..length).step_by(V::LANES) {
            let mut points = [[splat::<V>(0.0); 6]; 6];
            for (point, value) in points.iter_mut().flatten().enumerate() {
                // SAFETY: so many numbers of this part are left, and the assertion bounds it.
                *value = unsafe { V::load_first(sums.as_ptr().add(point * size + first + at), length - at) };
            }
            for (tap, value) in TapsAdjoint::both(points).iter().flatten().enumerate() {
                // SAFETY: so many numbers of this tap are left.
                unsafe { value.store_first(taps[tap][at..].as_mut_ptr(), length - at) };
            }
        }
    }
}
