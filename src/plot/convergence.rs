//! How solvers approach exact posteriors as their particles grow in number.

use super::{
    Figure,
    axes::{Axis, Panel},
    canvas::{self, Align, Canvas, Rect},
    style::{BLACK, COLUMN, CURVE, GREY, TICK, categorical},
};
use crate::{
    Result,
    posterior::beds::{Outcome, Row},
};

/// Height of a panel, and room for its title and axis.
const HEIGHT: f64 = 110.0;
const ROOM: f64 = 46.0;
/// Width of the column of names beside the panels.
const NAMES: f64 = 76.0;

/// One panel for each bed: the sliced distance from the exact posterior against the number of draws, a curve for each
/// solver, and that between exact draws in grey.
///
/// # Errors
/// The figure cannot be drawn.
pub fn convergence(rows: &[Row]) -> Result<Figure> {
    let beds = super::beds::distinct(rows.iter().map(|row| row.bed.as_str()));
    let solvers = super::beds::distinct(rows.iter().map(|row| row.solver.as_str()));
    let svg = canvas::draw(COLUMN + NAMES, (HEIGHT + ROOM) * beds.len() as f64, |canvas| {
        for (index, bed) in beds.iter().enumerate() {
            let top = 16.0 + (HEIGHT + ROOM) * index as f64;
            panel(canvas, Rect::new(46.0, top, COLUMN - 56.0, HEIGHT), rows, bed, &solvers)?;
        }
        Ok(())
    })?;
    let caption = "Sliced Wasserstein distance from as many exact draws, against the number of draws. Methods that are exact for \
                   many particles follow the grey curve, which is the distance between two sets of exact draws; the \
                   others level off at their bias."
        .to_string();
    Ok(Figure::new("convergence", caption, svg))
}

fn panel(canvas: &Canvas, rect: Rect, rows: &[Row], bed: &str, solvers: &[&str]) -> Result<()> {
    let curve = |solver: &str| -> Vec<[f64; 2]> {
        let own = rows.iter().filter(|row| row.bed == bed && row.solver == solver);
        own.filter_map(|row| match &row.outcome {
            Outcome::Draws(score) if score.sliced_w2 > 0.0 => Some([row.draws as f64, score.sliced_w2]),
            _ => None,
        })
        .collect()
    };
    let curves: Vec<Vec<[f64; 2]>> = solvers.iter().map(|solver| curve(solver)).collect();
    let points = || curves.iter().flatten();
    let range = |i: usize, margin: f64| {
        let low = points().map(|point| point[i]).fold(f64::INFINITY, f64::min);
        let high = points().map(|point| point[i]).fold(0.0, f64::max);
        if low <= high { [low / margin, high * margin] } else { [0.5, 2.0] }
    };
    let axes = [Axis::logarithmic("Draws", range(0, 1.3)), Axis::logarithmic("Sliced W₂", range(1, 1.3))];
    let [x, y] = axes;
    let panel = Panel::new(canvas, rect, x, y);
    for (index, (solver, points)) in solvers.iter().zip(&curves).enumerate() {
        let colour = if *solver == "exact" { GREY } else { categorical(index, solvers.len()) };
        panel.curve(points, CURVE, colour)?;
        panel.markers(points, 1.8, colour)?;
        let place = [rect.right() + 8.0, rect.top + 4.0 + 10.0 * index as f64];
        canvas.text(place, solver, TICK, Align::Left, colour, false)?;
    }
    panel.frame(BLACK)?;
    panel.title(bed)
}
