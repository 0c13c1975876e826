//! The Fourier transform from an image to visibilities: V(u, v) = pulse(u, v) sum I exp(+2 pi i (u x + v y)).
//!
//! x points east, y north, column 0 is east and row 0 north (`docs/conventions.md`). Phases are formed in f64 and cast.
//! The pixel grid is symmetric about the phase centre, so the even part of the image alone makes the real part of V and
//! the odd part the imaginary one: half the work of the plain sum.

use std::{f64::consts::TAU, sync::Arc};

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, bail};
use rayon::prelude::*;
use rustfft::num_complex::Complex64;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    compute::Compute,
    grid::Grid,
    instrument::{Blind, Forward, Linearity, vlbi::stations::Stations},
    tensor::Real,
};

mod plan;

use plan::{Plan, flat};

/// Brightness between pixel centres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Pulse {
    /// Point sources at the pixel centres.
    Delta,
    /// Linear interpolation between them: sinc^2 along each axis (eht-imaging's default).
    #[default]
    Triangle,
}

impl Pulse {
    /// Fourier transform of the pulse for pixels of `pitch` radians along one axis, at a baseline in wavelengths.
    pub fn transform(self, baseline: f64, pitch: f64) -> f64 {
        let half = 0.5 * TAU * baseline * pitch;
        match self {
            Self::Triangle if half != 0.0 => (half.sin() / half).powi(2),
            _ => 1.0,
        }
    }

    fn at(self, [u, v]: [f64; 2], grid: &Grid) -> f64 {
        self.transform(u, grid.pitch[2]) * self.transform(v, grid.pitch[1])
    }
}

/// Exact visibilities in f64 of an image in Jy/pixel, row by row from the north-east.
///
/// # Errors
/// An image of another size than the grid.
pub fn visibilities(pixels: &[f64], grid: &Grid, pulse: Pulse, uv: &[[f64; 2]]) -> Result<Vec<Complex64>> {
    if pixels.len() != grid.len() || grid.is_empty() {
        return Err(Error::Shape { what: "image", expected: grid.shape.to_vec(), found: vec![pixels.len()] });
    }
    let (east, north) = (grid.east(), grid.north());
    let rotation = |baseline: f64, offsets: &[f64]| -> Vec<Complex64> {
        offsets.iter().map(|offset| Complex64::cis(TAU * baseline * offset)).collect()
    };
    let visibility = |&[u, v]: &[f64; 2]| {
        let (columns, rows) = (rotation(u, &east), rotation(v, &north));
        let row_sum = |row: &[f64]| row.iter().zip(&columns).map(|(i, c)| c * *i).sum::<Complex64>();
        let sum: Complex64 =
            pixels.chunks_exact(columns.len()).zip(&rows).map(|(row, r)| r * row_sum(row)).sum();
        sum * pulse.at([u, v], grid)
    };
    Ok(uv.par_iter().map(visibility).collect())
}

/// The transform as a differentiable instrument model: images `[B, 1, Y, X]` to visibilities `[B, M, 2]`.
#[derive(Debug)]
pub struct Fourier {
    grid: Grid,
    plan: Arc<Plan>,
    /// Behind whose gains the first of the points are seen.
    stations: Option<Stations>,
}

impl Fourier {
    /// The transform of images on `grid` to the points `uv`, in wavelengths.
    ///
    /// # Errors
    /// No points, or a device without memory.
    pub fn new(grid: &Grid, uv: &[[f64; 2]], pulse: Pulse, compute: &Compute) -> Result<Self> {
        if uv.is_empty() || grid.is_empty() {
            return Err(Error::config("data", "no visibilities to model"));
        }
        Ok(Self { grid: *grid, plan: Arc::new(Plan::new(grid, uv, pulse, compute)?), stations: None })
    }

    /// The same for solvers that find the gains of the stations too.
    pub fn behind(self, stations: Stations) -> Self {
        Self { stations: Some(stations), ..self }
    }
}

