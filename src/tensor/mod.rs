//! What candle lacks: fast convolution and normalisation, Fourier transforms, gradients of plain functions.

pub mod adam;
pub mod attention;
mod attention_kernel;
pub mod blocks;
pub mod conv;
mod conv_kernel;
#[cfg(feature = "cuda")]
mod cuda;
pub mod dft;
pub mod fft;
pub mod fft3;
mod host;
pub mod layer;
mod matrix;
pub mod norm;
mod norm_kernel;
mod packing;
mod parallel;
pub mod precision;
mod product;
pub mod resample;
pub mod residual;
mod residual_kernel;
pub mod scale;
mod scratch;
mod simd;
mod winograd;

use candle_core::{DType, Tensor, Var};

#[cfg(feature = "cuda")]
pub(crate) use self::cuda::keep_freed_memory;
pub(crate) use self::{
    host::{each_image, on_host},
    matrix::Matrix,
    packing::Packing,
    parallel::by_parts,
    scratch::unwritten,
    simd::Real,
};
use crate::{Result, compute::Compute, transfer::Transfer};

/// Value `[B]` and gradient (shape of `x`) of a function of each batch element, both detached from any graph.
///
/// # Errors
/// Those of `function`.
pub fn value_and_gradient(
    x: &Tensor,
    function: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<(Tensor, Tensor)> {
    let variable = Var::from_tensor(&x.detach())?;
    let value = function(variable.as_tensor())?;
    let gradients = value.sum_all()?.backward()?;
    let gradient = match gradients.get(variable.as_tensor()) {
        Some(gradient) => gradient.detach(),
        None => x.zeros_like()?,
    };
    Ok((value.detach(), gradient))
}

/// Device and precision of a tensor.
pub(crate) fn compute_of(tensor: &Tensor) -> Compute {
    Compute { device: tensor.device().clone(), dtype: tensor.dtype() }
}

/// Values of a tensor as a flat list in double precision.
pub(crate) fn to_host(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.flatten_all()?.to_dtype(DType::F64)?.read_list()?)
}

/// Features `[B, Y, X, C]` as `[B, C, Y, X]`, without a copy.
#[cfg(test)]
fn planar(x: &Tensor) -> candle_core::Result<Tensor> {
    x.permute([0, 3, 1, 2])
}

/// Features `[B, C, Y, X]` as `[B, Y, X, C]`, without a copy.
#[cfg(test)]
fn channels_last(x: &Tensor) -> candle_core::Result<Tensor> {
    x.permute([0, 2, 3, 1])
}
