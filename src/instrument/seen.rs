//! What the data see of an image: often so little that a sampler of the likelihood need not move the rest.

use candle_core::Tensor;

use super::{Information, Linearity, Problem, log_probability_and_gradient, subspace};
use crate::{
    Result,
    compute::Compute,
    rng::Rng,
    tensor::{by_parts, compute_of},
};

/// Coordinates of an image that its log likelihood depends on. Network unit.
#[derive(Debug)]
pub enum Seen {
    /// All pixels.
    Pixels,
    /// All pixels, of which it is known how much the data say.
    Informed(Information),
    /// Coordinates in an orthonormal basis of what an affine forward model sees.
    Subspace(Reduced),
}

/// An affine forward model of coordinates.
#[derive(Debug)]
pub struct Reduced {
    basis: subspace::Subspace,
    /// Predicted data by coordinates `[R, M]`, flat.
    response: Tensor,
    /// Predicted data without any `[1, ..]`.
    offset: Tensor,
}

/// Pixels from which fewer coordinates save time.
const LEAST_PIXELS: usize = 256;
/// Coordinates whose likelihood a thread of the CPU computes at a time.
const PART: usize = 1 << 12;

impl Reduced {
    /// The coordinates that an affine `problem` sees, if those are at most half of all pixels.
    fn of(problem: &Problem, compute: &Compute) -> Result<Option<Self>> {
        let [z, y, x] = problem.forward.grid().shape;
        let pixels = problem.forward.grid().len();
        if pixels < LEAST_PIXELS || problem.forward.linearity() != Linearity::Affine {
            return Ok(None);
        }
        let offset = problem.predict(&compute.tensor(vec![0.0; pixels], &[1, z, y, x])?)?;
        let data = offset.elem_count();
        if !subspace::is_small(data, pixels) {
            return Ok(None);
        }
        let all: Vec<usize> = (0..data).collect();
        let matrix = subspace::matrix(problem, &all, compute)?;
        let (basis, gains, vectors) = subspace::Subspace::of(&matrix, compute)?;
        if 2 * gains.len() > pixels {
            return Ok(None);
        }
        let response = subspace::row_major(&(vectors * matrix.transpose()));
        let response = compute.tensor(response, &[gains.len(), data])?;
        Ok(Some(Self { basis, response, offset }))
    }
}

impl Seen {
    /// What `problem` sees of images near `image` `[1, Z, Y, X]`: a subspace if that is at most half of all pixels.
    ///
    /// # Errors
    /// An image of another shape.
    pub(super) fn of(problem: &Problem, image: &Tensor) -> Result<Self> {
        if let Some(reduced) = Reduced::of(problem, &compute_of(image))? {
            return Ok(Self::Subspace(reduced));
        }
        Ok(match Information::of(problem, image)? {
            Some(information) => Self::Informed(information),
            None => Self::Pixels,
        })
    }

