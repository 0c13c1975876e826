//! Closure phases and log closure amplitudes with the covariance of their noise.

use std::f64::consts::{PI, TAU};

use nalgebra::{DMatrix, DVector};
use rustfft::num_complex::Complex64;

use super::{FAINTEST, Product};
use crate::{
    Error, Result,
    instrument::vlbi::{
        Observation,
        closure::{ClosureSet, above_noise, independent_quadrangles, independent_triangles, whiten},
        products::{
            MeasuredClosure, closure_phase_fit, closure_phases, log_closure_amplitude_fit,
            log_closure_amplitudes,
        },
    },
    rng::Rng,
};

/// The angle in (-pi, pi] that differs from `angle` by full turns.
pub fn wrap(angle: f64) -> f64 {
    let wrapped = angle - TAU * (angle / TAU).round();
    if wrapped <= -PI { PI } else { wrapped }
}

/// Measured closures of one time stamp and the density of their noise.
#[derive(Debug, Clone)]
struct Measured<const N: usize> {
    set: ClosureSet<N>,
    data: DVector<f64>,
    precision: DMatrix<f64>,
    lower: DMatrix<f64>,
}

impl<const N: usize> Measured<N> {
    /// Closures of `values`, one per visibility.
    fn new(set: ClosureSet<N>, values: &[f64]) -> Result<Self> {
        let (precision, lower) = set.whitener()?;
        let data = set.closures.iter().map(|closure| closure.sum(values));
        let data = DVector::from_iterator(set.closures.len(), data);
        Ok(Self { set, data, precision, lower })
    }

    /// Adds the derivatives of the closures, times `slope` each, to those of the values they sum.
    fn pull_back(&self, slope: &DVector<f64>, gradient: &mut [f64]) {
        for (closure, slope) in self.set.closures.iter().zip(slope.iter()) {
            for (index, factor) in closure.terms {
                gradient[index] += factor * slope;
            }
        }
    }
}

/// Closures of all time stamps, whose visibility `k` is number `numbers[k]` of `values`.
fn measure<const N: usize>(
    sets: Vec<ClosureSet<N>>,
    numbers: &[usize],
    values: &[f64],
    remedy: &str,
) -> Result<Vec<Measured<N>>> {
    match sets.is_empty() {
        true => Err(Error::config("data", remedy)),
        false => sets.into_iter().map(|set| Measured::new(set.renumbered(numbers), values)).collect(),
    }
}

fn phases(visibilities: impl Iterator<Item = Complex64>) -> Vec<f64> {
    visibilities.map(|value| value.arg()).collect()
}

fn log_amplitudes(visibilities: impl Iterator<Item = Complex64>) -> Vec<f64> {
    visibilities.map(|value| value.norm().max(FAINTEST).ln()).collect()
}

fn measured_values(observation: &Observation) -> impl Iterator<Item = Complex64> {
    observation.visibilities.iter().map(|row| row.value)
}

/// Closure phases.
///
/// With d the difference of data and model in the independent set of one time stamp and P the inverse of its covariance,
/// the density of the data is proportional to exp(-q / 2),
///
/// q = sum_ij P_ij (sin d_i sin d_j + (1 - cos d_i)(1 - cos d_j)).
///
/// It is smooth and periodic in every phase and depends on d alone, so its normalisation does not depend on the image;
/// for small d it is the Gaussian d^T P d, and for a diagonal P the von Mises density, 2 P_ii (1 - cos d_i).
/// Chi-square is eht-imaging's, on its minimal set: (2/N) sum (1 - cos d) / sigma^2.
#[derive(Debug, Clone)]
pub struct ClosurePhase {
    sets: Vec<Measured<3>>,
    minimal: Vec<MeasuredClosure<3>>,
    rows: usize,
}

impl ClosurePhase {
    /// Closure phases of all visibilities with |V| >= `snr_cut` sigma.
    ///
    /// # Errors
    /// No triangle, or a visibility without amplitude or noise.
    pub fn new(observation: &Observation, snr_cut: f64) -> Result<Self> {
        let (kept, numbers) = above_noise(observation, snr_cut);
        let values = phases(measured_values(observation));
        let remedy = "no triangle of well-measured visibilities at any time; lower vlbi.snr_cut or fit other data products";
        Ok(Self {
            minimal: closure_phases(&kept).into_iter().map(|closure| closure.renumbered(&numbers)).collect(),
            sets: measure(independent_triangles(&kept)?, &numbers, &values, remedy)?,
            rows: observation.visibilities.len(),
        })
    }
}

impl Product for ClosurePhase {
    const NAME: &'static str = "closure_phase";
    const SINGULAR: bool = true;

