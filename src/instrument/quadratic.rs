//! The log likelihood of a linear instrument as a parabola: exact for Gaussian noise, about right near the data for counts.

use candle_core::Tensor;

use super::{Problem, linear::joined};
use crate::{
    Result,
    compute::Compute,
    instrument::Linearity,
    rng::Rng,
    tensor::{by_parts, value_and_gradient},
};

/// Pixels whose products a thread of the CPU computes at a time.
const PART: usize = 1 << 15;

/// -|W^1/2 (A x - y)|^2 / 2 of images x in network unit, for a linear forward model A and data y of precision W.
#[derive(Debug, Clone)]
pub struct Quadratic {
    /// Square root of the precision of each predicted number `[1, M]`.
    root: Tensor,
    /// Prediction of the network's zero `[1, M]`.
    dark: Tensor,
    /// What the data have above that, over their standard deviation `[1, M]`.
    whitened: Tensor,
}

impl Quadratic {
    /// The parabola of a problem; none if its forward model is not linear or its noise not nearly Gaussian.
    ///
    /// # Errors
    /// Those of the forward model, or likelihoods of different numbers of data.
    pub(super) fn of(problem: &Problem, compute: &Compute) -> Result<Option<Self>> {
        let parts = problem.likelihoods.iter().map(|likelihood| likelihood.nearly_measured());
        let Some(measured) = joined(parts).filter(|_| problem.forward.linearity() != Linearity::None) else {
            return Ok(None);
        };
        let (measured, [z, y, x]) = (measured?, problem.forward.grid().shape);
        let row = |values: Vec<f64>| compute.tensor(values, &[1, measured.values.len()]);
        let root = row(measured.sigmas.iter().map(|sigma| sigma.recip()).collect())?;
        let dark = Tensor::zeros((1, z, y, x), compute.dtype, &compute.device)?;
        let dark = problem.predict(&dark)?.flatten_from(1)?;
        let whitened = ((row(measured.values.clone())? - &dark)? * &root)?;
        Ok(Some(Self { root, dark, whitened }))
    }

    /// W^1/2 A v `[B, M]` of images `[B, Z, Y, X]`.
    fn predicted(&self, problem: &Problem, v: &Tensor) -> Result<Tensor> {
        let predicted = problem.predict(v)?.flatten_from(1)?;
        Ok(predicted.broadcast_sub(&self.dark)?.broadcast_mul(&self.root)?)
    }

    /// v' H v `[B]` and H v of images `[B, Z, Y, X]`, for the curvature H = A' W A.
    ///
    /// # Errors
    /// An image of another shape.
    pub fn product(&self, problem: &Problem, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let [value, product] = by_parts(v, PART, |v| {
            let (half, product) =
                value_and_gradient(v, |v| Ok((self.predicted(problem, v)?.sqr()?.sum(1)? * 0.5)?))?;
            Ok([(half * 2.0)?, product])
        })?;
        Ok((value, product))
    }

    /// Gradient A' W (y - A x) at images `[B, Z, Y, X]`.
    ///
    /// # Errors
    /// An image of another shape.
    pub fn slope(&self, problem: &Problem, x: &Tensor) -> Result<Tensor> {
        let value = |x: &Tensor| {
            let residual = self.predicted(problem, x)?.broadcast_sub(&self.whitened)?;
            Ok((residual.sqr()?.sum(1)? * -0.5)?)
        };
        let [slope] = by_parts(x, PART, |x| Ok([value_and_gradient(x, value)?.1]))?;
        Ok(slope)
    }

    /// Draws of N(0, H), one like each of `images` `[B, Z, Y, X]`.
    ///
    /// # Errors
    /// An image of another shape.
    pub fn noise(&self, problem: &Problem, images: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let compute = Compute { device: images.device().clone(), dtype: images.dtype() };
        let data = rng.normals(&[images.dim(0)?, self.root.dim(1)?], &compute)?;
        let adjoint = |v: &Tensor| Ok((self.predicted(problem, v)? * &data)?.sum(1)?);
        Ok(value_and_gradient(&images.zeros_like()?, adjoint)?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{instrument::exact::projection, tensor::to_host};

    /// F = [[1, 2], [0, 1]] with sigma 0.5: H = F' F / 0.25 = [[4, 8], [8, 20]].
    #[test]
    fn products_and_draws_have_the_curvature_of_the_data() {
        let compute = Compute::cpu_f64();
        let problem = projection(&[vec![1.0, 2.0], vec![0.0, 1.0]], &[0.3, -1.0], 0.5, &compute).unwrap();
        let parabola = problem.quadratic(&compute).unwrap().unwrap();
        let v = compute.tensor(vec![1.0, 0.0, 1.0, -1.0], &[2, 1, 1, 2]).unwrap();
        let (value, product) = parabola.product(&problem, &v).unwrap();
        assert_eq!(to_host(&value).unwrap(), [4.0, 8.0]);
        assert_eq!(to_host(&product).unwrap(), [4.0, 8.0, -4.0, -12.0]);
        let slope = to_host(&parabola.slope(&problem, &v).unwrap()).unwrap();
        let (_, exact) = problem.log_likelihood_and_gradient(&v).unwrap();
        for (found, exact) in slope.into_iter().zip(to_host(&exact).unwrap()) {
            assert!((found - exact).abs() < 1e-9, "{found} {exact}");
        }
        let many = Tensor::zeros((20_000, 1, 1, 2), compute.dtype, &compute.device).unwrap();
        let drawn = parabola.noise(&problem, &many, &mut Rng::new(3)).unwrap();
        let drawn = drawn.flatten_from(1).unwrap();
        let covariance = (drawn.t().unwrap().matmul(&drawn).unwrap() / 20_000.0).unwrap();
        for (found, exact) in to_host(&covariance).unwrap().into_iter().zip([4.0, 8.0, 8.0, 20.0]) {
            assert!((found / exact - 1.0).abs() < 0.03, "{found} {exact}");
        }
    }
}
