//! Group normalisation, modulation and SiLU.

use candle_core::{
    CudaStorage, Result,
    backend::BackendStorage,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::driver::{CudaSlice, CudaView, CudaViewMut},
    },
};

use super::{Gpu, Real, blocks, conv::Place, launch, size, values, with_real};
use crate::tensor::{norm_kernel::EPSILON, precision::Precision};

/// Pixels that one thread adds up, or changes.
const EACH: usize = 16;

/// Images, scale and shift on the device.
pub(super) struct Modulation<'a, T> {
    pub(super) gpu: &'a Gpu<'a>,
    pub(super) x: CudaView<'a, T>,
    pub(super) scale: CudaView<'a, T>,
    pub(super) shift: CudaView<'a, T>,
    /// Distance between the scales of one image and those of the next, and likewise for shifts.
    pub(super) stride: usize,
    pub(super) groups: usize,
    /// Images, pixels of each, channels.
    pub(super) sizes: [usize; 3],
}

/// Where the gradients of x and scale are written, the latter with the modulation's stride, and that of the shift `step`
/// numbers after that of the scale.
pub(super) struct Gradients<'a, T> {
    pub(super) x: CudaViewMut<'a, T>,
    pub(super) scale: CudaViewMut<'a, T>,
    pub(super) step: usize,
}

/// SiLU(normalised(x) (1 + scale) + shift) of x `[B, P, C]`, scale and shift `[B, C]`.
pub(in crate::tensor) fn modulated(
    places: [Place; 3],
    groups: usize,
    sizes: [usize; 3],
) -> Result<CudaStorage> {
    let device = places[0].0.device();
    with_real!(places[0].0, T => {
        let gpu = Gpu::new::<T>(device, Precision::Full)?;
        let modulation = Modulation::<T>::new(&gpu, places, groups, sizes)?;
        let y = modulation.forward(&modulation.moments()?.as_view())?;
        Ok(T::wrap_cuda_slice(y, device.clone()))
    })
}

/// Gradients of x, scale and shift one after the other, given that of the result.
pub(in crate::tensor) fn modulated_gradient(
    places: [Place; 3],
    gradient: Place,
    groups: usize,
    sizes: [usize; 3],
) -> Result<CudaStorage> {
    let device = places[0].0.device();
    with_real!(places[0].0, T => {
        let gpu = Gpu::new::<T>(device, Precision::Full)?;
        let modulation = Modulation::<T>::new(&gpu, places, groups, sizes)?;
        let (count, [images, _, channels]) = (modulation.x.len(), sizes);
        let mut all = gpu.empty::<T>(count + 2 * images * channels)?;
        let (x, scale) = all.split_at_mut(count);
        let moments = modulation.moments()?;
        let gradient = values::<T>(gradient.0, gradient.1)?;
        modulation.backward(&moments.as_view(), &gradient, None, Gradients { x, scale, step: images * channels })?;
        Ok(T::wrap_cuda_slice(all, device.clone()))
    })
}

impl<'a, T: Real> Modulation<'a, T> {
    fn new(
        gpu: &'a Gpu<'a>,
        [x, scale, shift]: [Place<'a>; 3],
        groups: usize,
        sizes: [usize; 3],
    ) -> Result<Self> {
        let (x, scale, shift) = (values(x.0, x.1)?, values(scale.0, scale.1)?, values(shift.0, shift.1)?);
        Ok(Self { gpu, x, scale, shift, stride: sizes[2], groups, sizes })
    }

    /// Mean and 1 / standard deviation of each channel's group, `[B, 2, C]`.
    pub(super) fn moments(&self) -> Result<CudaSlice<T>> {
        let ([images, pixels, channels], gpu) = (self.sizes, self.gpu);
        let kernel = gpu.kernel("moment_sums", channels, &[&self.x]);
        let parts = kernel.parts(pixels, EACH);
        let mut sums = gpu.empty::<T>(images * parts * 2 * channels)?;
        let (p, c) = (size(pixels)?, size(channels)?);
        launch!(gpu, kernel.name, blocks(parts, images, 0), &self.x, &mut sums, &p, &c);
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

    pub(super) fn forward(&self, moments: &CudaView<T>) -> Result<CudaSlice<T>> {
        let ([images, pixels, channels], gpu) = (self.sizes, self.gpu);
        let mut y = gpu.empty::<T>(self.x.len())?;
        let kernel = gpu.kernel("modulate", channels, &[&self.x]);
        let [p, c, stride] = [pixels, channels, self.stride].map(size);
        launch!(
            gpu,
            kernel.name,
            blocks(kernel.parts(pixels, EACH), images, 0),
            &self.x,
            &self.scale,
            &self.shift,
            moments,
            &mut y,
            &p?,
            &c?,
            &stride?
        );
        Ok(y)
    }

    /// Writes the gradients, given that of the result; `others` are added to that of x.
    pub(super) fn backward(
        &self,
        moments: &CudaView<T>,
        gradient: &CudaView<T>,
        others: Option<&CudaView<T>>,
        mut of: Gradients<T>,
    ) -> Result<()> {
        let ([images, pixels, channels], gpu) = (self.sizes, self.gpu);
        let (p, c, stride) = (size(pixels)?, size(channels)?, size(self.stride)?);
        let kernel = gpu.kernel("gradient_sums", channels, &[&self.x, gradient]);
        let parts = kernel.parts(pixels, EACH);
        let mut sums = gpu.empty::<T>(images * parts * 2 * channels)?;
        launch!(
            gpu,
            kernel.name,
            blocks(parts, images, 0),
            &self.x,
            &self.scale,
            &self.shift,
            moments,
            gradient,
            &mut sums,
            &p,
            &c,
            &stride
        );
        let mut means = gpu.empty::<T>(images * 2 * channels)?;
        let shared = 2 * channels * size_of::<f64>();
        let (parts, groups) = (size(parts)?, size(self.groups)?);
        launch!(
            gpu,
            "gradient_means",
            blocks(images, 1, shared),
            &sums,
            &self.scale,
            &mut of.scale,
            &mut means,
            &parts,
            &c,
            &groups,
            &p,
            &stride,
            &size(of.step)?
        );
        self.spread(moments, &means.as_view(), gradient, others, &mut of.x)
    }

    /// Writes the gradient of x, given the means that `gradient_means` makes.
    fn spread(
        &self,
        moments: &CudaView<T>,
        means: &CudaView<T>,
        gradient: &CudaView<T>,
        others: Option<&CudaView<T>>,
        of_x: &mut CudaViewMut<T>,
    ) -> Result<()> {
        let ([images, pixels, channels], gpu) = (self.sizes, self.gpu);
        let kernel = gpu.kernel("modulate_back", channels, &[&self.x, gradient, others.unwrap_or(gradient)]);
        let others = gpu.address(others);
        let [p, c, stride] = [pixels, channels, self.stride].map(size);
        launch!(
            gpu,
            kernel.name,
            blocks(kernel.parts(pixels, EACH), images, 0),
            &self.x,
            &self.scale,
            &self.shift,
            moments,
            means,
            gradient,
            &others,
            of_x,
            &p?,
            &c?,
            &stride?
        );
        Ok(())
    }
}
