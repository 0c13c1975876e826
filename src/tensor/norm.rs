//! Group normalisation, feature-wise modulation and SiLU in one pass.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Shape, Tensor, WithDType, bail};

#[cfg(feature = "cuda")]
use super::cuda;
use super::{
    norm_kernel::Modulation,
    simd::{values, with_float},
};
use crate::{Error, Result};

/// SiLU(normalised(x) (1 + scale) + shift): group normalisation over `groups` groups of channels (Wu & He 2018)
/// without weights of its own, then a scale and shift per channel (FiLM, Perez et al. 2018).
///
/// `x` is `[B, Y, X, C]`, `scale` and `shift` are `[B, C]`; the result has the shape of `x`.
///
/// # Errors
/// Shapes that do not fit, or a number of channels that `groups` does not divide.
pub fn modulated_silu(x: &Tensor, scale: &Tensor, shift: &Tensor, groups: usize) -> Result<Tensor> {
    let (batch, _, _, channels) = x.dims4()?;
    for modulation in [scale, shift] {
        if modulation.dims() != [batch, channels] {
            let found = modulation.dims().to_vec();
            return Err(Error::Shape { what: "modulation", expected: vec![batch, channels], found });
        }
    }
    if groups == 0 || channels % groups != 0 {
        return Err(Error::config("groups", format!("{groups} groups do not divide {channels} channels")));
    }
    let op = Modulated { groups };
    Ok(x.contiguous()?.apply_op3(&scale.contiguous()?, &shift.contiguous()?, op)?)
}

struct Modulated {
    groups: usize,
}

/// Gradients of x, scale and shift one after the other in a flat tensor.
struct ModulatedGradient<'a> {
    groups: usize,
    gradient: &'a Tensor,
}