    fn count(&self) -> usize {
        self.sets.iter().map(|measured| measured.data.len()).sum()
    }

    fn visibilities(&self) -> usize {
        self.rows
    }

    fn log_prob(&self, model: &[Complex64], gradient: &mut [Complex64]) -> f64 {
        let phases = phases(model.iter().copied());
        let mut slopes = vec![0.0; model.len()];
        let mut sum = 0.0;
        for measured in &self.sets {
            let closures = &measured.set.closures;
            let d = DVector::from_iterator(
                closures.len(),
                closures.iter().zip(&measured.data).map(|(closure, data)| data - closure.sum(&phases)),
            );
            let (sine, versine) = (d.map(f64::sin), d.map(|d| 1.0 - d.cos()));
            let (p_sine, p_versine) = (&measured.precision * &sine, &measured.precision * &versine);
            sum += sine.dot(&p_sine) + versine.dot(&p_versine);
            // d q / d phase = -d q / d d, and log p = -q / 2.
            let slope = p_sine.zip_map(&d, |p, d| p * d.cos()) + p_versine.component_mul(&sine);
            measured.pull_back(&slope, &mut slopes);
        }
        for ((gradient, slope), value) in gradient.iter_mut().zip(slopes).zip(model) {
            *gradient += slope * Complex64::I * value / softened(value);
        }
        -0.5 * sum
    }

    fn residuals(&self, model: &[Complex64]) -> Vec<f64> {
        let phases = phases(model.iter().copied());
        let residuals = |measured: &Measured<3>| {
            let pairs = measured.set.closures.iter().zip(&measured.data);
            whiten(&measured.lower, pairs.map(|(closure, data)| wrap(data - closure.sum(&phases))).collect())
        };
        self.sets.iter().flat_map(residuals).collect()
    }

    fn chi2(&self, model: &[Complex64]) -> f64 {
        closure_phase_fit(&self.minimal, model).map_or(f64::NAN, |fit| fit.chi2)
    }

    fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64> {
        let phases = phases(model.iter().copied());
        let mut draws = Vec::new();
        for measured in &self.sets {
            let noise = draw_phase_noise(&measured.precision, &measured.lower, rng);
            let closures = measured.set.closures.iter().zip(noise.iter());
            draws.extend(closures.map(|(closure, noise)| wrap(closure.sum(&phases) + noise)));
        }
        draws
    }
}

/// A draw of the density of [`ClosurePhase`] around zero.
///
/// Given the others each phase has a von Mises density, so Gibbs sweeps are exact; they start from the Gaussian that the
/// density resembles.
fn draw_phase_noise(precision: &DMatrix<f64>, lower: &DMatrix<f64>, rng: &mut Rng) -> DVector<f64> {
    const SWEEPS: usize = 20;
    let mut d = (lower * DVector::from_fn(lower.nrows(), |_, _| rng.normal())).map(wrap);
    for _ in 0..SWEEPS {
        for i in 0..d.len() {
            let (mut cosine, mut sine) = (precision[(i, i)], 0.0);
            for j in (0..d.len()).filter(|&j| j != i) {
                cosine += precision[(i, j)] * (1.0 - d[j].cos());
                sine -= precision[(i, j)] * d[j].sin();
            }
            d[i] = wrap(sine.atan2(cosine) + von_mises(sine.hypot(cosine), rng));
        }
    }
    d
}

/// A draw of the von Mises density exp(k cos d) (Best & Fisher 1979, Applied Statistics 28, 152).
fn von_mises(concentration: f64, rng: &mut Rng) -> f64 {
    /// Below this the density is flat, beyond the other bound a Gaussian, to single precision at least.
    const FLAT: f64 = 1e-6;
    const GAUSSIAN: f64 = 1e6;
    if concentration < FLAT {
        return PI * (2.0 * rng.uniform() - 1.0);
    }
    if concentration > GAUSSIAN {
        return wrap(rng.normal() / concentration.sqrt());
    }
    let tau = 1.0 + (1.0 + 4.0 * concentration * concentration).sqrt();
    let rho = (tau - (2.0 * tau).sqrt()) / (2.0 * concentration);
    let r = (1.0 + rho * rho) / (2.0 * rho);
    loop {
        let z = (PI * rng.uniform()).cos();
        let f = (1.0 + r * z) / (r + z);
        let c = concentration * (r - f);
        let u = 1.0 - rng.uniform();
        if c * (2.0 - c) > u || (c / u).ln() + 1.0 >= c {
            return f.clamp(-1.0, 1.0).acos() * if rng.uniform() < 0.5 { -1.0 } else { 1.0 };
        }
    }
}

