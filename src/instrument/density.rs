//! Densities of measured data, written on the host in f64 with their gradients, as likelihoods of tensors.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{Likelihood, Measured, Position};
use crate::{
    Error, Result,
    rng::Rng,
    tensor::{compute_of, to_host, value_and_gradient},
    transfer::Transfer,
};

/// The density of one data product given what the forward model predicts for one image.
pub trait Density: Send + Sync + 'static {
    /// Name as in `diagnostics.json`.
    const NAME: &'static str;
    /// True where the gradient is unbounded somewhere; see [`Likelihood::is_singular`].
    const SINGULAR: bool;
    /// True if [`Density::of_tensor`] is there.
    const ON_DEVICE: bool = false;

    /// Number of real, independent data.
    fn count(&self) -> usize;

    /// Shape of one image's prediction: `[M]`, or `[M, 2]` for real and imaginary parts.
    fn prediction(&self) -> Vec<usize>;

    /// Log probability of the data, nats, up to a constant, and its gradient by each predicted value.
    fn log_prob(&self, predicted: &[f64]) -> (f64, Vec<f64>);

    /// [`Density::log_prob`] `[B]` of predictions `[B, ..]` where they lie, differentiable; none if it is written for the host
    /// only.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn of_tensor(&self, _predicted: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Whitened residuals, one per datum; see [`Likelihood::residuals`].
    fn residuals(&self, predicted: &[f64]) -> Vec<f64>;

    /// Chi-square per datum by the field's usual definition.
    fn chi2(&self, predicted: &[f64]) -> f64;

    /// Data drawn from the density around `predicted`.
    fn draw(&self, predicted: &[f64], rng: &mut Rng) -> Vec<f64>;

    /// The same product of other data, which [`Density::draw`] gave; see [`Likelihood::redrawn`].
    fn with_data(&self, _data: Vec<f64>) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// See [`Likelihood::balanced`].
    fn balanced(&self, _noise: f64) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// See [`Likelihood::position`].
    fn position(&self) -> Option<Position> {
        None
    }

    /// See [`Likelihood::information`].
    fn information(&self, _predicted: &[f64]) -> Option<Vec<f64>> {
        None
    }

    /// See [`Likelihood::variances`].
    fn variances(&self, _predicted: &[f64]) -> Option<Vec<f64>> {
        None
    }

    /// See [`Likelihood::values`].
    fn values(&self) -> Option<Vec<f64>> {
        self.measured().map(|measured| measured.values)
    }

    /// See [`Likelihood::measured`].
    fn measured(&self) -> Option<Measured> {
        None
    }
}

/// Measured data: a [`Density`] as a differentiable [`Likelihood`].
pub struct Data<D> {
    density: Arc<D>,
}

impl<D: Density> Data<D> {
    /// The likelihood of `density`.
    pub fn new(density: D) -> Self {
        Self { density: Arc::new(density) }
    }

    /// Refuses a prediction of another shape than `[B, ..]`.
    fn check(&self, predicted: &Tensor) -> Result<()> {
        let shape = self.density.prediction();
        if predicted.rank() != shape.len() + 1 || predicted.dims()[1..] != shape {
            let expected = [vec![0], shape].concat();
            return Err(Error::Shape { what: "predicted data", expected, found: predicted.dims().to_vec() });
        }
        Ok(())
    }

    /// A prediction `[B, ..]` as a flat list.
    fn host(&self, predicted: &Tensor) -> Result<Vec<f64>> {
        self.check(predicted)?;
        to_host(predicted)
    }

    /// What `each` makes of every image's prediction, one row per image, as a tensor like `predicted`.
    fn rows(&self, predicted: &Tensor, each: impl FnMut(&[f64]) -> Vec<f64>) -> Result<Tensor> {
        let values = self.host(predicted)?;
        let size = self.density.prediction().iter().product();
        let rows: Vec<Vec<f64>> = values.chunks_exact(size).map(each).collect();
        let shape = (rows.len(), rows.first().map_or(0, Vec::len));
        let tensor = Tensor::from_vec(rows.concat(), shape, &Device::Cpu)?;
        Ok(tensor.to_dtype(predicted.dtype())?.transfer(predicted.device())?)
    }

    /// What `of` makes of every image's prediction, a value for each predicted number; none where it makes none.
    fn each(&self, predicted: &Tensor, of: impl Fn(&[f64]) -> Option<Vec<f64>>) -> Result<Option<Tensor>> {
        let values = self.host(predicted)?;
        let size = self.density.prediction().iter().product();
        let rows: Option<Vec<_>> = values.chunks_exact(size).map(of).collect();
        rows.map(|rows| compute_of(predicted).tensor(rows.concat(), predicted.dims())).transpose()
    }
}

