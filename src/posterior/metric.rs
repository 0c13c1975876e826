//! The covariance that a sampler gives its velocities, so that steps are as long as the posterior is wide in every direction.
//!
//! What data say of an image falls off towards high frequencies and differs from place to place (see [`Information`]): their
//! precision is about S Lambda, Lambda diagonal in Fourier space and S in pixels. With a reference N(x, r^2 I) the posterior's
//! covariance is about (1/r^2 + S Lambda)^-1, which is diagonal in neither. It is taken for
//!
//! C = sum_j P_j K_j^2 P_j, K_j^2 = (1/r^2 + s_j Lambda)^-1,
//!
//! for a few strengths s_j, between which the diagonal P_j, sum_j P_j^2 = 1, interpolate such that the best seen frequency has
//! the right variance everywhere. C is symmetric, its root is known, and directions without data have exactly r^2.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, bail};
use rayon::prelude::*;
use rustfft::FftNum;

use crate::{
    Error, Result,
    instrument::Information,
    rng::Rng,
    tensor::{compute_of, fft3::RealFft3},
    transfer::Transfer,
};

/// Ratio of neighbouring strengths.
const RATIO: f64 = 16.0;
/// Largest number of strengths besides 0.
const STRENGTHS: usize = 3;

/// A covariance of images for one width r of the reference.
#[derive(Debug, Clone)]
pub struct Metric {
    width: f64,
    layers: Layers,
}

#[derive(Debug, Clone)]
enum Layers {
    Single(Vec<Arc<Layer<f32>>>),
    Double(Vec<Arc<Layer<f64>>>),
}

/// One term of the sum: what the data say at one strength.
#[derive(Debug)]
struct Layer<T: FftNum> {
    /// Transform and r^-1 K_j, its half spectrum; none where the data say nothing and K_j is r.
    filter: Option<(RealFft3<T>, Vec<T>)>,
    /// r P_j of each pixel.
    part: Vec<T>,
}

impl Metric {
    /// The covariance with a reference of standard deviation `width`, network unit, for images of precision `dtype`.
    ///
    /// # Errors
    /// A precision other than single and double.
    pub fn new(information: &Information, width: f64, dtype: DType) -> Result<Self> {
        let layers = match dtype {
            DType::F32 => Layers::Single(layers(information, width)),
            DType::F64 => Layers::Double(layers(information, width)),
            other => return Err(Error::config("precision", format!("{other:?}; use f32 or f64"))),
        };
        Ok(Self { width, layers })
    }

    /// C times `x` `[B, Z, Y, X]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn raise(&self, x: &Tensor) -> Result<Tensor> {
        on_host(x, &Operation(&self.layers, Product::Covariance))
    }

    /// A draw of N(0, C) for each of the images `like`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn draw(&self, like: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let mut sum = like.zeros_like()?;
        for index in 0..self.layers.count() {
            let noise = rng.normals(like.dims(), &compute_of(like))?;
            sum = (sum + on_host(&noise, &Operation(&self.layers, Product::Root(index)))?)?;
        }
        Ok(sum)
    }

    /// `offset` as if the reference had been `share` times as wide: all of what the data do not see, none of what they fix.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn narrowed(&self, offset: &Tensor, share: f64) -> Result<Tensor> {
        Ok((offset - (self.raise(offset)? * ((1.0 - share) / self.width.powi(2)))?)?)
    }
}

impl Layers {
    fn count(&self) -> usize {
        match self {
            Self::Single(layers) => layers.len(),
            Self::Double(layers) => layers.len(),
        }
    }
}

/// All terms that matter at this width, that of strength 0 last.
fn layers<T: FftNum>(information: &Information, width: f64) -> Vec<Arc<Layer<T>>> {
    let best = information.spectrum.iter().fold(0.0, |most: f64, value| most.max(*value));
    // Variance of the best seen frequency at a strength, in units of r^2.
    let variance = |strength: f64| 1.0 / (1.0 + width * width * strength * best);
    let strengths = (0..STRENGTHS as i32).map(|power| RATIO.powi(-power));
    let mut strengths: Vec<f64> = strengths.filter(|strength| variance(*strength) < 0.5).collect();
    strengths.push(0.0);
    let number = |value: f64| T::from_f64(value).unwrap_or_else(T::zero);
    let term = |index: usize| {
        let squared = |strength: f64| share(&strengths, index, strength, variance);
        let part = information.strength.iter().map(|&s| number(width * squared(s).max(0.0).sqrt())).collect();
        let filter = (strengths[index] > 0.0).then(|| {
            let root = |value: &f64| number((1.0 + width * width * strengths[index] * value).sqrt().recip());
            (RealFft3::new(information.shape), information.spectrum.iter().map(root).collect())
        });
        Arc::new(Layer { filter, part })
    };
    (0..strengths.len()).map(term).collect()
}

