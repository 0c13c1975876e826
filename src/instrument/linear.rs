//! Linear instruments with Gaussian noise, in the orthonormal basis in which forward model and noise are diagonal.

use candle_core::Tensor;
use nalgebra::DVector;

use super::{
    Problem,
    subspace::{SMALLEST, Subspace, is_small, matrix},
};
use crate::{
    Error, Result,
    compute::Compute,
    tensor::{compute_of, fft::fourier_modes, to_host},
    transfer::{Transfer, send},
};

/// How a forward model depends on the image.
#[derive(Debug, Clone, PartialEq)]
pub enum Linearity {
    /// Not known to be linear.
    None,
    /// A matrix times the image plus a constant.
    Affine,
    /// A periodic convolution with this real, even transfer function, row-major with frequency 0 first, plus a
    /// constant; predicted data are pixels of the same grid.
    Periodic(Vec<f64>),
}

/// What data with independent Gaussian noise of fixed variance say of each predicted number.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Measured values.
    pub values: Vec<f64>,
    /// Their standard deviations; infinite where nothing was measured.
    pub sigmas: Vec<f64>,
}

/// The data as independent measurements of coordinates of the image: with orthonormal columns v_i,
/// `data[i]` = v_i . x + `sigma[i]` n_i. Directions across all v_i are not measured. Network unit.
#[derive(Debug, Clone)]
pub struct Linear {
    basis: Basis,
    /// Measured value of each coordinate.
    pub data: Vec<f64>,
    /// Standard deviation of each measurement.
    pub sigma: Vec<f64>,
}

#[derive(Debug, Clone)]
enum Basis {
    /// The right singular vectors.
    Dense(Subspace),
    /// Discrete Hartley transform of images Y, X: the measured frequencies `[R]`.
    Hartley(Tensor),
}

impl Linear {
    /// Decomposes a problem.
    ///
    /// # Errors
    /// The name of the capability that the problem lacks.
    pub(super) fn of(problem: &Problem, compute: &Compute) -> Result<Self> {
        let measured = joined(problem).ok_or_else(|| missing("Gaussian noise of fixed variance"))?;
        let measured = measured?;
        let [z, y, x] = problem.forward.grid().shape;
        let dark = Tensor::zeros((1, z, y, x), compute.dtype, &compute.device)?;
        let offset = to_host(&problem.predict(&dark)?)?;
        match problem.forward.linearity() {
            Linearity::None => Err(missing("a linear forward model")),
            Linearity::Affine => Self::dense(problem, &measured, &offset, compute),
            Linearity::Periodic(transfer) => {
                Self::periodic(&transfer, problem.scaling.unit, &measured, &offset, [y, x], compute)
            }
        }
    }

    /// Number of measured coordinates.
    pub fn rank(&self) -> usize {
        self.data.len()
    }

    /// Frequency or number of each measured coordinate in the basis.
    pub fn frequencies(&self) -> Result<Option<Vec<usize>>> {
        match &self.basis {
            Basis::Dense(_) => Ok(None),
            Basis::Hartley(kept) => {
                Ok(Some(kept.read_list::<u32>()?.into_iter().map(|index| index as usize).collect()))
            }
        }
    }

    /// Coordinates `[B, R]` of images `[B, Z, Y, X]`.
    ///
    /// # Errors
    /// An image of another shape.
    pub fn coordinates(&self, x: &Tensor) -> Result<Tensor> {
        match &self.basis {
            Basis::Dense(basis) => basis.coordinates(x),
            Basis::Hartley(kept) => Ok(hartley(x)?.index_select(kept, 1)?),
        }
    }

    /// The image `[B, Z, Y, X]` with these coordinates `[B, R]` and nothing across them; `shape` is Z, Y, X.
    ///
    /// # Errors
    /// Coordinates of another number.
    pub fn image(&self, coordinates: &Tensor, [z, y, x]: [usize; 3]) -> Result<Tensor> {
        let batch = coordinates.dim(0)?;
        let image = match &self.basis {
            Basis::Dense(basis) => basis.image(coordinates)?,
            Basis::Hartley(kept) => {
                let all = Tensor::zeros((batch, y * x), coordinates.dtype(), coordinates.device())?;
                hartley(&all.index_add(kept, coordinates, 1)?.reshape((batch, 1, y, x))?)?
            }
        };
        Ok(image.reshape((batch, z, y, x))?)
    }

    /// The images with these coordinates, and what they have across them.
    ///
    /// # Errors
    /// Coordinates of another number.
    pub fn replaced(&self, x: &Tensor, coordinates: &Tensor) -> Result<Tensor> {
        let (_, z, y, columns) = x.dims4()?;
        let change = (coordinates - self.coordinates(x)?)?;
        Ok((x + self.image(&change, [z, y, columns])?)?)
    }

