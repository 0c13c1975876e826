//! Closure phase against time, one panel per triangle.

use std::{collections::BTreeMap, f64::consts::TAU};

use super::{
    Figure,
    axes::{Axis, Panel},
    canvas::{self, Align, Rect},
    predicted::{Predicted, central_95_of_angles},
    style::{BLACK, GREY, LABEL, PAGE, POSTERIOR, THIN, TICK},
};
use crate::{
    Result,
    instrument::vlbi::{
        Observation,
        closure::{Triangle, minimal_triangles},
        likelihood::wrap,
    },
};

/// Triangles with fewer closure phases are shown last; more panels than this do not fit a page.
const LARGEST: usize = 20;
const GAP: f64 = 6.0;
/// Room for the stations' codes above each panel.
const TITLE: f64 = 12.0;

/// Closure phases of the minimal set with their noise, and the posterior's 95 % band if there is a posterior.
///
/// # Errors
/// The figure cannot be drawn.
pub fn closure_phases(observation: &Observation, predicted: Option<&Predicted>) -> Result<Option<Figure>> {
    let mut by_stations: BTreeMap<[usize; 3], Vec<Triangle>> = BTreeMap::new();
    for triangle in minimal_triangles(observation) {
        by_stations.entry(triangle.stations).or_default().push(triangle);
    }
    let mut panels: Vec<_> = by_stations.into_iter().collect();
    let total = panels.len();
    panels.sort_by_key(|(_, triangles)| std::cmp::Reverse(triangles.len()));
    panels.truncate(LARGEST);
    let hours = panels.iter().flat_map(|(_, triangles)| triangles).map(|triangle| triangle.time / 3600.0);
    let [first, last] = hours.fold([f64::INFINITY, f64::NEG_INFINITY], |[a, b], t| [a.min(t), b.max(t)]);
    if panels.is_empty() {
        return Ok(None);
    }
    let margin = (0.05 * (last - first)).max(0.05);
    let columns = if panels.len() % 4 != 0 && panels.len() % 3 == 0 { 3 } else { 4 };
    let rows = panels.len().div_ceil(columns);
    let (left, top, height) = (42.0, 2.0, 66.0);
    let width = (PAGE - left - 4.0) / columns as f64 - GAP;
    let bottom = top + rows as f64 * (height + TITLE);
    let svg = canvas::draw(PAGE, bottom + 32.0, |canvas| {
        for (index, (stations, triangles)) in panels.iter().enumerate() {
            let (row, column) = (index / columns, index % columns);
            let rect = Rect::new(
                left + column as f64 * (width + GAP),
                top + TITLE + row as f64 * (height + TITLE),
                width,
                height,
            );
            let x = Axis::linear("", [first - margin, last + margin], 4);
            let y = Axis::linear("", [-200.0, 200.0], 4).every(90.0);
            let lowest = index + columns >= panels.len();
            let x = if lowest { x } else { x.unnamed() };
            let y = if column == 0 { y } else { y.unnamed() };
            let panel = Panel::new(canvas, rect, x, y);
            panel.curve(&[[first - margin, 0.0], [last + margin, 0.0]], 0.4, GREY)?;
            draw_triangle(&panel, observation, triangles, predicted)?;
            panel.frame(BLACK)?;
            let code = |station: &usize| observation.stations[*station].code.as_str();
            let name = stations.iter().map(code).collect::<Vec<_>>().join("–");
            canvas.text(
                [rect.left + width / 2.0, rect.top - 5.0],
                &name,
                TICK,
                Align::Centre,
                BLACK,
                false,
            )?;
        }
        let middle = (top + bottom) / 2.0;
        canvas.text([10.0, middle], "Closure phase (deg)", LABEL, Align::Centre, BLACK, true)?;
        let centre = left + (PAGE - left) / 2.0;
        canvas.text([centre, bottom + 22.0], "Time (h UTC)", LABEL, Align::Centre, BLACK, false)
    })?;
    let mut caption = format!("{}: closure phases ± 1σ on {} triangles", observation.source, panels.len());
    if total > panels.len() {
        caption += &format!(" (the {} with most data of {total})", panels.len());
    }
    caption += if predicted.is_some() { "; band: central 95 % of the posterior samples." } else { "." };
    Ok(Some(Figure::new("closure_phase", caption, svg)))
}

fn draw_triangle(
    panel: &Panel,
    observation: &Observation,
    triangles: &[Triangle],
    predicted: Option<&Predicted>,
) -> Result<()> {
    if let Some(predicted) = predicted {
        let mut near = 0.0;
        let mut band = Vec::new();
        for triangle in triangles {
            let [low, high] = central_95_of_angles(&predicted.closure_phases(triangle), near);
            near = 0.5 * (low + high);
            band.push((triangle.time / 3600.0, [low, high]));
        }
        for turns in [-1.0, 0.0, 1.0] {
            let shifted = |bound: f64| (bound + turns * TAU).to_degrees();
            let shifted: Vec<_> = band.iter().map(|(x, bounds)| (*x, bounds.map(shifted))).collect();
            panel.band(&shifted, POSTERIOR.faded(0.35))?;
            if shifted.len() == 1 {
                panel.error_bars(&shifted, 2.4, POSTERIOR.faded(0.35))?;
            }
        }
    }
    let phases: Vec<f64> = observation.visibilities.iter().map(|row| row.value.arg()).collect();
    for triangle in triangles {
        let phase = wrap(triangle.sum(&phases)).to_degrees();
        let sigma = triangle.sigma(observation).to_degrees();
        let hours = triangle.time / 3600.0;
        for turns in [-360.0, 0.0, 360.0] {
            let phase = phase + turns;
            panel.error_bars(&[(hours, [phase - sigma, phase + sigma])], THIN, BLACK)?;
        }
        panel.markers(&[[hours, phase]], 1.2, BLACK)?;
    }
    Ok(())
}
