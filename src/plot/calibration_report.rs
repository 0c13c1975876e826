//! `report.html` of a calibration: verdict, figures, a table of the functionals, failed replicates, provenance.

use std::path::Path;

use super::{
    Figure,
    report::{
        escaped, figure, file_name, html, list, provenance, section, settings_beside, table, with_unit,
    },
};
use crate::{
    Result,
    calibration::{
        Report,
        rule::{ALPHA, FEWEST},
    },
    io::atomic,
    manifest::Manifest,
};

/// Writes the report of a calibration. The settings shown are those of `config.yaml` in the report's folder.
///
/// # Errors
/// A folder that cannot be written.
pub fn write_calibration(
    report: &Report,
    manifest: &Manifest,
    figures: &[Figure],
    file: &Path,
) -> Result<()> {
    let input = manifest.inputs.first().map_or("set-up", |input| file_name(&input.path));
    let mut body =
        format!("<h1>Antumbra calibration</h1>\n<p class=\"subject\">set-up of {}</p>\n", escaped(input));
    body += &verdict(report);
    body += &figures.iter().map(figure).collect::<String>();
    body += &section("Functionals", functionals(report));
    body += &section("All together", together(report));
    body += &section("Failed replicates", failures(report));
    body += &section("What was assumed", list(&manifest.assumptions));
    body += &section("Provenance", provenance(manifest));
    body += &settings_beside(file);
    atomic::replace_bytes(file, html(input, &body).as_bytes())
}

fn verdict(report: &Report) -> String {
    let class = if report.calibrated == Some(true) { "passed" } else { "failed" };
    let mut lines = vec![
        format!("{} replicates, of which {} failed.", report.replicates, report.failed.len()),
        format!("{} draws each, as good as {} independent ones.", report.draws, report.independent_draws),
    ];
    lines.extend(report.reasons.iter().map(|reason| format!("Reason: {reason}.")));
    lines.push(format!(
        "The rule: {} replicates and {} independent draws; ranks inside the simultaneous 95 % band and intervals inside \
         their binomial bands, both with Holm's correction; spread over skill 0.9 to 1.1. It judges prior, instrument \
         model and solver together, not whether nature is like the prior.",
        FEWEST[0], FEWEST[1]
    ));
    let lines: String = lines.iter().map(|line| format!("<li>{}</li>\n", escaped(line))).collect();
    format!(
        "<div class=\"verdict {class}\">\n<p>{}</p>\n<ul>\n{lines}</ul>\n</div>\n",
        escaped(report.verdict())
    )
}

fn functionals(report: &Report) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.2}"));
    let rows = report.functionals.iter().map(|functional| {
        let percent = |index: usize| {
            let coverage = functional.coverage.get(index);
            coverage.map_or("-".into(), |c| {
                let mark = if c.agrees() { "" } else { " !" };
                format!("{:.0} % ({:.0}–{:.0}){mark}", 100.0 * c.inside, 100.0 * c.band[0], 100.0 * c.band[1])
            })
        };
        let mark = if functional.ranks.p_adjusted < ALPHA { " !" } else { "" };
        let score = functional.crps.filter(|score| score.expected > 0.0);
        vec![
            with_unit(&functional.name).0,
            functional.replicates.to_string(),
            format!("{:.3}{mark}", functional.ranks.p),
            percent(0),
            percent(1),
            number(functional.spread.ratio),
            number(score.map(|score| score.mean / score.expected)),
            number(functional.conformal.first().and_then(|scaling| scaling.factor)),
            number(functional.conformal.get(1).and_then(|scaling| scaling.factor)),
        ]
    });
    let heading = [
        "Functional",
        "Truths",
        "p of ranks",
        "68 % intervals hold (band)",
        "95 % intervals hold (band)",
        "Spread / skill",
        "CRPS / expected",
        "Factor for 68 %",
        "Factor for 95 %",
    ];
    table(&heading, &rows.collect::<Vec<_>>())
}

fn together(report: &Report) -> String {
    let mut rows = Vec::new();
    for coverage in &report.pixels_on_source {
        rows.push(vec![
            format!("{:.0} % intervals of all on-source pixels", 100.0 * coverage.mass),
            format!(
                "hold {:.1} % (band {:.1} to {:.1})",
                100.0 * coverage.inside,
                100.0 * coverage.band[0],
                100.0 * coverage.band[1]
            ),
        ]);
    }
    rows.extend(report.tarp.as_ref().map(|tarp| vec!["TARP".into(), format!("p {:.3}", tarp.p)]));
    rows.extend(report.energy_score.map(|score| {
        vec!["Energy score".into(), format!("{:.3}, expected {:.3}", score.mean, score.expected)]
    }));
    rows.extend(report.spread_over_skill.map(|r| vec!["Spread over skill".into(), format!("{r:.3}")]));
    rows.push(vec!["Time of all replicates".into(), format!("{:.0} s", report.seconds)]);
    table(&["Measure", "Value"], &rows)
}

fn failures(report: &Report) -> String {
    let row = |failure: &crate::calibration::report::Failure| {
        vec![failure.replicate.to_string(), failure.seed.to_string(), failure.error.clone()]
    };
    table(&["Replicate", "Seed", "What went wrong"], &report.failed.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::calibration::{
        bed::{Answer, records},
        judge,
    };

    #[test]
    fn the_page_names_verdict_reasons_and_failures() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.html");
        let mut records = records(Answer::Prior, 40, 1);
        records[3].result = None;
        records[3].error = Some("chain is not <finite>".into());
        let manifest = serde_json::from_value(json!({
            "version": "0.1.0", "seed": 1, "inputs": [{ "path": "data/m87.uvfits", "sha256": "ab" }],
            "prior": "blackhole64", "prior_sha256": null, "config_sha256": "cd", "device": "cpu", "threads": 2,
            "assumptions": [], "timings": [], "network_passes": 0, "peak_memory_mb": null,
        }))
        .unwrap();
        write_calibration(&judge("a", &records), &manifest, &[], &file).unwrap();
        let page = std::fs::read_to_string(&file).unwrap();
        assert!(!page.contains("http") && !page.contains("<script"), "{page}");
        for expected in [
            "no verdict: too few",
            "40 replicates, of which 1 failed",
            "ranks of log_likelihood leave the band",
            "<td>3</td><td>1</td><td>chain is not &lt;finite&gt;</td>",
            "<td>Log likelihood</td><td>40</td>",
        ] {
            assert!(page.contains(expected), "{expected} is not in {page}");
        }
    }
}