    /// What `of` makes of each coordinate's measured value and its standard deviation, as `[1, R]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn each(&self, like: &Tensor, of: impl Fn(f64, f64) -> f64) -> Result<Tensor> {
        let values = self.data.iter().zip(&self.sigma).map(|(&data, &sigma)| of(data, sigma));
        self.row(values.collect(), like)
    }

    /// One number per coordinate as `[1, R]`, to be broadcast over coordinates like `like`.
    ///
    /// # Errors
    /// Another number of values.
    pub fn row(&self, values: Vec<f64>, like: &Tensor) -> Result<Tensor> {
        compute_of(like).tensor(values, &[1, self.rank()])
    }

    fn dense(problem: &Problem, measured: &Measured, offset: &[f64], compute: &Compute) -> Result<Self> {
        let pixels = problem.forward.grid().len();
        let kept: Vec<usize> = (0..offset.len()).filter(|&i| measured.sigmas[i].is_finite()).collect();
        if !is_small(kept.len(), pixels) {
            let size = format!("a singular-value decomposition ({} data, {pixels} pixels)", kept.len());
            return Err(missing(&size));
        }
        let mut matrix = matrix(problem, &kept, compute)?;
        for (mut row, &i) in matrix.row_iter_mut().zip(&kept) {
            row /= measured.sigmas[i];
        }
        let residual = DVector::from_iterator(
            kept.len(),
            kept.iter().map(|&i| (measured.values[i] - offset[i]) / measured.sigmas[i]),
        );
        let (basis, gains, vectors) = Subspace::of(&matrix, compute)?;
        let back = vectors * matrix.tr_mul(&residual);
        let data = back.iter().zip(&gains).map(|(back, gain)| back / gain).collect();
        let sigma = gains.iter().map(|gain| gain.sqrt().recip()).collect();
        Ok(Self { basis: Basis::Dense(basis), data, sigma })
    }

    fn periodic(
        transfer: &[f64],
        unit: f64,
        measured: &Measured,
        offset: &[f64],
        [y, x]: [usize; 2],
        compute: &Compute,
    ) -> Result<Self> {
        let noise = measured.sigmas.first().copied().unwrap_or(f64::INFINITY);
        if !noise.is_finite() || measured.sigmas.iter().any(|sigma| *sigma != noise) {
            return Err(missing("the same noise in all pixels"));
        }
        let residual = measured.values.iter().zip(offset).map(|(value, offset)| value - offset).collect();
        let residual = to_host(&hartley(&compute.tensor(residual, &[1, 1, y, x])?)?)?;
        let largest = transfer.iter().map(|gain| gain * gain).fold(0.0, f64::max);
        let kept: Vec<usize> =
            (0..transfer.len()).filter(|&i| transfer[i].powi(2) > SMALLEST * largest).collect();
        let gain = |i: &usize| unit * transfer[*i];
        Ok(Self {
            data: kept.iter().map(|i| residual[*i] / gain(i)).collect(),
            sigma: kept.iter().map(|i| noise / gain(i).abs()).collect(),
            basis: Basis::Hartley(send(kept.iter().map(|&i| i as u32).collect::<Vec<_>>(), &compute.device)?),
        })
    }
}

/// A refusal by the name of what is missing.
fn missing(capability: &str) -> Error {
    Error::config(
        "solver",
        format!("needs {capability}, which this problem does not have; choose ppm, gibbs, langevin or dps"),
    )
}

/// What all likelihoods together say of each predicted number; none if one of them is not Gaussian.
fn joined(problem: &Problem) -> Option<Result<Measured>> {
    let parts = problem.likelihoods.iter().map(|likelihood| likelihood.measured());
    let parts: Vec<Measured> = parts.collect::<Option<_>>()?;
    let count = parts.first()?.values.len();
    if parts.iter().any(|part| part.values.len() != count || part.sigmas.len() != count) {
        let found = parts.iter().map(|part| part.values.len()).collect();
        return Some(Err(Error::Shape { what: "measured data", expected: vec![count; parts.len()], found }));
    }
    let precision = |i: usize| parts.iter().map(|part| part.sigmas[i].powi(-2)).sum::<f64>();
    let value = |i: usize| {
        let measured = parts.iter().filter(|part| part.sigmas[i].is_finite());
        let sum: f64 = measured.map(|part| part.values[i] * part.sigmas[i].powi(-2)).sum();
        if sum == 0.0 { 0.0 } else { sum / precision(i) }
    };
    Some(Ok(Measured {
        values: (0..count).map(value).collect(),
        sigmas: (0..count).map(|i| precision(i).sqrt().recip()).collect(),
    }))
}

