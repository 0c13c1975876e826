//! Products of strided matrices, the inner loop of every convolution.

use super::simd::{Real, Vector};

/// A B, where the columns of A and the rows of B come in `runs` of `run`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product<'a, T> {
    pub(crate) a: Left<'a, T>,
    pub(crate) b: Right<'a, T>,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Length of one run.
    pub(crate) run: usize,
    pub(crate) runs: usize,
}

/// The left factor with its distances between rows, columns of a run, and runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) row: usize,
    pub(crate) column: usize,
    pub(crate) run: usize,
}

/// The right factor, whose rows are contiguous, with its distances between rows of a run, and runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Right<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) row: usize,
    pub(crate) run: usize,
}

/// What the product is added to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a, T> {
    Zero,
    /// One number per column.
    Bias(&'a [T]),
    /// What the output holds.
    Output,
}

impl<T: Real> Product<'_, T> {
    /// Writes the product to `output`, whose rows are `stride` apart.
    #[inline(always)]
    pub(crate) fn write<V: Vector<Lane = T>>(&self, start: Start<T>, output: &mut [T], stride: usize) {
        if self.rows == 0 || self.columns == 0 {
            return;
        }
        let last = |count: usize, step: usize| count.saturating_sub(1) * step;
        let (a, b) = (&self.a, &self.b);
        let depth = (self.run > 0 && self.runs > 0) as usize;
        assert!(
            last(self.rows, a.row) + last(self.run, a.column) + last(self.runs, a.run) + depth
                <= a.values.len()
        );
        assert!(last(self.run, b.row) + last(self.runs, b.run) + depth * self.columns <= b.values.len());
        assert!(last(self.rows, stride) + self.columns <= output.len());
        if let Start::Bias(bias) = start {
            assert!(bias.len() >= self.columns);
        }
        let tile = Tile { product: self, start, output: output.as_mut_ptr(), stride };
        let mut column = 0;
        while column < self.columns {
            // SAFETY: the assertions above bound the largest offsets of all arrays.
            column += unsafe {
                match self.columns - column {
                    left if left >= 2 * V::LANES => tile.column::<V, 2, false>(column),
                    left if left >= V::LANES => tile.column::<V, 1, false>(column),
                    _ => tile.column::<V, 1, true>(column),
                }
            };
        }
    }
}

struct Tile<'a, T> {
    product: &'a Product<'a, T>,
    start: Start<'a, T>,
    output: *mut T,
    stride: usize,
}

impl<T: Real> Tile<'_, T> {
    /// N registers of columns, or what is left of one at the edge, of all rows.
    ///
    /// # Safety
    /// All offsets lie inside their arrays.
    #[inline(always)]
    unsafe fn column<V: Vector<Lane = T>, const N: usize, const EDGE: bool>(&self, column: usize) -> usize {
        let rows = self.product.rows;
        let mut row = 0;
        while row < rows {
            // SAFETY: the caller's.
            row += unsafe {
                match rows - row {
                    12.. if V::MANY => self.tile::<V, 12, N, EDGE>(row, column),
                    8.. if V::MANY => self.tile::<V, 8, N, EDGE>(row, column),
                    4.. => self.tile::<V, 4, N, EDGE>(row, column),
                    _ => self.tile::<V, 1, N, EDGE>(row, column),
                }
            };
        }
        N * V::LANES
    }

    /// R rows and N registers of columns.
    ///
    /// # Safety
    /// All offsets lie inside their arrays.
    #[inline(always)]
    unsafe fn tile<V: Vector<Lane = T>, const R: usize, const N: usize, const EDGE: bool>(
        &self,
        row: usize,
        column: usize,
    ) -> usize {
        let Product { a, b, columns, run, runs, .. } = *self.product;
        let lanes = if EDGE { columns - column } else { V::LANES };
        // SAFETY: the caller's.
        unsafe {
            let output = self.output.add(row * self.stride + column);
            let mut total = [[V::splat(T::default()); N]; R];
            let (source, stride) = match self.start {
                Start::Zero => (None, 0),
                Start::Bias(bias) => (Some(bias.as_ptr().add(column)), 0),
                Start::Output => (Some(output.cast_const()), self.stride),
            };
            if let Some(source) = source {
                for (r, total) in total.iter_mut().enumerate() {
                    for (n, total) in total.iter_mut().enumerate() {
                        *total = V::load_first(source.add(r * stride + n * V::LANES), lanes);
                    }
                }
            }
            for at in 0..runs {
                let mut left = a.values.as_ptr().add(at * a.run + row * a.row);
                let mut right = b.values.as_ptr().add(at * b.run + column);
                for _ in 0..run {
                    let mut factors = [V::splat(T::default()); N];
                    for (n, factor) in factors.iter_mut().enumerate() {
                        *factor = V::load_first(right.add(n * V::LANES), lanes);
                    }
                    for (r, total) in total.iter_mut().enumerate() {
                        let factor = V::splat(*left.add(r * a.row));
                        for (total, &other) in total.iter_mut().zip(&factors) {
                            *total = factor.mul_add(other, *total);
                        }
                    }
                    left = left.wrapping_add(a.column);
                    right = right.wrapping_add(b.row);
                }
            }
            for (r, total) in total.iter().enumerate() {
                for (n, total) in total.iter().enumerate() {
                    total.store_first(output.add(r * self.stride + n * V::LANES), lanes);
                }
            }
        }
        R
    }
}