/// Log closure amplitudes: a Gaussian with the covariance of their noise.
///
/// The datum is ln |V| itself, whose mean exceeds the truth by E1(snr^2 / 2) / 2 only: 0.006 at a signal-to-noise ratio
/// of 2.5. Below that ln |V| has a long tail and no Gaussian describes it: such visibilities should be cut. Chi-square is eht-imaging's: its minimal set, debiased, errors taken as independent.
#[derive(Debug, Clone)]
pub struct LogClosureAmplitude {
    sets: Vec<Measured<4>>,
    minimal: Vec<MeasuredClosure<4>>,
    rows: usize,
}

impl LogClosureAmplitude {
    /// Log closure amplitudes of all visibilities with |V| >= `snr_cut` sigma.
    ///
    /// # Errors
    /// No quadrangle, or a visibility without amplitude or noise.
    pub fn new(observation: &Observation, snr_cut: f64) -> Result<Self> {
        let (kept, numbers) = above_noise(observation, snr_cut);
        let values = log_amplitudes(measured_values(observation));
        let remedy = "no quadrangle of well-measured visibilities at any time; lower vlbi.snr_cut or leave log_closure_amplitude out of vlbi.data";
        Ok(Self {
            minimal: log_closure_amplitudes(&kept)
                .into_iter()
                .map(|closure| closure.renumbered(&numbers))
                .collect(),
            sets: measure(independent_quadrangles(&kept)?, &numbers, &values, remedy)?,
            rows: observation.visibilities.len(),
        })
    }

    fn differences(measured: &Measured<4>, logs: &[f64]) -> DVector<f64> {
        let closures = &measured.set.closures;
        let pairs = closures.iter().zip(&measured.data);
        DVector::from_iterator(closures.len(), pairs.map(|(closure, data)| data - closure.sum(logs)))
    }
}

impl Product for LogClosureAmplitude {
    const NAME: &'static str = "log_closure_amplitude";
    const SINGULAR: bool = true;

    fn count(&self) -> usize {
        self.sets.iter().map(|measured| measured.data.len()).sum()
    }

    fn visibilities(&self) -> usize {
        self.rows
    }

    fn log_prob(&self, model: &[Complex64], gradient: &mut [Complex64]) -> f64 {
        let logs: Vec<f64> = model.iter().map(|value| 0.5 * softened(value).ln()).collect();
        let mut slopes = vec![0.0; model.len()];
        let mut sum = 0.0;
        for measured in &self.sets {
            let d = Self::differences(measured, &logs);
            let slope = &measured.precision * &d;
            sum += d.dot(&slope);
            measured.pull_back(&slope, &mut slopes);
        }
        for ((gradient, slope), value) in gradient.iter_mut().zip(slopes).zip(model) {
            *gradient += slope * value / softened(value);
        }
        -0.5 * sum
    }

    fn residuals(&self, model: &[Complex64]) -> Vec<f64> {
        let logs = log_amplitudes(model.iter().copied());
        let residuals = |measured: &Measured<4>| {
            whiten(&measured.lower, Self::differences(measured, &logs).as_slice().to_vec())
        };
        self.sets.iter().flat_map(residuals).collect()
    }

    fn chi2(&self, model: &[Complex64]) -> f64 {
        log_closure_amplitude_fit(&self.minimal, model).map_or(f64::NAN, |fit| fit.chi2)
    }

    fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64> {
        let logs = log_amplitudes(model.iter().copied());
        let mut draws = Vec::new();
        for Measured { set, lower, .. } in &self.sets {
            let noise = lower * DVector::from_fn(lower.nrows(), |_, _| rng.normal());
            draws.extend(
                set.closures.iter().zip(noise.iter()).map(|(closure, noise)| closure.sum(&logs) + noise),
            );
        }
        draws
    }
}

/// |V|^2, never zero.
fn softened(value: &Complex64) -> f64 {
    value.norm_sqr() + FAINTEST * FAINTEST
}

#[cfg(test)]
mod tests {
    use super::{
        super::{SHORT_SPACINGS, laws},
        *,
    };
    use crate::instrument::vlbi::{Station, Visibility};

