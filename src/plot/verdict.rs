//! What the checks of a run mean, in plain words.

use serde_json::Value;

use super::report::{decimals, with_unit, words};
use crate::features::ring;

/// Chi-square per datum up to which the samples fit, and from which on they do not.
const GOOD_FIT: f64 = 1.5;
const BAD_FIT: f64 = 2.5;
/// Chi-square per datum below which the samples follow the noise.
const OVERFIT: f64 = 0.5;
/// Numbers of data below which chi-square per datum says little about a fit.
const FEW_DATA: u64 = 10;
/// Largest R-hat of chains that agree.
const AGREEMENT: f64 = 1.1;
/// Effective samples below which the ends of intervals are not to be trusted.
const FEW: f64 = 100.0;

/// The checks in words.
pub(crate) struct Verdict {
    /// No check failed.
    pub(crate) passed: bool,
    /// One sentence.
    pub(crate) headline: String,
    /// One sentence each on fit, convergence, features and warnings.
    pub(crate) lines: Vec<String>,
}

/// Reads the verdict off the contents of `diagnostics.json`.
pub(crate) fn verdict(diagnostics: &Value) -> Verdict {
    let texts = diagnostics.get("warnings").and_then(Value::as_array);
    let warnings: Vec<&str> = texts.into_iter().flatten().filter_map(Value::as_str).collect();
    let mut lines = fits(diagnostics);
    lines.extend(convergence(diagnostics));
    lines.extend(features(diagnostics));
    lines.extend(calibration(diagnostics));
    lines.extend(warnings.iter().map(|warning| format!("Warning: {warning}")));
    let headline = match warnings.len() {
        0 => "All checks passed.".to_string(),
        1 => "One check failed; read the warning before using these images.".to_string(),
        count => format!("{count} checks failed; read the warnings before using these images."),
    };
    Verdict { passed: warnings.is_empty(), headline, lines }
}

fn fits(diagnostics: &Value) -> Vec<String> {
    let products = diagnostics.get("chi2").and_then(Value::as_object);
    let line = |(name, fit): (&String, &Value)| {
        let mean = fit.get("mean")?.as_f64()?;
        let few = fit.get("count").and_then(Value::as_u64).is_some_and(|count| count < FEW_DATA);
        let meaning = match mean {
            _ if few => "too few data to judge a fit",
            _ if mean < OVERFIT => "fits more closely than the noise allows; the noise may be overestimated",
            _ if mean <= GOOD_FIT => "fits within the noise",
            _ if mean <= BAD_FIT => "fits only roughly",
            _ => "is not fitted",
        };
        Some(format!("{}: {meaning} (χ² per datum {mean:.2}).", words(name)))
    };
    products.into_iter().flatten().filter_map(line).collect()
}

fn convergence(diagnostics: &Value) -> Option<String> {
    let number = |key: &str| diagnostics.get(key).and_then(Value::as_f64);
    let drawn = match (number("samples"), number("chains")) {
        (Some(samples), Some(chains)) => format!("{samples:.0} samples of {chains:.0} chains: "),
        _ => String::new(),
    };
    let rhat = number("rhat_max")?;
    let agreement = if rhat <= AGREEMENT { "the chains agree" } else { "the chains disagree" };
    let effective = number("ess_bulk_min").map(|count| {
        let few = if count < FEW { ", few for the ends of intervals" } else { "" };
        format!(", worth {count:.0} independent ones{few}")
    });
    Some(format!("{drawn}{agreement} (R-hat {rhat:.2}){}.", effective.unwrap_or_default()))
}

fn features(diagnostics: &Value) -> Option<String> {
    let features = diagnostics.get("features")?;
    let bound = |key: &str| features.get("ring_diameter_uas")?.get(key)?.as_f64();
    let [median, q16, q84] = [bound("median")?, bound("q16")?, bound("q84")?];
    let digits = decimals(0.5 * (q84 - q16));
    let (name, unit) = with_unit("ring_diameter_uas");
    let angle = features.get("ring_position_angle_deg").and_then(|angle| angle.get("median")?.as_f64());
    let bright = angle.map(|angle| format!("; brighter in the {}", ring::side(angle.to_radians())));
    Some(format!(
        "{name} {median:.digits$} {unit}, 68 % interval {q16:.digits$} to {q84:.digits$} {unit}{}.",
        bright.unwrap_or_default()
    ))
}

fn calibration(diagnostics: &Value) -> Option<String> {
    let line = match diagnostics.get("calibrated").and_then(Value::as_bool)? {
        true => "Simulations with this set-up were recovered within their stated uncertainty.",
        false => "Simulations with this set-up were not recovered within their stated uncertainty.",
    };
    Some(line.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bad_fits_and_chains_are_called_so() {
        let diagnostics = json!({
            "samples": 8, "chains": 4, "rhat_max": 1.31, "ess_bulk_min": 9.0, "calibrated": false,
            "chi2": {
                "closure_phase": { "count": 60, "mean": 1.2 }, "visibility": { "count": 90, "mean": 0.1 },
                "amplitude": { "count": 90, "mean": 7.0 }, "flux": { "count": 1, "mean": 0.1 },
            },
            "features": {
                "ring_diameter_uas": { "median": 41.24, "q16": 40.1, "q84": 42.3 },
                "ring_position_angle_deg": { "median": 172.0, "q16": 160.0, "q84": 180.0 },
            },
            "warnings": ["a", "b"],
        });
        let verdict = verdict(&diagnostics);
        let text = verdict.lines.join("\n");
        assert!(!verdict.passed && verdict.headline.starts_with("2 checks failed"));
        for expected in [
            "Closure phase: fits within",
            "Visibility: fits more closely",
            "Amplitude: is not fitted",
            "Flux: too few data",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        assert!(text.contains("the chains disagree (R-hat 1.31), worth 9 independent ones, few"), "{text}");
        assert!(text.contains("were not recovered"), "{text}");
        assert!(
            text.contains("Ring diameter 41.2 µas, 68 % interval 40.1 to 42.3 µas; brighter in the south.")
        );
    }

    #[test]
    fn missing_checks_are_passed_over() {
        let verdict = verdict(&json!({ "rhat_max": null, "chi2": null }));
        assert!(verdict.passed && verdict.lines.is_empty());
    }
}
