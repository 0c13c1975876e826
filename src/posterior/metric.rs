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

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor, bail};
use rustfft::FftNum;

use crate::{
    Error, Result,
    compute::Compute,
    instrument::Information,
    rng::Rng,
    tensor::{
        compute_of,
        dft::{Axis, Dft3, gains},
        each_image,
        fft3::RealFft3,
        on_host,
    },
};

/// Ratio of neighbouring strengths.
const RATIO: f64 = 16.0;
/// Largest number of strengths besides 0.
const STRENGTHS: usize = 3;

/// A covariance of images for one width r of the reference.
#[derive(Debug)]
pub struct Metric {
    width: f64,
    plan: Plan,
}

/// How it is computed: by fast transforms in host memory, in one precision, or by matrix products on the device.
#[derive(Debug)]
enum Plan {
    Single(Sum<f32>),
    Double(Sum<f64>),
    Products(Products),
}

/// The terms of the sum, that of strength 0 last.
#[derive(Debug)]
struct Sum<T: FftNum> {
    shape: [usize; 3],
    fft: RealFft3<T>,
    terms: Vec<Term<T>>,
}

/// What the data say at one strength.
#[derive(Debug)]
struct Term<T> {
    /// r^-1 K_j, half spectrum; none where the data say nothing and K_j is r.
    gains: Option<Vec<T>>,
    /// r P_j of each pixel.
    part: Vec<T>,
}

impl Metric {
    /// The covariance with a reference of standard deviation `width`, network unit, for images of `compute`.
    ///
    /// # Errors
    /// A precision other than single and double.
    pub fn new(information: &Information, width: f64, compute: &Compute) -> Result<Self> {
        let short = information.shape.iter().all(|length| *length <= Dft3::LONGEST);
        let plan = match compute.dtype {
            _ if short && !compute.device.is_cpu() => {
                Plan::Products(Products::new(&Sum::new(information, width), compute)?)
            }
            DType::F32 => Plan::Single(Sum::new(information, width)),
            DType::F64 => Plan::Double(Sum::new(information, width)),
            other => return Err(Error::config("precision", format!("{other:?}; use f32 or f64"))),
        };
        Ok(Self { width, plan })
    }

    /// C times `x` `[B, Z, Y, X]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn raise(&self, x: &Tensor) -> Result<Tensor> {
        match &self.plan {
            Plan::Products(products) => products.covariance(x),
            plan => on_host(x, |x| x.apply_op1_no_bwd(&Operation(plan, Product::Covariance))),
        }
    }

    /// A draw of N(0, C) for each of the images `like`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn draw(&self, like: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let mut sum = like.zeros_like()?;
        for index in 0..self.terms() {
            let noise = rng.normals(like.dims(), &compute_of(like))?;
            let root = match &self.plan {
                Plan::Products(products) => products.root(index, &noise)?,
                plan => {
                    let root = Operation(plan, Product::Root(index));
                    on_host(&noise, |noise| noise.apply_op1_no_bwd(&root))?
                }
            };
            sum = (sum + root)?;
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

    fn terms(&self) -> usize {
        match &self.plan {
            Plan::Single(sum) => sum.terms.len(),
            Plan::Double(sum) => sum.terms.len(),
            Plan::Products(products) => products.terms.len(),
        }
    }
}

impl<T: FftNum> Sum<T> {
    /// All terms that matter at this width.
    fn new(information: &Information, width: f64) -> Self {
        let best = information.spectrum.iter().fold(0.0, |most: f64, value| most.max(*value));
        // Variance of the best seen frequency at a strength, in units of r^2.
        let variance = |strength: f64| 1.0 / (1.0 + width * width * strength * best);
        let strengths = (0..STRENGTHS as i32).map(|power| RATIO.powi(-power));
        let mut strengths: Vec<f64> = strengths.filter(|strength| variance(*strength) < 0.5).collect();
        strengths.push(0.0);
        let number = |value: f64| T::from_f64(value).unwrap_or_else(T::zero);
        let term = |index: usize| {
            let squared = |strength: f64| share(&strengths, index, strength, variance);
            let part =
                information.strength.iter().map(|&s| number(width * squared(s).max(0.0).sqrt())).collect();
            let root = |value: &f64| number((1.0 + width * width * strengths[index] * value).sqrt().recip());
            let gains = (strengths[index] > 0.0).then(|| information.spectrum.iter().map(root).collect());
            Term { gains, part }
        };
        let terms = (0..strengths.len()).map(term).collect();
        Self { shape: information.shape, fft: RealFft3::new(information.shape), terms }
    }

    /// The image filtered `times` as a term filters.
    fn filtered(&self, term: &Term<T>, mut image: Vec<T>, times: usize) -> Vec<T> {
        let Some(gains) = &term.gains else { return image };
        let mut modes = self.fft.forward(&mut image);
        for (mode, &gain) in modes.iter_mut().zip(gains) {
            *mode = *mode * if times == 2 { gain * gain } else { gain };
        }
        self.fft.inverse(&mut modes)
    }

    /// A draw of one term, made of white noise.
    fn root(&self, index: usize, noise: &[T]) -> Vec<T> {
        let term = &self.terms[index];
        term.weighted(&self.filtered(term, noise.to_vec(), 1))
    }

