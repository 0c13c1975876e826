//! Subspaces of images that a linear forward model sees.

use candle_core::Tensor;
use nalgebra::{DMatrix, SymmetricEigen};

use super::Problem;
use crate::{Result, compute::Compute, tensor::to_host};

/// Largest side of the smaller Gram matrix that is decomposed.
const LARGEST: usize = 1024;
/// Numbers of the largest matrix that is formed, 1 GB.
const LARGEST_MATRIX: usize = 1 << 27;
/// Images that pass through the forward model together while its matrix is formed.
const BATCH: usize = 256;
/// Squared gains below this fraction of the largest count as 0.
pub(super) const SMALLEST: f64 = 1e-12;

/// The span of some orthonormal images.
#[derive(Debug, Clone)]
pub(super) struct Subspace {
    /// These images as rows `[R, Z Y X]`.
    rows: Tensor,
}

impl Subspace {
    /// The span of the rows `[M, Z Y X]` of a matrix: right singular vectors, the squared singular value of each, and
    /// the vectors as rows in f64.
    ///
    /// # Errors
    /// A device without memory.
    pub(super) fn of(matrix: &DMatrix<f64>, compute: &Compute) -> Result<(Self, Vec<f64>, DMatrix<f64>)> {
        let wide = matrix.nrows() <= matrix.ncols();
        let eigen =
            SymmetricEigen::new(if wide { matrix * matrix.transpose() } else { matrix.tr_mul(matrix) });
        let largest = eigen.eigenvalues.iter().copied().fold(0.0, f64::max);
        let kept: Vec<usize> =
            (0..eigen.eigenvalues.len()).filter(|&i| eigen.eigenvalues[i] > SMALLEST * largest).collect();
        let gains: Vec<f64> = kept.iter().map(|&i| eigen.eigenvalues[i]).collect();
        let mut vectors = eigen.eigenvectors.select_columns(&kept).transpose();
        if wide {
            vectors *= matrix;
            for (mut row, gain) in vectors.row_iter_mut().zip(&gains) {
                row /= gain.sqrt();
            }
        }
        let rows = compute.tensor(row_major(&vectors), &[gains.len(), matrix.ncols()])?;
        Ok((Self { rows }, gains, vectors))
    }

    /// Coordinates `[B, R]` of the parts of images `[B, Z, Y, X]` within the subspace.
    ///
    /// # Errors
    /// An image of another shape.
    pub(super) fn coordinates(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.flatten_from(1)?.matmul(&self.rows.t()?)?)
    }

    /// The image `[B, Z Y X]` with these coordinates `[B, R]` and nothing across the subspace.
    ///
    /// # Errors
    /// Coordinates of another number.
    pub(super) fn image(&self, coordinates: &Tensor) -> Result<Tensor> {
        Ok(coordinates.matmul(&self.rows)?)
    }
}

/// Whether the matrix of so many data and pixels can be decomposed in bounded time and memory.
pub(super) fn is_small(data: usize, pixels: usize) -> bool {
    data.min(pixels) <= LARGEST && data.saturating_mul(pixels) <= LARGEST_MATRIX
}

/// The rows `kept` of the matrix `[data, Z Y X]` of an affine forward model, for images in network unit; f64.
///
/// # Errors
/// Those of the forward model.
pub(super) fn matrix(problem: &Problem, kept: &[usize], compute: &Compute) -> Result<DMatrix<f64>> {
    let grid = problem.forward.grid();
    let ([z, y, x], pixels) = (grid.shape, grid.len());
    let images = |values: Vec<f64>, count| compute.tensor(values, &[count, z, y, x]);
    let nothing = to_host(&problem.forward.apply(&images(vec![0.0; pixels], 1)?)?)?;
    let mut matrix = DMatrix::zeros(kept.len(), pixels);
    for start in (0..pixels).step_by(BATCH) {
        let count = BATCH.min(pixels - start);
        let mut units = vec![0.0; count * pixels];
        (0..count).for_each(|i| units[i * pixels + start + i] = 1.0);
        let predicted = to_host(&problem.forward.apply(&images(units, count)?)?)?;
        for (pixel, response) in predicted.chunks_exact(nothing.len()).enumerate() {
            for (row, &i) in kept.iter().enumerate() {
                matrix[(row, start + pixel)] = problem.scaling.unit * (response[i] - nothing[i]);
            }
        }
    }
    Ok(matrix)
}

/// Numbers of a matrix row by row.
pub(super) fn row_major(matrix: &DMatrix<f64>) -> Vec<f64> {
    matrix.row_iter().flat_map(|row| row.iter().copied().collect::<Vec<_>>()).collect()
}
