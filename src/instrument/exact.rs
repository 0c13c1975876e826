//! Linear instruments with white Gaussian noise, whose posterior under a Gaussian or mixture prior is known exactly.

use std::sync::Arc;

use candle_core::{D, DType, Tensor};

use super::{Blind, Forward, Likelihood, Linearity, Measured, Problem, blind::blurred};
use crate::{
    Result,
    compute::Compute,
    grid::Grid,
    prior::Scaling,
    rng::Rng,
    tensor::{compute_of, fft::circular_convolve},
    transfer::Transfer,
};

/// Predicted data F x for a matrix F.
#[derive(Debug, Clone)]
pub struct Projection {
    /// Grid of the images.
    pub grid: Grid,
    /// F, `[M, Z Y X]`.
    pub matrix: Tensor,
}

impl Forward for Projection {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn apply(&self, image: &Tensor) -> Result<Tensor> {
        Ok(image.flatten_from(1)?.matmul(&self.matrix.t()?)?)
    }

    fn linearity(&self) -> Linearity {
        Linearity::Affine
    }
}

/// A periodic image of one plane with every Fourier mode multiplied by its gain: a blur, or modes that are seen or not.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Grid of the images.
    pub grid: Grid,
    /// Gain of each mode, row-major with frequency 0 first, real and even; 0 where the instrument is blind.
    pub gains: Vec<f64>,
}

impl Forward for Filter {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The filtered pixels `[B, Y X]`; blind modes predict 0.
    fn apply(&self, image: &Tensor) -> Result<Tensor> {
        Ok(circular_convolve(image, &self.gains)?.flatten_from(1)?)
    }

    fn linearity(&self) -> Linearity {
        Linearity::Periodic(self.gains.clone())
    }
}

/// A periodic Gaussian blur for those who know its width, and for those who do not.
#[derive(Debug, Clone)]
pub struct Blur {
    /// The blur as it is.
    pub known: Filter,
    /// Median of the width a priori, pixels.
    pub width: f64,
    /// Standard deviation of the width's logarithm a priori.
    pub spread: f64,
}

impl Forward for Blur {
    fn grid(&self) -> &Grid {
        &self.known.grid
    }

    fn apply(&self, image: &Tensor) -> Result<Tensor> {
        self.known.apply(image)
    }

    fn linearity(&self) -> Linearity {
        self.known.linearity()
    }

    fn blind(&self) -> Option<&dyn Blind> {
        Some(self)
    }
}

impl Blind for Blur {
    fn parameters(&self) -> usize {
        1
    }

    fn apply_with(&self, image: &Tensor, parameters: &Tensor) -> Result<Tensor> {
        let widths = ((parameters.squeeze(1)? * self.spread)?.exp()? * self.width)?;
        Ok(blurred(image, &widths)?.flatten_from(1)?)
    }
}

/// Independent normal noise of one standard deviation.
#[derive(Debug, Clone)]
pub struct Normal {
    /// Measured data `[1, M]`.
    pub data: Tensor,
    /// Standard deviation.
    pub sigma: f64,
}

impl Likelihood for Normal {
    fn name(&self) -> &'static str {
        "normal"
    }

    fn count(&self) -> usize {
        self.data.elem_count()
    }

    fn log_prob(&self, predicted: &Tensor) -> Result<Tensor> {
        Ok((self.residuals(predicted)?.sqr()?.sum(D::Minus1)? * -0.5)?)
    }

    fn residuals(&self, predicted: &Tensor) -> Result<Tensor> {
        Ok((self.data.broadcast_sub(predicted)? / self.sigma)?)
    }

    fn draw(&self, predicted: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let compute = compute_of(predicted);
        Ok((predicted + (rng.normals(predicted.dims(), &compute)? * self.sigma)?)?)
    }

    fn redrawn(&self, predicted: &Tensor, rng: &mut Rng) -> Result<Option<Arc<dyn Likelihood>>> {
        Ok(Some(Arc::new(Self { data: self.draw(predicted, rng)?, sigma: self.sigma })))
    }

    fn information(&self, predicted: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some((predicted.ones_like()? / (self.sigma * self.sigma))?))
    }

    fn measured(&self) -> Option<Measured> {
        let values = self.data.to_dtype(DType::F64).ok()?.flatten_all().ok()?.read_list::<f64>().ok()?;
        Some(Measured { sigmas: vec![self.sigma; values.len()], values })
    }
}

/// y = F x + sigma n for images `[1, 1, dim]`, with `rows` of F, all `dim` long, and data `y`.
///
/// # Errors
/// Rows of different lengths.
pub fn projection(rows: &[Vec<f64>], y: &[f64], sigma: f64, compute: &Compute) -> Result<Problem> {
    let dim = rows.first().map_or(0, Vec::len);
    let grid = Grid { shape: [1, 1, dim], pitch: [1.0; 3] };
    let matrix = compute.tensor(rows.concat(), &[rows.len(), dim])?;
    let data = compute.tensor(y.to_vec(), &[1, y.len()])?;
    Ok(Problem {
        forward: Arc::new(Projection { grid, matrix }),
        likelihoods: vec![Arc::new(Normal { data, sigma })],
        scaling: Scaling::IDENTITY,
    })
}
