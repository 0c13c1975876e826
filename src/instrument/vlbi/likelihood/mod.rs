//! Likelihoods of the interferometer's data products, all of the same model visibilities.
//!
//! Each product is written once, on the host in f64, with its analytic gradient; [`Data`] makes it a differentiable
//! [`Likelihood`] of the tensor `[B, M + 1, 2]` that the forward model returns: M visibilities in the order of the
//! observation and, last, the one at zero spacing.

mod bessel;
mod closures;
mod flux;
mod visibility;

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, bail};
use rayon::prelude::*;
use rustfft::num_complex::Complex64;

pub use self::{
    closures::{ClosurePhase, LogClosureAmplitude, wrap},
    flux::TotalFlux,
    visibility::{Amplitude, ComplexVisibility},
};
use crate::{Error, Result, instrument::Likelihood, rng::Rng};

/// Model amplitudes are softened below this, Jy, so that a dark image has finite phases and log amplitudes.
const FAINTEST: f64 = 1e-9;

/// One data product: a density of the measured data given the model visibilities of one image.
///
/// `model` holds the visibilities in the order of the observation and the zero spacing last.
pub trait Product: Send + Sync + 'static {
    /// Name as in `diagnostics.json`.
    const NAME: &'static str;
    /// True where the gradient is unbounded near a visibility of zero.
    const SINGULAR: bool;

    /// Number of real, independent data.
    fn count(&self) -> usize;

    /// Number of visibilities that the model must hold, zero spacing included.
    fn visibilities(&self) -> usize;

    /// Log probability of the data, nats, up to a constant; its derivatives by the real and imaginary part of each
    /// visibility are added to `gradient`.
    fn log_prob(&self, model: &[Complex64], gradient: &mut [Complex64]) -> f64;

    /// Whitened residuals.
    fn residuals(&self, model: &[Complex64]) -> Vec<f64>;

    /// Chi-square per datum by eht-imaging's definition.
    fn chi2(&self, model: &[Complex64]) -> f64;

    /// Data drawn from the density around `model`.
    fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64>;
}

/// A product as a likelihood of tensors.
pub struct Data<P> {
    product: Arc<P>,
}

impl<P: Product> Data<P> {
    /// The likelihood of `product`.
    pub fn new(product: P) -> Self {
        Self { product: Arc::new(product) }
    }

    /// Host visibilities of each batch element.
    fn host(&self, predicted: &Tensor) -> Result<Vec<Vec<Complex64>>> {
        self.check(predicted)?;
        let rows = predicted.to_dtype(DType::F64)?.to_vec3::<f64>()?;
        Ok(rows
            .into_iter()
            .map(|row| row.iter().map(|pair| Complex64::new(pair[0], pair[1])).collect())
            .collect())
    }

    fn check(&self, predicted: &Tensor) -> Result<()> {
        let rows = self.product.visibilities();
        match predicted.dims() {
            &[_, m, 2] if m == rows => Ok(()),
            found => Err(Error::Shape {
                what: "model visibilities",
                expected: vec![0, rows, 2],
                found: found.to_vec(),
            }),
        }
    }

    /// A tensor like `predicted` from one row of values per batch element.
    fn tensor(&self, rows: Vec<Vec<f64>>, predicted: &Tensor) -> Result<Tensor> {
        let shape = (rows.len(), rows.first().map_or(0, Vec::len));
        let tensor = Tensor::from_vec(rows.concat(), shape, &Device::Cpu)?;
        Ok(tensor.to_dtype(predicted.dtype())?.to_device(predicted.device())?)
    }
}

impl<P: Product> Likelihood for Data<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn count(&self) -> usize {
        self.product.count()
    }

    fn log_prob(&self, predicted: &Tensor) -> Result<Tensor> {
        self.check(predicted)?;
        let host = predicted.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.contiguous()?;
        let value = host.apply_op1(LogProb { product: self.product.clone() })?;
        Ok(value.to_dtype(predicted.dtype())?.to_device(predicted.device())?)
    }

    fn residuals(&self, predicted: &Tensor) -> Result<Tensor> {
        let rows = self.host(predicted)?.iter().map(|model| self.product.residuals(model)).collect();
        self.tensor(rows, predicted)
    }

    fn chi2(&self, predicted: &Tensor) -> Result<Tensor> {
        let rows = self.host(predicted)?.iter().map(|model| vec![self.product.chi2(model)]).collect();
        Ok(self.tensor(rows, predicted)?.flatten_all()?)
    }

    fn draw(&self, predicted: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let rows = self.host(predicted)?.iter().map(|model| self.product.draw(model, rng)).collect();
        self.tensor(rows, predicted)
    }

    fn is_singular(&self) -> bool {
        P::SINGULAR
    }
}