/// P_j^2 of a pixel: between two strengths in the proportion that gives its variance, else that of the nearest.
fn share(strengths: &[f64], index: usize, strength: f64, variance: impl Fn(f64) -> f64) -> f64 {
    let here = variance(strength);
    // How far the pixel is on the way from the stronger to the weaker of two neighbours.
    let way = |stronger: usize| {
        let (from, to) = (variance(strengths[stronger]), variance(strengths[stronger + 1]));
        ((here - from) / (to - from)).clamp(0.0, 1.0)
    };
    let arrived = if index == 0 { 1.0 } else { way(index - 1) };
    let left = if index + 1 == strengths.len() { 0.0 } else { way(index) };
    arrived - left
}

impl<T: FftNum> Layer<T> {
    /// The image `times` filtered.
    fn filtered(&self, mut image: Vec<T>, times: usize) -> Vec<T> {
        let Some((fft, gains)) = &self.filter else { return image };
        let mut modes = fft.forward(&mut image);
        for (mode, &gain) in modes.iter_mut().zip(gains) {
            *mode = *mode * if times == 2 { gain * gain } else { gain };
        }
        fft.inverse(&mut modes)
    }

    fn weighted(&self, image: &[T]) -> Vec<T> {
        image.iter().zip(&self.part).map(|(&value, &part)| value * part).collect()
    }

    /// A draw of this term, made of white noise.
    fn root(&self, noise: &[T]) -> Vec<T> {
        self.weighted(&self.filtered(noise.to_vec(), 1))
    }

    fn covariance(&self, image: &[T]) -> Vec<T> {
        self.weighted(&self.filtered(self.weighted(image), 2))
    }
}

/// Fourier transforms work in host memory, so images of another device travel.
fn on_host(x: &Tensor, operation: &impl CustomOp1) -> Result<Tensor> {
    let host = x.transfer(&Device::Cpu)?.contiguous()?;
    Ok(host.apply_op1_no_bwd(operation)?.transfer(x.device())?)
}

/// What `each` makes of all images of a contiguous batch.
fn each_image<T: FftNum>(
    values: &[T],
    layout: &Layout,
    each: impl Fn(&[T]) -> Vec<T> + Sync + Send,
) -> candle_core::Result<Vec<T>> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("images must be contiguous") };
    let size = layout.dims().iter().skip(1).product::<usize>().max(1);
    let images: Vec<Vec<T>> = values[start..end].par_chunks(size).map(each).collect();
    Ok(images.concat())
}

/// What is made of an image.
enum Product {
    /// C times it.
    Covariance,
    /// One term's draw, if it is white noise.
    Root(usize),
}

struct Operation<'a>(&'a Layers, Product);

impl Operation<'_> {
    fn image<T: FftNum>(&self, layers: &[Arc<Layer<T>>], image: &[T]) -> Vec<T> {
        if let Product::Root(index) = self.1 {
            return layers[index].root(image);
        }
        let mut sum = vec![T::zero(); image.len()];
        for layer in layers {
            sum.iter_mut().zip(layer.covariance(image)).for_each(|(sum, value)| *sum = *sum + value);
        }
        sum
    }
}