/// The orthonormal discrete Hartley transform `[B, Y X]` of images `[B, 1, Y, X]`, sum of x (cos + sin): real, its own
/// inverse, and diagonal for periodic convolutions with even kernels (Bracewell 1983).
pub fn hartley(x: &Tensor) -> Result<Tensor> {
    let modes = fourier_modes(x)?;
    Ok((modes.narrow(2, 0, 1)? - modes.narrow(2, 1, 1)?)?.squeeze(2)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        grid::Grid,
        instrument::exact::{Filter, Normal, Projection},
        prior::Scaling,
        rng::Rng,
    };

    const SCALING: Scaling = Scaling { unit: 0.4, dark: -0.5 };

    fn problem(forward: Arc<dyn super::super::Forward>, data: &Tensor, sigma: f64) -> Problem {
        Problem {
            forward,
            likelihoods: vec![Arc::new(Normal { data: data.clone(), sigma })],
            scaling: SCALING,
        }
    }

    /// Chi-square of any image is that of its coordinates, up to a constant; image and coordinates are adjoint.
    fn agrees(problem: &Problem, shape: [usize; 3]) {
        let compute = Compute::cpu_f64();
        let linear = problem.linear(&compute).unwrap();
        let x = Rng::new(7).normals(&[4, shape[0], shape[1], shape[2]], &compute).unwrap();
        let coordinates = linear.coordinates(&x).unwrap();
        let difference = linear.row(linear.data.clone(), &x).unwrap().broadcast_sub(&coordinates).unwrap();
        let scaled = difference.broadcast_div(&linear.row(linear.sigma.clone(), &x).unwrap()).unwrap();
        let found = (scaled.sqr().unwrap().sum(1).unwrap() * -0.5).unwrap().to_vec1::<f64>().unwrap();
        let exact = problem.log_likelihood(&x).unwrap().to_vec1::<f64>().unwrap();
        for i in 1..4 {
            let (found, exact) = (found[i] - found[0], exact[i] - exact[0]);
            assert!((found - exact).abs() < 1e-6 * exact.abs().max(1.0), "{found} {exact}");
        }
        let twice = linear.coordinates(&linear.image(&coordinates, shape).unwrap()).unwrap();
        let error = (twice - &coordinates).unwrap().abs().unwrap().max_all().unwrap();
        assert!(error.to_scalar::<f64>().unwrap() < 1e-9);
    }

    #[test]
    fn more_and_fewer_data_than_pixels() {
        let compute = Compute::cpu_f64();
        for (data, pixels) in [(3, 8), (9, 4)] {
            let mut rng = Rng::new(1);
            let matrix = rng.normals(&[data, pixels], &compute).unwrap();
            let grid = Grid { shape: [1, 1, pixels], pitch: [1.0; 3] };
            let data = rng.normals(&[1, data], &compute).unwrap();
            agrees(&problem(Arc::new(Projection { grid, matrix }), &data, 0.3), [1, 1, pixels]);
        }
    }

    #[test]
    fn periodic_filters() {
        let compute = Compute::cpu_f64();
        let grid = Grid { shape: [1, 4, 6], pitch: [1.0; 3] };
        let even = |i: usize| f64::from(u8::from(i != 8)) / (1.0 + (i / 6).min(4 - i / 6) as f64);
        let gains = (0..24).map(|i| if i % 6 == 3 { 0.0 } else { even(i / 6 * 6) }).collect();
        let data = Rng::new(2).normals(&[1, 24], &compute).unwrap();
        agrees(&problem(Arc::new(Filter { grid, gains }), &data, 0.3), [1, 4, 6]);
    }

    #[test]
    fn what_is_missing_is_named() {
        struct Square(Grid);
        impl super::super::Forward for Square {
            fn grid(&self) -> &Grid {
                &self.0
            }
            fn apply(&self, image: &Tensor) -> Result<Tensor> {
                Ok(image.flatten_from(1)?.sqr()?)
            }
        }
        let compute = Compute::cpu_f64();
        let grid = Grid { shape: [1, 1, 3], pitch: [1.0; 3] };
        let data = Rng::new(2).normals(&[1, 3], &compute).unwrap();
        let error = problem(Arc::new(Square(grid)), &data, 1.0).linear(&compute).unwrap_err().to_string();
        assert!(error.contains("a linear forward model"), "{error}");
    }
}
