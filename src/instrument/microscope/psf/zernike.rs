//! Zernike polynomials in Noll's order: wavefront aberrations of the pupil.

use std::{collections::BTreeMap, f64::consts::PI};

use crate::{Error, Result};

/// Highest Noll index that is accepted: all polynomials up to radial degree 5.
pub const LAST: usize = 21;

/// Wavefront errors by Noll index, root-mean-square optical path difference over the pupil in metres.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Aberrations(BTreeMap<usize, f64>);

impl Aberrations {
    /// From pairs of Noll index and path difference, m; several values of one index add.
    ///
    /// # Errors
    /// An index outside 1 to [`LAST`], or a path difference that is not finite.
    pub fn new(values: impl IntoIterator<Item = (usize, f64)>, place: &str) -> Result<Self> {
        let mut terms = BTreeMap::new();
        for (index, path) in values {
            if !(1..=LAST).contains(&index) {
                return Err(Error::config(place, format!("Noll index {index}; 1 to {LAST} are known")));
            }
            if !path.is_finite() {
                return Err(Error::config(place, format!("path difference {path} m of Noll index {index}")));
            }
            *terms.entry(index).or_insert(0.0) += path;
        }
        Ok(Self(terms))
    }

    /// True if the wavefront is as designed.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|&path| path == 0.0)
    }

    /// Optical path difference, m, at pupil radius `rho` (1 at the edge) and angle `phi`.
    pub fn path(&self, rho: f64, phi: f64) -> f64 {
        self.0.iter().map(|(&index, path)| path * noll(index, rho, phi)).sum()
    }
}

/// Noll's Zernike polynomial `index` (1 is piston) with unit root mean square over the unit disk.
///
/// Source: Noll 1976, J. Opt. Soc. Am. 66, 207.
pub fn noll(index: usize, rho: f64, phi: f64) -> f64 {
    let (degree, order) = degree_and_order(index);
    let factorial = |n: i32| (1..=n).map(f64::from).product::<f64>();
    let m = order.abs();
    let radial: f64 = (0..=(degree - m) / 2)
        .map(|k| {
            let sign = if k % 2 == 0 { 1.0 } else { -1.0 };
            let below = factorial(k) * factorial((degree + m) / 2 - k) * factorial((degree - m) / 2 - k);
            sign * factorial(degree - k) / below * rho.powi(degree - 2 * k)
        })
        .sum();
    let norm = f64::from(degree + 1).sqrt();
    match order {
        0 => norm * radial,
        m if m > 0 => norm * 2f64.sqrt() * radial * (f64::from(m) * phi).cos(),
        m => norm * 2f64.sqrt() * radial * (f64::from(-m) * phi).sin(),
    }
}

/// Radial degree and azimuthal order of a Noll index; cosine terms (positive order) have even indices.
fn degree_and_order(index: usize) -> (i32, i32) {
    let mut degree = 0;
    let mut first = 1;
    while first + degree < index {
        first += degree + 1;
        degree += 1;
    }
    let place = index - first;
    let parity = degree % 2;
    let order = ((place + 1 - parity) / 2 * 2 + parity) as i32;
    (degree as i32, if index.is_multiple_of(2) { order } else { -order })
}

/// Azimuthal sampling of the pupil: enough for wavefronts of a few wavelengths.
const ANGLES: usize = 256;
/// Harmonics below this fraction of the strongest are dropped.
const NEGLIGIBLE: f64 = 1e-8;

/// The azimuthal Fourier harmonics of exp(i k W(rho, phi)) at pupil radii `rho`: pairs of order m and values.
///
/// An undisturbed wavefront has the harmonic 0 alone.
///
/// # Errors
/// An aberration too strong for the azimuthal sampling.
pub(super) fn harmonics(
    aberrations: &Aberrations,
    wavenumber: f64,
    rho: &[f64],
) -> Result<Vec<(i32, Vec<rustfft::num_complex::Complex64>)>> {
    use rustfft::num_complex::Complex64;
    if aberrations.is_empty() {
        return Ok(vec![(0, vec![Complex64::ONE; rho.len()])]);
    }
    let fft = rustfft::FftPlanner::new().plan_fft_forward(ANGLES);
    let spectrum = |&rho: &f64| {
        let angle = |k: usize| 2.0 * PI * k as f64 / ANGLES as f64;
        let mut ring: Vec<_> =
            (0..ANGLES).map(|k| Complex64::cis(wavenumber * aberrations.path(rho, angle(k)))).collect();
        fft.process(&mut ring);
        ring.iter().map(|value| value / ANGLES as f64).collect::<Vec<_>>()
    };
    let rings: Vec<Vec<Complex64>> = rho.iter().map(spectrum).collect();
    let size = |bin: usize| rings.iter().map(|ring| ring[bin].norm()).fold(0.0, f64::max);
    let largest = (0..ANGLES).map(size).fold(0.0, f64::max);
    if size(ANGLES / 2) > 1e-6 * largest {
        return Err(Error::config(
            "aberrations",
            "the wavefront error exceeds several wavelengths; give smaller ones",
        ));
    }
    let order = |bin: usize| if bin < ANGLES / 2 { bin as i32 } else { bin as i32 - ANGLES as i32 };
    let kept = (0..ANGLES).filter(|&bin| size(bin) > NEGLIGIBLE * largest);
    Ok(kept.map(|bin| (order(bin), rings.iter().map(|ring| ring[bin]).collect())).collect())
}

#[cfg(test)]
mod tests {
    use super::{super::quadrature::gauss_legendre, *};

    /// Table I of Noll's paper.
    #[test]
    fn indices_follow_noll() {
        let expected = [
            (0, 0),
            (1, 1),
            (1, -1),
            (2, 0),
            (2, -2),
            (2, 2),
            (3, -1),
            (3, 1),
            (3, -3),
            (3, 3),
            (4, 0),
            (4, 2),
            (4, -2),
            (4, 4),
            (4, -4),
            (5, 1),
            (5, -1),
            (5, 3),
            (5, -3),
            (5, 5),
            (5, -5),
        ];
        let found: Vec<_> = (1..=LAST).map(degree_and_order).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn polynomials_are_orthonormal_over_the_disk() {
        let radii = gauss_legendre(12);
        for i in 1..=LAST {
            for j in 1..=i {
                let mut sum = 0.0;
                for (x, w) in &radii {
                    let rho = 0.5 * (x + 1.0);
                    for k in 0..32 {
                        let phi = PI * f64::from(k) / 16.0;
                        sum += 0.5 * w * rho * noll(i, rho, phi) * noll(j, rho, phi) / 16.0;
                    }
                }
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((sum - expected).abs() < 1e-12, "{i} {j}: {sum}");
            }
        }
    }

    #[test]
    fn unknown_terms_and_huge_wavefronts_are_refused() {
        assert!(Aberrations::new([(22, 1e-9)], "x").is_err());
        assert!(Aberrations::new([(0, 1e-9)], "x").is_err());
        assert!(Aberrations::new([(5, f64::NAN)], "x").is_err());
        let huge = Aberrations::new([(21, 1e-3)], "x").unwrap();
        assert!(harmonics(&huge, 1.2e7, &[0.5, 1.0]).is_err());
    }
}
