//! What the covariance of an image is taken for, given data and a Gaussian reference: what tells a sampler how far to go in which
//! direction.
//!
//! What data say of an image falls off towards high frequencies and differs from place to place (see [`Information`]): their
//! precision is about S Lambda, Lambda diagonal in Fourier space and S in pixels. With a reference N(x, r^2 I) the posterior's
//! covariance is about (1/r^2 + S Lambda)^-1, which is diagonal in neither. It is taken for
//!
//! C = sum_j P_j K_j^2 P_j, K_j^2 = (1/r^2 + s_j Lambda)^-1,
//!
//! for a few strengths s_j, between which the diagonal P_j, sum_j P_j^2 = 1, interpolate such that the best seen frequency has
//! the right variance everywhere. C is symmetric and positive, and directions without data have exactly r^2.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor, bail};
use rayon::prelude::*;
use rustfft::FftNum;

use crate::{
    Error, Result,
    compute::Compute,
    instrument::Information,
    tensor::{
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
pub struct Covariance<'a>(Plan<'a>);

/// How it is computed: by fast transforms in host memory, in one precision, or by matrix products on the device.
#[derive(Debug)]
enum Plan<'a> {
    Single(Sum<'a>, RealFft3<f32>),
    Double(Sum<'a>, RealFft3<f64>),
    Products(Products),
}

/// The terms of the sum. Their numbers are found as they are used: large images leave no memory for them.
#[derive(Debug)]
struct Sum<'a> {
    information: &'a Information,
    /// r^2, network unit.
    square: f64,
    /// Strength s_j of each term, 0 last.
    strengths: Vec<f64>,
    /// Variance of the best seen frequency at each, in units of r^2.
    variances: Vec<f64>,
}

impl<'a> Covariance<'a> {
    /// The covariance with a reference of standard deviation `width`, network unit, for images of `compute`.
    ///
    /// # Errors
    /// A precision other than single and double.
    pub fn new(information: &'a Information, width: f64, compute: &Compute) -> Result<Self> {
        let plan = match compute.dtype {
            _ if Dft3::serves(information.shape, compute) => {
                Plan::Products(Products::new(&Sum::new(information, width), compute)?)
            }
            DType::F32 => Plan::Single(Sum::new(information, width), RealFft3::new(information.shape)),
            DType::F64 => Plan::Double(Sum::new(information, width), RealFft3::new(information.shape)),
            other => return Err(Error::config("precision", format!("{other:?}; use f32 or f64"))),
        };
        Ok(Self(plan))
    }

    /// C times `x` `[B, Z, Y, X]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn times(&self, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Plan::Products(products) => products.covariance(x),
            plan => on_host(x, |x| x.apply_op1_no_bwd(&Operation(plan))),
        }
    }
}

impl<'a> Sum<'a> {
    /// All terms that matter at this width.
    fn new(information: &'a Information, width: f64) -> Self {
        let square = width * width;
        let best = information.best;
        let variance = |strength: f64| 1.0 / (1.0 + square * strength * best);
        let strengths = (0..STRENGTHS as i32).map(|power| RATIO.powi(-power));
        let mut strengths: Vec<f64> = strengths.filter(|strength| variance(*strength) < 0.5).collect();
        strengths.push(0.0);
        let variances = strengths.iter().map(|&strength| variance(strength)).collect();
        Self { information, square, strengths, variances }
    }

    /// (K_j / r)^2 of each mode of the half spectrum; none where the data say nothing and K_j is r.
    fn gains(&self, term: usize) -> Option<impl Fn(f32) -> f64> {
        let precision = self.square * self.strengths[term];
        (precision > 0.0).then_some(move |value| 1.0 / (1.0 + precision * f64::from(value)))
    }

