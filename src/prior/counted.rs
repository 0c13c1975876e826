//! A prior that counts how often it is asked.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, backend::BackendStorage};

use super::{Adaptation, Coarser, Denoiser, Scaling, Trainable};
use crate::{Result, rng::Rng};

/// A denoiser with counters of the images that passed forward and of the gradients that passed back. The auxiliary
/// networks that solvers train are not counted; of the coarser prior's images each counts as a quarter.
pub struct Counted<'a> {
    inner: &'a dyn Denoiser,
    forwards: AtomicU64,
    backwards: Arc<AtomicU64>,
    coarser: Option<(Box<Counted<'a>>, Scaling)>,
}

impl<'a> Counted<'a> {
    /// Counts the evaluations of `inner`.
    pub fn new(inner: &'a dyn Denoiser) -> Self {
        let coarser = inner.coarser();
        let coarser = coarser.map(|coarser| (Box::new(Counted::new(coarser.prior)), coarser.scaling));
        Self { inner, forwards: AtomicU64::new(0), backwards: Arc::default(), coarser }
    }

    /// Images denoised.
    pub fn forwards(&self) -> u64 {
        self.forwards.load(Ordering::Relaxed) + self.of_coarser(Self::forwards)
    }

    /// Vector-Jacobian products, one for each image.
    pub fn backwards(&self) -> u64 {
        self.backwards.load(Ordering::Relaxed) + self.of_coarser(Self::backwards)
    }

    fn of_coarser(&self, count: impl Fn(&Self) -> u64) -> u64 {
        self.coarser.as_ref().map_or(0, |(coarser, _)| count(coarser) / 4)
    }
}

impl Denoiser for Counted<'_> {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        self.forwards.fetch_add(noisy.dim(0)? as u64, Ordering::Relaxed);
        let clean = self.inner.denoise(noisy, noise_level)?;
        Ok(clean.contiguous()?.apply_op1(Toll { count: self.backwards.clone() })?)
    }

    fn shape(&self) -> [usize; 3] {
        self.inner.shape()
    }

    fn noise_range(&self) -> (f64, f64) {
        self.inner.noise_range()
    }

    fn data_std(&self) -> f64 {
        self.inner.data_std()
    }

    fn tile(&self) -> Option<Box<dyn Denoiser + '_>> {
        self.inner.tile()
    }

    fn coarser(&self) -> Option<Coarser<'_>> {
        self.coarser.as_ref().map(|(prior, scaling)| Coarser { prior: prior.as_ref(), scaling: *scaling })
    }

    fn log_density(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Option<Tensor>> {
        self.inner.log_density(noisy, noise_level)
    }

    fn trainable(&self, adaptation: Adaptation, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        self.inner.trainable(adaptation, rng)
    }

    fn conditional(&self, images: usize, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        self.inner.conditional(images, rng)
    }
}

/// The identity, which counts the images whose gradient passes.
struct Toll {
    count: Arc<AtomicU64>,
}

impl CustomOp1 for Toll {
    fn name(&self) -> &'static str {
        "count"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        self.count.fetch_add(gradient.dim(0)? as u64, Ordering::Relaxed);
        Ok(Some(gradient.clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::{compute::Compute, prior::gaussian::Gaussian};

    #[test]
    fn passes_are_counted_and_change_nothing() {
        let compute = Compute::cpu_f64();
        let prior = Gaussian::diagonal(vec![0.0; 2], vec![1.0; 2], [1, 1, 2], &compute).unwrap();
        let counted = Counted::new(&prior);
        let x = Var::from_tensor(&Rng::new(1).normals(&[3, 1, 1, 2], &compute).unwrap()).unwrap();
        let levels = compute.tensor(vec![1.0; 3], &[3]).unwrap();
        let clean = counted.denoise(x.as_tensor(), &levels).unwrap();
        let gradient = clean.sum_all().unwrap().backward().unwrap();
        let slope = gradient.get(x.as_tensor()).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        assert!((slope - 3.0).abs() < 1e-12);
        counted.denoise(x.as_tensor(), &levels).unwrap();
        assert_eq!((counted.forwards(), counted.backwards()), (6, 3));
    }
}
