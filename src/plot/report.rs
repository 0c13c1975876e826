//! `report.html`: one self-contained page with verdict, figures, checks and provenance.

use std::{fmt::Write as _, path::Path};

use serde::Serialize;
use serde_json::Value;

use super::{
    Figure,
    canvas::base64,
    verdict::{Trust, verdict},
};
use crate::{Error, Result, io::atomic, manifest::Manifest};

const STYLE: &str = include_str!("report.css");

/// Writes the report of a run. The settings shown are those of `config.yaml` in the report's folder.
///
/// `diagnostics` is what `diagnostics.json` holds.
///
/// # Errors
/// A folder that cannot be written.
pub fn write<D: Serialize>(
    diagnostics: &D,
    manifest: &Manifest,
    figures: &[Figure],
    file: &Path,
) -> Result<()> {
    let diagnostics = serde_json::to_value(diagnostics)
        .map_err(|error| Error::format(file, "diagnostics", format!("{error}; please report this")))?;
    let page = page(&diagnostics, manifest, figures, &settings_beside(file));
    atomic::replace_bytes(file, page.as_bytes())
}

/// The settings in the folder of a report; without them it is still worth having.
pub(super) fn settings_beside(file: &Path) -> String {
    let settings = std::fs::read_to_string(file.with_file_name("config.yaml")).unwrap_or_default();
    if settings.is_empty() {
        settings
    } else {
        section("Settings", format!("<pre>{}</pre>\n", escaped(&settings)))
    }
}

/// The whole page.
fn page(diagnostics: &Value, manifest: &Manifest, figures: &[Figure], settings: &str) -> String {
    let input = manifest.inputs.first().map_or("run", |input| file_name(&input.path));
    let mut body = format!("<h1>Antumbra report</h1>\n<p class=\"subject\">{}</p>\n", escaped(input));
    body += &verdict_section(diagnostics);
    body += &figures.iter().map(figure).collect::<String>();
    body += &section("Fit of the samples", fit_table(diagnostics));
    body += &section("Image features", feature_table(diagnostics));
    body += &section("Comparison with the truth", truth_table(diagnostics));
    body += &section("What was assumed", list(&manifest.assumptions));
    body += &section("Provenance", provenance(manifest));
    body += settings;
    html(input, &body)
}

/// A self-contained page.
pub(super) fn html(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Antumbra: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        escaped(title)
    )
}

fn verdict_section(diagnostics: &Value) -> String {
    let verdict = verdict(diagnostics);
    let class = match verdict.trust {
        Trust::Full => "passed",
        Trust::WithCare => "care",
        Trust::No => "failed",
    };
    let reasons: String =
        verdict.reasons.iter().map(|reason| format!("<li>{}</li>\n", escaped(reason))).collect();
    let reasons =
        if reasons.is_empty() { reasons } else { format!("<ul class=\"reasons\">\n{reasons}</ul>\n") };
    let lines: String = verdict.lines.iter().map(|line| format!("<li>{}</li>\n", escaped(line))).collect();
    format!(
        "<div class=\"verdict {class}\">\n<p>Verdict: {}</p>\n{reasons}<ul>\n{lines}</ul>\n</div>\n",
        verdict.trust.words()
    )
}

pub(super) fn figure(figure: &Figure) -> String {
    format!(
        "<figure id=\"{0}\">\n<img alt=\"{0}\" src=\"data:image/svg+xml;base64,{1}\">\n\
         <figcaption>{2}</figcaption>\n</figure>\n",
        escaped(&figure.name),
        base64(figure.svg.as_bytes()),
        escaped(&figure.caption)
    )
}

/// A section, or nothing without contents.
pub(super) fn section(title: &str, contents: String) -> String {
    if contents.is_empty() { contents } else { format!("<h2>{title}</h2>\n{contents}") }
}

pub(super) fn list(items: &[String]) -> String {
    let items: String = items.iter().map(|item| format!("<li>{}</li>\n", escaped(item))).collect();
    if items.is_empty() { items } else { format!("<ul>\n{items}</ul>\n") }
}

/// Rows of cells under a heading, or nothing without rows.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| -> String {
        cells.map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect()
    };
    let mut text = format!("<table>\n<tr>{}</tr>\n", cells("th", &mut heading.iter().copied()));
    for row in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "<tr>{}</tr>", cells("td", &mut row.iter().map(String::as_str)));
    }
    text + "</table>\n"
}

fn fit_table(diagnostics: &Value) -> String {
    let products = diagnostics.get("chi2").and_then(Value::as_object);
    let rows = products.into_iter().flatten().filter_map(|(name, fit)| {
        let mean = fit.get("mean")?.as_f64()?;
        let samples = fit.get("per_sample").and_then(Value::as_array);
        let samples: Vec<f64> = samples.into_iter().flatten().filter_map(Value::as_f64).collect();
        let low = samples.iter().copied().fold(mean, f64::min);
        let high = samples.iter().copied().fold(mean, f64::max);
        Some(vec![words(name), format!("{mean:.2}"), format!("{low:.2} to {high:.2}")])
    });
    table(&["Data product", "χ² per datum, mean", "range over the samples"], &rows.collect::<Vec<_>>())
}

