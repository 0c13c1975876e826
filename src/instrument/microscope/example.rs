//! Small microscopes for tests of what is made of any.

use std::sync::Arc;

use nalgebra::{DMatrix, DVector};
use ndarray::Array3;

use super::{
    Domain, Field, Psf, Widefield,
    likelihood::{FixedGaussian, Pixels},
};
use crate::{
    compute::Compute,
    grid::Grid,
    instrument::{Problem, density::Data},
    prior::Scaling,
    tensor::to_host,
};

/// A camera with this noise behind a blur with the values `psf`, in double precision.
pub(crate) fn microscope(
    psf: Array3<f64>,
    domain: &Domain,
    background: f64,
    noise: FixedGaussian,
    scaling: Scaling,
) -> Problem {
    let grid = Grid { shape: psf.dim().into(), pitch: domain.object.pitch };
    let field = Field { flat_field: Vec::new(), background: vec![background] };
    let psf = Psf { grid, values: psf };
    Problem {
        forward: Arc::new(Widefield::new(&psf, domain, &field, &Compute::cpu_f64()).unwrap()),
        likelihoods: vec![Arc::new(Data::new(Pixels::new(noise, &[]).unwrap()))],
        scaling,
    }
}

/// 6 x 6 camera pixels with unlike noise, so many times 0.1 to 0.45, which see an object of 8 x 8 voxels through a blur.
pub(crate) fn unlike_noise(times: f64) -> Problem {
    let domain = Domain::new([1, 6, 6], [1e-7; 3], 1, [0, 1, 1], 2).unwrap();
    let psf = Array3::from_shape_fn((1, 3, 3), |(_, y, x)| [0.05, 0.1, 0.4][y % 2 + x % 2]);
    let sigma = (0..36).map(|pixel| times * (0.1 + 0.01 * pixel as f64)).collect();
    let noise = FixedGaussian { data: (0..36).map(|pixel| (pixel % 5) as f64).collect(), sigma };
    microscope(psf, &domain, 0.3, noise, Scaling { unit: 2.0, dark: -0.1 })
}

/// Gradient of the log likelihood at the image 0 and minus its second derivative, of noise that does not depend on the image.
pub(crate) fn gradient_and_precision(problem: &Problem) -> (DVector<f64>, DMatrix<f64>) {
    let [planes, rows, columns] = problem.forward.grid().shape;
    let voxels = planes * rows * columns;
    // Gradients at all unit vectors less that at 0 are the columns of the second derivative.
    let mut units = vec![0.0; voxels];
    units.extend(DMatrix::<f64>::identity(voxels, voxels).iter());
    let units = Compute::cpu_f64().tensor(units, &[voxels + 1, planes, rows, columns]).unwrap();
    let (_, slopes) = problem.log_likelihood_and_gradient(&units).unwrap();
    let slopes = DMatrix::from_vec(voxels, voxels + 1, to_host(&slopes).unwrap());
    let dark = slopes.column(0).into_owned();
    let precision = DMatrix::from_fn(voxels, voxels, |row, column| dark[row] - slopes[(row, column + 1)]);
    (dark, precision)
}

/// Fails unless `draws` (a column each) have this mean and covariance: in units of its standard deviation along each direction, the
/// mean is right to 4.5 standard errors and second moments to 6, or to `bias` where that is more.
pub(crate) fn assert_gaussian(
    draws: &DMatrix<f64>,
    mean: &DVector<f64>,
    covariance: &DMatrix<f64>,
    bias: f64,
) {
    let (voxels, count) = draws.shape();
    let root = covariance.clone().cholesky().unwrap().l().try_inverse().unwrap();
    let whitened = root * DMatrix::from_fn(voxels, count, |row, draw| draws[(row, draw)] - mean[row]);
    let error = whitened.column_mean().amax();
    assert!(error < (4.5 / (count as f64).sqrt()).max(bias), "mean off by {error}");
    let spread = &whitened * whitened.transpose() / count as f64 - DMatrix::identity(voxels, voxels);
    assert!(
        spread.amax() < (6.0 * (2.0 / count as f64).sqrt()).max(bias),
        "covariance off by {}",
        spread.amax()
    );
}