    /// Five stations at two times with 5 % noise, and a model that differs by about that.
    fn observation() -> (Observation, Vec<Complex64>) {
        let mut rng = Rng::new(5);
        let mut visibilities = Vec::new();
        for time in [0.0, 300.0] {
            for a in 0..5 {
                for b in a + 1..5 {
                    let value = Complex64::from_polar(0.2 + 0.5 * rng.uniform(), 6.0 * rng.uniform());
                    visibilities.push(Visibility {
                        time,
                        integration: 10.0,
                        stations: [a, b],
                        u: 0.0,
                        v: 0.0,
                        value,
                        sigma: 0.05 * value.norm() * (1.0 + rng.uniform()),
                    });
                }
            }
        }
        let mut model: Vec<_> = visibilities
            .iter()
            .map(|row| row.value + row.sigma * Complex64::new(rng.normal(), rng.normal()))
            .collect();
        model.push(Complex64::ONE);
        let observation = Observation {
            source: "TEST".into(),
            ra_deg: 0.0,
            dec_deg: 0.0,
            frequency_hz: 230e9,
            bandwidth_hz: 2e9,
            mjd: 57848.0,
            stations: (0..5)
                .map(|i| Station { code: format!("S{i}"), position: [0.0; 3], sefd: None })
                .collect(),
            visibilities,
        };
        (observation, model)
    }

    fn replace<const N: usize>(sets: &mut [Measured<N>], data: &[f64]) {
        let mut data = data.iter();
        for measured in sets {
            measured.data.iter_mut().zip(&mut data).for_each(|(old, new)| *old = *new);
        }
    }

    #[test]
    fn closure_phases_have_gradient_and_draws_of_their_density() {
        let (observation, model) = observation();
        let product = ClosurePhase::new(&observation, 0.0).unwrap();
        laws::gradient_is_exact(&product, &model);
        laws::draws_fit_the_density(&model, |data| {
            let mut product = product.clone();
            data.inspect(|data| replace(&mut product.sets, data));
            product
        });
    }

    #[test]
    fn log_closure_amplitudes_have_gradient_and_draws_of_their_density() {
        let (observation, model) = observation();
        let product = LogClosureAmplitude::new(&observation, 0.0).unwrap();
        laws::gradient_is_exact(&product, &model);
        laws::draws_fit_the_density(&model, |data| {
            let mut product = product.clone();
            data.inspect(|data| replace(&mut product.sets, data));
            product
        });
    }

    #[test]
    fn phases_of_large_noise_are_drawn_from_their_density_too() {
        let precision = DMatrix::from_row_slice(2, 2, &[1.2, -0.5, -0.5, 0.8]);
        let lower = precision.clone().cholesky().unwrap().inverse().cholesky().unwrap().l();
        let density = |a: f64, b: f64| {
            let (s, v) = ([a.sin(), b.sin()], [1.0 - a.cos(), 1.0 - b.cos()]);
            let q: f64 = (0..2)
                .flat_map(|i| (0..2).map(move |j| (i, j)))
                .map(|(i, j)| precision[(i, j)] * (s[i] * s[j] + v[i] * v[j]))
                .sum();
            (-0.5 * q).exp()
        };
        // Exact moments by the rectangle rule, which is spectrally accurate for periodic functions.
        let nodes = || (0..64).map(|k| TAU * k as f64 / 64.0);
        let moment = |f: fn(f64, f64) -> f64| {
            nodes()
                .flat_map(|a| nodes().map(move |b| (a, b)))
                .map(|(a, b)| f(a, b) * density(a, b))
                .sum::<f64>()
        };
        let total = moment(|_, _| 1.0);
        let exact = [moment(|a, _| a.cos()) / total, moment(|a, b| a.sin() * b.sin()) / total];
        let mut rng = Rng::new(3);
        let mut found = [0.0; 2];
        const DRAWS: usize = 20_000;
        for _ in 0..DRAWS {
            let d = draw_phase_noise(&precision, &lower, &mut rng);
            found[0] += d[0].cos() / DRAWS as f64;
            found[1] += d[0].sin() * d[1].sin() / DRAWS as f64;
        }
        for (found, exact) in found.iter().zip(exact) {
            assert!((found - exact).abs() < 0.02, "{found} {exact}");
        }
    }

    #[test]
    fn a_dark_image_gives_finite_values() {
        let (observation, _) = observation();
        finite_when_dark(&ClosurePhase::new(&observation, 0.0).unwrap());
        finite_when_dark(&LogClosureAmplitude::new(&observation, 0.0).unwrap());
    }

    fn finite_when_dark(product: &impl Product) {
        let dark = vec![Complex64::ZERO; product.visibilities() + SHORT_SPACINGS];
        let mut gradient = dark.clone();
        assert!(product.log_prob(&dark, &mut gradient).is_finite());
        assert!(gradient.iter().all(|value| value.is_finite()));
        assert!(product.residuals(&dark).iter().all(|value| value.is_finite()));
    }
}
