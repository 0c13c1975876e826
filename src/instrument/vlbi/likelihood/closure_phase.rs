//! Closure phases.

use std::{
    f64::consts::{PI, TAU},
    sync::Arc,
};

use nalgebra::{DMatrix, DVector};
use rustfft::num_complex::Complex64;

use super::{
    Product,
    closures::{Sums, balance, softened},
};
use crate::{
    Error, Result,
    instrument::vlbi::{
        Observation,
        closure::{above_noise, independent_triangles, whiten},
        products::{MeasuredClosure, closure_phase_fit, closure_phases},
    },
    rng::Rng,
};

/// Closure phases of all time stamps.
///
/// With d the difference of data and model in the independent set of one time stamp and P the inverse of its covariance,
/// the density of the data is proportional to exp(-q / 2),
///
/// q = sum_ij P_ij (sin d_i sin d_j + (1 - cos d_i)(1 - cos d_j)).
///
/// It is smooth and periodic in every phase and depends on d alone, so its normalisation does not depend on the image;
/// for small d it is the Gaussian d^T P d, and for a diagonal P the von Mises density, 2 P_ii (1 - cos d_i). The covariance
/// is that at the measured amplitudes, whose errors are independent of those of the phases.
/// Chi-square is eht-imaging's, on its minimal set: (2/N) sum (1 - cos d) / sigma^2.
#[derive(Debug, Clone)]
pub struct ClosurePhase {
    stamps: Arc<[Stamp]>,
    minimal: Vec<MeasuredClosure<3>>,
    rows: usize,
    /// Noise, Jy, against which the density is balanced.
    noise: f64,
}

/// The independent set of one time stamp.
#[derive(Debug, Clone)]
struct Stamp {
    sums: Sums,
    covariance: DMatrix<f64>,
    precision: DMatrix<f64>,
    /// Cholesky factor of the covariance.
    lower: DMatrix<f64>,
}

impl ClosurePhase {
    /// Closures of all visibilities with |V| >= `snr_cut` sigma.
    ///
    /// # Errors
    /// No closure, or a visibility without amplitude or noise.
    pub fn new(observation: &Observation, snr_cut: f64) -> Result<Self> {
        let (kept, numbers) = above_noise(observation, snr_cut);
        let phases = phases_of(observation.visibilities.iter().map(|row| &row.value));
        let mut stamps = Vec::new();
        for set in independent_triangles(&kept)? {
            let (precision, lower) = set.whitener()?;
            let covariance = set.covariance.clone();
            let sums = Sums::new(set.renumbered(&numbers), &phases);
            stamps.push(Stamp { sums, covariance, precision, lower });
        }
        if stamps.is_empty() {
            return Err(Error::config(
                "data",
                "no triangle of well-measured visibilities at any time; lower vlbi.snr_cut or fit other data products",
            ));
        }
        let minimal = closure_phases(&kept).into_iter().map(|closure| closure.renumbered(&numbers)).collect();
        Ok(Self { stamps: stamps.into(), minimal, rows: observation.visibilities.len(), noise: 0.0 })
    }
}

impl Product for ClosurePhase {
    const NAME: &'static str = "closure_phase";
    const SINGULAR: bool = true;

    fn count(&self) -> usize {
        self.stamps.iter().map(|stamp| stamp.sums.data.len()).sum()
    }

    fn visibilities(&self) -> usize {
        self.rows
    }

    fn balanced(&self, noise: f64) -> Option<Self> {
        Some(Self { noise, ..self.clone() })
    }

