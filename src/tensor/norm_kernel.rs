//! Loops of group normalisation, modulation and SiLU over pieces of images, channels last.

use candle_core::WithDType;

use super::{
    parallel::each_chunk,
    scratch::unwritten,
    simd::{Kernel, Real, Vector, WIDEST},
};

/// Added to the variance of a group.
pub(crate) const EPSILON: f64 = 1e-5;

/// Numbers of a piece: they stay in a processor's first-level cache.
const PIECE: usize = 1 << 13;

/// SiLU(normalised(x) (1 + scale) + shift) of `x` `[B, P, C]`, scale and shift `[B, C]`.
pub(crate) struct Modulation<'a, T> {
    x: &'a [T],
    scale: &'a [T],
    shift: &'a [T],
    groups: usize,
    channels: usize,
    pixels: usize,
}

/// Mean and 1 / standard deviation of a group.
#[derive(Clone, Copy)]
struct Moments {
    mean: f64,
    inverse: f64,
}

impl<'a, T: Real> Modulation<'a, T> {
    pub(crate) fn new(
        groups: usize,
        [pixels, channels]: [usize; 2],
        x: &'a [T],
        scale: &'a [T],
        shift: &'a [T],
    ) -> Self {
        Self { x, scale, shift, groups, channels, pixels }
    }

    pub(crate) fn forward(&self) -> Vec<T> {
        let moments = self.moments();
        let coefficients = self.coefficients(&moments);
        let mut y = unwritten(self.x.len());
        let mut pieces = self.pieces(&mut y);
        each_chunk(&mut pieces, 1, |_, pieces| {
            for Piece { image, start, values: y } in pieces {
                let coefficients = &coefficients[*image * self.channels..][..self.channels];
                T::vectorize(Forward { x: &self.x[*start..][..y.len()], coefficients, y });
            }
        });
        y
    }

    /// Gradients of x, scale and shift one after the other.
    ///
    /// With n = (x - mean) / std, z = n (1 + scale) + shift and g = dL/dz, dL/dn = g (1 + scale) =: h and
    /// dL/dx = (h - mean(h) - n mean(h n)) / std.
    pub(crate) fn backward(&self, gradient: &[T]) -> Vec<T> {
        let moments = self.moments();
        let coefficients = self.coefficients(&moments);
        let mut all = unwritten(self.x.len() + 2 * self.scale.len());
        let (dx, modulation) = all.split_at_mut(self.x.len());
        modulation.fill(T::default());
        let (dscale, dshift) = modulation.split_at_mut(self.scale.len());
        let mut pieces = self.pieces(dx);
        let mut sums = unwritten(pieces.len() * 2 * self.channels);
        let mut slots: Vec<_> = pieces.iter_mut().zip(sums.chunks_mut(2 * self.channels)).collect();
        each_chunk(&mut slots, 1, |_, slots| {
            for (Piece { image, start, values: g }, sums) in slots {
                let coefficients = &coefficients[*image * self.channels..][..self.channels];
                let range = *start..*start + g.len();
                let (x, gradient) = (&self.x[range.clone()], &gradient[range]);
                T::vectorize(Slope { x, gradient, coefficients, g, sums });
            }
        });
        drop(slots);
        let corrections = self.corrections(&moments, &pieces, &sums, dscale, dshift);
        each_chunk(&mut pieces, 1, |_, pieces| {
            for Piece { image, start, values: dx } in pieces {
                let corrections = &corrections[*image * self.channels..][..self.channels];
                T::vectorize(Correct { x: &self.x[*start..][..dx.len()], corrections, dx });
            }
        });
        all
    }

