//! The likelihood of what a noisy image will become, approximated through the denoiser, with its gradient.

use candle_core::{Tensor, Var};

use crate::{
    Result,
    instrument::Problem,
    posterior::hmc::{per_chain, squared_norm},
    prior::Denoiser,
    tensor::{by_parts, to_host},
};

/// Pixels that a thread of the CPU takes through the denoiser and back at a time.
pub(super) const PART: usize = 1 << 15;

/// log p(y | D(x, s)) and its gradient in x.
#[derive(Debug, Clone)]
pub struct Guidance {
    /// D(x, s), shape of x.
    pub clean: Tensor,
    /// Log likelihood of each image, nats.
    pub log_likelihood: Vec<f64>,
    /// Gradient, shape of x.
    pub gradient: Tensor,
}

/// One denoiser evaluation and one vector-Jacobian product for each of the images `x` at `level`.
///
/// # Errors
/// Those of problem and prior.
pub fn guidance(problem: &Problem, prior: &dyn Denoiser, x: &Tensor, level: f64) -> Result<Guidance> {
    let [clean, value, gradient] = by_parts(x, PART, |part| {
        let (variable, clean) = denoised(prior, part, level)?;
        let value = problem.log_likelihood(&clean)?;
        let gradient = pulled_back(&value, &variable)?;
        Ok([clean.detach(), value.detach(), gradient])
    })?;
    Ok(Guidance { clean, log_likelihood: to_host(&value)?, gradient })
}

/// x as a variable and D(x, level), differentiable in it.
///
/// # Errors
/// Those of the prior.
pub fn denoised(prior: &dyn Denoiser, x: &Tensor, level: f64) -> Result<(Var, Tensor)> {
    let variable = Var::from_tensor(&x.detach())?;
    let levels = Tensor::full(level, x.dim(0)?, x.device())?.to_dtype(x.dtype())?;
    let clean = prior.denoise(variable.as_tensor(), &levels)?;
    Ok((variable, clean))
}

/// Gradient of the sum of `value` in `variable`.
///
/// # Errors
/// Those of the tensor library.
pub fn pulled_back(value: &Tensor, variable: &Var) -> Result<Tensor> {
    match value.sum_all()?.backward()?.get(variable.as_tensor()) {
        Some(gradient) => Ok(gradient.detach()),
        None => Ok(variable.as_tensor().zeros_like()?),
    }
}

impl Guidance {
    /// `weight` times the gradient, for each image at most as far as to where its data would be fitted without
    /// residual if they fell linearly: a weight of at most |r|^2 / |gradient|^2 with the whitened residuals r of the
    /// clean image. A longer step overshoots every fit along its line, and with stiff data it diverges.
    ///
    /// # Errors
    /// Those of the problem.
    pub fn step(&self, problem: &Problem, weight: f64) -> Result<Tensor> {
        let predicted = problem.predict(&self.clean)?;
        let mut misfit = vec![0.0; self.log_likelihood.len()];
        for likelihood in &problem.likelihoods {
            let squares = squared_norm(&likelihood.residuals(&predicted)?)?;
            misfit.iter_mut().zip(squares).for_each(|(sum, square)| *sum += square);
        }
        let slopes = squared_norm(&self.gradient)?;
        let limited =
            misfit.iter().zip(slopes).map(|(m, s)| if s > 0.0 { weight.min(m / s) } else { weight });
        Ok(self.gradient.broadcast_mul(&per_chain(limited.collect(), &self.gradient)?)?)
    }
}
