//! Loops of attention over blocks of queries or keys, forward and backward.

use candle_core::{CpuStorage, Layout};

use super::{
    parallel::each_chunk,
    product::{Left, Product, Right, Start},
    scratch::unwritten,
    simd::{Kernel, Real, Vector, WIDEST, values as numbers},
};

/// Queries or keys of a block.
const BLOCK: usize = 2 * WIDEST;

/// One number for each query or key of a block.
type Lanes<T> = [T; BLOCK];

/// Queries, keys and values `[B, P, C]`.
pub(super) struct Images<'a, T> {
    queries: &'a [T],
    keys: &'a [T],
    values: &'a [T],
    pixels: usize,
    channels: usize,
}

impl<'a, T: Real> Images<'a, T> {
    pub(super) fn new(arguments: [(&'a CpuStorage, &Layout); 3]) -> candle_core::Result<Self> {
        let (_, pixels, channels) = arguments[0].1.shape().dims3()?;
        let [queries, keys, values] = arguments.map(|(storage, layout)| numbers(storage, layout));
        Ok(Self { queries: queries?, keys: keys?, values: values?, pixels, channels })
    }

    /// What all queries gather, `[B, P, C]`.
    pub(super) fn gathered(&self) -> Vec<T> {
        let mut output = unwritten(self.queries.len());
        each_chunk(&mut self.blocks(&mut output, self.channels), 1, |index, blocks| {
            for output in blocks {
                let moments = Moments::OfBlock(&mut []);
                self.run(index, [self.keys, self.values], [self.queries; 2], moments, [&mut [], output]);
            }
        });
        output
    }

    /// Gradients of those of queries, keys and values that are wanted, one after the other.
    ///
    /// With weights w and slopes s = g v', values have the gradient w' g and scores w (s - mean), where mean
    /// is the sum of w s over keys. Queries add the latter up over keys, and keys over queries: blocks of
    /// either make the weights that they need, so that every sum has one order.
    pub(super) fn gradients(&self, gradient: &[T], wanted: [bool; 3]) -> Vec<T> {
        let length = self.queries.len();
        let mut all = unwritten(wanted.iter().filter(|wanted| **wanted).count() * length);
        let mut rest = all.as_mut_slice();
        let [of_queries, of_keys, of_values] = wanted
            .map(|wanted| rest.split_off_mut(..if wanted { length } else { 0 }).unwrap_or_default())
            .map(|gradient| self.blocks(gradient, self.channels));
        let (queries, keys) = ([self.queries, gradient], [self.keys, self.values]);
        let mut moments = vec![[T::default(); 3]; length / self.channels.max(1)];
        let mut slots: Vec<_> = self.blocks(&mut moments, 1).into_iter().zip(of_queries).collect();
        each_chunk(&mut slots, 1, |index, slots| {
            for (moments, output) in slots {
                self.run(index, keys, queries, Moments::OfBlock(moments), [output, &mut []]);
            }
        });
        if wanted[1] || wanted[2] {
            let mut slots: Vec<_> = of_keys.into_iter().zip(of_values).collect();
            each_chunk(&mut slots, 1, |index, slots| {
                let image = index / self.blocks_per_image() * self.pixels;
                for (of_keys, of_values) in slots {
                    let moments = Moments::OfRows(&moments[image..][..self.pixels]);
                    self.run(index, queries, keys, moments, [of_keys, of_values]);
                }
            });
        }
        all
    }

    fn blocks_per_image(&self) -> usize {
        self.pixels.div_ceil(BLOCK)
    }

    /// The blocks of `[B, P, size]`, or as many without numbers if there are none.
    fn blocks<'b, U>(&self, values: &'b mut [U], size: usize) -> Vec<&'b mut [U]> {
        let images = self.queries.len() / (self.pixels * self.channels).max(1);
        let of_image = values.chunks_mut((self.pixels * size).max(1));
        let mut blocks: Vec<_> = of_image.flat_map(|image| image.chunks_mut((BLOCK * size).max(1))).collect();
        blocks.resize_with(images * self.blocks_per_image(), Default::default);
        blocks
    }

    /// The work on one block of `own` vectors `[B, P, C]` of two kinds with all `rows` of its image.
    fn run(&self, index: usize, rows: [&[T]; 2], own: [&[T]; 2], moments: Moments<T>, sums: [&mut [T]; 2]) {
        let (pixels, channels) = (self.pixels, self.channels);
        let (image, first) = (index / self.blocks_per_image(), index % self.blocks_per_image() * BLOCK);
        let start = (image * pixels + first) * channels;
        let count = BLOCK.min(pixels - first) * channels;
        let rows = rows.map(|rows| &rows[image * pixels * channels..][..pixels * channels]);
        let own = own.map(|own| &own[start..][..count]);
        T::scratch((channels + 2 * pixels) * BLOCK, |scratch| {
            let (scratch, _) = scratch.as_chunks_mut();
            T::vectorize(Block { rows, own, channels, scratch, moments, sums });
        });
    }
}