impl CustomOp3 for Modulated {
    fn name(&self) -> &'static str {
        "modulated-silu"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = with_float!(x, T => {
            let modulation = Modulation::<T>::new(
                self.groups, sizes(x_layout)?, values(x, x_layout)?, values(scale, scale_layout)?, values(shift, shift_layout)?);
            T::to_cpu_storage_owned(modulation.forward())
        });
        Ok((y, x_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        scale: &CudaStorage,
        scale_layout: &Layout,
        shift: &CudaStorage,
        shift_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let modulation = [(x, x_layout), (scale, scale_layout), (shift, shift_layout)];
        let y = cuda::modulated(modulation, self.groups, cuda_sizes(x_layout)?)?;
        Ok((y, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let op = ModulatedGradient { groups: self.groups, gradient: &gradient.contiguous()? };
        let all = x.apply_op3_no_bwd(scale, shift, &op)?;
        let (pixels, channels) = (x.elem_count(), scale.elem_count());
        Ok((
            Some(all.narrow(0, 0, pixels)?.reshape(x.shape())?),
            Some(all.narrow(0, pixels, channels)?.reshape(scale.shape())?),
            Some(all.narrow(0, pixels + channels, channels)?.reshape(shift.shape())?),
        ))
    }
}

impl CustomOp3 for ModulatedGradient<'_> {
    fn name(&self) -> &'static str {
        "modulated-silu-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (gradient, gradient_layout) = self.gradient.storage_and_layout();
        let candle_core::Storage::Cpu(gradient) = &*gradient else { bail!("the gradient is not on the CPU") };
        let (all, count) = with_float!(x, T => {
            let modulation = Modulation::<T>::new(
                self.groups, sizes(x_layout)?, values(x, x_layout)?, values(scale, scale_layout)?, values(shift, shift_layout)?);
            let all = modulation.backward(values::<T>(gradient, gradient_layout)?);
            let count = all.len();
            (T::to_cpu_storage_owned(all), count)
        });
        Ok((all, count.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        scale: &CudaStorage,
        scale_layout: &Layout,
        shift: &CudaStorage,
        shift_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let (gradient, gradient_layout) = self.gradient.storage_and_layout();
        let candle_core::Storage::Cuda(gradient) = &*gradient else {
            bail!("the gradient is not on the GPU")
        };
        let modulation = [(x, x_layout), (scale, scale_layout), (shift, shift_layout)];
        let gradient = (gradient, gradient_layout);
        let all = cuda::modulated_gradient(modulation, gradient, self.groups, cuda_sizes(x_layout)?)?;
        let count = x_layout.shape().elem_count() + 2 * scale_layout.shape().elem_count();
        Ok((all, count.into()))
    }
}

/// Images, pixels of each and channels of `[B, Y, X, C]`.
#[cfg(feature = "cuda")]
fn cuda_sizes(x: &Layout) -> candle_core::Result<[usize; 3]> {
    let [pixels, channels] = sizes(x)?;
    Ok([x.dims()[0], pixels, channels])
}

/// Pixels and channels of `[B, Y, X, C]`.
fn sizes(x: &Layout) -> candle_core::Result<[usize; 2]> {
    let (_, height, width, channels) = x.shape().dims4()?;
    Ok([height * width, channels])
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::{
        compute::Compute,
        rng::Rng,
        tensor::{norm_kernel::EPSILON, planar, simd::Real},
    };

    fn arguments(shape: [usize; 4], compute: &Compute) -> [Var; 3] {
        let mut rng = Rng::new(1);
        [&shape[..], &[shape[0], shape[3]], &[shape[0], shape[3]]]
            .map(|shape| Var::from_tensor(&rng.normals(shape, compute).unwrap()).unwrap())
    }

    /// The formula of the documentation, one number at a time.
    fn slow(x: &Tensor, scale: &Tensor, shift: &Tensor, groups: usize) -> Vec<f64> {
        let x = planar(x).unwrap();
        let dims = x.dims().to_vec();
        let flat =
            |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let (x, scale, shift) = (flat(&x), flat(scale), flat(shift));
        let pixels = dims[2] * dims[3];
        let length = dims[1] / groups * pixels;
        x.iter()
            .enumerate()
            .map(|(i, &value)| {
                let group = &x[i / length * length..][..length];
                let mean = group.iter().sum::<f64>() / length as f64;
                let variance = group.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / length as f64;
                let z = (value - mean) / (variance + EPSILON).sqrt() * (1.0 + scale[i / pixels])
                    + shift[i / pixels];
                z / (1.0 + (-z).exp())
            })
            .collect()
    }

    #[test]
    fn value_agrees_with_the_formula() {
        for (compute, tolerance) in [(Compute::cpu(), 2e-6), (Compute::cpu_f64(), 1e-13)] {
            let [x, scale, shift] = arguments([2, 3, 5, 12], &compute);
            let y = planar(&modulated_silu(&x, &scale, &shift, 3).unwrap()).unwrap();
            let y = y.to_dtype(DType::F64).unwrap();
            let y = y.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let exact = slow(&x, &scale, &shift, 3);
            let worst = y.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < tolerance, "{worst}");
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let compute = Compute::cpu_f64();
        let variables = arguments([2, 3, 3, 4], &compute);
        let factor = Rng::new(2).normals(&[2, 3, 3, 4], &compute).unwrap();
        let loss = |v: [&Tensor; 3]| {
            (modulated_silu(v[0], v[1], v[2], 2).unwrap() * &factor).unwrap().sum_all().unwrap()
        };
        let [x, scale, shift] = &variables;
        let gradients = loss([x, scale, shift]).backward().unwrap();
        for (which, variable) in variables.iter().enumerate() {
            let start = variable.as_tensor().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let gradient = gradients.get(variable).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for (i, exact) in gradient.into_iter().enumerate() {
                let at = |step: f64| {
                    let mut moved = start.clone();
                    moved[i] += step;
                    let moved = Tensor::from_vec(moved, variable.shape(), &Device::Cpu).unwrap();
                    let mut arguments = [x.as_tensor(), scale.as_tensor(), shift.as_tensor()];
                    arguments[which] = &moved;
                    loss(arguments).to_scalar::<f64>().unwrap()
                };
                let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!(
                    (numeric - exact).abs() < 1e-7 * (1.0 + exact.abs()),
                    "{which} {i}: {numeric} {exact}"
                );
            }
        }
    }

    #[test]
    fn single_precision_gradients_agree_with_double() {
        let run = |compute: &Compute| {
            let variables = arguments([2, 9, 7, 8], compute);
            let y = modulated_silu(&variables[0], &variables[1], &variables[2], 4).unwrap();
            let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            variables.map(|v| {
                let gradient = gradients.get(&v).unwrap().to_dtype(DType::F64).unwrap();
                gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap()
            })
        };
        for (single, double) in
            run(&Compute::cpu()).iter().flatten().zip(run(&Compute::cpu_f64()).iter().flatten())
        {
            assert!((single - double).abs() < 1e-4 * (1.0 + double.abs()), "{single} {double}");
        }
    }

    #[test]
    fn quick_exponential_is_accurate() {
        for i in -870..880 {
            let x = i as f32 * 0.1;
            let relative = f64::from(x.quick_exp()) / f64::from(x).exp() - 1.0;
            assert!(relative.abs() < 2e-7, "{x}: {relative}");
        }
    }

    #[test]
    fn refuses_groups_that_do_not_divide() {
        let [x, scale, shift] = arguments([1, 2, 2, 4], &Compute::cpu());
        assert!(modulated_silu(&x, &scale, &shift, 3).is_err());
        assert!(modulated_silu(&x, &scale, &shift.narrow(1, 0, 2).unwrap(), 2).is_err());
    }
}