    fn covariance(&self, image: &[T]) -> Vec<T> {
        let mut sum = vec![T::zero(); image.len()];
        for term in &self.terms {
            let one = term.weighted(&self.filtered(term, term.weighted(image), 2));
            sum.iter_mut().zip(one).for_each(|(sum, value)| *sum = *sum + value);
        }
        sum
    }
}

impl<T: FftNum> Term<T> {
    fn weighted(&self, image: &[T]) -> Vec<T> {
        image.iter().zip(&self.part).map(|(&value, &part)| value * part).collect()
    }
}

/// [`Sum`] as matrix products.
#[derive(Debug)]
struct Products {
    dft: Dft3,
    /// Gains and parts of each term.
    terms: Vec<(Option<Tensor>, Tensor)>,
}

impl Products {
    fn new(sum: &Sum<f64>, compute: &Compute) -> Result<Self> {
        let shape = sum.shape;
        let [z, y, x] = shape;
        let term = |term: &Term<f64>| {
            let gains = term.gains.clone().map(|values| gains(values, shape, compute)).transpose()?;
            Ok((gains, compute.tensor(term.part.clone(), &[1, z, y, x])?))
        };
        let terms = sum.terms.iter().map(term).collect::<Result<_>>()?;
        Ok(Self { dft: Dft3::new(shape.map(Axis::whole), compute)?, terms })
    }

    fn filtered(&self, gains: Option<&Tensor>, image: Tensor) -> Result<Tensor> {
        match gains {
            Some(gains) => self.dft.inverse(&self.dft.forward(&image)?.scaled(gains)?),
            None => Ok(image),
        }
    }

    fn root(&self, index: usize, noise: &Tensor) -> Result<Tensor> {
        let (gains, part) = &self.terms[index];
        Ok(self.filtered(gains.as_ref(), noise.clone())?.broadcast_mul(part)?)
    }

    fn covariance(&self, images: &Tensor) -> Result<Tensor> {
        self.terms.iter().try_fold(images.zeros_like()?, |sum, (gains, part)| {
            let squared = gains.as_ref().map(Tensor::sqr).transpose()?;
            let one = self.filtered(squared.as_ref(), images.broadcast_mul(part)?)?;
            Ok((sum + one.broadcast_mul(part)?)?)
        })
    }
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

/// What is made of an image.
#[derive(Clone, Copy)]
enum Product {
    /// C times it.
    Covariance,
    /// One term's draw, if it is white noise.
    Root(usize),
}

struct Operation<'a>(&'a Plan, Product);

impl Operation<'_> {
    fn each<T: FftNum>(&self, sum: &Sum<T>, values: &[T], layout: &Layout) -> candle_core::Result<Vec<T>> {
        each_image(values, layout, |_, image| match self.1 {
            Product::Covariance => sum.covariance(image),
            Product::Root(index) => sum.root(index, image),
        })
    }
}

impl CustomOp1 for Operation<'_> {
    fn name(&self) -> &'static str {
        "covariance"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match (storage, self.0) {
            (CpuStorage::F32(values), Plan::Single(sum)) => CpuStorage::F32(self.each(sum, values, layout)?),
            (CpuStorage::F64(values), Plan::Double(sum)) => CpuStorage::F64(self.each(sum, values, layout)?),
            _ => bail!("the covariance was made for another precision or device"),
        };
        Ok((storage, layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::tensor::to_host;

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
        let metric = Metric::new(&information(shape), 2.0, &Compute::cpu_f64()).unwrap();
        assert_eq!(metric.terms(), 4);
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
            let metric = Metric::new(&even, width, &Compute::cpu_f64()).unwrap();
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

    /// Matrix products give what fast transforms give.
    #[test]
    fn products_do_the_same() {
        let (compute, shape) = (Compute::cpu_f64(), [2, 5, 8]);
        let sum = Sum::<f64>::new(&information(shape), 2.0);
        let products = Products::new(&sum, &compute).unwrap();
        let image = Rng::new(4).normals(&[1, 2, 5, 8], &compute).unwrap();
        let values = to_host(&image).unwrap();
        let close = |found: Tensor, exact: Vec<f64>| {
            to_host(&found).unwrap().iter().zip(exact).all(|(a, b)| (a - b).abs() < 1e-12)
        };
        assert!(close(products.covariance(&image).unwrap(), sum.covariance(&values)));
        for index in 0..sum.terms.len() {
            assert!(close(products.root(index, &image).unwrap(), sum.root(index, &values)), "{index}");
        }
    }

    #[test]
    fn only_what_is_not_seen_narrows() {
        let shape = [1, 4, 6];
        let metric = Metric::new(&information(shape), 100.0, &Compute::cpu_f64()).unwrap();
        let offset = Rng::new(2).normals(&[1, 1, 4, 6], &Compute::cpu_f64()).unwrap();
        let narrowed = to_host(&metric.narrowed(&offset, 0.5).unwrap()).unwrap();
        for (i, (found, before)) in narrowed.iter().zip(to_host(&offset).unwrap()).enumerate() {
            let exact = if i % 6 == 5 { 0.5 } else { 1.0 };
            assert!((found / before - exact).abs() < 0.01, "{i}: {found} of {before}");
        }
    }
}
