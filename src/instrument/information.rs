//! How much the data say about a pixel and at which frequencies: what a sampler must know to move far in one step.

use candle_core::{D, Tensor};
use rustfft::num_complex::Complex;

use super::{Linearity, Problem};
use crate::{
    Result,
    tensor::{compute_of, fft3::RealFft3, to_host, value_and_gradient},
};

/// The negative second derivative of the log likelihood, A^T W A, as if the instrument saw all places alike: near pixel x it
/// multiplies the mode k of an image by `strength[x]` `spectrum[k]`. Network unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Information {
    /// Image shape Z, Y, X.
    pub shape: [usize; 3],
    /// Of the best seen pixel, half spectrum Z, Y, X/2 + 1 of the image taken as periodic, frequency 0 first, not negative.
    pub spectrum: Vec<f32>,
    /// Of each pixel relative to the best seen one, 0 to 1.
    pub strength: Vec<f32>,
    /// What the data say in the direction that is seen best.
    pub best: f64,
}

/// Neighbouring pixels along Y and X whose responses are averaged: camera pixels and stripes are wider than one.
const NEIGHBOURS: usize = 4;

impl Information {
    /// From spectrum and strength of every pixel; see the fields.
    pub(crate) fn new(shape: [usize; 3], spectrum: Vec<f32>, strength: Vec<f32>) -> Self {
        let best = spectrum.iter().fold(0.0f32, |most, value| most.max(*value));
        Self { shape, spectrum, strength, best: f64::from(best) }
    }

    /// Standard deviation that the data leave in that direction.
    pub fn finest(&self) -> f64 {
        self.best.sqrt().recip()
    }

    /// What the data say about images near `image` `[1, Z, Y, X]`; none if the instrument is not affine, does not only
    /// collect light, or its noise has no known information.
    ///
    /// # Errors
    /// An image of another shape.
    pub(super) fn of(problem: &Problem, image: &Tensor) -> Result<Option<Self>> {
        if problem.forward.linearity() != Linearity::Affine || !problem.forward.is_positive() {
            return Ok(None);
        }
        let Some(weights) = problem.information(&problem.predict(image)?)? else { return Ok(None) };
        let dark = problem.predict(&image.zeros_like()?)?;
        let adjoint = |weights: &Tensor| to_host(&problem.adjoint(weights, image)?);
        let most = largest(&adjoint(&weights.ones_like()?)?);
        let weighted = adjoint(&weights)?;
        let heaviest = largest(&weighted);
        if !(most > 0.0 && heaviest > 0.0) {
            return Ok(None);
        }
        let strength = weighted.into_iter().map(|value| (value / heaviest).clamp(0.0, 1.0) as f32).collect();
        let shape = problem.forward.grid().shape;
        let response = |image: &Tensor| -> Result<Vec<f64>> {
            let half_square = |x: &Tensor| {
                let light = problem.predict(x)?.broadcast_sub(&dark)?;
                Ok((light.sqr()?.sum(D::Minus1)? * 0.5)?)
            };
            to_host(&value_and_gradient(image, half_square)?.1)
        };
        let spectrum = mean_spectrum(shape, image, response)?;
        let spectrum = spectrum.into_iter().map(|value| (value.max(0.0) * heaviest / most) as f32).collect();
        Ok(Some(Self::new(shape, spectrum, strength)))
    }
}

/// The largest of values that are not all negative.
fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, value| most.max(*value))
}