    /// Coordinates `[B, ..]` of images `[B, Z, Y, X]`.
    ///
    /// # Errors
    /// An image of another shape.
    pub fn coordinates(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Pixels | Self::Informed(_) => Ok(x.clone()),
            Self::Subspace(reduced) => reduced.basis.coordinates(x),
        }
    }

    /// Log likelihood `[B]` and its gradient by the coordinates `[B, ..]`, both detached.
    ///
    /// # Errors
    /// Coordinates of another number.
    pub fn log_likelihood_and_gradient(
        &self,
        problem: &Problem,
        coordinates: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let Self::Subspace(Reduced { response, offset, .. }) = self else {
            return problem.log_likelihood_and_gradient(coordinates);
        };
        let predicted = |coordinates: &Tensor| -> Result<Tensor> {
            let shape = [&[coordinates.dim(0)?], &offset.dims()[1..]].concat();
            Ok(coordinates.matmul(response)?.reshape(shape)?.broadcast_add(offset)?)
        };
        let [value, gradient] = by_parts(coordinates, PART, |coordinates| {
            let (value, slope) =
                log_probability_and_gradient(&problem.likelihoods, &predicted(coordinates)?)?;
            Ok([value, slope.flatten_from(1)?.matmul(&response.t()?)?])
        })?;
        Ok((value, gradient))
    }

    /// Images with these coordinates whose other pixels, or other directions, are a draw of N(centre, width^2 I);
    /// `centre` `[B, Z, Y, X]`.
    ///
    /// # Errors
    /// Coordinates of another number.
    pub fn completed(
        &self,
        coordinates: &Tensor,
        centre: &Tensor,
        width: f64,
        rng: &mut Rng,
    ) -> Result<Tensor> {
        let Self::Subspace(Reduced { basis, .. }) = self else { return Ok(coordinates.clone()) };
        let draw = (centre + (rng.normals(centre.dims(), &compute_of(centre))? * width)?)?;
        let change = (coordinates - basis.coordinates(&draw)?)?;
        Ok((&draw + basis.image(&change)?.reshape(draw.shape())?)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        grid::Grid,
        instrument::exact::{Normal, Projection},
        prior::Scaling,
        tensor::to_host,
    };

    /// `rank` independent numbers and one more that depends on the first two.
    fn problem(rank: usize, pixels: usize) -> Problem {
        let (compute, mut rng) = (Compute::cpu_f64(), Rng::new(1));
        let matrix = rng.normals(&[rank, pixels], &compute).unwrap();
        let last = (matrix.narrow(0, 0, 1).unwrap() - matrix.narrow(0, 1, 1).unwrap()).unwrap();
        let matrix = Tensor::cat(&[&matrix, &last], 0).unwrap();
        let grid = Grid { shape: [1, 1, pixels], pitch: [1.0; 3] };
        Problem {
            forward: Arc::new(Projection { grid, matrix }),
            likelihoods: vec![Arc::new(Normal {
                data: rng.normals(&[1, rank + 1], &compute).unwrap(),
                sigma: 0.3,
            })],
            scaling: Scaling { unit: 0.4, dark: -0.5 },
        }
    }

    fn dark(problem: &Problem) -> Tensor {
        let [z, y, x] = problem.forward.grid().shape;
        Compute::cpu_f64().tensor(vec![0.0; z * y * x], &[1, z, y, x]).unwrap()
    }

    fn error(found: &Tensor, exact: &Tensor) -> f64 {
        to_host(&(found - exact).unwrap()).unwrap().iter().fold(0.0, |largest, v| v.abs().max(largest))
    }

    #[test]
    fn coordinates_have_the_likelihood_and_gradient_of_their_image() {
        let (problem, compute) = (problem(3, 256), Compute::cpu_f64());
        let seen = problem.seen(&dark(&problem)).unwrap();
        let x = Rng::new(2).normals(&[5, 1, 1, 256], &compute).unwrap();
        let coordinates = seen.coordinates(&x).unwrap();
        assert_eq!(coordinates.dims(), [5, 3]);
        let (value, gradient) = seen.log_likelihood_and_gradient(&problem, &coordinates).unwrap();
        let (exact, slope) = problem.log_likelihood_and_gradient(&x).unwrap();
        assert!(error(&value, &exact) < 1e-9);
        assert!(error(&gradient, &seen.coordinates(&slope).unwrap()) < 1e-9);
    }

    /// Seen coordinates stay, and the others have the mean and variance of the Gaussian.
    #[test]
    fn a_completed_image_keeps_what_is_seen() {
        let (problem, compute, count) = (problem(3, 256), Compute::cpu_f64(), 2000);
        let seen = problem.seen(&dark(&problem)).unwrap();
        let mut rng = Rng::new(3);
        let centre = rng.normals(&[1, 1, 1, 256], &compute).unwrap();
        let coordinates = rng.normals(&[1, 3], &compute).unwrap().repeat((count, 1)).unwrap();
        let many = centre.repeat((count, 1, 1, 1)).unwrap();
        let draws = seen.completed(&coordinates, &many, 2.0, &mut rng).unwrap();
        assert!(error(&seen.coordinates(&draws).unwrap(), &coordinates) < 1e-9);
        let spread = (draws.broadcast_sub(&draws.mean_keepdim(0).unwrap()).unwrap()).sqr().unwrap();
        let total = to_host(&spread.sum_all().unwrap()).unwrap()[0] / count as f64;
        assert!((total / (253.0 * 4.0) - 1.0).abs() < 0.02, "{total}");
        let mean = draws.mean_keepdim(0).unwrap();
        let across = seen.completed(&seen.coordinates(&centre).unwrap(), &mean, 0.0, &mut rng).unwrap();
        assert!(error(&across, &centre) < 0.25);
    }

    #[test]
    fn small_images_and_those_that_data_see_most_of_keep_their_pixels() {
        for (rank, pixels, reduced) in [(3, 255, false), (128, 256, true), (129, 256, false)] {
            let seen = {
                let problem = problem(rank, pixels);
                problem.seen(&dark(&problem)).unwrap()
            };
            assert_eq!(matches!(seen, Seen::Subspace(_)), reduced, "{rank} {pixels}");
        }
    }
}
