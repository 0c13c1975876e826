//! The linear part of a microscope: convolution with the point-spread function, field of view, sums over camera pixels.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor, bail};
use rustfft::{FftNum, num_complex::Complex};

use super::{Domain, Psf};
use crate::{
    Error, Result,
    compute::Compute,
    tensor::{
        dft::{Axis, Dft3, Spectrum},
        each_image,
        fft3::{RealFft3, smooth_length},
        on_host,
    },
};

/// y = M R (h * x): images `[B, Z, Y, X]` of the object to light per camera pixel `[B, Z, y, x]`, in double or single
/// precision. Differentiable; the gradient is the exact adjoint.
///
/// The transform is so long that nothing wraps around into the field of view; beyond the object there is no light.
#[derive(Debug, Clone)]
pub struct Convolution {
    domain: Domain,
    plan: Plan,
}

/// How it is computed: by fast transforms in host memory, in one precision, or by matrix products on the device.
#[derive(Debug, Clone)]
enum Plan {
    Single(Arc<Planned<f32>>),
    Double(Arc<Planned<f64>>),
    Products(Arc<Products>),
}

impl Convolution {
    /// The response of `domain` to a point-spread function on the object's pitch, normalised so that a source in the
    /// middle of the field of view gives its own value in all.
    ///
    /// # Errors
    /// A point-spread function with another pitch, without light, or a precision other than single and double.
    pub fn new(psf: &Psf, domain: &Domain, compute: &Compute) -> Result<Self> {
        let differs = |axis: usize| {
            psf.grid.shape[axis] > 1 && (psf.grid.pitch[axis] / domain.object.pitch[axis] - 1.0).abs() > 1e-6
        };
        if (0..3).any(differs) {
            let problem = format!(
                "voxels of {:?} m, the object's are {:?} m; resample it",
                psf.grid.pitch, domain.object.pitch
            );
            return Err(Error::config("point-spread function", problem));
        }
        let plan = match compute.dtype {
            _ if Dft3::serves(period(psf, domain), compute) => {
                Plan::Products(Arc::new(Products::new(psf, domain, compute)?))
            }
            DType::F32 => Plan::Single(Arc::new(Planned::new(psf, domain)?)),
            DType::F64 => Plan::Double(Arc::new(Planned::new(psf, domain)?)),
            other => return Err(Error::config("precision", format!("{other:?}; use f32 or f64"))),
        };
        Ok(Self { domain: *domain, plan })
    }

    /// Light per camera pixel `[B, Z, y, x]` of objects `[B, Z, Y, X]`.
    ///
    /// # Errors
    /// An object of another shape.
    pub fn apply(&self, object: &Tensor) -> Result<Tensor> {
        let [z, y, x] = self.domain.object.shape;
        let batch = object.dims().first().copied().unwrap_or_default();
        if object.dims() != [batch, z, y, x] {
            let expected = vec![batch, z, y, x];
            return Err(Error::Shape { what: "object", expected, found: object.dims().to_vec() });
        }
        if let Plan::Products(products) = &self.plan {
            return products.apply(object);
        }
        let operation = Operation { convolution: self.clone(), adjoint: false };
        on_host(object, |object| object.apply_op1(operation))
    }
}

/// Length of the transform along each axis.
fn period(psf: &Psf, domain: &Domain) -> [usize; 3] {
    let view = domain.view();
    [0, 1, 2].map(|axis| {
        // Output and input indices differ by less than `farthest`; the function reaches `half` beyond.
        let object = domain.object.shape[axis];
        let after = object - view[axis] - domain.before[axis];
        let farthest = view[axis] + domain.before[axis].max(after);
        let half = (psf.grid.shape[axis] / 2).min(object);
        smooth_length(object.max(farthest + half))
    })
}

/// The operator as matrix products.
#[derive(Debug)]
struct Products {
    dft: Dft3,
    transfer: Spectrum,
}

impl Products {
    fn new(psf: &Psf, domain: &Domain, compute: &Compute) -> Result<Self> {
        let Planned { period, transfer, .. } = Planned::<f64>::new(psf, domain)?;
        let (re, im) = transfer.iter().map(|mode| (mode.re, mode.im)).unzip();
        let axis = |axis: usize| Axis {
            period: period[axis],
            values: domain.object.shape[axis],
            first: domain.before[axis],
            sums: domain.camera[axis],
            width: domain.scale(axis),
        };
        let dft = Dft3::new([axis(0), axis(1), axis(2)], compute)?;
        Ok(Self { dft, transfer: Spectrum::new(re, im, period, compute)? })
    }

    fn apply(&self, object: &Tensor) -> Result<Tensor> {
        self.dft.inverse(&self.dft.forward(object)?.times(&self.transfer)?)
    }
}

/// The operator in one precision.
#[derive(Debug)]
struct Planned<T: FftNum> {
    domain: Domain,
    period: [usize; 3],
    fft: RealFft3<T>,
    transfer: Vec<Complex<T>>,
}

