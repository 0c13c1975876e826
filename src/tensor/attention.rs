//! Attention of all pixels to all others, which never holds the weights of all pairs on the CPU.

use candle_core::{CpuStorage, CustomOp3, D, Layout, Shape, Tensor, WithDType};

use super::{attention_kernel::Images, layer::on_host, simd::with_float};
use crate::{Error, Result};

/// softmax(q k' / sqrt(C)) v: what queries q gather of values v where keys k are like them.
///
/// All three are `[B, P, C]`, and so is the result. The CPU makes the P x P weights of an image in blocks,
/// and anew for gradients, so that memory grows with P only (Dao et al. 2022); other devices hold all.
/// Gradients are computed only for arguments that are tracked. Source: Vaswani et al. 2017, eq. 1, one head.
///
/// # Errors
/// Different shapes.
pub fn attention(queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
    queries.dims3()?;
    for other in [keys, values] {
        if other.dims() != queries.dims() {
            let (expected, found) = (queries.dims().to_vec(), other.dims().to_vec());
            return Err(Error::Shape { what: "keys or values", expected, found });
        }
    }
    let (queries, keys, values) = (queries.contiguous()?, keys.contiguous()?, values.contiguous()?);
    match queries.device().is_cpu() {
        true => Ok(queries.apply_op3(&keys, &values, Attention)?),
        false => at_once(&queries, &keys, &values),
    }
}

/// The definition, with all weights in memory.
fn at_once(queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
    let scores = (queries.matmul(&keys.t()?)? / (queries.dim(2)? as f64).sqrt())?;
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    Ok(weights.matmul(values)?)
}

struct Attention;

/// Gradients of those arguments that are wanted, `[wanted, B, P, C]`.
struct AttentionGradient<'a> {
    gradient: &'a Tensor,
    wanted: [bool; 3],
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        queries_layout: &Layout,
        keys: &CpuStorage,
        keys_layout: &Layout,
        values: &CpuStorage,
        values_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let arguments = [(queries, queries_layout), (keys, keys_layout), (values, values_layout)];
        let y = with_float!(queries, T => T::to_cpu_storage_owned(Images::<T>::new(arguments)?.gathered()));
        Ok((y, queries_layout.shape().clone()))
    }

    fn bwd(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let wanted = [queries, keys, values].map(Tensor::track_op);
        let op = AttentionGradient { gradient: &gradient.contiguous()?, wanted };
        let all = queries.apply_op3_no_bwd(keys, values, &op)?;
        let of = |which: usize| {
            let place = wanted[..which].iter().filter(|wanted| **wanted).count();
            wanted[which].then(|| all.get(place)).transpose()
        };
        Ok((of(0)?, of(1)?, of(2)?))
    }
}

