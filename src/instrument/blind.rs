//! Instruments with parameters that nobody knows exactly: the width of a blur, the gains of stations.

use candle_core::Tensor;

use crate::{Result, compute::Compute, tensor::compute_of, transfer::send};

/// A forward model with unknown parameters.
pub trait Blind: Send + Sync {
    /// Number of parameters.
    fn parameters(&self) -> usize;

    /// Predicted data of images `[B, Z, Y, X]` in the instrument's unit by instruments with `parameters` `[B, P]`, which are
    /// independent standard normal numbers a priori; differentiable in both.
    ///
    /// # Errors
    /// Tensors of other shapes.
    fn apply_with(&self, image: &Tensor, parameters: &Tensor) -> Result<Tensor>;
}

/// Images `[B, Z, Y, X]` each blurred along Y and X by a periodic Gaussian of its own standard deviation `[B]`, pixels;
/// differentiable in both.
///
/// # Errors
/// Tensors of other shapes.
pub fn blurred(image: &Tensor, widths: &Tensor) -> Result<Tensor> {
    let (batch, _, rows, columns) = image.dims4()?;
    let compute = compute_of(image);
    let matrix = |side: usize| -> Result<Tensor> { Ok(blur_matrix(side, widths, &compute)?.unsqueeze(1)?) };
    let along = |matrix: Tensor, of: &Tensor, side: usize| -> Result<Tensor> {
        let (_, planes, _, _) = of.dims4()?;
        Ok(matrix.broadcast_as((batch, planes, side, side))?.contiguous()?.matmul(&of.contiguous()?)?)
    };
    let down = along(matrix(rows)?, image, rows)?;
    Ok(along(matrix(columns)?, &down.transpose(2, 3)?, columns)?.transpose(2, 3)?.contiguous()?)
}

/// Circulant matrices `[B, side, side]` of Gaussians of the standard deviations `[B]`: (1/N) sum over k of
/// exp(-2 pi^2 (k/N)^2 w^2) cos(2 pi k (i - j) / N).
fn blur_matrix(side: usize, widths: &Tensor, compute: &Compute) -> Result<Tensor> {
    let turn = std::f64::consts::TAU / side as f64;
    let rate = |k: usize| -0.5 * (turn * k.min(side - k) as f64).powi(2);
    let rates = compute.tensor((0..side).map(rate).collect(), &[1, side])?;
    let gains = widths.sqr()?.unsqueeze(1)?.broadcast_mul(&rates)?.exp()?;
    let cosine = |index: usize| {
        let (k, offset) = (index / side, index % side);
        (turn * (k * offset % side) as f64).cos() / side as f64
    };
    let cosines = compute.tensor((0..side * side).map(cosine).collect(), &[side, side])?;
    let column = gains.matmul(&cosines)?;
    let offsets: Vec<u32> =
        (0..side * side).map(|index| ((index / side + side - index % side) % side) as u32).collect();
    let offsets = send(offsets, &compute.device)?;
    Ok(column.index_select(&offsets, 1)?.reshape((widths.dim(0)?, side, side))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{rng::Rng, tensor::fft::circular_convolve, tensor::to_host};

    #[test]
    fn it_is_the_convolution_with_a_gaussian_of_each_width() {
        let compute = Compute::cpu_f64();
        let image = Rng::new(1).normals(&[2, 1, 6, 9], &compute).unwrap();
        let found = blurred(&image, &compute.tensor(vec![0.7, 1.6], &[2]).unwrap()).unwrap();
        for (index, width) in [0.7f64, 1.6].into_iter().enumerate() {
            let squared = |k: usize, n: usize| (k.min(n - k) as f64 / n as f64).powi(2);
            let gain = |i: usize| {
                (-2.0 * (std::f64::consts::PI * width).powi(2) * (squared(i / 9, 6) + squared(i % 9, 9)))
                    .exp()
            };
            let gains: Vec<f64> = (0..54).map(gain).collect();
            let one = |x: &Tensor| x.narrow(0, index, 1).unwrap();
            let exact = circular_convolve(&one(&image), &gains).unwrap();
            let errors = to_host(&(exact - one(&found)).unwrap()).unwrap();
            assert!(errors.iter().all(|error| error.abs() < 1e-12), "{errors:?}");
        }
    }
}