/// The mean half spectrum of what `response` makes of single pixels in the middle of images like `like`, each about its pixel.
fn mean_spectrum(
    shape: [usize; 3],
    like: &Tensor,
    response: impl Fn(&Tensor) -> Result<Vec<f64>>,
) -> Result<Vec<f64>> {
    let fft = RealFft3::<f64>::new(shape);
    let mut sum = vec![0.0; fft.volume()];
    let [_, rows, columns] = shape;
    let sides = [rows, columns].map(|size| size.min(NEIGHBOURS));
    for neighbour in 0..sides[0] * sides[1] {
        let offset = [0, neighbour / sides[1], neighbour % sides[1]];
        let place = [0, 1, 2].map(|axis| (shape[axis] / 2 + offset[axis]) % shape[axis]);
        let index = |[z, y, x]: [usize; 3]| (z * rows + y) * columns + x;
        let mut pixel = vec![0.0; fft.volume()];
        pixel[index(place)] = 1.0;
        let found = response(&compute_of(like).tensor(pixel, like.dims())?)?;
        for (i, sum) in sum.iter_mut().enumerate() {
            let voxel = [i / columns / rows, i / columns % rows, i % columns];
            *sum += found[index([0, 1, 2].map(|axis| (voxel[axis] + place[axis]) % shape[axis]))];
        }
    }
    let count = (sides[0] * sides[1]) as f64;
    let modes: Vec<Complex<f64>> = fft.forward(&mut sum);
    Ok(modes.iter().map(|mode| mode.re / count).collect())
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::{
        compute::Compute,
        instrument::microscope::{Domain, example::microscope, likelihood::FixedGaussian},
        prior::Scaling,
        rng::Rng,
    };

    /// A Gaussian response of 2 voxels on a finer object with a dark border, and noise that is twice as large on the right.
    fn problem() -> Problem {
        let domain = Domain::new([1, 24, 24], [1e-7; 3], 2, [0, 8, 8], 1).unwrap();
        let psf = Array3::from_shape_fn((1, 17, 17), |(_, y, x)| {
            (-((y as f64 - 8.0).powi(2) + (x as f64 - 8.0).powi(2)) / 8.0).exp()
        });
        let sigma = (0..domain.count()).map(|i| if i % 24 < 12 { 1.0 } else { 2.0 }).collect();
        let noise = FixedGaussian { data: vec![0.0; domain.count()], sigma };
        microscope(psf, &domain, 0.0, noise, Scaling { unit: 3.0, dark: -0.5 })
    }

    /// Misfit that an image adds, by the problem and by what is known of it, for a blob at the given voxel.
    fn misfits(problem: &Problem, information: &Information, [row, column]: [usize; 2]) -> [f64; 2] {
        let [_, rows, columns] = information.shape;
        let near = |a: usize, b: usize| (a as f64 - b as f64).powi(2);
        let mut blob: Vec<f64> = (0..rows * columns)
            .map(|i| (-(near(i / columns, row) + near(i % columns, column)) / 4.0).exp())
            .collect();
        let compute = Compute::cpu_f64();
        let image = compute.tensor(blob.clone(), &[1, 1, rows, columns]).unwrap();
        let light = |x: &Tensor| problem.predict(x).unwrap();
        let added = (light(&image) - light(&image.zeros_like().unwrap())).unwrap();
        let weights = problem.likelihoods[0].information(&added).unwrap().unwrap();
        let exact = to_host(&(added.sqr().unwrap() * weights).unwrap().sum_all().unwrap()).unwrap()[0];
        let modes = RealFft3::new(information.shape).forward(&mut blob);
        let half = columns / 2 + 1;
        let sum: f64 = modes
            .iter()
            .zip(&information.spectrum)
            .enumerate()
            .map(|(i, (mode, value))| {
                let twice = if i % half == 0 || 2 * (i % half) == columns { 1.0 } else { 2.0 };
                twice * mode.norm_sqr() * f64::from(*value)
            })
            .sum();
        [exact, f64::from(information.strength[row * columns + column]) * sum / (rows * columns) as f64]
    }

    #[test]
    fn blobs_add_the_misfit_that_is_known_of_their_place() {
        let problem = problem();
        let [_, rows, columns] = problem.forward.grid().shape;
        let image = Rng::new(1).normals(&[1, 1, rows, columns], &Compute::cpu_f64()).unwrap();
        let information = Information::of(&problem, &image).unwrap().unwrap();
        for place in [[32, 20], [32, 44]] {
            let [exact, found] = misfits(&problem, &information, place);
            assert!((found / exact - 1.0).abs() < 0.05, "{place:?}: {found} of {exact}");
        }
        assert!(information.strength[0] < 0.01, "{}", information.strength[0]);
    }
}