impl CustomOp3 for AttentionGradient<'_> {
    fn name(&self) -> &'static str {
        "attention-gradient"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        queries_layout: &Layout,
        keys: &CpuStorage,
        keys_layout: &Layout,
        values: &CpuStorage,
        values_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let arguments = [(queries, queries_layout), (keys, keys_layout), (values, values_layout)];
        let all = with_float!(queries, T => {
            let images = Images::<T>::new(arguments)?;
            T::to_cpu_storage_owned(on_host(self.gradient, |g| Ok(images.gradients(g, self.wanted)))?)
        });
        let (batch, pixels, channels) = queries_layout.shape().dims3()?;
        let wanted = self.wanted.iter().filter(|wanted| **wanted).count();
        Ok((all, (wanted, batch, pixels, channels).into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::*;
    use crate::{compute::Compute, rng::Rng, tensor::simd::ALLOWED};

    /// Less than a block, blocks and a part, whole blocks; channels of whole registers and others.
    const SHAPES: [[usize; 3]; 5] = [[2, 35, 5], [1, 64, 16], [3, 1, 2], [2, 100, 33], [1, 71, 48]];

    fn arguments(shape: &[usize], compute: &Compute) -> [Var; 3] {
        let mut rng = Rng::new(7);
        [(); 3].map(|()| Var::from_tensor(&(rng.normals(shape, compute).unwrap() * 2.0).unwrap()).unwrap())
    }

    fn flat(x: &Tensor) -> Vec<f64> {
        x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// A functional whose gradient differs from number to number.
    fn functional(y: &Tensor) -> Tensor {
        let compute = Compute { device: y.device().clone(), dtype: y.dtype() };
        (y * Rng::new(5).normals(y.dims(), &compute).unwrap()).unwrap().sum_all().unwrap()
    }

    /// Value and gradients.
    fn passes(
        function: fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
        [q, k, v]: &[Var; 3],
    ) -> Vec<Vec<f64>> {
        let y = function(q, k, v).unwrap();
        let gradients = functional(&y).backward().unwrap();
        let mut all = vec![flat(&y)];
        all.extend([q, k, v].map(|variable| flat(gradients.get(variable).unwrap())));
        all
    }

    fn assert_near(found: &[Vec<f64>], exact: &[Vec<f64>], tolerance: f64, of: &[usize]) {
        for (which, (found, exact)) in found.iter().zip(exact).enumerate() {
            let largest = exact.iter().fold(1.0, |largest: f64, exact| largest.max(exact.abs()));
            let worst = found.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(found.len() == exact.len() && worst < tolerance * largest, "{of:?} {which}: {worst}");
        }
    }

    #[test]
    fn value_and_gradients_agree_with_the_definition() {
        for shape in SHAPES {
            let exact = passes(at_once, &arguments(&shape, &Compute::cpu_f64()));
            for (compute, tolerance) in [(Compute::cpu(), 1e-5), (Compute::cpu_f64(), 1e-12)] {
                assert_near(&passes(attention, &arguments(&shape, &compute)), &exact, tolerance, &shape);
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let compute = Compute::cpu_f64();
        let variables = arguments(&[2, 37, 6], &compute);
        let mut rng = Rng::new(11);
        let directions = [(); 3].map(|()| rng.normals(&[2, 37, 6], &compute).unwrap());
        let at = |step: f64| {
            let [q, k, v] =
                [0, 1, 2].map(|i| (variables[i].as_tensor() + (&directions[i] * step).unwrap()).unwrap());
            functional(&attention(&q, &k, &v).unwrap()).to_scalar::<f64>().unwrap()
        };
        let gradients = &passes(attention, &variables)[1..];
        let along = |(gradient, direction): (&Vec<f64>, &Tensor)| -> f64 {
            gradient.iter().zip(flat(direction)).map(|(g, d)| g * d).sum()
        };
        let exact: f64 = gradients.iter().zip(&directions).map(along).sum();
        let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((numeric - exact).abs() < 1e-7 * (1.0 + exact.abs()), "{numeric} {exact}");
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let run = |shape: &[usize], threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| passes(attention, &arguments(shape, &Compute::cpu())))
        };
        for shape in SHAPES {
            assert!(run(&shape, 1) == run(&shape, 2), "{shape:?}");
        }
    }

    #[test]
    fn every_kind_of_register_gives_the_same() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        for shape in SHAPES {
            let run = |lanes| {
                pool.install(|| {
                    ALLOWED.set(lanes);
                    passes(attention, &arguments(&shape, &Compute::cpu()))
                })
            };
            let widest = run(16);
            for lanes in [4, 8] {
                assert_near(&run(lanes), &widest, 1e-5, &shape);
            }
        }
    }

    #[test]
    fn constants_get_no_gradient_and_change_none() {
        let variables = arguments(&[2, 40, 3], &Compute::cpu_f64());
        let all = passes(attention, &variables);
        for tracked in 0..8 {
            let is = |which: usize| tracked >> which & 1 == 1;
            let [q, k, v] = [0, 1, 2].map(|which| match is(which) {
                true => variables[which].as_tensor().clone(),
                false => variables[which].detach(),
            });
            let gradients = functional(&attention(&q, &k, &v).unwrap()).backward().unwrap();
            for (which, variable) in variables.iter().enumerate() {
                let found = gradients.get(variable).map(flat);
                assert_eq!(found, is(which).then(|| all[which + 1].clone()), "{tracked} {which}");
            }
        }
    }

    #[test]
    fn large_scores_overflow_nowhere_and_broken_ones_are_seen() {
        let compute = Compute::cpu();
        let [q, k, v] = arguments(&[1, 40, 8], &compute);
        let large = (q.as_tensor() * 1e3).unwrap();
        let (found, exact) = (attention(&large, &k, &v).unwrap(), at_once(&large, &k, &v).unwrap());
        assert_near(&[flat(&found)], &[flat(&exact)], 1e-4, &[]);
        let broken = (q.as_tensor() * f64::NAN).unwrap();
        assert!(flat(&attention(&broken, &k, &v).unwrap()).iter().all(|y| y.is_nan()));
    }

    #[test]
    fn refuses_shapes_that_do_not_fit() {
        let [q, k, v] = arguments(&[2, 4, 3], &Compute::cpu());
        assert!(attention(&q, &k.narrow(1, 0, 2).unwrap(), &v).is_err());
        assert!(attention(&q, &k, &v.narrow(2, 0, 2).unwrap()).is_err());
        assert!(attention(&q.get(0).unwrap(), &k.get(0).unwrap(), &v.get(0).unwrap()).is_err());
    }
}