/// [`Product::log_prob`] of each batch element as a tensor operation, `[B, M + 1, 2]` to `[B]`, f64 on the CPU.
struct LogProb<P> {
    product: Arc<P>,
}

impl<P: Product> LogProb<P> {
    /// Value and gradient of each batch element; the elements are independent, so threads cannot change a bit.
    fn evaluate(&self, values: &[f64]) -> Vec<(f64, Vec<Complex64>)> {
        let evaluate = |row: &[f64]| {
            let model: Vec<Complex64> =
                row.chunks_exact(2).map(|pair| Complex64::new(pair[0], pair[1])).collect();
            let mut gradient = vec![Complex64::ZERO; model.len()];
            let value = self.product.log_prob(&model, &mut gradient);
            (value, gradient)
        };
        values.par_chunks_exact(2 * self.product.visibilities()).map(evaluate).collect()
    }
}

impl<P: Product> CustomOp1 for LogProb<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (Some((start, end)), CpuStorage::F64(values)) = (layout.contiguous_offsets(), storage) else {
            bail!("{} needs contiguous f64 visibilities", P::NAME)
        };
        let values: Vec<f64> =
            self.evaluate(&values[start..end]).into_iter().map(|(value, _)| value).collect();
        let shape = Shape::from(values.len());
        Ok((CpuStorage::F64(values), shape))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let values = arg.flatten_all()?.to_vec1::<f64>()?;
        let outer = gradient.to_vec1::<f64>()?;
        let rows = self.evaluate(&values).into_iter().zip(outer);
        let scaled = |((_, row), outer): ((f64, Vec<Complex64>), f64)| {
            row.into_iter().flat_map(move |value| [value.re * outer, value.im * outer])
        };
        Ok(Some(Tensor::from_vec(rows.flat_map(scaled).collect(), arg.shape(), &Device::Cpu)?))
    }
}

#[cfg(test)]
pub(super) mod laws {
    //! What holds for every product.

    use super::*;

    /// Compares the gradient with central differences of the value.
    pub(in super::super) fn gradient_is_exact(product: &impl Product, model: &[Complex64]) {
        const STEP: f64 = 1e-6;
        let mut gradient = vec![Complex64::ZERO; model.len()];
        product.log_prob(model, &mut gradient);
        let value = |model: &[Complex64]| product.log_prob(model, &mut vec![Complex64::ZERO; model.len()]);
        for k in 0..model.len() {
            for direction in [Complex64::ONE, Complex64::I] {
                let mut moved = model.to_vec();
                moved[k] += direction * STEP;
                let above = value(&moved);
                moved[k] -= 2.0 * STEP * direction;
                let slope = (above - value(&moved)) / (2.0 * STEP);
                let exact = gradient[k].re * direction.re + gradient[k].im * direction.im;
                assert!((slope - exact).abs() < 1e-5 * (1.0 + exact.abs()), "{k}: {slope} {exact}");
            }
        }
    }

    /// Over data drawn around `model` the score has zero mean and the residuals have unit variance.
    pub(in super::super) fn draws_fit_the_density<P: Product>(
        model: &[Complex64],
        mut with: impl FnMut(Option<&[f64]>) -> P,
    ) {
        const DRAWS: usize = 4000;
        let product = with(None);
        let mut rng = Rng::new(11);
        let mut score = vec![Complex64::ZERO; model.len()];
        let mut power = vec![0.0; model.len()];
        let (mut sum, mut squares) = (vec![0.0; product.count()], vec![0.0; product.count()]);
        for _ in 0..DRAWS {
            let drawn = with(Some(&product.draw(model, &mut rng)));
            let mut gradient = vec![Complex64::ZERO; model.len()];
            drawn.log_prob(model, &mut gradient);
            for (k, value) in gradient.iter().enumerate() {
                score[k] += value;
                power[k] += value.norm_sqr();
            }
            for (k, residual) in drawn.residuals(model).iter().enumerate() {
                sum[k] += residual;
                squares[k] += residual * residual;
            }
        }
        let draws = DRAWS as f64;
        for k in (0..model.len()).filter(|&k| power[k] > 0.0) {
            let error = (power[k] / draws).sqrt() / draws.sqrt();
            assert!((score[k] / draws).norm() < 5.0 * error, "score {k}: {} +- {error}", score[k] / draws);
        }
        for k in 0..sum.len() {
            let mean = sum[k] / draws;
            let variance = squares[k] / draws - mean * mean;
            assert!(mean.abs() < 0.1 && (variance - 1.0).abs() < 0.15, "residual {k}: {mean} {variance}");
        }
    }
}
