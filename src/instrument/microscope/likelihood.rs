//! Noise models of cameras, pixel by pixel.
//!
//! Each is written once, on the host in f64, with its slope; [`Pixels`] makes it a [`Density`] of the expected
//! values `[B, M]` that the forward model returns.

use std::sync::OnceLock;

use candle_core::{DType, Tensor, bail};
use rand_distr::{Distribution, Poisson};
use rayon::prelude::*;

use super::description::Camera;
use crate::{
    Error, Result,
    instrument::{Measured, density::Density},
    rng::Rng,
    transfer::send,
};

/// Pixels whose terms are added before the next ones: fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 4096;

/// The density of one camera pixel's value given the expected value.
pub trait Noise: Send + Sync + 'static {
    /// Name as in `diagnostics.json`.
    const NAME: &'static str;

    /// Measured values.
    fn data(&self) -> &[f64];

    /// Number of data; those that are left out of the fit do not count.
    fn count(&self) -> usize {
        self.data().len()
    }

    /// Log probability of pixel `index`, nats, up to a constant, and its derivative by `expected`.
    fn log_prob(&self, index: usize, expected: f64) -> (f64, f64);

    /// The data, and whatever else differs from pixel to pixel: one value per pixel or one for all.
    fn maps(&self) -> Vec<&[f64]>;

    /// [`Noise::log_prob`] of all pixels where they lie, `[B, M]` in double precision, of the maps `[M]` or `[1]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn of_tensor(&self, expected: &Tensor, maps: &[Tensor]) -> candle_core::Result<Tensor>;

    /// Fisher information of pixel `index` about `expected`.
    fn information(&self, index: usize, expected: f64) -> f64;

    /// Variance of pixel `index` around `expected`.
    fn variance(&self, index: usize, expected: f64) -> f64;

    /// Residual of pixel `index` over its standard deviation.
    fn residual(&self, index: usize, expected: f64) -> f64;

    /// A value of pixel `index` drawn around `expected`, in the unit of the data.
    fn draw(&self, index: usize, expected: f64, rng: &mut Rng) -> f64;

    /// The same noise around other values.
    fn with_data(&self, data: Vec<f64>) -> Self;

    /// See [`crate::instrument::Likelihood::measured`].
    fn measured(&self) -> Option<Measured> {
        None
    }
}

/// Gaussian noise of fixed standard deviation per pixel.
#[derive(Debug, Clone)]
pub struct FixedGaussian {
    /// Measured values.
    pub data: Vec<f64>,
    /// Standard deviations, one per pixel or one for all.
    pub sigma: Vec<f64>,
}

impl FixedGaussian {
    fn sigma(&self, index: usize) -> f64 {
        at(&self.sigma, index)
    }
}

impl Noise for FixedGaussian {
    const NAME: &'static str = "gaussian";

    fn data(&self) -> &[f64] {
        &self.data
    }

    fn log_prob(&self, index: usize, expected: f64) -> (f64, f64) {
        let residual = self.residual(index, expected);
        (-0.5 * residual * residual, residual / self.sigma(index))
    }

    fn maps(&self) -> Vec<&[f64]> {
        vec![&self.data, &self.sigma]
    }

    fn of_tensor(&self, expected: &Tensor, maps: &[Tensor]) -> candle_core::Result<Tensor> {
        let [data, sigma] = maps else { bail!("{} has two maps", Self::NAME) };
        expected.broadcast_sub(data)?.broadcast_div(sigma)?.sqr()? * -0.5
    }

    fn information(&self, index: usize, _expected: f64) -> f64 {
        self.sigma(index).powi(-2)
    }

    fn variance(&self, index: usize, _expected: f64) -> f64 {
        self.sigma(index).powi(2)
    }

    fn residual(&self, index: usize, expected: f64) -> f64 {
        (self.data[index] - expected) / self.sigma(index)
    }

    fn draw(&self, index: usize, expected: f64, rng: &mut Rng) -> f64 {
        expected + self.sigma(index) * rng.normal()
    }

    fn with_data(&self, data: Vec<f64>) -> Self {
        Self { data, ..self.clone() }
    }

    fn measured(&self) -> Option<Measured> {
        let sigmas = (0..self.data.len()).map(|index| self.sigma(index)).collect();
        Some(Measured { values: self.data.clone(), sigmas })
    }
}