impl<T: FftNum> Planned<T> {
    fn new(psf: &Psf, domain: &Domain) -> Result<Self> {
        let half = psf.grid.shape.map(|size| size / 2);
        let period = period(psf, domain);
        let fft = RealFft3::new(period);
        let mut kernel = vec![T::zero(); fft.volume()];
        let total = light(psf, domain);
        if !(total.is_finite() && total > 0.0) {
            return Err(Error::config("point-spread function", "holds no light"));
        }
        for ((z, y, x), value) in psf.values.indexed_iter() {
            let index = [z, y, x];
            let offset = [0, 1, 2].map(|axis| index[axis] as i64 - half[axis] as i64);
            // What connects no two voxels of object and view would only wrap around.
            if (0..3).any(|axis| offset[axis].unsigned_abs() as usize >= domain.object.shape[axis].max(1)) {
                continue;
            }
            let [z, y, x] = [0, 1, 2].map(|axis| offset[axis].rem_euclid(period[axis] as i64) as usize);
            kernel[(z * period[1] + y) * period[2] + x] = T::from_f64(value / total).unwrap_or_else(T::zero);
        }
        let transfer = fft.forward(&mut kernel);
        Ok(Self { domain: *domain, period, fft, transfer })
    }

    /// Light per camera pixel of one object.
    fn apply(&self, object: &[T]) -> Vec<T> {
        let mut volume = vec![T::zero(); self.fft.volume()];
        let [_, rows, columns] = self.domain.object.shape;
        for (index, line) in object.chunks_exact(columns).enumerate() {
            let start = self.line(index / rows, index % rows);
            volume[start..start + columns].copy_from_slice(line);
        }
        let blurred = self.convolve(volume, false);
        let mut counts = vec![T::zero(); self.domain.count()];
        self.each_camera_row(|camera, object| {
            let width = self.domain.factor;
            for (count, voxels) in counts[camera].iter_mut().zip(blurred[object].chunks_exact(width)) {
                *count = voxels.iter().fold(*count, |sum, &voxel| sum + voxel);
            }
        });
        counts
    }

    /// The adjoint of [`Planned::apply`].
    fn adjoint(&self, counts: &[T]) -> Vec<T> {
        let mut volume = vec![T::zero(); self.fft.volume()];
        self.each_camera_row(|camera, object| {
            let width = self.domain.factor;
            for (&count, voxels) in counts[camera].iter().zip(volume[object].chunks_exact_mut(width)) {
                voxels.fill(count);
            }
        });
        let spread = self.convolve(volume, true);
        let [planes, rows, columns] = self.domain.object.shape;
        let lines = (0..planes * rows).map(|index| self.line(index / rows, index % rows));
        lines.flat_map(|start| spread[start..start + columns].iter().copied()).collect()
    }

    /// What the camera sees of a volume; if `conjugate`, what the object gets of one by the adjoint.
    fn convolve(&self, mut volume: Vec<T>, conjugate: bool) -> Vec<T> {
        let mut spectrum = self.fft.forward(&mut volume);
        for (mode, transfer) in spectrum.iter_mut().zip(&self.transfer) {
            *mode = *mode * if conjugate { transfer.conj() } else { *transfer };
        }
        let (from, size) = match conjugate {
            true => ([0; 3], self.domain.object.shape),
            false => (self.domain.before, self.domain.view()),
        };
        let [planes, rows] = [0, 1].map(|axis| from[axis]..from[axis] + size[axis]);
        self.fft.inverse_within(&mut spectrum, planes, rows)
    }

    /// First voxel of a line of the padded volume.
    fn line(&self, plane: usize, row: usize) -> usize {
        (plane * self.period[1] + row) * self.period[2]
    }

    /// Calls `each` with a row of camera pixels and each row of voxels of the padded volume that it sums.
    fn each_camera_row(&self, mut each: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>)) {
        let Domain { camera: [planes, rows, columns], factor, before, .. } = self.domain;
        for row in 0..planes * rows {
            for part in 0..factor {
                let voxel_row = before[1] + row % rows * factor + part;
                let start = self.line(before[0] + row / rows, voxel_row) + before[2];
                each(row * columns..(row + 1) * columns, start..start + columns * factor);
            }
        }
    }
}

/// Light that a source in the middle plane of the view leaves in the planes that the camera sees.
fn light(psf: &Psf, domain: &Domain) -> f64 {
    let centre = psf.grid.shape[0] / 2;
    let middle = domain.camera[0] / 2;
    let seen = |plane: usize| {
        // A source in plane m appears in plane p through the function's plane centre + p - m.
        (plane + middle).checked_sub(centre).is_some_and(|camera| camera < domain.camera[0])
    };
    psf.values
        .outer_iter()
        .enumerate()
        .filter(|(plane, _)| seen(*plane))
        .map(|(_, values)| values.sum())
        .sum()
}

/// The differentiable operation on the CPU.
struct Operation {
    convolution: Convolution,
    adjoint: bool,
}

impl Operation {
    fn run<T: FftNum>(
        &self,
        plan: &Planned<T>,
        values: &[T],
        layout: &Layout,
    ) -> candle_core::Result<Vec<T>> {
        each_image(values, layout, |_, item| if self.adjoint { plan.adjoint(item) } else { plan.apply(item) })
    }
}

impl CustomOp1 for Operation {
    fn name(&self) -> &'static str {
        "microscope"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Convolution { domain, plan } = &self.convolution;
        let [z, y, x] = if self.adjoint { domain.object.shape } else { domain.camera };
        let shape = Shape::from((layout.dims()[0], z, y, x));
        let storage = match (storage, plan) {
            (CpuStorage::F32(values), Plan::Single(plan)) => CpuStorage::F32(self.run(plan, values, layout)?),
            (CpuStorage::F64(values), Plan::Double(plan)) => CpuStorage::F64(self.run(plan, values, layout)?),
            _ => bail!("the microscope was planned for another precision or device"),
        };
        Ok((storage, shape))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let transposed = Self { convolution: self.convolution.clone(), adjoint: !self.adjoint };
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&transposed)?))
    }
}
