//! Small linear-Gaussian problems shared by the tests of samplers.

use antumbra::{
    Result,
    compute::Compute,
    grid::Grid,
    instrument::{Forward, Likelihood, Problem},
    prior::Scaling,
    rng::Rng,
};
use candle_core::{D, Tensor};

/// Predicted data F x of images of one row.
pub struct Projection {
    pub grid: Grid,
    pub matrix: Tensor,
}

impl Forward for Projection {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn apply(&self, image: &Tensor) -> Result<Tensor> {
        Ok(image.flatten_from(1)?.matmul(&self.matrix.t()?)?)
    }
}

/// Independent normal noise of one standard deviation.
pub struct Normal {
    pub data: Tensor,
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
        let compute = Compute { device: predicted.device().clone(), dtype: predicted.dtype() };
        Ok((predicted + (rng.normals(predicted.dims(), &compute)? * self.sigma)?)?)
    }
}

/// y = F x + sigma n for images `[1, 1, dim]`, with `rows` of F and data `y`.
pub fn linear_problem(rows: &[Vec<f64>], y: &[f64], sigma: f64, compute: &Compute) -> Problem {
    let dim = rows[0].len();
    let grid = Grid { shape: [1, 1, dim], pitch: [1.0; 3] };
    let matrix = compute.tensor(rows.concat(), &[rows.len(), dim]).unwrap();
    let data = compute.tensor(y.to_vec(), &[1, y.len()]).unwrap();
    Problem {
        forward: Box::new(Projection { grid, matrix }),
        likelihoods: vec![Box::new(Normal { data, sigma })],
        scaling: Scaling::IDENTITY,
    }
}