/// Of each query: its largest score, 1 / the sum of e^(score - largest), and its mean slope.
enum Moments<'a, T> {
    /// Of the block's queries, to be found where there is room for them.
    OfBlock(&'a mut [[T; 3]]),
    /// Of all queries of the image.
    OfRows(&'a [[T; 3]]),
}

/// A block of queries with all keys and values, or of keys and values with all queries; with each query goes
/// the gradient of what it gathers.
struct Block<'a, T> {
    /// `[P, C]` each.
    rows: [&'a [T]; 2],
    /// At most `[BLOCK, C]` each.
    own: [&'a [T]; 2],
    channels: usize,
    /// C + 2 P.
    scratch: &'a mut [Lanes<T>],
    moments: Moments<'a, T>,
    /// For each of the block's vectors, sums of the first rows, times gradients of inner products, and of the
    /// second rows, times weights. They are written where there is room for them.
    sums: [&'a mut [T]; 2],
}

impl<T: Real> Kernel<T> for Block<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let Self { rows, own, channels, scratch, mut moments, sums: [of_first, of_second] } = self;
        let (turned, scratch) = scratch.split_at_mut(channels);
        let (weights, slopes) = scratch.split_at_mut(scratch.len() / 2);
        let scale = T::from_f64(1.0 / (channels as f64).sqrt());
        products::<T, V>(rows[0], own[0], scale, turned, weights);
        moments.weigh(weights);
        add_up::<T, V>(rows[1], weights, of_second, channels);
        if of_first.is_empty() && !moments.are_wanted() {
            return;
        }
        products::<T, V>(rows[1], own[1], T::from_f64(1.0), turned, slopes);
        moments.centre(weights, slopes, scale);
        add_up::<T, V>(rows[0], slopes, of_first, channels);
    }
}

/// Inner products of all rows `[P, C]` with a block of vectors, times `factor`; zeros past the last vector.
#[inline(always)]
fn products<T: Real, V: Vector<Lane = T>>(
    rows: &[T],
    own: &[T],
    factor: T,
    turned: &mut [Lanes<T>],
    products: &mut [Lanes<T>],
) {
    let channels = turned.len();
    turned.fill([T::default(); BLOCK]);
    for (lane, vector) in own.chunks_exact(channels).enumerate() {
        turned.iter_mut().zip(vector).for_each(|(turned, value)| turned[lane] = *value * factor);
    }
    let product = Product {
        a: Left { values: rows, row: channels, column: 1, run: 0 },
        b: Right { values: turned.as_flattened(), row: BLOCK, run: 0 },
        rows: products.len(),
        columns: BLOCK,
        run: channels,
        runs: 1,
    };
    product.write::<V>(Start::Zero, products.as_flattened_mut(), BLOCK);
}

/// Sums of rows `[P, C]` times their factors for each of as many vectors of a block as `sums` holds.
#[inline(always)]
fn add_up<T: Real, V: Vector<Lane = T>>(rows: &[T], factors: &[Lanes<T>], sums: &mut [T], channels: usize) {
    let product = Product {
        a: Left { values: factors.as_flattened(), row: 1, column: BLOCK, run: 0 },
        b: Right { values: rows, row: channels, run: 0 },
        rows: sums.len() / channels,
        columns: channels,
        run: factors.len(),
        runs: 1,
    };
    product.write::<V>(Start::Zero, sums, channels);
}

impl<T: Real> Moments<'_, T> {
    fn are_wanted(&self) -> bool {
        matches!(self, Self::OfBlock(found) if !found.is_empty())
    }

    /// Turns scores to weights.
    #[inline(always)]
    fn weigh(&mut self, scores: &mut [Lanes<T>]) {
        match self {
            Self::OfBlock(found) => {
                let [largest, inverse] = softmax(scores);
                for (lane, found) in found.iter_mut().enumerate() {
                    (found[0], found[1]) = (largest[lane], inverse[lane]);
                }
            }
            Self::OfRows(known) => {
                for (scores, &[largest, inverse, _]) in scores.iter_mut().zip(*known) {
                    for score in scores {
                        *score = (*score - largest).quick_exp() * inverse;
                    }
                }
            }
        }
    }

    /// Turns slopes to gradients of inner products, which `scale` turned to scores.
    #[inline(always)]
    fn centre(&mut self, weights: &[Lanes<T>], slopes: &mut [Lanes<T>], scale: T) {
        match self {
            Self::OfBlock(found) => {
                let mut mean = [T::default(); BLOCK];
                for (weights, slopes) in weights.iter().zip(slopes.iter()) {
                    for lane in 0..BLOCK {
                        mean[lane] += weights[lane] * slopes[lane];
                    }
                }
                for (weights, slopes) in weights.iter().zip(slopes) {
                    for lane in 0..BLOCK {
                        slopes[lane] = weights[lane] * (slopes[lane] - mean[lane]) * scale;
                    }
                }
                found.iter_mut().zip(mean).for_each(|(found, mean)| found[2] = mean);
            }
            Self::OfRows(known) => {
                for ((weights, slopes), &[_, _, mean]) in weights.iter().zip(slopes).zip(*known) {
                    for lane in 0..BLOCK {
                        slopes[lane] = weights[lane] * (slopes[lane] - mean) * scale;
                    }
                }
            }
        }
    }
}

/// Turns scores to e^(score - largest) / sum; returns the largest score of each query and 1 / sum.
#[inline(always)]
fn softmax<T: Real>(scores: &mut [Lanes<T>]) -> [Lanes<T>; 2] {
    let mut largest = [T::from_f64(f64::NEG_INFINITY); BLOCK];
    for scores in scores.iter() {
        for lane in 0..BLOCK {
            largest[lane] = if scores[lane] > largest[lane] { scores[lane] } else { largest[lane] };
        }
    }
    let mut sum = [T::default(); BLOCK];
    for scores in scores.iter_mut() {
        for lane in 0..BLOCK {
            scores[lane] = (scores[lane] - largest[lane]).quick_exp();
            sum[lane] += scores[lane];
        }
    }
    let inverse = sum.map(|sum| T::from_f64(1.0) / sum);
    for scores in scores {
        scores.iter_mut().zip(&inverse).for_each(|(score, inverse)| *score *= *inverse);
    }
    [largest, inverse]
}
