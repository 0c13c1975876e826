//! Holm's correction for many tests at once (Holm 1979, "A simple sequentially rejective multiple test procedure").

/// Adjusted p-values: a test whose one is below alpha fails, and some test fails by chance with at most probability alpha.
pub fn adjusted(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (rank, &index) in order.iter().enumerate() {
        let factor = (p_values.len() - rank) as f64;
        largest = largest.max((factor * p_values[index]).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::adjusted;

    #[test]
    fn factors_fall_and_values_do_not() {
        assert_eq!(adjusted(&[0.02, 0.01, 0.5, 0.021]), [0.06, 0.04, 0.5, 0.06]);
        assert_eq!(adjusted(&[0.9, 0.8]), [1.0, 1.0]);
        assert!(adjusted(&[]).is_empty());
    }
}
