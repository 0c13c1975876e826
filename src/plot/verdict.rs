//! What the checks of a run mean, in plain words.

use serde_json::Value;

use super::report::{decimals, with_unit, words};
use crate::{features::ring, posterior::out_of_distribution::FOREIGN};

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

/// R-hat above which the draws do not stand for one distribution.
const DISAGREEMENT: f64 = 1.3;
/// Weight of a kind of image that counts as a mode.
const MODE: f64 = 0.05;
/// Mean square of data left out minus prediction over noise and spread up to which the samples foretell them, and from
/// which on they do not.
const GOOD_FORECAST: f64 = 1.75;
const BAD_FORECAST: f64 = 2.5;

/// How far the images are to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// All checks passed, and simulations with this set-up were recovered.
    Full,
    /// Something weakens the result without contradicting it.
    WithCare,
    /// Something contradicts it.
    No,
}

impl Trust {
    /// In plain words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Full => "trust",
            Self::WithCare => "trust with care",
            Self::No => "do not trust",
        }
    }
}

/// The checks in words.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// How far the images are to be believed.
    pub trust: Trust,
    /// Why not further, one clause each.
    pub reasons: Vec<String>,
    /// One sentence each on fit, convergence, features and warnings.
    pub lines: Vec<String>,
}

/// Reads the verdict off the contents of `diagnostics.json`.
pub fn verdict(diagnostics: &Value) -> Verdict {
    let texts = diagnostics.get("warnings").and_then(Value::as_array);
    let warnings: Vec<&str> = texts.into_iter().flatten().filter_map(Value::as_str).collect();
    let mut lines = fits(diagnostics);
    lines.extend(convergence(diagnostics));
    lines.extend(occupancy(diagnostics));
    lines.extend(forecasts(diagnostics));
    lines.extend(familiarity(diagnostics));
    lines.extend(features(diagnostics));
    lines.extend(calibration(diagnostics));
    lines.extend(warnings.iter().map(|warning| format!("Warning: {warning}")));
    let mut doubts = doubts(diagnostics);
    if !warnings.is_empty() {
        let plural = if warnings.len() == 1 { "a check" } else { "checks" };
        doubts.push((Trust::WithCare, format!("{plural} failed, see the warnings")));
    }
    // The gravest first.
    doubts.sort_by_key(|(trust, _)| std::cmp::Reverse(*trust));
    let trust = doubts.first().map_or(Trust::Full, |(trust, _)| *trust);
    Verdict { trust, reasons: doubts.into_iter().map(|(_, reason)| reason).collect(), lines }
}