/// Gaussian noise whose variance grows with the expected value: slope * expected + floor, with its logarithm in the
/// density.
#[derive(Debug, Clone)]
pub struct GrowingGaussian {
    /// Measured values.
    pub data: Vec<f64>,
    /// Variance per unit of the expected value, one per pixel or one for all.
    pub slope: Vec<f64>,
    /// Variance at an expected value of 0, one per pixel or one for all.
    pub floor: Vec<f64>,
    /// Smallest variance: that of the darkest data, below which the straight line is not trusted.
    pub least: f64,
}

impl GrowingGaussian {
    /// Variance and its derivative.
    fn variance_and_slope(&self, index: usize, expected: f64) -> (f64, f64) {
        let slope = at(&self.slope, index);
        let variance = slope * expected + at(&self.floor, index);
        if variance > self.least { (variance, slope) } else { (self.least, 0.0) }
    }
}

impl Noise for GrowingGaussian {
    const NAME: &'static str = "heteroscedastic_gaussian";

    fn data(&self) -> &[f64] {
        &self.data
    }

    fn log_prob(&self, index: usize, expected: f64) -> (f64, f64) {
        let (variance, slope) = self.variance_and_slope(index, expected);
        let difference = self.data[index] - expected;
        let square = difference * difference / variance;
        let value = -0.5 * (square + variance.ln());
        (value, difference / variance + 0.5 * slope * (square - 1.0) / variance)
    }

    fn maps(&self) -> Vec<&[f64]> {
        vec![&self.data, &self.slope, &self.floor]
    }

    fn of_tensor(&self, expected: &Tensor, maps: &[Tensor]) -> candle_core::Result<Tensor> {
        let [data, slope, floor] = maps else { bail!("{} has three maps", Self::NAME) };
        let variance = expected.broadcast_mul(slope)?.broadcast_add(floor)?.maximum(self.least)?;
        let square = (expected.broadcast_sub(data)?.sqr()? / &variance)?;
        (square + variance.log()?)? * -0.5
    }

    fn information(&self, index: usize, expected: f64) -> f64 {
        let (variance, slope) = self.variance_and_slope(index, expected);
        1.0 / variance + 0.5 * (slope / variance).powi(2)
    }

    fn variance(&self, index: usize, expected: f64) -> f64 {
        self.variance_and_slope(index, expected).0
    }

    fn residual(&self, index: usize, expected: f64) -> f64 {
        (self.data[index] - expected) / self.variance(index, expected).sqrt()
    }

    fn draw(&self, index: usize, expected: f64, rng: &mut Rng) -> f64 {
        expected + self.variance(index, expected).sqrt() * rng.normal()
    }

    fn with_data(&self, data: Vec<f64>) -> Self {
        Self { data, ..self.clone() }
    }
}

/// Poisson noise with Gaussian read noise v, as a Poisson variable shifted by v: z + v ~ Poisson(lambda + v).
///
/// Values are photo-electrons. Below a rate of [`ShiftedPoisson::DARKEST`] the logarithm continues as its parabola, so that
/// objects with negative values have a density and a slope.
///
/// Source: Huang et al. 2013, Nat. Methods 10, 653.
#[derive(Debug, Clone)]
pub struct ShiftedPoisson {
    /// Measured values, photo-electrons.
    pub data: Vec<f64>,
    /// Variance of the read noise, photo-electrons^2, one per pixel or one for all.
    pub read_variance: Vec<f64>,
}

impl ShiftedPoisson {
    /// Rate below which the log probability is continued as a parabola, photo-electrons.
    pub const DARKEST: f64 = 0.05;

    fn shifted(&self, index: usize, expected: f64) -> (f64, f64) {
        let variance = at(&self.read_variance, index);
        ((self.data[index] + variance).max(0.0), expected + variance)
    }
}

impl Noise for ShiftedPoisson {
    const NAME: &'static str = "shifted_poisson";

    fn data(&self) -> &[f64] {
        &self.data
    }

    fn log_prob(&self, index: usize, expected: f64) -> (f64, f64) {
        let (count, rate) = self.shifted(index, expected);
        let safe = rate.max(Self::DARKEST);
        let below = rate - safe;
        // k ln r - r with the saturated k ln k - k taken off, which keeps the terms of bright pixels small.
        let saturated = if count > 0.0 { count * (safe / count).ln() + count } else { 0.0 };
        let slope = count / safe - 1.0;
        let curvature = -count / (safe * safe);
        (saturated - safe + below * (slope + 0.5 * curvature * below), slope + curvature * below)
    }

