//! Mean and variance of the log amplitude of a visibility with complex Gaussian noise.
//!
//! With s = |V| / sigma the power (|V| / sigma)^2 / 2 of what is measured is a gamma variable of order k + 1, k Poisson with the
//! mean s^2 / 2 (the amplitude has a Rice distribution), and the logarithm of a gamma variable has the mean psi(k + 1) and the
//! variance psi'(k + 1). So both moments are sums over k.

use std::{
    f64::consts::{LN_2, PI},
    sync::LazyLock,
};

/// Steps of s in the table.
const STEP: f64 = 0.1;
/// Largest s in the table. Beyond it the mean is ln s, and the variance 1/s^2 + 1/s^4, to 1e-6.
const LARGEST: f64 = 12.0;
/// Euler's constant.
const EULER: f64 = 0.577_215_664_901_532_9;

/// Moments of a measured ln |V|.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    pub(super) mean: f64,
    pub(super) variance: f64,
    /// Their derivatives by the logarithm of the true amplitude.
    pub(super) slopes: [f64; 2],
}

/// Moments of ln |V| that a true `amplitude` has with noise of `sigma` in its real and in its imaginary part.
pub(super) fn log_amplitude(amplitude: f64, sigma: f64) -> Moments {
    let s = amplitude / sigma;
    if s >= LARGEST {
        let inverse = (s * s).recip();
        let slopes = [1.0, -2.0 * inverse - 4.0 * inverse * inverse];
        return Moments { mean: amplitude.ln(), variance: inverse + inverse * inverse, slopes };
    }
    let place = s / STEP;
    let left = (place as usize).min(TABLE.len() - 2);
    let between = |moment: usize| hermite(TABLE[left][moment], TABLE[left + 1][moment], place - left as f64);
    let ([mean, rise], [variance, fall]) = (between(0), between(1));
    Moments { mean: mean + sigma.ln(), variance, slopes: [s * rise, s * fall] }
}

/// Mean and variance for noise of 1, each with its derivative by s, at multiples of `STEP`.
static TABLE: LazyLock<Vec<[[f64; 2]; 2]>> = LazyLock::new(|| {
    let nodes = (LARGEST / STEP).round() as usize;
    (0..=nodes).map(|node| sums(node as f64 * STEP)).collect()
});

/// Value and derivative of the cubic through two values and derivatives `STEP` apart, at the fraction `t` of the way.
fn hermite([y0, d0]: [f64; 2], [y1, d1]: [f64; 2], t: f64) -> [f64; 2] {
    let (rise, bend) = (y1 - y0, STEP * (d0 + d1) - 2.0 * (y1 - y0));
    let skew = rise - STEP * d0 - bend;
    let value = y0 + t * (STEP * d0 + t * (skew + t * bend));
    [value, (STEP * d0 + t * (2.0 * skew + 3.0 * t * bend)) / STEP]
}

/// Mean and variance for noise of 1, each with its derivative by s: sums over the Poisson variable.
fn sums(s: f64) -> [[f64; 2]; 2] {
    let power = 0.5 * s * s;
    // psi and psi' at k + 1, and the chance of k.
    let (mut psi, mut trigamma, mut chance) = (-EULER, PI * PI / 6.0, (-power).exp());
    let (mut first, mut second, mut second_rise) = (0.0, 0.0, 0.0);
    let most = (power + 12.0 * power.sqrt() + 40.0) as usize;
    for k in 1..=most {
        let step = (k as f64).recip();
        let (next_psi, next_trigamma) = (psi + step, trigamma - step * step);
        let square = trigamma + psi * psi;
        first += chance * psi;
        second += chance * square;
        second_rise += chance * (next_trigamma + next_psi * next_psi - square);
        (psi, trigamma, chance) = (next_psi, next_trigamma, chance * power * step);
    }
    // The mean of psi rises with the power by (1 - e^-power) / power, the power with s by s.
    let first_rise = if power > 0.0 { -(-power).exp_m1() / power } else { 1.0 };
    let mean = [0.5 * (LN_2 + first), 0.5 * s * first_rise];
    let variance = [0.25 * (second - first * first), 0.25 * s * (second_rise - 2.0 * first * first_rise)];
    [mean, variance]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Of noise alone: ln 2 and Euler's constant, and pi^2 / 24; of a strong visibility: its own logarithm, and (sigma / |V|)^2.
    #[test]
    fn limits_are_known() {
        let dark = log_amplitude(0.0, 1.0);
        assert!((dark.mean - 0.5 * (LN_2 - EULER)).abs() < 1e-12, "{dark:?}");
        assert!((dark.variance - PI * PI / 24.0).abs() < 1e-12, "{dark:?}");
        let bright = log_amplitude(3.0, 0.01);
        assert!((bright.mean - 3.0_f64.ln()).abs() < 1e-12 && (bright.variance * 9e4 - 1.0).abs() < 1e-4);
        let [near, far] = [LARGEST - 1e-9, LARGEST].map(|s| log_amplitude(s, 1.0));
        assert!((near.mean - far.mean).abs() < 1e-6 && (near.variance - far.variance).abs() < 1e-5);
    }

    #[test]
    fn moments_are_those_of_many_draws() {
        let mut rng = Rng::new(2);
        for s in [0.33, 1.27, 2.55, 5.31] {
            let draws: Vec<f64> =
                (0..200_000).map(|_| f64::hypot(s + rng.normal(), rng.normal()).ln()).collect();
            let count = draws.len() as f64;
            let mean = draws.iter().sum::<f64>() / count;
            let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / count;
            let expected = log_amplitude(2.0 * s, 2.0);
            assert!((expected.mean - 2.0_f64.ln() - mean).abs() < 0.005, "{s}: {expected:?} {mean}");
            assert!((expected.variance / variance - 1.0).abs() < 0.02, "{s}: {expected:?} {variance}");
        }
    }

    #[test]
    fn slopes_are_derivatives() {
        for amplitude in [0.05_f64, 0.4, 1.23, 3.0, 11.96, 20.0] {
            let at = |shift: f64| log_amplitude((amplitude.ln() + shift).exp(), 1.0);
            let (above, below, here) = (at(1e-6), at(-1e-6), at(0.0));
            let slopes = [(above.mean - below.mean) / 2e-6, (above.variance - below.variance) / 2e-6];
            for (found, exact) in here.slopes.iter().zip(slopes) {
                assert!((found - exact).abs() < 1e-6, "{amplitude}: {found} {exact}");
            }
        }
    }
}