/// What speaks against believing the images, and how much.
fn doubts(diagnostics: &Value) -> Vec<(Trust, String)> {
    let number = |key: &str| diagnostics.get(key).and_then(Value::as_f64);
    let mut doubts = Vec::new();
    let mut doubt = |trust: Trust, reason: String| doubts.push((trust, reason));
    for (name, fit) in diagnostics.get("chi2").and_then(Value::as_object).into_iter().flatten() {
        let few = fit.get("count").and_then(Value::as_u64).is_some_and(|count| count < FEW_DATA);
        match fit.get("mean").and_then(Value::as_f64) {
            Some(mean) if !few && mean > BAD_FIT => {
                doubt(Trust::No, format!("the samples do not fit the data ({})", plain(name)))
            }
            Some(mean) if !few && mean > GOOD_FIT => {
                doubt(Trust::WithCare, format!("the samples fit only roughly ({})", plain(name)))
            }
            Some(mean) if !few && mean < OVERFIT => {
                doubt(Trust::WithCare, format!("the samples follow the noise ({})", plain(name)))
            }
            _ => {}
        }
    }
    match number("rhat_max") {
        Some(rhat) if rhat > DISAGREEMENT => doubt(Trust::No, "the chains found different answers".into()),
        Some(rhat) if rhat > AGREEMENT => doubt(Trust::WithCare, "the chains do not quite agree".into()),
        Some(_) => {}
        None => doubt(Trust::WithCare, "there are too few draws to see whether chains agree".into()),
    }
    let effective =
        ["ess_bulk_min", "ess_tail_min"].into_iter().filter_map(number).fold(f64::INFINITY, f64::min);
    if effective < FEW {
        doubt(
            Trust::WithCare,
            format!("the samples are worth {effective:.0} independent ones for the ends of intervals"),
        );
    }
    if let Some((count, mixing)) = kinds(diagnostics).filter(|(count, _)| *count > 1) {
        let rest = if mixing == 0 {
            ", and no chain passes between them: their shares are not measured"
        } else {
            ""
        };
        doubt(Trust::WithCare, format!("the samples show {count} different kinds of image{rest}"));
    }
    for (name, held) in diagnostics.get("held_out").and_then(Value::as_object).into_iter().flatten() {
        match held.get("predictive").and_then(Value::as_f64) {
            Some(off) if off > BAD_FORECAST => {
                doubt(Trust::No, format!("data that were left out are not foretold ({})", plain(name)))
            }
            Some(off) if off > GOOD_FORECAST => doubt(
                Trust::WithCare,
                format!("data that were left out are foretold only roughly ({})", plain(name)),
            ),
            _ => {}
        }
    }
    let foreign = diagnostics.get("out_of_distribution").and_then(|found| found.get("score")?.as_f64());
    if foreign.is_some_and(|score| score > FOREIGN) {
        doubt(Trust::No, "the prior does not know such images".into());
    }
    let biased = diagnostics.get("biased").and_then(Value::as_str);
    match (biased, diagnostics.get("calibrated").and_then(Value::as_bool)) {
        (Some(reason), _) => doubt(Trust::No, format!("not calibrated: {reason}")),
        (None, Some(true)) => {}
        (None, Some(false)) => doubt(
            Trust::No,
            "simulations with this set-up were not recovered within their stated uncertainty".into(),
        ),
        (None, None) => doubt(
            Trust::WithCare,
            "nobody has tested the size of the uncertainties of this set-up on simulations".into(),
        ),
    }
    doubts
}

/// `closure_phase` as it stands inside a sentence.
fn plain(name: &str) -> String {
    words(name).to_lowercase()
}

/// Number of kinds of image with a weight that counts, and of chains that show more than one.
fn kinds(diagnostics: &Value) -> Option<(usize, u64)> {
    let found = diagnostics.get("modes")?;
    let weights = found.get("modes")?.as_array()?.iter().filter_map(|mode| mode.get("weight")?.as_f64());
    Some((weights.filter(|weight| *weight >= MODE).count(), found.get("mixing_chains")?.as_u64()?))
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
        let tail = number("ess_tail_min");
        let few = if tail.unwrap_or(count).min(count) < FEW { ", few for the ends of intervals" } else { "" };
        let tail = tail.map_or(String::new(), |tail| format!(" ({tail:.0} for the tails)"));
        format!(", worth {count:.0} independent ones{tail}{few}")
    });
    Some(format!("{drawn}{agreement} (R-hat {rhat:.2}){}.", effective.unwrap_or_default()))
}

fn occupancy(diagnostics: &Value) -> Option<String> {
    let weights = diagnostics.get("modes")?.get("modes")?.as_array()?.iter();
    let weights: Vec<f64> = weights.filter_map(|mode| mode.get("weight")?.as_f64()).collect();
    let shown: Vec<String> =
        weights.iter().filter(|w| **w >= MODE).map(|w| format!("{:.0} %", 100.0 * w)).collect();
    let rings = diagnostics.get("occupancy").and_then(|found| found.get("ring")?.as_f64());
    let rings = rings.map_or(String::new(), |rings| format!("; {:.0} % show a ring", 100.0 * rings));
    match shown.len() {
        0 => None,
        1 => Some(format!("One kind of image: {} of the samples{rings}.", shown[0])),
        count => Some(format!("{count} kinds of image: {} of the samples{rings}.", shown.join(", "))),
    }
}

