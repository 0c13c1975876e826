//! The binomial distribution: what a count of successes may be by chance.

/// Probabilities of at most 0, 1, .. `count` successes in `count` trials of probability `p`.
pub fn cumulative(count: usize, p: f64) -> Vec<f64> {
    let n = count as f64;
    let ln_choose = |k: f64| libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0);
    let ln_power = |base: f64, exponent: f64| if exponent > 0.0 { exponent * base.ln() } else { 0.0 };
    let mut sum = 0.0;
    let term = |k: f64| (ln_choose(k) + ln_power(p, k) + ln_power(1.0 - p, n - k)).exp();
    let mut cumulative: Vec<f64> = (0..=count)
        .map(|k| {
            sum += term(k as f64);
            sum
        })
        .collect();
    let total = sum;
    cumulative.iter_mut().for_each(|value| *value /= total);
    cumulative
}

/// Twice the smaller tail that holds `k` successes, at most 1; `cumulative` is that of [`cumulative`].
pub fn two_sided(cumulative: &[f64], k: usize) -> f64 {
    let below = cumulative.get(k).copied().unwrap_or(1.0);
    let above = 1.0 - k.checked_sub(1).and_then(|k| cumulative.get(k)).copied().unwrap_or(0.0);
    (2.0 * below.min(above)).min(1.0)
}

/// Smallest and largest number of successes whose [`two_sided`] probability is at least `alpha`.
pub fn band(cumulative: &[f64], alpha: f64) -> [usize; 2] {
    let inside = |k: &usize| two_sided(cumulative, *k) >= alpha;
    let low = (0..cumulative.len()).find(inside).unwrap_or(0);
    let high = (0..cumulative.len()).rev().find(inside).unwrap_or(cumulative.len().saturating_sub(1));
    [low, high]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_throws_of_a_coin() {
        let coin = cumulative(10, 0.5);
        assert!((coin[0] - 1.0 / 1024.0).abs() < 1e-12 && (coin[5] - 638.0 / 1024.0).abs() < 1e-12);
        assert!((two_sided(&coin, 1) - 22.0 / 1024.0).abs() < 1e-12);
        assert_eq!((two_sided(&coin, 5), band(&coin, 0.05)), (1.0, [2, 8]));
        assert_eq!(band(&cumulative(3, 1.0), 0.05), [3, 3]);
    }
}