    /// r P_j of a pixel of the given strength. P_j^2 falls, between two strengths, in the proportion that gives the pixel's variance.
    fn part(&self, term: usize, strength: f32) -> f64 {
        let here = 1.0 / (1.0 + self.square * f64::from(strength) * self.information.best);
        // How far the pixel is on the way from the stronger to the weaker of two neighbours.
        let way = |stronger: usize| {
            let (from, to) = (self.variances[stronger], self.variances[stronger + 1]);
            ((here - from) / (to - from)).clamp(0.0, 1.0)
        };
        let arrived = if term == 0 { 1.0 } else { way(term - 1) };
        let left = if term + 1 == self.strengths.len() { 0.0 } else { way(term) };
        (self.square * (arrived - left).max(0.0)).sqrt()
    }

    /// The image, each pixel times its part.
    fn weighted<T: FftNum>(&self, term: usize, mut image: Vec<T>) -> Vec<T> {
        let pixels = image.par_iter_mut().zip(&self.information.strength);
        pixels.for_each(|(value, &strength)| *value = *value * number(self.part(term, strength)));
        image
    }

    /// The image filtered as a term filters.
    fn filtered<T: FftNum>(&self, term: usize, fft: &RealFft3<T>, mut image: Vec<T>) -> Vec<T> {
        let Some(gain) = self.gains(term) else { return image };
        let mut modes = fft.forward(&mut image);
        drop(image);
        modes
            .iter_mut()
            .zip(&self.information.spectrum)
            .for_each(|(mode, &value)| *mode = *mode * number::<T>(gain(value)));
        fft.inverse(&mut modes)
    }

    fn covariance<T: FftNum>(&self, fft: &RealFft3<T>, image: &[T]) -> Vec<T> {
        let mut sum = vec![T::zero(); image.len()];
        for term in 0..self.strengths.len() {
            let one = self.weighted(term, image.to_vec());
            let one = self.weighted(term, self.filtered(term, fft, one));
            sum.iter_mut().zip(one).for_each(|(sum, value)| *sum = *sum + value);
        }
        sum
    }
}

/// In the precision of an image.
fn number<T: FftNum>(value: f64) -> T {
    T::from_f64(value).unwrap_or_else(T::zero)
}

/// [`Sum`] as matrix products.
#[derive(Debug)]
struct Products {
    dft: Dft3,
    /// Gains and parts of each term.
    terms: Vec<(Option<Tensor>, Tensor)>,
}

impl Products {
    fn new(sum: &Sum, compute: &Compute) -> Result<Self> {
        let Information { shape, spectrum, strength, .. } = sum.information;
        let [z, y, x] = *shape;
        let term = |term: usize| {
            let values = sum.gains(term).map(|gain| spectrum.iter().map(|&value| gain(value)).collect());
            let parts = strength.iter().map(|&strength| sum.part(term, strength)).collect();
            let gains = values.map(|values| gains(values, *shape, compute)).transpose()?;
            Ok((gains, compute.tensor(parts, &[1, z, y, x])?))
        };
        let terms = (0..sum.strengths.len()).map(term).collect::<Result<_>>()?;
        Ok(Self { dft: Dft3::new(shape.map(Axis::whole), compute)?, terms })
    }

    fn filtered(&self, gains: Option<&Tensor>, image: Tensor) -> Result<Tensor> {
        match gains {
            Some(gains) => self.dft.inverse(&self.dft.forward(&image)?.scaled(gains)?),
            None => Ok(image),
        }
    }

    fn covariance(&self, images: &Tensor) -> Result<Tensor> {
        self.terms.iter().try_fold(images.zeros_like()?, |sum, (gains, part)| {
            let one = self.filtered(gains.as_ref(), images.broadcast_mul(part)?)?;
            Ok((sum + one.broadcast_mul(part)?)?)
        })
    }
}

struct Operation<'a>(&'a Plan<'a>);

