//! The Gaussian that fits a widefield microscope's point-spread function near its focus.

use ndarray::Array3;

use crate::{grid::Grid, instrument::microscope::Optics};

/// Standard deviations along the axis and across it, metres.
///
/// Source: Zhang, Zerubia and Olivo-Marin 2007, Appl. Opt. 46, 1819: the non-paraxial 3-D widefield model.
pub fn widths(optics: &Optics) -> [f64; 2] {
    let nk = optics.sample_index * optics.wavenumber();
    let cos = (1.0 - (optics.aperture() / optics.sample_index).powi(2)).max(0.0).sqrt();
    let rest = 1.0 - cos.powf(1.5);
    let across = (7.0 * rest / (4.0 - 7.0 * cos.powf(1.5) + 3.0 * cos.powf(3.5))).sqrt() / nk;
    let polynomial =
        4.0 * cos.powi(5) - 25.0 * cos.powf(3.5) + 42.0 * cos.powf(2.5) - 25.0 * cos.powf(1.5) + 4.0;
    [5.0 * 7f64.sqrt() * rest / ((6.0 * polynomial).sqrt() * nk), across]
}

/// Lateral averages over each voxel, as fractions of the light of the plane in focus, with the centre at shape/2.
pub(super) fn intensity(optics: &Optics, grid: &Grid) -> Array3<f64> {
    let [along, across] = widths(optics);
    let offset =
        |index: usize, axis: usize| (index as f64 - (grid.shape[axis] / 2) as f64) * grid.pitch[axis];
    let fraction = |index: usize, axis: usize| {
        let edge =
            |side: f64| libm::erf((offset(index, axis) + side * grid.pitch[axis]) / (across * 2f64.sqrt()));
        0.5 * (edge(0.5) - edge(-0.5))
    };
    let [rows, columns] =
        [1, 2].map(|axis| (0..grid.shape[axis]).map(|i| fraction(i, axis)).collect::<Vec<_>>());
    Array3::from_shape_fn(grid.shape, |(z, y, x)| {
        (-0.5 * (offset(z, 0) / along).powi(2)).exp() * rows[y] * columns[x]
    })
}