fn forecasts(diagnostics: &Value) -> Vec<String> {
    let held = diagnostics.get("held_out").and_then(Value::as_object);
    let line = |(name, foretold): (&String, &Value)| {
        let [mean, predictive] = ["mean", "predictive"].map(|key| foretold.get(key).and_then(Value::as_f64));
        Some(format!(
            "Left out of the fit, {}: χ² per datum {:.2}; with the spread of the samples {:.2}.",
            plain(name),
            mean?,
            predictive?
        ))
    };
    held.into_iter().flatten().filter_map(line).collect()
}

fn familiarity(diagnostics: &Value) -> Option<String> {
    let score = diagnostics.get("out_of_distribution")?.get("score")?.as_f64()?;
    let meaning =
        if score > FOREIGN { "foreign to the prior" } else { "images like those that the prior knows" };
    Some(format!("The samples are {meaning} (denoising loss {score:+.1} standard deviations from its own)."))
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
    if diagnostics.get("biased").is_some_and(Value::is_string) {
        return None;
    }
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
        assert_eq!(verdict.trust, Trust::No);
        assert!(verdict.reasons[0].contains("do not fit the data (amplitude)"), "{:?}", verdict.reasons);
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
        assert!(verdict.trust == Trust::WithCare && verdict.lines.is_empty());
    }

    #[test]
    fn what_the_settings_bias_is_not_trusted_and_not_said_to_be_tested() {
        let verdict = verdict(&json!({ "calibrated": false, "biased": "by choice", "warnings": [] }));
        assert_eq!(verdict.trust, Trust::No);
        assert!(verdict.reasons.iter().any(|reason| reason == "not calibrated: by choice"));
        assert!(verdict.lines.iter().chain(&verdict.reasons).all(|line| !line.contains("recovered")));
    }

    /// A run whose checks all passed, changed in one place at a time.
    #[test]
    fn trust_falls_with_what_speaks_against_it() {
        let good = json!({
            "samples": 192, "chains": 16, "rhat_max": 1.02, "ess_bulk_min": 400.0, "ess_tail_min": 300.0,
            "chi2": { "closure_phase": { "count": 60, "mean": 1.1 } },
            "modes": { "modes": [{ "weight": 0.98, "chains": 16 }, { "weight": 0.02, "chains": 1 }], "mixing_chains": 1 },
            "occupancy": { "ring": 0.98 },
            "out_of_distribution": { "score": 0.4 },
            "held_out": { "closure_phase": { "mean": 1.6, "predictive": 1.1 } },
            "calibrated": true, "warnings": [],
        });
        assert_eq!(verdict(&good).trust, Trust::Full, "{:?}", verdict(&good).reasons);
        let text = verdict(&good).lines.join("\n");
        for expected in [
            "One kind of image: 98 % of the samples; 98 % show a ring.",
            "with the spread of the samples 1.10",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        for (pointer, value, trust, reason) in [
            ("/calibrated", json!(null), Trust::WithCare, "nobody has tested"),
            ("/calibrated", json!(false), Trust::No, "were not recovered"),
            ("/rhat_max", json!(1.2), Trust::WithCare, "do not quite agree"),
            ("/rhat_max", json!(1.6), Trust::No, "different answers"),
            ("/ess_tail_min", json!(40.0), Trust::WithCare, "worth 40"),
            ("/modes/modes/1/weight", json!(0.3), Trust::WithCare, "2 different kinds"),
            ("/out_of_distribution/score", json!(7.0), Trust::No, "does not know"),
            ("/held_out/closure_phase/predictive", json!(9.0), Trust::No, "not foretold"),
            ("/chi2/closure_phase/mean", json!(1.9), Trust::WithCare, "only roughly"),
            ("/warnings", json!(["chains"]), Trust::WithCare, "a check failed"),
        ] {
            let mut changed = good.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            let found = verdict(&changed);
            assert_eq!(found.trust, trust, "{pointer}");
            assert!(found.reasons.iter().any(|text| text.contains(reason)), "{pointer}: {:?}", found.reasons);
        }
    }
}