fn feature_table(diagnostics: &Value) -> String {
    let features = diagnostics.get("features").and_then(Value::as_object);
    let rows = features.into_iter().flatten().filter_map(|(name, interval)| {
        let bound = |key: &str| interval.get(key)?.as_f64();
        let (name, unit) = with_unit(name);
        let [median, q16, q84] = [bound("median")?, bound("q16")?, bound("q84")?];
        let digits = decimals(0.5 * (q84 - q16));
        Some(vec![
            name,
            format!("{median:.digits$} {unit}"),
            format!("{q16:.digits$} to {q84:.digits$} {unit}"),
        ])
    });
    table(&["Feature", "Median", "68 % interval"], &rows.collect::<Vec<_>>())
}

fn truth_table(diagnostics: &Value) -> String {
    let truth = diagnostics.get("truth").and_then(Value::as_object);
    let rows = truth.into_iter().flatten();
    let rows = rows.filter_map(|(name, value)| Some(vec![words(name), format!("{:.3}", value.as_f64()?)]));
    table(&["Measure", "Value"], &rows.collect::<Vec<_>>())
}

pub(super) fn provenance(manifest: &Manifest) -> String {
    let mut rows = vec![
        ["Antumbra".to_string(), manifest.version.clone()],
        ["Seed".to_string(), manifest.seed.to_string()],
    ];
    for input in &manifest.inputs {
        rows.push([format!("Input {}", input.path), format!("SHA-256 {}", input.sha256)]);
    }
    let weights = manifest.prior_sha256.as_ref().map(|hash| format!(", SHA-256 {hash}"));
    rows.push(["Prior".to_string(), manifest.prior.clone() + &weights.unwrap_or_default()]);
    rows.push(["Settings".to_string(), format!("SHA-256 {}", manifest.config_sha256)]);
    rows.push(["Device".to_string(), format!("{}, {} threads", manifest.device, manifest.threads)]);
    for run in &manifest.merged {
        rows.push([format!("Merged run {}", run.directory), format!("seed {}", run.seed)]);
    }
    for timing in &manifest.timings {
        rows.push([format!("Time for {}", timing.part), format!("{:.1} s", timing.seconds)]);
    }
    let rows: Vec<_> = rows.into_iter().map(Vec::from).collect();
    table(&["Item", "Value"], &rows)
}

/// `closure_phase` to `Closure phase`.
pub(crate) fn words(name: &str) -> String {
    let mut text = name.replace('_', " ");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// `ring_diameter_uas` to `Ring diameter` and `µas`.
pub(crate) fn with_unit(name: &str) -> (String, &'static str) {
    let units = [("_uas", "µas"), ("_deg", "°"), ("_jy", "Jy")];
    let known = units.into_iter().find_map(|(suffix, unit)| Some((words(name.strip_suffix(suffix)?), unit)));
    known.unwrap_or_else(|| (words(name), ""))
}

/// Decimals that show two significant digits of an uncertainty.
pub(crate) fn decimals(uncertainty: f64) -> usize {
    if uncertainty > 0.0 { (1.0 - uncertainty.log10().floor()).clamp(0.0, 4.0) as usize } else { 2 }
}

pub(super) fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// Text that is safe inside HTML.
pub(super) fn escaped(text: &str) -> String {
    let entity = |c: char| match c {
        '&' => "&amp;".to_string(),
        '<' => "&lt;".to_string(),
        '>' => "&gt;".to_string(),
        '"' => "&quot;".to_string(),
        other => other.to_string(),
    };
    text.chars().map(entity).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::Input;

    #[test]
    fn the_page_needs_nothing_from_outside_and_hides_what_is_missing() {
        let manifest = Manifest {
            version: "0.1.0".into(),
            seed: 3,
            inputs: vec![Input { path: "data/<m87>.uvfits".into(), sha256: "ab12".into() }],
            prior: "blackhole64".into(),
            prior_sha256: None,
            config_sha256: "cd34".into(),
            device: "cpu".into(),
            threads: 2,
            assumptions: vec!["flux 0.6 Jy".into()],
            timings: Vec::new(),
            network_passes: 0,
            peak_memory_mb: None,
            merged: Vec::new(),
        };
        let diagnostics = json!({
            "samples": 64, "chains": 32, "rhat_max": 1.02, "ess_bulk_min": 410.0,
            "chi2": { "closure_phase": { "mean": 1.03, "per_sample": [0.9, 1.2] } },
            "features": { "ring_diameter_uas": { "median": 41.24, "q16": 40.1, "q84": 42.3 } },
            "truth": { "psnr_db": null }, "warnings": ["beware of <b>"],
        });
        let svg = "<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_string();
        let figures = [Figure { name: "uv".into(), caption: "a & b".into(), svg }];
        let page = page(&diagnostics, &manifest, &figures, "<pre>seed: 3\n</pre>");
        assert!(!page.contains("http") && !page.contains("<script") && !page.contains("<link"), "{page}");
        for expected in [
            "&lt;m87&gt;.uvfits",
            "<td>Closure phase</td><td>1.03</td><td>0.90 to 1.20</td>",
            "<td>Ring diameter</td><td>41.2 µas</td><td>40.1 to 42.3 µas</td>",
            "beware of &lt;b&gt;",
            "a &amp; b",
            "<pre>seed: 3",
            "data:image/svg+xml;base64,PHN2Zy",
        ] {
            assert!(page.contains(expected), "{expected} is not in {page}");
        }
        assert!(!page.contains("truth"), "a section without numbers");
    }
}