impl CustomOp1 for Operation<'_> {
    fn name(&self) -> &'static str {
        "covariance"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match (storage, self.0) {
            (CpuStorage::F32(values), Layers::Single(layers)) => {
                CpuStorage::F32(each_image(values, layout, |image| self.image(layers, image))?)
            }
            (CpuStorage::F64(values), Layers::Double(layers)) => {
                CpuStorage::F64(each_image(values, layout, |image| self.image(layers, image))?)
            }
            _ => bail!("the covariance was made for another precision"),
        };
        Ok((storage, layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compute::Compute, tensor::to_host};

    /// A blur that is seen a hundred times worse on the right, and not at all in the last column.
    fn information(shape: [usize; 3]) -> Information {
        let columns = shape[2] / 2 + 1;
        let spectrum = (0..shape[0] * shape[1] * columns).map(|k| {
            let [y, x] = [k / columns % shape[1], k % columns];
            let y = y.min(shape[1] - y);
            400.0 * (-0.2 * (x * x + y * y) as f64).exp()
        });
        let strength = (0..shape.iter().product()).map(|i| match i % shape[2] {
            x if x + 1 == shape[2] => 0.0,
            x => 100f64.powf(-(x as f64) / shape[2] as f64),
        });
        Information { shape, spectrum: spectrum.collect(), strength: strength.collect() }
    }

    fn dot(a: &Tensor, b: &Tensor) -> f64 {
        to_host(&(a * b).unwrap().sum_all().unwrap()).unwrap()[0]
    }

    /// C is symmetric and positive, and x.C x is the variance of x.v of its draws.
    #[test]
    fn draws_have_the_covariance() {
        let (compute, shape) = (Compute::cpu_f64(), [1, 6, 8]);
        let metric = Metric::new(&information(shape), 2.0, DType::F64).unwrap();
        assert_eq!(metric.layers.count(), 4);
        let mut rng = Rng::new(1);
        let [a, b] = [0, 1].map(|_| rng.normals(&[1, 1, 6, 8], &compute).unwrap());
        let (along, across) = (dot(&a, &metric.raise(&b).unwrap()), dot(&b, &metric.raise(&a).unwrap()));
        assert!((along / across - 1.0).abs() < 1e-12, "{along} {across}");
        let many = Tensor::zeros((20_000, 1, 6, 8), DType::F64, &Device::Cpu).unwrap();
        let draws = metric.draw(&many, &mut rng).unwrap();
        let components = draws.broadcast_mul(&a).unwrap().flatten_from(1).unwrap().sum(1).unwrap();
        let variance = dot(&components, &components) / 20_000.0;
        let exact = dot(&a, &metric.raise(&a).unwrap());
        assert!((variance / exact - 1.0).abs() < 0.05, "{variance} {exact}");
    }

    /// Where nothing is seen the variance is the reference's, and at the best seen frequency that of one pixel's strength.
    #[test]
    fn variances_are_those_of_the_information() {
        let (shape, width) = ([1, 4, 4], 2.0);
        for strength in [1.0, 0.3, 0.01, 0.0] {
            let mut even = information(shape);
            even.strength = vec![strength; 16];
            let metric = Metric::new(&even, width, DType::F64).unwrap();
            let waves =
                |x: usize| (0..16).map(|i| if (x * i).is_multiple_of(2) { 1.0 } else { -1.0 }).collect();
            for (column, wave) in [0, 1].map(waves).into_iter().enumerate() {
                let wave: Tensor = Compute::cpu_f64().tensor(wave, &[1, 1, 4, 4]).unwrap();
                let seen = strength * even.spectrum[2 * column];
                let found = dot(&wave, &metric.raise(&wave).unwrap()) / 16.0;
                let exact = 1.0 / (width.powi(-2) + seen);
                let close = if column == 0 { 1e-9 } else { 0.8 };
                assert!((found / exact).ln().abs() < close, "{strength} {column}: {found}, {exact}");
            }
        }
    }

    #[test]
    fn only_what_is_not_seen_narrows() {
        let shape = [1, 4, 6];
        let metric = Metric::new(&information(shape), 100.0, DType::F64).unwrap();
        let offset = Rng::new(2).normals(&[1, 1, 4, 6], &Compute::cpu_f64()).unwrap();
        let narrowed = to_host(&metric.narrowed(&offset, 0.5).unwrap()).unwrap();
        for (i, (found, before)) in narrowed.iter().zip(to_host(&offset).unwrap()).enumerate() {
            let exact = if i % 6 == 5 { 0.5 } else { 1.0 };
            assert!((found / before - exact).abs() < 0.01, "{i}: {found} of {before}");
        }
    }
}