    fn maps(&self) -> Vec<&[f64]> {
        vec![&self.data, &self.read_variance]
    }

    fn of_tensor(&self, expected: &Tensor, maps: &[Tensor]) -> candle_core::Result<Tensor> {
        let [data, variance] = maps else { bail!("{} has two maps", Self::NAME) };
        let count = data.broadcast_add(variance)?.maximum(0.0)?;
        let rate = expected.broadcast_add(variance)?;
        let safe = rate.maximum(Self::DARKEST)?;
        let below = (rate - &safe)?;
        // Without light k (ln (r / k) + 1) is 0, and so is it with any number in place of k inside.
        let inside = (&count + count.eq(0.0)?.to_dtype(DType::F64)?)?;
        let saturated = safe.broadcast_div(&inside)?.log()?.broadcast_mul(&count)?.broadcast_add(&count)?;
        // The parabola around the darkest rate, which no gradient passes through.
        let [slope, half] =
            [((&count / Self::DARKEST)? - 1.0)?, (&count * (-0.5 / (Self::DARKEST * Self::DARKEST)))?];
        let parabola = below.broadcast_mul(&half)?.broadcast_add(&slope)?;
        (saturated - safe)? + (below * parabola)?
    }

    /// That of rates below one photo-electron is taken for that of one.
    fn information(&self, index: usize, expected: f64) -> f64 {
        self.shifted(index, expected).1.max(1.0).recip()
    }

    fn variance(&self, index: usize, expected: f64) -> f64 {
        self.shifted(index, expected).1.max(Self::DARKEST)
    }

    fn residual(&self, index: usize, expected: f64) -> f64 {
        let (count, rate) = self.shifted(index, expected);
        (count - rate) / rate.max(Self::DARKEST).sqrt()
    }

    fn draw(&self, index: usize, expected: f64, rng: &mut Rng) -> f64 {
        let photons = match Poisson::new(expected) {
            Ok(poisson) => poisson.sample(rng),
            // No light, or less than none.
            Err(_) => 0.0,
        };
        photons + at(&self.read_variance, index).sqrt() * rng.normal()
    }

    fn with_data(&self, data: Vec<f64>) -> Self {
        Self { data, ..self.clone() }
    }
}

impl Camera {
    /// Recorded numbers as photo-electrons.
    pub fn electrons(&self, recorded: f64) -> f64 {
        (recorded - self.offset) * self.conversion_gain
    }
}

/// A value of a map, or the one value that stands for all.
fn at(map: &[f64], index: usize) -> f64 {
    if map.len() == 1 { map[0] } else { map[index] }
}

/// A noise model of all pixels `[M]` as one density.
pub struct Pixels<N> {
    noise: N,
    /// The maps on the first device other than the CPU that asked for them.
    maps: OnceLock<Vec<Tensor>>,
}

impl<N> From<N> for Pixels<N> {
    fn from(noise: N) -> Self {
        Self { noise, maps: OnceLock::new() }
    }
}