    fn log_prob(&self, model: &[Complex64], gradient: &mut [Complex64]) -> f64 {
        let phases = phases_of(model);
        let mut slopes = vec![0.0; model.len()];
        let mut sum = 0.0;
        for Stamp { sums, precision, .. } in &*self.stamps {
            let (misfit, slope) = misfit(&(&sums.data - sums.of(&phases)), precision);
            sum += misfit;
            // The difference falls as the model's closure rises, and log p = -misfit / 2.
            sums.pull_back(&slope, &mut slopes);
        }
        for ((gradient, slope), value) in gradient.iter_mut().zip(slopes).zip(model) {
            *gradient += slope * Complex64::I * value / softened(value);
        }
        let mut value = -0.5 * sum;
        if self.noise > 0.0 {
            for Stamp { sums, covariance, .. } in &*self.stamps {
                let powers: Vec<f64> = sums.visibilities.iter().map(|&row| softened(&model[row])).collect();
                let Some((more, slopes)) = balance(sums, covariance, &powers, self.noise) else {
                    return f64::NEG_INFINITY;
                };
                value += more;
                for ((&row, slope), power) in sums.visibilities.iter().zip(slopes).zip(powers) {
                    gradient[row] += slope * model[row] / power;
                }
            }
        }
        value
    }

    fn residuals(&self, model: &[Complex64]) -> Vec<f64> {
        let phases = phases_of(model);
        let whitened = |Stamp { sums, lower, .. }: &Stamp| {
            whiten(lower, (&sums.data - sums.of(&phases)).map(wrap).as_slice().to_vec())
        };
        self.stamps.iter().flat_map(whitened).collect()
    }

    fn chi2(&self, model: &[Complex64]) -> f64 {
        closure_phase_fit(&self.minimal, model).map_or(f64::NAN, |fit| fit.chi2)
    }

    fn draw(&self, model: &[Complex64], rng: &mut Rng) -> Vec<f64> {
        let phases = phases_of(model);
        let mut draws = Vec::new();
        for Stamp { sums, precision, lower, .. } in &*self.stamps {
            let drawn = sums.of(&phases) + draw_phase_noise(precision, lower, rng);
            draws.extend(drawn.iter().copied().map(wrap));
        }
        draws
    }
}

fn phases_of<'a>(visibilities: impl IntoIterator<Item = &'a Complex64>) -> Vec<f64> {
    visibilities.into_iter().map(|visibility| visibility.arg()).collect()
}

/// -2 log density of the differences `d` whose noise has the inverse covariance `precision`, and half its gradient.
fn misfit(d: &DVector<f64>, precision: &DMatrix<f64>) -> (f64, DVector<f64>) {
    let turned: Vec<(f64, f64)> = d.iter().map(|d| d.sin_cos()).collect();
    let mut sum = 0.0;
    let slopes = precision.column_iter().zip(&turned).map(|(column, (sine, cosine))| {
        let weighed = column.iter().zip(&turned);
        let (p_sine, p_versine) =
            weighed.fold((0.0, 0.0), |(s, v), (p, (sine, cosine))| (s + p * sine, v + p * (1.0 - cosine)));
        sum += sine * p_sine + (1.0 - cosine) * p_versine;
        cosine * p_sine + sine * p_versine
    });
    let slopes = DVector::from_iterator(d.len(), slopes);
    (sum, slopes)
}

/// The angle in (-pi, pi] that differs from `angle` by full turns.
pub fn wrap(angle: f64) -> f64 {
    let wrapped = angle - TAU * (angle / TAU).round();
    if wrapped <= -PI { PI } else { wrapped }
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

#[cfg(test)]
mod tests {
    use super::{
        super::{
            SHORT_SPACINGS,
            closures::example::{observation, replace},
            laws,
        },
        *,
    };

    #[test]
    fn closure_phases_have_gradient_and_draws_of_their_density() {
        let (observation, model) = observation();
        let product = ClosurePhase::new(&observation, 0.0).unwrap();
        laws::gradient_is_exact(&product, &model);
        laws::gradient_is_exact(&product.balanced(0.2).unwrap(), &model);
        laws::draws_fit_the_density(&model, |data| {
            let mut product = product.clone();
            data.inspect(|data| {
                replace(Arc::make_mut(&mut product.stamps).iter_mut().map(|stamp| &mut stamp.sums), data)
            });
            product
        });
    }

    #[test]
    fn a_dark_image_gives_finite_closure_phases() {
        let product = ClosurePhase::new(&observation().0, 0.0).unwrap();
        laws::dark_images_have_finite_values(&product, product.rows + SHORT_SPACINGS);
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
}