    /// Cuts numbers `[B, P, C]` into pieces that lie in one image each.
    fn pieces<'b, U>(&self, values: &'b mut [U]) -> Vec<Piece<'b, U>> {
        let image = self.pixels * self.channels;
        let length = (PIECE / self.channels).max(1) * self.channels;
        let mut pieces = Vec::new();
        for (index, values) in values.chunks_mut(image).enumerate() {
            for (part, values) in values.chunks_mut(length).enumerate() {
                pieces.push(Piece { image: index, start: index * image + part * length, values });
            }
        }
        pieces
    }

    /// Of each group of each image.
    fn moments(&self) -> Vec<Moments> {
        let image = self.pixels * self.channels;
        let length = (PIECE / self.channels).max(1) * self.channels;
        let (pieces, per_group) = (image.div_ceil(length), self.channels / self.groups);
        // Sums and squared deviations from the piece's mean, per group.
        let mut parts = vec![[0.0; 2]; self.x.len() / image * pieces * self.groups];
        each_chunk(&mut parts, self.groups, |part, parts| {
            let start = part / pieces * image + part % pieces * length;
            let end = (start + length).min((part / pieces + 1) * image);
            T::vectorize(Parts { x: &self.x[start..end], channels: self.channels, per_group, parts });
        });
        let count = (self.pixels * per_group) as f64;
        let mut moments = Vec::with_capacity(self.scale.len() / per_group);
        for parts in parts.chunks(pieces * self.groups) {
            for group in 0..self.groups {
                let of_group = || parts[group..].iter().step_by(self.groups);
                let mean = of_group().map(|[sum, _]| sum).sum::<f64>() / count;
                let mut squares = 0.0;
                for (part, [sum, deviation]) in of_group().enumerate() {
                    let count = ((image - part * length).min(length) / self.groups) as f64;
                    squares += deviation + count * (sum / count - mean).powi(2);
                }
                moments.push(Moments { mean, inverse: 1.0 / (squares / count + EPSILON).sqrt() });
            }
        }
        moments
    }

    /// Factor and offset of each channel: z = factor x + offset, n = (z - shift) / (1 + scale); with mean and
    /// 1 / standard deviation.
    fn coefficients(&self, moments: &[Moments]) -> Vec<[T; 4]> {
        let per_group = self.channels / self.groups;
        let channel = |(channel, (scale, shift)): (usize, (&T, &T))| {
            let Moments { mean, inverse } = moments[channel / per_group];
            let factor = inverse * (1.0 + scale.to_f64());
            [factor, shift.to_f64() - mean * factor, mean, inverse].map(T::from_f64)
        };
        self.scale.iter().zip(self.shift).enumerate().map(channel).collect()
    }

    /// Writes the gradients of scale and shift; returns a, b and c of each channel: dL/dx = a g + b x + c.
    fn corrections(
        &self,
        moments: &[Moments],
        pieces: &[Piece<T>],
        sums: &[T],
        dscale: &mut [T],
        dshift: &mut [T],
    ) -> Vec<[T; 3]> {
        for (piece, sums) in pieces.iter().zip(sums.chunks(2 * self.channels)) {
            let (of_g, of_gn) = sums.split_at(self.channels);
            let range = piece.image * self.channels..(piece.image + 1) * self.channels;
            dshift[range.clone()].iter_mut().zip(of_g).for_each(|(total, sum)| *total += *sum);
            dscale[range].iter_mut().zip(of_gn).for_each(|(total, sum)| *total += *sum);
        }
        let per_group = self.channels / self.groups;
        let count = (self.pixels * per_group) as f64;
        let mut corrections = Vec::with_capacity(self.scale.len());
        for (group, Moments { mean, inverse }) in moments.iter().enumerate() {
            let range = group * per_group..(group + 1) * per_group;
            let factors = || self.scale[range.clone()].iter().map(|scale| 1.0 + scale.to_f64());
            let mean_of = |sums: &[T]| {
                sums[range.clone()]
                    .iter()
                    .zip(factors())
                    .map(|(sum, factor)| sum.to_f64() * factor)
                    .sum::<f64>()
                    / count
            };
            let (mean_h, mean_hn) = (mean_of(dshift), mean_of(dscale));
            let slope = -inverse * inverse * mean_hn;
            let offset = -inverse * mean_h - slope * mean;
            corrections.extend(factors().map(|factor| [inverse * factor, slope, offset].map(T::from_f64)));
        }
        corrections
    }
}

