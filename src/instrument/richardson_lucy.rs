//! Richardson-Lucy deconvolution, the classical baseline: quick, without noise model or uncertainty.

use candle_core::{DType, Tensor};
use ndarray::Array3;

use crate::{
    Error, Result, compute::Compute, instrument::Forward, tensor::value_and_gradient, transfer::Transfer,
};

/// Iterations of the deconvolution that is shown beside the posterior, gives the prior its scale, and is what chains start near:
/// more would fit the noise.
pub const ITERATIONS: usize = 20;

/// Smallest predicted light that data are divided by, relative to the brightest.
const LEAST: f64 = 1e-6;

/// `iterations` of x <- x A^T(y / A x) / A^T 1 (Richardson 1972; Lucy 1974) from an even start, `[Z, Y, X]`, where y is what
/// the data `[M]` hold above the forward model's background, cut at 0, and A its linear part.
///
/// # Errors
/// Data of another size, or those of the forward model.
pub fn richardson_lucy(
    forward: &dyn Forward,
    data: &[f64],
    iterations: usize,
    compute: &Compute,
) -> Result<Array3<f32>> {
    let [z, y, x] = forward.grid().shape;
    let shape = (1, z, y, x);
    let even = Tensor::ones(shape, compute.dtype, &compute.device)?;
    let background = forward.apply(&even.zeros_like()?)?;
    let light = (compute.tensor(data.to_vec(), &[1, data.len()])?.broadcast_sub(&background)?).relu()?;
    // The gradient of a weighted sum of predictions is the adjoint of the weights.
    let adjoint = |weights: &Tensor| -> Result<Tensor> {
        let sum = |image: &Tensor| Ok((forward.apply(image)? * weights)?.flatten_from(1)?.sum(1)?);
        Ok(value_and_gradient(&even, sum)?.1)
    };
    let sensitivity = adjoint(&light.ones_like()?)?;
    let floor = |tensor: &Tensor| -> Result<f64> {
        Ok(LEAST * tensor.flatten_all()?.max(0)?.to_dtype(DType::F64)?.read_scalar::<f64>()?.max(LEAST))
    };
    let sensitivity = sensitivity.maximum(floor(&sensitivity)?)?;
    let mean = light.mean_all()?.to_dtype(DType::F64)?.read_scalar::<f64>()?;
    let mut image = (&even * (mean.max(LEAST) * data.len() as f64 / forward.grid().len() as f64))?;
    for _ in 0..iterations {
        let predicted = (forward.apply(&image)? - &background)?;
        let ratio = light.div(&predicted.maximum(floor(&predicted)?)?)?;
        image = ((image * adjoint(&ratio)?)? / &sensitivity)?.detach();
    }
    let values = image.to_dtype(DType::F32)?.flatten_all()?.read_list()?;
    Array3::from_shape_vec([z, y, x], values).map_err(|e| Error::config("deconvolution", e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        grid::Grid,
        instrument::microscope::{Domain, Field, Psf, Widefield},
    };

    /// A Gaussian response on a 2 x finer object with a border, and two points 8 voxels apart on a background of 7.
    fn scene() -> (Widefield, Vec<f64>) {
        let compute = Compute::cpu_f64();
        let domain = Domain::new([1, 12, 12], [1e-7; 3], 2, [0, 6, 6], 1).unwrap();
        let grid = Grid { shape: [1, 13, 13], pitch: domain.object.pitch };
        let values = Array3::from_shape_fn(grid.shape, |(_, y, x)| {
            (-((y as f64 - 6.0).powi(2) + (x as f64 - 6.0).powi(2)) / 8.0).exp()
        });
        let field = Field { flat_field: Vec::new(), background: vec![7.0] };
        let forward = Widefield::new(&Psf { grid, values }, &domain, &field, &compute).unwrap();
        let mut object = vec![0.0; forward.grid().len()];
        let columns = forward.grid().shape[2];
        object[18 * columns + 14] = 100.0;
        object[18 * columns + 22] = 50.0;
        let data = forward.predict(&object).unwrap();
        (forward, data)
    }

    #[test]
    fn light_is_kept_and_points_become_sharp() {
        let (forward, data) = scene();
        let peak = |iterations: usize| {
            let image = richardson_lucy(&forward, &data, iterations, &Compute::cpu_f64()).unwrap();
            let light: f64 = image.iter().map(|&value| f64::from(value)).sum();
            assert!((light / 150.0 - 1.0).abs() < 0.02, "{iterations}: {light}");
            let brightest = image.indexed_iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
            assert_eq!(brightest.0, (0, 18, 14));
            *brightest.1
        };
        let (early, late) = (peak(5), peak(100));
        assert!(late > 2.0 * early, "{early} {late}");
    }

    #[test]
    fn data_of_another_size_are_refused() {
        let (forward, data) = scene();
        assert!(richardson_lucy(&forward, &data[1..], 1, &Compute::cpu_f64()).is_err());
    }
}
