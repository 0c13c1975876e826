//! The transforms of F(4 x 4, 3 x 3) along one axis and along both.

use std::mem::MaybeUninit;

use candle_core::WithDType;

use crate::tensor::simd::Vector;

/// A linear map along one axis of a tile.
pub(super) trait Transform<const I: usize, const O: usize> {
    fn apply<V: Vector>(x: [V; I]) -> [V; O];

    /// Along both axes of the tile that `read` gives and `write` takes, element by element.
    #[inline(always)]
    fn both<V: Vector>(read: impl Fn(usize, usize) -> V, mut write: impl FnMut(usize, usize, V)) {
        // Clearing what is overwritten would take a tenth of a convolution.
        let mut rows = [[MaybeUninit::<V>::uninit(); I]; O];
        for j in 0..I {
            let mut column = [splat(0.0); I];
            for (i, element) in column.iter_mut().enumerate() {
                *element = read(i, j);
            }
            let column = Self::apply(column);
            for (row, element) in rows.iter_mut().zip(&column) {
                row[j].write(*element);
            }
        }
        for (o, elements) in rows.iter().enumerate() {
            let mut row = [splat(0.0); I];
            for (value, element) in row.iter_mut().zip(elements) {
                // SAFETY: the first loop wrote all elements.
                *value = unsafe { element.assume_init() };
            }
            let row = Self::apply(row);
            for (p, element) in row.iter().enumerate() {
                write(o, p, *element);
            }
        }
    }
}

/// B': the inputs of a tile.
pub(super) struct Input;

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
pub(super) struct Output;

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
pub(super) struct OutputAdjoint;

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
pub(super) struct Taps;

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
pub(super) struct TapsAdjoint;

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
pub(super) fn splat<V: Vector>(value: f64) -> V {
    V::splat(V::Lane::from_f64(value))
}