/// Some pixels of one image.
struct Piece<'a, T> {
    image: usize,
    /// Index of the first number among those of all images.
    start: usize,
    values: &'a mut [T],
}

/// 1 / (1 + e^-x).
#[inline(always)]
fn sigmoid<V: Vector>(x: V) -> V {
    let one = V::splat(V::Lane::from_f64(1.0));
    one.plus(x.times(V::splat(V::Lane::from_f64(-1.0))).exp()).reciprocal()
}

/// One register of a coefficient of several channels.
#[inline(always)]
fn gather<V: Vector, const N: usize>(channels: &[[V::Lane; N]], which: usize) -> V {
    let mut lanes = [V::Lane::default(); WIDEST];
    for (lane, channel) in lanes.iter_mut().zip(channels) {
        *lane = channel[which];
    }
    // SAFETY: `lanes` holds a register.
    unsafe { V::load(lanes.as_ptr()) }
}

struct Forward<'a, T> {
    x: &'a [T],
    coefficients: &'a [[T; 4]],
    y: &'a mut [T],
}

impl<T: Real> Kernel<T> for Forward<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let channels = self.coefficients.len();
        assert!(self.x.len() == self.y.len() && self.x.len().is_multiple_of(channels));
        for first in (0..channels).step_by(V::LANES) {
            let (coefficients, lanes) = (&self.coefficients[first..], channels - first);
            let [factor, offset] = [gather::<V, 4>(coefficients, 0), gather::<V, 4>(coefficients, 1)];
            for at in (first..self.x.len()).step_by(channels) {
                // SAFETY: so many channels of the pixel at `at` are left.
                unsafe {
                    let z = V::load_first(self.x.as_ptr().add(at), lanes).mul_add(factor, offset);
                    z.times(sigmoid(z)).store_first(self.y.as_mut_ptr().add(at), lanes);
                }
            }
        }
    }
}

/// g = dL/dz of a piece, and its sums over pixels: of g, and of g n.
struct Slope<'a, T> {
    x: &'a [T],
    gradient: &'a [T],
    coefficients: &'a [[T; 4]],
    g: &'a mut [T],
    sums: &'a mut [T],
}

impl<T: Real> Kernel<T> for Slope<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let channels = self.coefficients.len();
        assert!(self.x.len() == self.g.len() && self.gradient.len() == self.g.len());
        assert!(self.x.len().is_multiple_of(channels) && self.sums.len() == 2 * channels);
        let one = V::splat(T::from_f64(1.0));
        for first in (0..channels).step_by(V::LANES) {
            let (coefficients, lanes) = (&self.coefficients[first..], channels - first);
            let [factor, offset] = [gather::<V, 4>(coefficients, 0), gather::<V, 4>(coefficients, 1)];
            let [mean, inverse] = [gather::<V, 4>(coefficients, 2), gather::<V, 4>(coefficients, 3)];
            let (mut sum, mut sum_n) = (V::splat(T::default()), V::splat(T::default()));
            for at in (first..self.x.len()).step_by(channels) {
                // SAFETY: so many channels of the pixel at `at` are left.
                unsafe {
                    let x = V::load_first(self.x.as_ptr().add(at), lanes);
                    let gradient = V::load_first(self.gradient.as_ptr().add(at), lanes);
                    let z = x.mul_add(factor, offset);
                    let s = sigmoid(z);
                    let slope = z.mul_add(one.minus(s), one).times(s);
                    let g = gradient.times(slope);
                    g.store_first(self.g.as_mut_ptr().add(at), lanes);
                    sum = sum.plus(g);
                    sum_n = g.times(x.minus(mean)).mul_add(inverse, sum_n);
                }
            }
            // SAFETY: so many sums of either kind are left.
            unsafe {
                sum.store_first(self.sums.as_mut_ptr().add(first), lanes);
                sum_n.store_first(self.sums.as_mut_ptr().add(channels + first), lanes);
            }
        }
    }
}