impl<D: Density> Likelihood for Data<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn count(&self) -> usize {
        self.density.count()
    }

    fn is_on_host(&self) -> bool {
        !D::ON_DEVICE
    }

    fn log_prob(&self, predicted: &Tensor) -> Result<Tensor> {
        self.check(predicted)?;
        if !predicted.device().is_cpu()
            && let Some(value) = self.density.of_tensor(predicted)?
        {
            return Ok(value);
        }
        let op = LogProb { density: self.density.clone(), gradient: OnceLock::new() };
        if predicted.device().is_cpu() && predicted.dtype() == DType::F64 {
            return Ok(predicted.contiguous()?.apply_op1(op)?);
        }
        let host = predicted.transfer(&Device::Cpu)?.to_dtype(DType::F64)?.contiguous()?;
        let value = host.apply_op1(op)?;
        Ok(value.to_dtype(predicted.dtype())?.transfer(predicted.device())?)
    }

    fn log_prob_and_gradient(&self, predicted: &Tensor) -> Result<(Tensor, Tensor)> {
        if D::ON_DEVICE && !predicted.device().is_cpu() {
            return value_and_gradient(predicted, |predicted| self.log_prob(predicted));
        }
        let (values, gradient) = evaluate(&*self.density, &self.host(predicted)?);
        let compute = compute_of(predicted);
        let count = values.len();
        Ok((compute.tensor(values, &[count])?, compute.tensor(gradient, predicted.dims())?))
    }

    fn residuals(&self, predicted: &Tensor) -> Result<Tensor> {
        self.rows(predicted, |predicted| self.density.residuals(predicted))
    }

    fn chi2(&self, predicted: &Tensor) -> Result<Tensor> {
        Ok(self.rows(predicted, |predicted| vec![self.density.chi2(predicted)])?.flatten_all()?)
    }

    fn draw(&self, predicted: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        self.rows(predicted, |predicted| self.density.draw(predicted, rng))
    }

    fn redrawn(&self, predicted: &Tensor, rng: &mut Rng) -> Result<Option<Arc<dyn Likelihood>>> {
        let values = self.host(predicted)?;
        if predicted.dim(0)? != 1 {
            let expected = [vec![1], self.density.prediction()].concat();
            return Err(Error::Shape { what: "predicted data", expected, found: predicted.dims().to_vec() });
        }
        let drawn = self.density.draw(&values, rng);
        let redrawn = self.density.with_data(drawn);
        Ok(redrawn.map(|density| Arc::new(Self::new(density)) as Arc<dyn Likelihood>))
    }

    fn balanced(&self, noise: f64) -> Option<Arc<dyn Likelihood>> {
        self.density.balanced(noise).map(|density| Arc::new(Self::new(density)) as Arc<dyn Likelihood>)
    }

    fn is_singular(&self) -> bool {
        D::SINGULAR
    }

    fn position(&self) -> Option<Position> {
        self.density.position()
    }

    fn information(&self, predicted: &Tensor) -> Result<Option<Tensor>> {
        self.each(predicted, |predicted| self.density.information(predicted))
    }

    fn variances(&self, predicted: &Tensor) -> Result<Option<Tensor>> {
        self.each(predicted, |predicted| self.density.variances(predicted))
    }

    fn values(&self) -> Option<Vec<f64>> {
        self.density.values()
    }

    fn measured(&self) -> Option<Measured> {
        self.density.measured()
    }
}

/// [`Density::log_prob`] of each image's prediction, and the gradient by all predictions.
fn evaluate<D: Density>(density: &D, predicted: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let rows = predicted.par_chunks_exact(density.prediction().iter().product());
    let (values, gradients): (Vec<f64>, Vec<Vec<f64>>) =
        rows.map(|predicted| density.log_prob(predicted)).unzip();
    (values, gradients.concat())
}

/// [`Density::log_prob`] of each batch element as a tensor operation, `[B, ..]` to `[B]`, f64 on the CPU.
struct LogProb<D> {
    density: Arc<D>,
    /// Gradient by all predicted values, kept from the forward pass for the backward pass.
    gradient: OnceLock<Vec<f64>>,
}

impl<D: Density> CustomOp1 for LogProb<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (Some((start, end)), CpuStorage::F64(values)) = (layout.contiguous_offsets(), storage) else {
            bail!("{} needs contiguous f64 predictions", D::NAME)
        };
        let (values, gradient) = evaluate(&*self.density, &values[start..end]);
        let shape = Shape::from(values.len());
        if self.gradient.set(gradient).is_err() {
            bail!("{} was evaluated twice", D::NAME)
        }
        Ok((CpuStorage::F64(values), shape))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let Some(kept) = self.gradient.get() else { bail!("{} was not evaluated", D::NAME) };
        let kept = Tensor::from_slice(kept, arg.shape(), &Device::Cpu)?;
        let outer = (1..arg.rank()).try_fold(gradient.clone(), |outer, _| outer.unsqueeze(outer.rank()))?;
        Ok(Some(kept.broadcast_mul(&outer)?))
    }
}
