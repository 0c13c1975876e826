//! Images times one number each, for which no gradient is taken.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor, WithDType};

#[cfg(feature = "cuda")]
use super::cuda;
use super::{
    parallel::each_chunk,
    scratch::unwritten,
    simd::{values, with_float},
};
use crate::{Error, Result};

/// Every image of `x` `[B, ...]` times its number in `factors` `[B]`, which counts as constant.
///
/// # Errors
/// Another number of factors than of images.
pub fn scaled(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    if factors.dims() != &x.dims()[..1] {
        let (expected, found) = (vec![x.dim(0)?], factors.dims().to_vec());
        return Err(Error::Shape { what: "factors of images", expected, found });
    }
    Ok(x.contiguous()?.apply_op2(&factors.detach().contiguous()?, Scale)?)
}

struct Scale;

impl CustomOp2 for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        factors: &CpuStorage,
        factors_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = with_float!(x, T => {
            let (x, factors) = (values::<T>(x, layout)?, values::<T>(factors, factors_layout)?);
            let each = x.len() / factors.len().max(1);
            let mut y = unwritten::<T>(x.len());
            each_chunk(&mut y, each.max(1), |image, y| {
                let factor = factors[image];
                y.iter_mut().zip(&x[image * each..]).for_each(|(y, x)| *y = *x * factor);
            });
            T::to_cpu_storage_owned(y)
        });
        Ok((y, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        factors: &CudaStorage,
        factors_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        Ok((cuda::scaled((x, layout), (factors, factors_layout))?, layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        factors: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(gradient.contiguous()?.apply_op2_no_bwd(factors, &Scale)?), None))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn scales_images_and_their_gradients() {
        let images = Tensor::new(&[[[1.0, 2.0]], [[3.0, 4.0]]], &Device::Cpu).unwrap();
        let (x, factors) =
            (Var::from_tensor(&images).unwrap(), Tensor::new(&[2.0, -1.0], &Device::Cpu).unwrap());
        let y = scaled(&x, &factors).unwrap();
        assert_eq!(y.flatten_all().unwrap().to_vec1::<f64>().unwrap(), [2.0, 4.0, -3.0, -4.0]);
        let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(gradient, [8.0, 16.0, 6.0, 8.0]);
        assert!(scaled(&x, &factors.narrow(0, 0, 1).unwrap()).is_err());
    }
}