/// dx := a dx + b x + c.
struct Correct<'a, T> {
    x: &'a [T],
    corrections: &'a [[T; 3]],
    dx: &'a mut [T],
}

impl<T: Real> Kernel<T> for Correct<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let channels = self.corrections.len();
        assert!(self.x.len() == self.dx.len() && self.x.len().is_multiple_of(channels));
        for first in (0..channels).step_by(V::LANES) {
            let (corrections, lanes) = (&self.corrections[first..], channels - first);
            let a = gather::<V, 3>(corrections, 0);
            let (b, c) = (gather::<V, 3>(corrections, 1), gather::<V, 3>(corrections, 2));
            for at in (first..self.x.len()).step_by(channels) {
                // SAFETY: so many channels of the pixel at `at` are left.
                unsafe {
                    let x = V::load_first(self.x.as_ptr().add(at), lanes);
                    let target = self.dx.as_mut_ptr().add(at);
                    let g = V::load_first(target, lanes);
                    g.mul_add(a, x.mul_add(b, c)).store_first(target, lanes);
                }
            }
        }
    }
}

/// Sum and squared deviations from the mean of each group of a piece.
struct Parts<'a, T> {
    x: &'a [T],
    channels: usize,
    per_group: usize,
    parts: &'a mut [[f64; 2]],
}

impl<T: Real> Kernel<T> for Parts<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let Self { x, channels, per_group, parts } = self;
        let count = (x.len() / channels * per_group) as f64;
        let mut means = vec![T::default(); channels];
        for square in [false, true] {
            for first in (0..channels).step_by(V::LANES) {
                let lanes = channels - first;
                // SAFETY: so many channels are left.
                let mean = unsafe { V::load_first(means.as_ptr().add(first), lanes) };
                let sums = column_sums::<V>(x, channels, first, mean, square);
                for (channel, sum) in sums.iter().enumerate().take(lanes.min(V::LANES)) {
                    parts[(first + channel) / per_group][usize::from(square)] += sum.to_f64();
                }
            }
            for (channel, mean) in means.iter_mut().enumerate() {
                *mean = T::from_f64(parts[channel / per_group][0] / count);
            }
        }
    }
}

/// Sums over pixels of x - mean or its square for one register of channels, in four running sums.
#[inline(always)]
fn column_sums<V: Vector>(
    x: &[V::Lane],
    channels: usize,
    first: usize,
    mean: V,
    square: bool,
) -> [V::Lane; WIDEST] {
    let zero = V::splat(V::Lane::default());
    let mut totals = [zero; 4];
    let add = |at: usize, total: &mut V| {
        // SAFETY: so many channels of the pixel at `at` are left.
        let x = unsafe { V::load_first(x.as_ptr().add(at), channels - first) }.minus(mean);
        *total = if square { x.mul_add(x, *total) } else { total.plus(x) };
    };
    let pixels = x.len() / channels;
    for pixel in (0..pixels - pixels % 4).step_by(4) {
        for (next, total) in totals.iter_mut().enumerate() {
            add((pixel + next) * channels + first, total);
        }
    }
    for pixel in pixels - pixels % 4..pixels {
        add(pixel * channels + first, &mut totals[0]);
    }
    let [a, b, c, d] = totals;
    let mut lanes = [V::Lane::default(); WIDEST];
    // SAFETY: `lanes` holds a register.
    unsafe { a.plus(b).plus(c.plus(d)).store(lanes.as_mut_ptr()) };
    lanes
}
