//! Modified Bessel functions of the first kind, as the Rice distribution needs them.

/// From here on the asymptotic series is exact to double precision.
const LARGE: f64 = 30.0;

/// ln I0(x) and I1(x) / (x I0(x)) for x >= 0 (power series, or the asymptotic one of Abramowitz & Stegun 9.7.1).
pub(super) fn log_i0_and_ratio(x: f64) -> (f64, f64) {
    if x < LARGE {
        let quarter = 0.25 * x * x;
        let (mut zero, mut one) = (1.0, 0.5);
        let (mut zero_term, mut one_term) = (1.0, 0.5);
        let mut k = 1.0;
        while zero_term > f64::EPSILON * zero {
            zero_term *= quarter / (k * k);
            one_term *= quarter / (k * (k + 1.0));
            zero += zero_term;
            one += one_term;
            k += 1.0;
        }
        return (zero.ln(), one / zero);
    }
    let series = |order: f64| {
        let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
        while k < 2.0 * x && f64::abs(term) > f64::EPSILON {
            term *= -(4.0 * order * order - (2.0 * k - 1.0) * (2.0 * k - 1.0)) / (8.0 * k * x);
            sum += term;
            k += 1.0;
        }
        sum
    };
    let zero: f64 = series(0.0);
    (x - 0.5 * (std::f64::consts::TAU * x).ln() + zero.ln(), series(1.0) / zero / x)
}

#[cfg(test)]
mod tests {
    use super::log_i0_and_ratio;

    /// `scipy.special.i0e, i1e` 1.17: log(i0e(x)) + x and i1e(x) / i0e(x) / x.
    #[test]
    fn values_agree_with_scipy() {
        for (x, log, ratio) in [
            (0.5, 0.061_549_719_185_481_19, 0.484_999_225_161_604_03),
            (29.9, 27.286_385_310_555_094, 0.032_880_696_764_742_67),
            (30.1, 27.483_023_208_951_185, 0.032_665_976_649_625_49),
            (700.0, 695.805_699_998_443_4, 0.001_427_550_655_454_894_7),
        ] {
            let found = log_i0_and_ratio(x);
            assert!((found.0 - log).abs() < 1e-13 * log.max(1.0), "{x}: {found:?}");
            assert!((found.1 - ratio).abs() < 1e-12 * ratio, "{x}: {found:?}");
        }
        assert_eq!(log_i0_and_ratio(0.0), (0.0, 0.5));
    }
}
