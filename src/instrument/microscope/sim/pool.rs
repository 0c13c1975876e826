//! What the angles say together about the period, which one grating gives them all.

/// Relative standard deviation of periods around their mean, assumed: one grating and one objective make all of them.
const SCATTER: f64 = 1e-3;
/// Standard error of a peak's place in steps, times its height over the median modulus of the noise: sqrt(3) / pi standard
/// deviations of the noise's parts over the height, for light that fills the field evenly.
const PLACE: f64 = 0.468;

/// A frequency's length as measured, and the significance of its peak.
pub(super) struct Length {
    pub(super) value: f64,
    pub(super) significance: f64,
}

/// By which factor each of the lengths changes if it is drawn towards their mean as far as noise leaves it open; `step` is
/// the distance between whole shifts in the unit of the lengths.
pub(super) fn pooled(lengths: &[Length], step: f64) -> Vec<f64> {
    let scatter = |length: &Length| (SCATTER * length.value).powi(2);
    let error = |length: &Length| (PLACE * step / length.significance).powi(2);
    let weight = |length: &Length| 1.0 / (scatter(length) + error(length));
    let total: f64 = lengths.iter().map(weight).sum();
    let mean = lengths.iter().map(|length| weight(length) * length.value).sum::<f64>() / total;
    let drawn = |length: &Length| mean + scatter(length) * weight(length) * (length.value - mean);
    lengths.iter().map(|length| drawn(length) / length.value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharp_lengths_stay_and_blurred_ones_join_them() {
        let found = |significance: [f64; 3]| {
            let measured = [5.0, 5.02, 5.04];
            let lengths: Vec<Length> = measured
                .into_iter()
                .zip(significance)
                .map(|(value, significance)| Length { value, significance })
                .collect();
            let factors = pooled(&lengths, 0.05);
            [0, 1, 2].map(|i| measured[i] * factors[i])
        };
        for (found, measured) in found([1e4; 3]).iter().zip([5.0, 5.02, 5.04]) {
            assert!((found - measured).abs() < 1e-6, "{found}");
        }
        let [first, second, third] = found([1e4, 1e4, 0.1]);
        assert!((first - 5.0).abs() < 1e-6 && (second - 5.02).abs() < 1e-6);
        assert!((third - 5.01).abs() < 1e-3, "{third}");
    }
}
