//! Weighted particles: how many count, and which of them take the places of all.

/// Weights relative to the largest.
fn relative(log_weights: &[f64]) -> Vec<f64> {
    let largest = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    log_weights.iter().map(|w| (w - largest).exp()).collect()
}

/// Kish's effective number of particles, (sum w)^2 / sum w^2.
pub(crate) fn effective_count(log_weights: &[f64]) -> f64 {
    let weights = relative(log_weights);
    weights.iter().sum::<f64>().powi(2) / weights.iter().map(|w| w * w).sum::<f64>()
}

/// Systematic resampling: as many indices as weights, index i about in proportion to its weight (Kitagawa 1996).
pub(crate) fn systematic(log_weights: &[f64], offset: f64) -> Vec<usize> {
    systematic_some(log_weights, log_weights.len(), offset)
}

/// [`systematic`] with `count` indices.
pub(crate) fn systematic_some(log_weights: &[f64], count: usize, offset: f64) -> Vec<usize> {
    let weights = relative(log_weights);
    let step = weights.iter().sum::<f64>() / count as f64;
    let (mut chosen, mut reached) = (Vec::with_capacity(count), 0.0);
    for (index, weight) in weights.iter().enumerate() {
        reached += weight;
        while chosen.len() < count && (chosen.len() as f64 + offset) * step < reached {
            chosen.push(index);
        }
    }
    // Rounding may leave the last place open.
    chosen.resize(count, weights.len() - 1);
    chosen
}

/// [`systematic_some`] of weights in an order of which neighbours are alike (see [`super::arrangement`]): every part of the order
/// gets its share but for one, where a random order leaves the scatter of independent draws.
pub(crate) fn systematic_along(
    order: &[usize],
    log_weights: &[f64],
    count: usize,
    offset: f64,
) -> Vec<usize> {
    let ordered: Vec<f64> = order.iter().map(|&i| log_weights[i]).collect();
    systematic_some(&ordered, count, offset).into_iter().map(|place| order[place]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resampling_is_in_proportion_to_the_weights() {
        let log_weights: Vec<f64> = [1.0, 2.0, 5.0, 0.0, 2.0].map(f64::ln).into();
        let mut counts = [0.0_f64; 5];
        for i in 0..100 {
            systematic(&log_weights, f64::from(i) / 100.0).into_iter().for_each(|k| counts[k] += 0.01);
        }
        let expected = [0.5, 1.0, 2.5, 0.0, 1.0];
        assert!(counts.iter().zip(expected).all(|(c, e)| (c - e).abs() < 0.03), "{counts:?}");
    }
}
