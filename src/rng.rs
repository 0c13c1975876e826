//! Seeded random numbers drawn on the host, so that every device sees the same ones.

use candle_core::{DType, Device, Tensor};
use rand::{Rng as _, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::{
    Result,
    compute::Compute,
    tensor::{Real, unwritten},
    transfer::Transfer,
};

/// So many numbers are drawn one after the other; more of them in parts, each from its own stream, on all threads.
const SERIAL: usize = 1 << 16;
/// Numbers of one part.
const PART: usize = 1 << 14;

/// A seeded generator; named streams of one seed are independent.
#[derive(Debug, Clone)]
pub struct Rng {
    seed: [u8; 32],
    generator: ChaCha8Rng,
}

impl Rng {
    /// The generator of a user's seed.
    pub fn new(seed: u64) -> Self {
        Self::from_digest(Sha256::digest(seed.to_le_bytes()).into())
    }

    fn from_digest(seed: [u8; 32]) -> Self {
        Self { seed, generator: ChaCha8Rng::from_seed(seed) }
    }

    /// The independent stream `(name, index)` of this generator's seed, whatever was drawn before.
    pub fn stream(&self, name: &str, index: u64) -> Self {
        let digest =
            Sha256::new().chain_update(self.seed).chain_update(name).chain_update(index.to_le_bytes());
        Self::from_digest(digest.finalize().into())
    }

    /// One draw of N(0, 1).
    pub fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.generator)
    }

    /// One draw of U[0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.generator.random()
    }

    /// A uniformly drawn index below `count` (0 for an empty range).
    pub fn below(&mut self, count: usize) -> usize {
        if count == 0 { 0 } else { self.generator.random_range(0..count) }
    }

    /// An index drawn by weights of any sum.
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.uniform() * weights.iter().sum::<f64>();
        let below = |weight: &f64| {
            left -= weight;
            left < 0.0
        };
        weights.iter().position(below).unwrap_or(weights.len().saturating_sub(1))
    }

    /// A tensor of independent N(0, 1) draws.
    ///
    /// # Errors
    /// The device has no memory left.
    pub fn normals(&mut self, shape: &[usize], compute: &Compute) -> Result<Tensor> {
        let count = shape.iter().product();
        if count <= SERIAL {
            return compute.tensor((0..count).map(|_| self.normal()).collect(), shape);
        }
        let parts = self.fork();
        let values = match compute.dtype {
            DType::F32 => Tensor::from_vec(parts.drawn::<f32>(count), shape, &Device::Cpu)?,
            dtype => Tensor::from_vec(parts.drawn::<f64>(count), shape, &Device::Cpu)?.to_dtype(dtype)?,
        };
        Ok(values.transfer(&compute.device)?)
    }

    /// `count` draws of N(0, 1), each part of them from its own stream.
    fn drawn<T: Real>(&self, count: usize) -> Vec<T> {
        let mut values = unwritten(count);
        values.par_chunks_mut(PART).enumerate().for_each(|(part, values)| {
            let mut rng = self.stream("part", (part * PART) as u64);
            values.fill_with(|| T::from_f64(rng.normal()));
        });
        values
    }

    /// An independent generator, another one at every call.
    fn fork(&mut self) -> Self {
        let mut seed = [0; 32];
        self.generator.fill_bytes(&mut seed);
        Self::from_digest(seed)
    }
}

impl RngCore for Rng {
    fn next_u32(&mut self) -> u32 {
        self.generator.next_u32()
    }
    fn next_u64(&mut self) -> u64 {
        self.generator.next_u64()
    }
    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.generator.fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many numbers are drawn in parallel: other threads, the same numbers; another call, other numbers.
    #[test]
    fn many_normals_do_not_depend_on_the_number_of_threads() {
        let draw = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut rng = Rng::new(1);
                [0, 1].map(|_| rng.normals(&[5, SERIAL / 4], &Compute::cpu()).unwrap())
            })
        };
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let ([first, second], [again, _]) = (draw(1), draw(3));
        assert_eq!(flat(&first), flat(&again));
        assert_ne!(flat(&first)[..PART], flat(&first)[PART..2 * PART]);
        assert_ne!(flat(&first), flat(&second));
        let square = first.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((square - 1.0).abs() < 0.02, "{square}");
    }

    #[test]
    fn streams_repeat_and_differ() {
        let mut spent = Rng::new(1);
        spent.normal();
        let first = |rng: &Rng, name: &str, index| rng.stream(name, index).normal().to_bits();
        assert_eq!(first(&spent, "a", 0), first(&Rng::new(1), "a", 0));
        assert_ne!(first(&spent, "a", 0), first(&spent, "a", 1));
        assert_ne!(first(&spent, "a", 0), first(&spent, "b", 0));
    }
}
