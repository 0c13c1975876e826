//! How the sampler came along: the KL bound and the chains.

use std::{fs, path::Path};

use serde_json::Value;

use super::{
    Figure,
    axes::{Axis, Panel},
    canvas::{self, Align, Canvas, Rect},
    style::{BLACK, COLUMN, CURVE, POSTERIOR, REFERENCE, TICK, categorical},
};
use crate::{Error, Result, quantile::quantile};

/// Records of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Traces {
    /// Step and KL bound, nats.
    pub kl_bound: Vec<[f64; 2]>,
    /// Step and mean log likelihood over the chains, nats, stage by stage.
    pub log_likelihood: Vec<(String, Vec<[f64; 2]>)>,
    /// Largest split R-hat, where it was computed.
    pub rhat: Option<f64>,
}

impl Traces {
    /// Reads `metrics.jsonl`, one step a line; lines without the two quantities are passed over.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is not JSON.
    pub fn read(metrics: &Path) -> Result<Self> {
        let text = fs::read_to_string(metrics).map_err(|error| Error::io(metrics, error))?;
        let mut traces = Self::default();
        for (index, line) in text.lines().enumerate() {
            let value: Value = serde_json::from_str(line)
                .map_err(|error| Error::format(metrics, format!("line {}", index + 1), error.to_string()))?;
            let point = |name: &str| Some([(index + 1) as f64, value.get(name)?.as_f64()?]);
            traces.kl_bound.extend(point("kl_bound"));
            if let Some(point) = point("log_likelihood") {
                let stage = value.get("stage").and_then(Value::as_str).unwrap_or_default();
                match traces.log_likelihood.last_mut() {
                    Some((name, points)) if name == stage => points.push(point),
                    _ => traces.log_likelihood.push((stage.to_string(), vec![point])),
                }
            }
        }
        Ok(traces)
    }
}

/// KL bound and log likelihood against steps, and the fit of every chain's draws (chi-square per datum);
/// nothing without records.
///
/// # Errors
/// The figure cannot be drawn.
pub fn traces(traces: &Traces, chains: &[Vec<f64>]) -> Result<Option<Figure>> {
    const HEIGHT: f64 = 92.0;
    const ROOM: f64 = 44.0;
    type Part<'a> = &'a dyn Fn(&Canvas, Rect) -> Result<()>;
    let parts: [(bool, Part); 3] = [
        (!traces.kl_bound.is_empty(), &|canvas, rect| draw_bound(canvas, &traces.kl_bound, rect)),
        (!traces.log_likelihood.is_empty(), &|canvas, rect| {
            draw_stages(canvas, &traces.log_likelihood, rect)
        }),
        (chains.iter().any(|chain| chain.len() > 1), &|canvas, rect| {
            draw_chains(canvas, chains, traces.rhat, rect)
        }),
    ];
    let shown: Vec<Part> = parts.into_iter().filter(|(any, _)| *any).map(|(_, part)| part).collect();
    if shown.is_empty() {
        return Ok(None);
    }
    let svg = canvas::draw(COLUMN, shown.len() as f64 * (HEIGHT + ROOM), |canvas| {
        for (row, part) in shown.iter().enumerate() {
            let top = 14.0 + row as f64 * (HEIGHT + ROOM);
            part(canvas, Rect::new(48.0, top, COLUMN - 62.0, HEIGHT))?;
        }
        Ok(())
    })?;
    let caption = "Records of the sampler: bound on the Kullback-Leibler divergence and mean log likelihood \
                   against steps, and the fit of the draws that were kept, chain by chain; chains that have \
                   mixed cannot be told apart.";
    Ok(Some(Figure::new("traces", caption, svg)))
}

fn draw_bound(canvas: &Canvas, bound: &[[f64; 2]], rect: Rect) -> Result<()> {
    let x = Axis::linear("Step", steps(bound.iter()), 5);
    let y = Axis::linear("KL bound (nats)", most(bound.iter().map(|[_, value]| *value), 0.02), 5);
    let panel = Panel::new(canvas, rect, x, y);
    panel.curve(bound, 0.5, POSTERIOR.faded(0.35))?;
    panel.curve(&smoothed(bound), CURVE, POSTERIOR)?;
    panel.frame(BLACK)
}

