//! An instrument as it sees images of half as many pixels along each side.

use std::sync::Arc;

use candle_core::Tensor;

use super::{Forward, Linearity, Problem};
use crate::{Error, Result, grid::Grid, prior::Scaling, tensor::blocks::doubled};

/// A forward model of images whose pixels are blocks of 2 x 2 of the instrument's, all alike. Image unit per pixel of the
/// instrument, so that a block's value is the mean of its pixels.
struct Coarse {
    fine: Arc<dyn Forward>,
    grid: Grid,
}

impl Forward for Coarse {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn apply(&self, image: &Tensor) -> Result<Tensor> {
        self.fine.apply(&doubled(image)?)
    }

    fn linearity(&self) -> Linearity {
        match self.fine.linearity() {
            Linearity::None => Linearity::None,
            Linearity::Affine | Linearity::Periodic(_) => Linearity::Affine,
        }
    }

    /// A block's four pixels share its noise: they add up in phase.
    fn noise_gain(&self) -> Option<f64> {
        Some(2.0 * self.fine.noise_gain()?)
    }

    fn is_positive(&self) -> bool {
        self.fine.is_positive()
    }
}

impl Problem {
    /// The same data for images of half as many pixels along each side, in a unit from which `scaling` leads to that of this
    /// problem's images.
    ///
    /// # Errors
    /// An odd number of pixels.
    pub fn coarser(&self, scaling: Scaling) -> Result<Self> {
        let Grid { shape: [z, y, x], pitch: [depth, height, width] } = *self.forward.grid();
        if y % 2 + x % 2 > 0 {
            let problem = format!("cannot be halved: the image has {y} x {x} pixels");
            return Err(Error::config("solver.sampling.coarse_level", problem));
        }
        let grid = Grid { shape: [z, y / 2, x / 2], pitch: [depth, 2.0 * height, 2.0 * width] };
        let forward = Arc::new(Coarse { fine: self.forward.clone(), grid });
        Ok(Self { forward, likelihoods: self.likelihoods.clone(), scaling: scaling.then(self.scaling) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compute::Compute,
        instrument::exact::{Normal, Projection},
        prior::{Coarser, gaussian::Gaussian},
        rng::Rng,
        tensor::{blocks::halved, to_host},
    };

    /// 20 random projections of an image with a network unit of its own.
    fn projections(pixels: usize) -> Problem {
        let (grid, compute, mut rng) = (Grid::sky(pixels, 1e-9).unwrap(), Compute::cpu_f64(), Rng::new(3));
        let matrix = rng.normals(&[20, pixels * pixels], &compute).unwrap();
        let data = rng.normals(&[1, 20], &compute).unwrap();
        Problem {
            forward: Arc::new(Projection { grid, matrix }),
            likelihoods: vec![Arc::new(Normal { data, sigma: 0.3 })],
            scaling: Scaling { unit: 3.0, dark: 0.2 },
        }
    }

    #[test]
    fn a_coarse_image_predicts_what_its_blocks_do() {
        let (problem, compute) = (projections(8), Compute::cpu_f64());
        let prior = Gaussian::diagonal(vec![0.0; 16], vec![1.0; 16], [1, 4, 4], &compute).unwrap();
        let coarser = Coarser { prior: &prior, scaling: Scaling { unit: 0.7, dark: -1.1 } };
        let coarse = problem.coarser(coarser.scaling).unwrap();
        let x = Rng::new(1).normals(&[2, 1, 4, 4], &compute).unwrap();
        let blocks = coarser.doubled(&x).unwrap();
        let close = |a: &Tensor, b: &Tensor| {
            let pairs = to_host(a).unwrap().into_iter().zip(to_host(b).unwrap());
            pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-9, "{a} {b}"));
        };
        close(&coarse.predict(&x).unwrap(), &problem.predict(&blocks).unwrap());
        close(&coarse.log_likelihood(&x).unwrap(), &problem.log_likelihood(&blocks).unwrap());
        close(&coarser.halved(&blocks).unwrap(), &x);
        assert_eq!(coarse.forward.grid().pitch[1], 2.0 * problem.forward.grid().pitch[1]);
    }

    /// Noise of the fine pixels, in the coarse unit, has the level that the coarser prior is told.
    #[test]
    fn noise_of_blocks_has_the_coarse_level() {
        let compute = Compute::cpu_f64();
        let prior = Gaussian::diagonal(vec![0.0; 16], vec![1.0; 16], [1, 4, 4], &compute).unwrap();
        let coarser = Coarser { prior: &prior, scaling: Scaling { unit: 0.7, dark: -1.1 } };
        let noise = (Rng::new(2).normals(&[4000, 1, 8, 8], &compute).unwrap() * 0.9).unwrap();
        let shift = to_host(&coarser.halved(&noise.zeros_like().unwrap()).unwrap()).unwrap()[0];
        let found = to_host(&halved(&noise).unwrap()).unwrap();
        let blocks = to_host(&coarser.halved(&noise).unwrap()).unwrap();
        let spread = |values: &[f64], mean: f64| {
            (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
        };
        assert!((spread(&found, 0.0) / 0.45 - 1.0).abs() < 0.01);
        assert!((spread(&blocks, shift) / coarser.level(0.9) - 1.0).abs() < 0.01);
    }

    #[test]
    fn odd_images_cannot_be_halved() {
        let error = projections(7).coarser(Scaling::IDENTITY).err().unwrap().to_string();
        assert!(error.contains("7 x 7"), "{error}");
    }
}
