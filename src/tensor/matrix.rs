//! A fixed matrix that many batches of vectors are multiplied with.

use candle_core::{Tensor, bail};

use super::{
    product::{Left, Product, Right, Start},
    simd::{Kernel, Real, Vector, WIDEST},
};

/// Columns of a strip: two of the widest registers.
const STRIP: usize = 2 * WIDEST;

/// A matrix in strips of columns, so that a product reads it once and in one stream.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    /// `[strips, rows, STRIP]`, zeros past the last column.
    strips: Tensor,
    columns: usize,
}

impl Matrix {
    /// Arranges a matrix `[rows, columns]`.
    pub(crate) fn new(matrix: &Tensor) -> candle_core::Result<Self> {
        let (rows, columns) = matrix.dims2()?;
        let strips = columns.div_ceil(STRIP);
        let padded = matrix.pad_with_zeros(1, 0, strips * STRIP - columns)?;
        Ok(Self { strips: padded.reshape((rows, strips, STRIP))?.transpose(0, 1)?.contiguous()?, columns })
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The matrix `[rows, columns]` again.
    pub(crate) fn plain(&self) -> candle_core::Result<Tensor> {
        let (strips, rows, _) = self.strips.dims3()?;
        self.strips.transpose(0, 1)?.reshape((rows, strips * STRIP))?.narrow(1, 0, self.columns)?.contiguous()
    }

    /// Vectors `[B, rows]` times the matrix, `[B, columns]`, both flat lists; the matrix lies in host memory.
    pub(crate) fn product<T: Real>(&self, vectors: &[T]) -> candle_core::Result<Vec<T>> {
        let rows = self.strips.dim(1)?;
        if !vectors.len().is_multiple_of(rows) {
            bail!("{} numbers are no vectors of {rows}", vectors.len());
        }
        let (storage, _) = self.strips.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else { bail!("the matrix is not in host memory") };
        let strips = T::cpu_storage_as_slice(storage)?;
        let mut output = vec![T::default(); vectors.len() / rows * self.columns];
        T::vectorize(Strips { strips, rows, columns: self.columns, vectors, output: &mut output });
        Ok(output)
    }
}

struct Strips<'a, T> {
    strips: &'a [T],
    rows: usize,
    columns: usize,
    vectors: &'a [T],
    output: &'a mut [T],
}

impl<T: Real> Kernel<T> for Strips<'_, T> {
    #[inline(always)]
    fn run<V: Vector<Lane = T>>(self) {
        let Self { strips, rows, columns, vectors, output } = self;
        for (index, strip) in strips.chunks_exact(rows * STRIP).enumerate() {
            let first = index * STRIP;
            let product = Product {
                a: Left { values: vectors, row: rows, column: 1, run: 0 },
                b: Right { values: strip, row: STRIP, run: 0 },
                rows: vectors.len() / rows,
                columns: STRIP.min(columns - first),
                run: rows,
                runs: 1,
            };
            if let Some(output) = output.get_mut(first..) {
                product.write::<V>(Start::Zero, output, columns);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compute::Compute, rng::Rng};

    #[test]
    fn products_agree_with_the_definition() {
        let (compute, mut rng) = (Compute::cpu_f64(), Rng::new(5));
        for (batch, rows, columns) in [(1, 3, 1), (5, 7, 31), (13, 40, 100), (2, 9, 64), (0, 4, 5)] {
            let plain = rng.normals(&[rows, columns], &compute).unwrap();
            let vectors: Vec<f64> = (0..batch * rows).map(|_| rng.normal()).collect();
            let matrix = Matrix::new(&plain).unwrap();
            let found = matrix.product(&vectors).unwrap();
            let values = plain.to_vec2::<f64>().unwrap();
            assert_eq!(matrix.plain().unwrap().to_vec2::<f64>().unwrap(), values);
            assert_eq!(found.len(), batch * columns);
            for (i, found) in found.iter().enumerate() {
                let vector = &vectors[i / columns * rows..];
                let expected: f64 = (0..rows).map(|k| vector[k] * values[k][i % columns]).sum();
                assert!((found - expected).abs() < 1e-12, "{batch} {rows} {columns} {i}");
            }
        }
        assert!(
            Matrix::new(&rng.normals(&[3, 2], &compute).unwrap()).unwrap().product(&[1.0f64; 4]).is_err()
        );
    }
}