fn draw_stages(canvas: &Canvas, stages: &[(String, Vec<[f64; 2]>)], rect: Rect) -> Result<()> {
    let points = || stages.iter().flat_map(|(_, points)| points);
    let range = most(points().map(|[_, value]| *value), 0.15);
    let x = Axis::linear("Step", steps(points()), 5);
    let panel = Panel::new(canvas, rect, x, Axis::linear("Mean log likelihood (nats)", range, 4));
    let mut left = rect.left + 4.0;
    for (index, (stage, points)) in stages.iter().enumerate() {
        let colour = [POSTERIOR, REFERENCE, BLACK][index % 3];
        panel.curve(points, 0.8, colour)?;
        canvas.text([left, rect.top - 6.0], stage, TICK, Align::Left, colour, false)?;
        left += canvas.text_width(stage, TICK)? + 10.0;
    }
    panel.frame(BLACK)
}

fn draw_chains(canvas: &Canvas, chains: &[Vec<f64>], rhat: Option<f64>, rect: Rect) -> Result<()> {
    let longest = chains.iter().map(Vec::len).max().unwrap_or(0) as f64;
    let range = most(chains.iter().flatten().copied(), 0.0);
    let x = Axis::linear("Draw", [0.5, longest + 0.5], 5);
    let panel = Panel::new(canvas, rect, x, Axis::linear("Closure χ² per datum", range, 5));
    for (index, chain) in chains.iter().enumerate() {
        let points: Vec<[f64; 2]> =
            chain.iter().enumerate().map(|(k, value)| [k as f64 + 1.0, *value]).collect();
        let colour = categorical(index, chains.len());
        panel.curve(&points, 0.5, colour.faded(0.6))?;
        panel.markers(&points, 0.8, colour)?;
    }
    panel.frame(BLACK)?;
    let count = format!("{} chains", chains.len());
    panel.title(&rhat.map_or(count.clone(), |rhat| format!("{count}, R-hat ≤ {rhat:.3}")))
}

/// From the first to the last step.
fn steps<'a>(points: impl Iterator<Item = &'a [f64; 2]>) -> [f64; 2] {
    let [first, last] =
        points.fold([f64::INFINITY, 0.0], |[first, last], [step, _]| [first.min(*step), last.max(*step)]);
    [(first - 1.0).min(last - 1.0), last]
}

/// Running mean over a fiftieth of the record.
fn smoothed(bound: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let width = (bound.len() / 50).max(1);
    let mean = |window: &[[f64; 2]]| {
        let sum = window.iter().fold([0.0, 0.0], |[a, b], [x, y]| [a + x, b + y]);
        sum.map(|total| total / window.len() as f64)
    };
    bound.windows(width).step_by(width.div_ceil(4)).map(mean).collect()
}

/// Range that holds all but the most extreme `fraction` at either end, which the beginning of a run often is.
fn most(values: impl Iterator<Item = f64>, fraction: f64) -> [f64; 2] {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    let (low, high) = (quantile(&mut values, fraction), quantile(&mut values, 1.0 - fraction));
    let margin = (0.1 * (high - low)).max(1e-3 * high.abs()).max(1e-9);
    if low.is_finite() { [low - margin, high + margin] } else { [0.0, 1.0] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_without_a_bound_are_passed_over_and_broken_lines_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrics.jsonl");
        let lines = [
            r#"{"step": 0, "stage": "ppm", "kl_bound": 5.5, "log_likelihood": -9}"#,
            r#"{"step": 1, "stage": "ppm", "loss": 1}"#,
            r#"{"step": 0.3, "stage": "gibbs", "log_likelihood": -7}"#,
        ];
        fs::write(&file, lines.join("\n")).unwrap();
        let traces = Traces::read(&file).unwrap();
        assert_eq!(traces.kl_bound, [[1.0, 5.5]]);
        let stages: Vec<&str> = traces.log_likelihood.iter().map(|(stage, _)| stage.as_str()).collect();
        assert_eq!(
            (stages, traces.log_likelihood[1].1.as_slice()),
            (vec!["ppm", "gibbs"], &[[3.0, -7.0]][..])
        );
        fs::write(&file, "{\"step\":0}\nnonsense\n").unwrap();
        assert!(Traces::read(&file).unwrap_err().to_string().contains("line 2"));
    }
}
