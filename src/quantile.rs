//! Quantiles of a set of numbers.

/// Quantile of `values` by linear interpolation between order statistics; sorts them. NaN for no values.
pub fn quantile(values: &mut [f64], probability: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let position = probability.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    values[below] + (position - below as f64) * (values[above] - values[below])
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_interpolate_between_the_sorted_values() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!([0.0, 0.5, 0.9, 1.0].map(|p| quantile(&mut values, p)), [1.0, 2.5, 3.7, 4.0]);
        assert!(quantile(&mut [], 0.5).is_nan());
    }
}
