//! Group normalisation, modulation and SiLU.

use candle_core::{
    CudaStorage, Result,
    backend::BackendStorage,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::driver::{CudaSlice, CudaView},
    },
};

use super::{Gpu, Real, blocks, conv::Place, launch, over, parts, size, values, with_real};
use crate::tensor::{norm_kernel::EPSILON, precision::Precision};

/// Images, scale and shift on the device.
struct Modulation<'a, T> {
    gpu: Gpu<'a>,
    x: CudaView<'a, T>,
    scale: CudaView<'a, T>,
    shift: CudaView<'a, T>,
    groups: usize,
    /// Images, pixels of each, channels.
    sizes: [usize; 3],
}

/// SiLU(normalised(x) (1 + scale) + shift) of x `[B, P, C]`, scale and shift `[B, C]`.
pub(in crate::tensor) fn modulated(
    places: [Place; 3],
    groups: usize,
    sizes: [usize; 3],
) -> Result<CudaStorage> {
    let x = places[0].0;
    with_real!(x, T => {
        let device = x.device().clone();
        let y = Modulation::<T>::new(&device, places, groups, sizes)?.forward()?;
        Ok(T::wrap_cuda_slice(y, device))
    })
}

/// Gradients of x, scale and shift one after the other, given that of the result.
pub(in crate::tensor) fn modulated_gradient(
    places: [Place; 3],
    gradient: Place,
    groups: usize,
    sizes: [usize; 3],
) -> Result<CudaStorage> {
    let x = places[0].0;
    with_real!(x, T => {
        let device = x.device().clone();
        let modulation = Modulation::<T>::new(&device, places, groups, sizes)?;
        let all = modulation.backward(&values::<T>(gradient.0, gradient.1)?)?;
        Ok(T::wrap_cuda_slice(all, device))
    })
}

impl<'a, T: Real> Modulation<'a, T> {
    fn new(
        device: &'a candle_core::CudaDevice,
        [x, scale, shift]: [Place<'a>; 3],
        groups: usize,
        sizes: [usize; 3],
    ) -> Result<Self> {
        let gpu = Gpu::new::<T>(device, Precision::Full)?;
        let (x, scale, shift) = (values(x.0, x.1)?, values(scale.0, scale.1)?, values(shift.0, shift.1)?);
        Ok(Self { gpu, x, scale, shift, groups, sizes })
    }

    /// Blocks for the sums over one image.
    fn parts(&self) -> usize {
        parts(self.sizes[1] * self.sizes[2])
    }

    /// Mean and 1 / standard deviation of each channel's group, `[B, 2, C]`.
    fn moments(&self) -> Result<CudaSlice<T>> {
        let ([images, pixels, channels], parts, gpu) = (self.sizes, self.parts(), &self.gpu);
        let mut sums = gpu.empty::<T>(images * parts * 2 * channels)?;
        let (p, c) = (size(pixels)?, size(channels)?);
        launch!(gpu, "moment_sums", blocks(parts, images, 0), &self.x, &mut sums, &p, &c);
        let mut moments = gpu.empty::<T>(images * 2 * channels)?;
        let shared = 2 * channels * size_of::<f64>();
        let (parts, groups) = (size(parts)?, size(self.groups)?);
        launch!(
            gpu,
            "moments",
            blocks(images, 1, shared),
            &sums,
            &mut moments,
            &parts,
            &c,
            &groups,
            &p,
            &EPSILON
        );
        Ok(moments)
    }

    fn forward(&self) -> Result<CudaSlice<T>> {
        let moments = self.moments()?;
        let (count, gpu) = (self.x.len(), &self.gpu);
        let mut y = gpu.empty::<T>(count)?;
        let [pixels, channels, total] = [self.sizes[1], self.sizes[2], count].map(size);
        launch!(
            gpu,
            "modulate",
            over(count),
            &self.x,
            &self.scale,
            &self.shift,
            &moments,
            &mut y,
            &pixels?,
            &channels?,
            &total?
        );
        Ok(y)
    }

    fn backward(&self, gradient: &CudaView<T>) -> Result<CudaSlice<T>> {
        let ([images, pixels, channels], parts, gpu) = (self.sizes, self.parts(), &self.gpu);
        let (p, c, count) = (size(pixels)?, size(channels)?, self.x.len());
        let moments = self.moments()?;
        let mut sums = gpu.empty::<T>(images * parts * 2 * channels)?;
        launch!(
            gpu,
            "gradient_sums",
            blocks(parts, images, 0),
            &self.x,
            &self.scale,
            &self.shift,
            &moments,
            gradient,
            &mut sums,
            &p,
            &c
        );
        let mut all = gpu.empty::<T>(count + 2 * images * channels)?;
        let (mut of_x, mut rest) = all.split_at_mut(count);
        let (mut of_scale, mut of_shift) = rest.split_at_mut(images * channels);
        let mut means = gpu.empty::<T>(images * 2 * channels)?;
        let shared = 2 * channels * size_of::<f64>();
        let (parts, groups) = (size(parts)?, size(self.groups)?);
        launch!(
            gpu,
            "gradient_means",
            blocks(images, 1, shared),
            &sums,
            &self.scale,
            &mut of_scale,
            &mut of_shift,
            &mut means,
            &parts,
            &c,
            &groups,
            &p
        );
        launch!(
            gpu,
            "modulate_back",
            over(count),
            &self.x,
            &self.scale,
            &self.shift,
            &moments,
            &means,
            gradient,
            &mut of_x,
            &p,
            &c,
            &size(count)?
        );
        Ok(all)
    }
}