impl<N: Noise> Pixels<N> {
    /// The density of a noise model whose maps (`maps`: name and values) have one value or one per pixel.
    ///
    /// # Errors
    /// A map of another size, or data or maps with values that are no numbers.
    pub fn new(noise: N, maps: &[(&'static str, &[f64])]) -> Result<Self> {
        for (what, map) in maps {
            if map.len() != 1 && map.len() != noise.data().len() {
                return Err(Error::Shape {
                    what,
                    expected: vec![noise.data().len()],
                    found: vec![map.len()],
                });
            }
            if let Some(bad) = map.iter().position(|value| !value.is_finite()) {
                return Err(Error::config(*what, format!("pixel {bad} is {}; mend or mask it", map[bad])));
            }
        }
        Ok(Self::from(noise))
    }
}

impl<N: Noise> Density for Pixels<N> {
    const NAME: &'static str = N::NAME;
    const SINGULAR: bool = false;
    const ON_DEVICE: bool = true;

    fn count(&self) -> usize {
        self.noise.count()
    }

    fn prediction(&self) -> Vec<usize> {
        vec![self.noise.data().len()]
    }

    fn log_prob(&self, predicted: &[f64]) -> (f64, Vec<f64>) {
        let chunk = |(number, chunk): (usize, &[f64])| -> (f64, Vec<f64>) {
            let terms = chunk.iter().enumerate();
            let terms = terms.map(|(i, expected)| self.noise.log_prob(number * CHUNK + i, *expected));
            let (values, slopes): (Vec<f64>, Vec<f64>) = terms.unzip();
            (values.iter().sum(), slopes)
        };
        let (sums, slopes): (Vec<f64>, Vec<Vec<f64>>) =
            predicted.par_chunks(CHUNK).enumerate().map(chunk).unzip();
        (sums.iter().sum(), slopes.concat())
    }

    fn of_tensor(&self, predicted: &Tensor) -> Result<Option<Tensor>> {
        let kept = match self.maps.get() {
            Some(maps) => maps,
            None => {
                let maps = self.noise.maps().into_iter().map(|map| send(map, predicted.device()));
                let maps = maps.collect::<candle_core::Result<Vec<_>>>()?;
                self.maps.get_or_init(|| maps)
            }
        };
        let values = self.noise.of_tensor(&predicted.to_dtype(DType::F64)?, kept)?;
        Ok(Some(values.sum(1)?.to_dtype(predicted.dtype())?))
    }

    fn residuals(&self, predicted: &[f64]) -> Vec<f64> {
        predicted.iter().enumerate().map(|(i, expected)| self.noise.residual(i, *expected)).collect()
    }

    fn chi2(&self, predicted: &[f64]) -> f64 {
        let squares =
            predicted.iter().enumerate().map(|(i, expected)| self.noise.residual(i, *expected).powi(2));
        squares.sum::<f64>() / self.noise.count() as f64
    }

    fn draw(&self, predicted: &[f64], rng: &mut Rng) -> Vec<f64> {
        predicted.iter().enumerate().map(|(i, expected)| self.noise.draw(i, *expected, rng)).collect()
    }

    fn with_data(&self, data: Vec<f64>) -> Option<Self> {
        Some(Self::from(self.noise.with_data(data)))
    }

    fn information(&self, predicted: &[f64]) -> Option<Vec<f64>> {
        Some(predicted.iter().enumerate().map(|(i, expected)| self.noise.information(i, *expected)).collect())
    }

    fn variances(&self, predicted: &[f64]) -> Option<Vec<f64>> {
        Some(predicted.iter().enumerate().map(|(i, expected)| self.noise.variance(i, *expected)).collect())
    }

    fn values(&self) -> Option<Vec<f64>> {
        Some(self.noise.data().to_vec())
    }

    fn measured(&self) -> Option<Measured> {
        self.noise.measured()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compute::Compute,
        tensor::{to_host, value_and_gradient},
    };

    /// Tensors of expected values have the density and the slopes that numbers have, also without light and with less.
    fn is_the_same(noise: impl Noise) {
        let pixels = Pixels::from(noise);
        let rows = [-3.0, 0.01, 7.0].map(|first| (0..6).map(move |i| first + 0.8 * f64::from(i)));
        let expected: Vec<f64> = rows.into_iter().flatten().collect();
        let tensor = Compute::cpu_f64().tensor(expected.clone(), &[3, 6]).unwrap();
        let (values, slopes) = value_and_gradient(&tensor, |x| Ok(pixels.of_tensor(x)?.unwrap())).unwrap();
        let (values, slopes) = (to_host(&values).unwrap(), to_host(&slopes).unwrap());
        for (row, expected) in expected.chunks(6).enumerate() {
            let (value, gradient) = pixels.log_prob(expected);
            assert!((values[row] - value).abs() < 1e-9 * value.abs(), "{row}: {} {value}", values[row]);
            for (found, exact) in slopes[6 * row..].iter().zip(gradient) {
                assert!((found - exact).abs() < 1e-9 * exact.abs().max(1.0), "{row}: {found} {exact}");
            }
        }
    }

    #[test]
    fn tensors_and_numbers_agree() {
        let data = vec![0.0, -2.5, 1.0, 4.0, 9.0, 3.5];
        let each = vec![0.5, 1.0, 1.5, 2.0, 0.7, 0.9];
        is_the_same(FixedGaussian { data: data.clone(), sigma: each.clone() });
        is_the_same(GrowingGaussian {
            data: data.clone(),
            slope: each.clone(),
            floor: vec![2.0],
            least: 0.6,
        });
        is_the_same(ShiftedPoisson { data, read_variance: each });
    }
}
