//! Visibility amplitude against baseline length.

use super::{
    Figure,
    axes::{Axis, Panel},
    canvas::{self, Align, Rect},
    predicted::{Predicted, central_95},
    style::{BLACK, COLUMN, CURVE, POSTERIOR, THIN, TICK},
};
use crate::{Result, instrument::vlbi::Observation, quantile::quantile};

/// Amplitudes with their noise, and the posterior's 95 % interval for each if there is a posterior.
///
/// # Errors
/// The figure cannot be drawn.
pub fn amplitudes(observation: &Observation, predicted: Option<&Predicted>) -> Result<Figure> {
    let rows = &observation.visibilities;
    let length = |index: usize| rows[index].u.hypot(rows[index].v) / 1e9;
    let data: Vec<[f64; 2]> = (0..rows.len()).map(|k| [length(k), rows[k].value.norm()]).collect();
    let noise: Vec<(f64, [f64; 2])> = data
        .iter()
        .zip(rows)
        .map(|([x, y], row)| (*x, [(y - row.sigma).max(f64::MIN_POSITIVE), y + row.sigma]))
        .collect();
    let intervals: Vec<(f64, [f64; 2])> = predicted.map_or_else(Vec::new, |predicted| {
        (0..rows.len()).map(|k| (length(k), central_95(predicted.amplitudes(k)))).collect()
    });
    let lowest = intervals.iter().map(|(_, [low, _])| *low);
    let [low, high] = amplitude_range(data.iter().map(|[_, y]| *y).chain(lowest));
    let longest = data.iter().map(|[x, _]| *x).fold(0.0, f64::max).max(1e-3);
    let rect = Rect::new(42.0, 8.0, COLUMN - 50.0, 150.0);
    let svg = canvas::draw(COLUMN, rect.bottom() + 32.0, |canvas| {
        let x = Axis::linear("Baseline length (Gλ)", [-0.03 * longest, 1.04 * longest], 6);
        let panel = Panel::new(canvas, rect, x, Axis::logarithmic("Visibility amplitude (Jy)", [low, high]));
        panel.error_bars(&intervals, 2.4, POSTERIOR.faded(0.35))?;
        panel.error_bars(&noise, THIN, BLACK)?;
        panel.markers(&data, 1.1, BLACK)?;
        panel.frame(BLACK)?;
        let [x, y] = [rect.right() - 70.0, rect.top + 10.0];
        canvas.line(&[[x, y - 4.0], [x, y + 4.0]], THIN, BLACK)?;
        canvas.disk([x, y], 1.1, BLACK)?;
        canvas.text([x + 5.0, y], "data ± 1σ", TICK, Align::Left, BLACK, false)?;
        if predicted.is_some() {
            let y = y + 10.0;
            canvas.line(&[[x, y - 4.0], [x, y + 4.0]], 2.0 * CURVE, POSTERIOR.faded(0.35))?;
            canvas.text([x + 5.0, y], "posterior 95 %", TICK, Align::Left, BLACK, false)?;
        }
        Ok(())
    })?;
    let mut caption = format!("{}: visibility amplitudes against baseline length.", observation.source);
    if predicted.is_some() {
        caption += " Bars: central 95 % of what the posterior samples predict without station gains; where the \
                    image is fitted to closures, the data may lie off by the gains.";
    }
    Ok(Figure::new("amplitude", caption, svg))
}

/// Range of a logarithmic axis that holds all but the faintest 2 % of amplitudes.
fn amplitude_range(amplitudes: impl Iterator<Item = f64>) -> [f64; 2] {
    let mut amplitudes: Vec<f64> = amplitudes.filter(|value| value.is_finite() && *value > 0.0).collect();
    let (low, high) = (quantile(&mut amplitudes, 0.02), quantile(&mut amplitudes, 1.0));
    if low.is_finite() { [0.4 * low, 2.0 * high] } else { [0.1, 1.0] }
}