impl CustomOp1 for Operation<'_> {
    fn name(&self) -> &'static str {
        "covariance"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match (storage, self.0) {
            (CpuStorage::F32(values), Plan::Single(sum, fft)) => {
                CpuStorage::F32(each_image(values, layout, |_, image| sum.covariance(fft, image))?)
            }
            (CpuStorage::F64(values), Plan::Double(sum, fft)) => {
                CpuStorage::F64(each_image(values, layout, |_, image| sum.covariance(fft, image))?)
            }
            _ => bail!("the covariance was made for another precision or device"),
        };
        Ok((storage, layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{rng::Rng, tensor::to_host};

    /// A blur that is seen a hundred times worse on the right, and not at all in the last column.
    fn information(shape: [usize; 3]) -> Information {
        let columns = shape[2] / 2 + 1;
        let spectrum = (0..shape[0] * shape[1] * columns).map(|k| {
            let [y, x] = [k / columns % shape[1], k % columns];
            let y = y.min(shape[1] - y);
            400.0 * (-0.2 * (x * x + y * y) as f32).exp()
        });
        let strength = (0..shape.iter().product()).map(|i| match i % shape[2] {
            x if x + 1 == shape[2] => 0.0,
            x => 100f32.powf(-(x as f32) / shape[2] as f32),
        });
        Information::new(shape, spectrum.collect(), strength.collect())
    }

    fn dot(a: &Tensor, b: &Tensor) -> f64 {
        to_host(&(a * b).unwrap().sum_all().unwrap()).unwrap()[0]
    }

    #[test]
    fn it_is_symmetric_and_positive() {
        let (compute, shape) = (Compute::cpu_f64(), [1, 6, 8]);
        let information = information(shape);
        let covariance = Covariance::new(&information, 2.0, &compute).unwrap();
        let mut rng = Rng::new(1);
        let [a, b] = [0, 1].map(|_| rng.normals(&[1, 1, 6, 8], &compute).unwrap());
        let (along, across) =
            (dot(&a, &covariance.times(&b).unwrap()), dot(&b, &covariance.times(&a).unwrap()));
        assert!((along / across - 1.0).abs() < 1e-12, "{along} {across}");
        assert!(dot(&a, &covariance.times(&a).unwrap()) > 0.0);
    }

    /// Where nothing is seen the variance is the reference's, and at the best seen frequency that of one pixel's strength.
    #[test]
    fn variances_are_those_of_the_information() {
        let (shape, width) = ([1, 4, 4], 2.0);
        for strength in [1.0, 0.3, 0.01, 0.0] {
            let mut even = information(shape);
            even.strength = vec![strength; 16];
            let covariance = Covariance::new(&even, width, &Compute::cpu_f64()).unwrap();
            let waves =
                |x: usize| (0..16).map(|i| if (x * i).is_multiple_of(2) { 1.0 } else { -1.0 }).collect();
            for (column, wave) in [0, 1].map(waves).into_iter().enumerate() {
                let wave: Tensor = Compute::cpu_f64().tensor(wave, &[1, 1, 4, 4]).unwrap();
                let seen = f64::from(even.strength[0] * even.spectrum[2 * column]);
                let found = dot(&wave, &covariance.times(&wave).unwrap()) / 16.0;
                let exact = 1.0 / (width.powi(-2) + seen);
                let close = if column == 0 { 1e-6 } else { 0.8 };
                assert!((found / exact).ln().abs() < close, "{strength} {column}: {found}, {exact}");
            }
        }
    }

    /// Matrix products give what fast transforms give.
    #[test]
    fn products_do_the_same() {
        let (compute, shape) = (Compute::cpu_f64(), [2, 5, 8]);
        let information = information(shape);
        let sum = Sum::new(&information, 2.0);
        let products = Products::new(&sum, &compute).unwrap();
        let image = Rng::new(4).normals(&[1, 2, 5, 8], &compute).unwrap();
        let values = to_host(&image).unwrap();
        let close = |found: Tensor, exact: Vec<f64>| {
            to_host(&found).unwrap().iter().zip(exact).all(|(a, b)| (a - b).abs() < 1e-12)
        };
        assert!(close(products.covariance(&image).unwrap(), sum.covariance(&RealFft3::new(shape), &values)));
    }
}