impl Forward for Fourier {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn apply(&self, image: &Tensor) -> Result<Tensor> {
        let [z, y, x] = self.grid.shape;
        let batch = match image.dims() {
            &[batch, a, b, c] if [a, b, c] == [z, y, x] => batch,
            found => {
                return Err(Error::Shape {
                    what: "image",
                    expected: vec![0, z, y, x],
                    found: found.to_vec(),
                });
            }
        };
        let flat = image.reshape((batch, z * y * x))?;
        if image.device().is_cpu() {
            return Ok(flat.contiguous()?.apply_op1(Transform { plan: self.plan.clone() })?);
        }
        Ok(self.plan.on_device(&flat)?)
    }

    fn linearity(&self) -> Linearity {
        Linearity::Affine
    }

    /// That of the real and of the imaginary part where the pulse is much narrower than the waves.
    fn noise_gain(&self) -> Option<f64> {
        Some((0.5 * self.grid.len() as f64).sqrt())
    }

    fn blind(&self) -> Option<&dyn Blind> {
        self.stations.is_some().then_some(self as &dyn Blind)
    }
}

impl Blind for Fourier {
    fn parameters(&self) -> usize {
        self.stations.as_ref().map_or(0, Stations::parameters)
    }

    fn apply_with(&self, image: &Tensor, parameters: &Tensor) -> Result<Tensor> {
        let visibilities = self.apply(image)?;
        match &self.stations {
            Some(stations) => stations.apply(&visibilities, parameters),
            None => Ok(visibilities),
        }
    }
}

/// The differentiable operation on the CPU.
struct Transform {
    plan: Arc<Plan>,
}

impl CustomOp1 for Transform {
    fn name(&self) -> &'static str {
        "fourier"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let batch = layout.dims()[0];
        let shape = Shape::from((batch, self.plan.count(), 2));
        let storage = match storage {
            CpuStorage::F32(_) => self.forward::<f32>(storage, layout, batch)?,
            CpuStorage::F64(_) => self.forward::<f64>(storage, layout, batch)?,
            _ => bail!("visibilities need an image of f32 or f64"),
        };
        Ok((storage, shape))
    }

    fn bwd(&self, image: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let batch = image.dim(0)?;
        Ok(Some(match gradient.dtype() {
            DType::F64 => Tensor::from_vec(
                self.plan.adjoint(&flat::<f64>(gradient)?, batch)?,
                image.shape(),
                &Device::Cpu,
            )?,
            _ => Tensor::from_vec(
                self.plan.adjoint(&flat::<f32>(gradient)?, batch)?,
                image.shape(),
                &Device::Cpu,
            )?,
        }))
    }
}

