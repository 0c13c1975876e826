//! The (u, v) coverage: where in the Fourier plane the array measured.

use std::collections::BTreeMap;

use super::{
    Figure,
    axes::{Axis, Panel},
    canvas::{self, Align, Canvas, Rect},
    sky::{circle, fringe_spacing},
    style::{BLACK, Colour, GREY, THIN, TICK, categorical},
};
use crate::{Result, instrument::vlbi::Observation, units::MICROARCSECOND};

/// Side of the square panel, points.
const SIDE: f64 = 168.0;
/// Height of a line of the legend.
const LINE: f64 = 8.0;
/// More baselines than this get colours but no legend.
const LARGEST_LEGEND: usize = 84;

/// (u, v) coverage with both conjugates, coloured by baseline.
///
/// # Errors
/// The figure cannot be drawn.
pub fn coverage(observation: &Observation) -> Result<Figure> {
    let tracks = tracks(observation);
    let lines = (SIDE / LINE) as usize;
    let columns = if tracks.len() > LARGEST_LEGEND { 0 } else { tracks.len().div_ceil(lines) };
    // Capitals of the font are about two thirds of its size wide.
    let longest = tracks.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let column = 14.0 + 0.66 * TICK * longest as f64;
    let (left, top) = (38.0, 8.0);
    let width = left + SIDE + 8.0 + columns as f64 * column;
    let svg = canvas::draw(width, top + SIDE + 32.0, |canvas| {
        panel(canvas, Rect::new(left, top, SIDE, SIDE), &tracks)?;
        for (index, (name, ..)) in tracks.iter().enumerate().take(columns * lines) {
            let x = left + SIDE + 12.0 + (index / lines) as f64 * column;
            let y = top + (0.5 + (index % lines) as f64) * LINE;
            canvas.disk([x, y], 1.8, categorical(index, tracks.len()))?;
            canvas.text([x + 5.0, y], name, TICK, Align::Left, BLACK, false)?;
        }
        Ok(())
    })?;
    let caption = format!(
        "(u, v) coverage of {}: {} visibilities on {} baselines, each with its conjugate. Dashed circles: \
         fringe spacings.",
        observation.source,
        observation.visibilities.len(),
        tracks.len()
    );
    Ok(Figure::new("uv_coverage", caption, svg))
}

/// Name and points (Glambda) of every baseline, in station order.
type Track = (String, Vec<[f64; 2]>);

fn tracks(observation: &Observation) -> Vec<Track> {
    let mut tracks: BTreeMap<[usize; 2], Vec<[f64; 2]>> = BTreeMap::new();
    for visibility in &observation.visibilities {
        let [a, b] = visibility.stations;
        let track = tracks.entry([a.min(b), a.max(b)]).or_default();
        track.push([visibility.u / 1e9, visibility.v / 1e9]);
    }
    let code = |index: usize| observation.stations.get(index).map_or("?", |station| station.code.as_str());
    tracks.into_iter().map(|([a, b], points)| (format!("{}–{}", code(a), code(b)), points)).collect()
}

fn panel(canvas: &Canvas, rect: Rect, tracks: &[Track]) -> Result<()> {
    let longest = tracks.iter().flat_map(|(_, points)| points).map(|[u, v]| u.abs().max(v.abs()));
    let longest = longest.fold(0.0, f64::max);
    let limit = if longest > 0.0 { 1.12 * longest } else { 1.0 };
    let axis = |name: &str, range| Axis::linear(format!("{name} (Gλ)"), range, 5);
    let panel = Panel::new(canvas, rect, axis("u", [-limit, limit]), axis("v", [-limit, limit]));
    for spacing in fringes(limit) {
        let radius = 1e-9 / (spacing * MICROARCSECOND);
        for pair in circle(radius).chunks(2) {
            panel.curve(pair, THIN, GREY)?;
        }
        let diagonal = radius * std::f64::consts::FRAC_1_SQRT_2;
        if diagonal < 0.9 * limit {
            let [x, y] = panel.place(diagonal, -diagonal);
            let text = format!("{spacing} µas");
            canvas.text([x + 3.0, y + 5.0], &text, TICK, Align::Left, GREY, false)?;
        }
    }
    for (index, (_, points)) in tracks.iter().enumerate() {
        let colour: Colour = categorical(index, tracks.len());
        let conjugates = points.iter().flat_map(|[u, v]| [[*u, *v], [-u, -v]]).collect::<Vec<_>>();
        panel.markers(&conjugates, 1.0, colour)?;
    }
    panel.frame(BLACK)
}

/// Round fringe spacings, microarcseconds, whose circles fit the panel.
fn fringes(limit_glambda: f64) -> Vec<f64> {
    let finest = fringe_spacing(limit_glambda * 1e9);
    let decade = 10f64.powf(finest.log10().floor());
    let candidates = [1.0, 2.5, 5.0, 10.0, 25.0, 50.0].map(|factor| factor * decade);
    candidates.into_iter().filter(|spacing| *spacing > 1.02 * finest).take(2).collect()
}