impl Transform {
    fn forward<T: Real>(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        batch: usize,
    ) -> candle_core::Result<CpuStorage> {
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("the image must be contiguous") };
        let images = &T::cpu_storage_as_slice(storage)?[start..end];
        Ok(T::to_cpu_storage_owned(self.plan.apply(images, batch)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{rng::Rng, tensor::value_and_gradient, units::MICROARCSECOND};

    fn points(count: usize, rng: &mut Rng) -> Vec<[f64; 2]> {
        let mut uv: Vec<_> = (1..count).map(|_| [3e9 * rng.normal(), 3e9 * rng.normal()]).collect();
        uv.push([0.0, 0.0]);
        uv
    }

    fn planned(grid: &Grid, plan: Result<Plan>) -> Fourier {
        Fourier { grid: *grid, plan: Arc::new(plan.unwrap()), stations: None }
    }

    /// The definition, term by term.
    fn naive(pixels: &[f64], grid: &Grid, pulse: Pulse, uv: [f64; 2]) -> Complex64 {
        let mut sum = Complex64::ZERO;
        for (i, y) in grid.north().iter().enumerate() {
            for (j, x) in grid.east().iter().enumerate() {
                sum += pixels[i * grid.shape[2] + j] * Complex64::cis(TAU * (uv[0] * x + uv[1] * y));
            }
        }
        sum * pulse.transform(uv[0], grid.pitch[2]) * pulse.transform(uv[1], grid.pitch[1])
    }

    #[test]
    fn all_transforms_agree_with_the_plain_sum() {
        let compute = Compute::cpu_f64();
        let mut rng = Rng::new(1);
        for shape in [[1, 8, 8], [1, 7, 5], [1, 6, 9]] {
            let grid = Grid { shape, pitch: [1.0, 12.0 * MICROARCSECOND, 15.0 * MICROARCSECOND] };
            let uv = points(300, &mut rng);
            let image = rng.normals(&[2, shape[0], shape[1], shape[2]], &compute).unwrap();
            let pixels = image.get(1).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for pulse in [Pulse::Delta, Pulse::Triangle] {
                let host = visibilities(&pixels, &grid, pulse, &uv).unwrap();
                let dense = planned(&grid, Plan::dense(&grid, &uv, pulse, &compute)).apply(&image).unwrap();
                let separable =
                    planned(&grid, Plan::separable(&grid, &uv, pulse, &compute)).apply(&image).unwrap();
                let dense = dense.get(1).unwrap().to_vec2::<f64>().unwrap();
                let separable = separable.get(1).unwrap().to_vec2::<f64>().unwrap();
                for (k, &point) in uv.iter().enumerate() {
                    let expected = naive(&pixels, &grid, pulse, point);
                    for found in [
                        host[k],
                        Complex64::new(dense[k][0], dense[k][1]),
                        Complex64::new(separable[k][0], separable[k][1]),
                    ] {
                        assert!((found - expected).norm() < 1e-11, "{k}: {found} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_gradient_is_the_adjoint() {
        let compute = Compute::cpu_f64();
        let mut rng = Rng::new(2);
        let grid = Grid { shape: [1, 9, 6], pitch: [10.0 * MICROARCSECOND; 3] };
        let uv = points(400, &mut rng);
        for forward in [
            planned(&grid, Plan::dense(&grid, &uv, Pulse::Triangle, &compute)),
            planned(&grid, Plan::separable(&grid, &uv, Pulse::Triangle, &compute)),
        ] {
            let image = rng.normals(&[3, 1, 9, 6], &compute).unwrap();
            let weights = rng.normals(&[3, 400, 2], &compute).unwrap();
            let (value, gradient) =
                value_and_gradient(&image, |image| Ok((forward.apply(image)? * &weights)?.sum(2)?.sum(1)?))
                    .unwrap();
            let total = value.sum_all().unwrap().to_scalar::<f64>().unwrap();
            let dual = (&gradient * &image).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
            assert!((total - dual).abs() < 1e-12 * total.abs().max(1.0) * 10.0, "{total} {dual}");
        }
    }

    #[test]
    fn stock_operations_give_the_same() {
        let compute = Compute::cpu_f64();
        let mut rng = Rng::new(3);
        for side in [5, 6] {
            let grid = Grid { shape: [1, side, side], pitch: [10.0 * MICROARCSECOND; 3] };
            let forward =
                planned(&grid, Plan::dense(&grid, &points(20, &mut rng), Pulse::Triangle, &compute));
            let image = rng.normals(&[2, 1, side, side], &compute).unwrap();
            let stock = forward.plan.on_device(&image.flatten_from(1).unwrap()).unwrap();
            let difference = (forward.apply(&image).unwrap() - stock).unwrap().abs().unwrap();
            assert!(difference.max_all().unwrap().to_scalar::<f64>().unwrap() < 1e-12);
        }
    }

    #[test]
    fn an_image_of_another_size_is_refused() {
        let grid = Grid::sky(8, 100.0 * MICROARCSECOND).unwrap();
        let forward = Fourier::new(&grid, &[[0.0, 0.0]], Pulse::Delta, &Compute::cpu()).unwrap();
        assert!(forward.apply(&Tensor::zeros((1, 1, 8, 9), DType::F32, &Device::Cpu).unwrap()).is_err());
        assert!(visibilities(&[0.0; 63], &grid, Pulse::Delta, &[]).is_err());
    }
}
