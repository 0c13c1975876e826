//! Solvers against beds: the sliced distance from the exact posterior in units of that between exact draws.

use super::{
    Figure,
    canvas::{self, Align, Canvas, Rect},
    colormap::Colormap,
    style::{BLACK, GREY, LABEL, TICK, WHITE},
};
use crate::{
    Result,
    posterior::beds::{Outcome, Row},
};

/// Width and height of a cell, and room for names at the left and the top.
const CELL: [f64; 2] = [26.0, 13.0];
const LEFT: f64 = 88.0;
const TOP: f64 = 78.0;
/// Ratio at which the colour scale ends.
const WORST: f64 = 30.0;

/// Draws a table of cells, a row for each solver and a column for each bed, coloured by the logarithm of the ratio.
///
/// # Errors
/// The figure cannot be drawn.
pub fn beds(rows: &[Row]) -> Result<Figure> {
    let beds = distinct(rows.iter().map(|row| row.bed.as_str()));
    let solvers = distinct(rows.iter().map(|row| row.solver.as_str()).filter(|name| *name != "exact"));
    let width = LEFT + CELL[0] * beds.len() as f64 + 6.0;
    let height = TOP + CELL[1] * solvers.len() as f64 + 6.0;
    let svg = canvas::draw(width, height, |canvas| {
        for (column, bed) in beds.iter().enumerate() {
            let x = LEFT + CELL[0] * (column as f64 + 0.5);
            let middle = TOP - 4.0 - 0.5 * canvas.text_width(bed, TICK)?;
            canvas.text([x, middle], bed, TICK, Align::Centre, BLACK, true)?;
            for (line, solver) in solvers.iter().enumerate() {
                let top = TOP + CELL[1] * line as f64;
                let rect = Rect::new(LEFT + CELL[0] * column as f64, top, CELL[0], CELL[1]);
                cell(canvas, rect, ratio(rows, bed, solver))?;
            }
        }
        for (line, solver) in solvers.iter().enumerate() {
            let y = TOP + CELL[1] * (line as f64 + 0.5);
            canvas.text([LEFT - 4.0, y], solver, LABEL, Align::Right, BLACK, false)?;
        }
        Ok(())
    })?;
    let caption = "Sliced Wasserstein distance of each solver's draws from exact draws, divided by the distance between \
                   two sets of exact draws: 1 cannot be told from exact. Empty: the solver refuses or fails."
        .to_string();
    Ok(Figure::new("beds", caption, svg))
}

fn cell(canvas: &Canvas, rect: Rect, ratio: Option<f64>) -> Result<()> {
    let Some(ratio) = ratio else {
        return canvas.text(rect.centre(), "–", TICK, Align::Centre, GREY, false);
    };
    let badness = (ratio.max(1.0).ln() / WORST.ln()).min(1.0);
    let [r, g, b] = Colormap::Heat.colour(1.0 - 0.85 * badness);
    canvas.fill(rect, super::style::Colour::new(r, g, b))?;
    let text = if ratio < 9.95 { format!("{ratio:.1}") } else { format!("{ratio:.0}") };
    let ink = if badness > 0.55 { WHITE } else { BLACK };
    canvas.text(rect.centre(), &text, TICK, Align::Centre, ink, false)
}

/// Distance over that of exact draws.
fn ratio(rows: &[Row], bed: &str, solver: &str) -> Option<f64> {
    let distance = |solver: &str| {
        let row = rows.iter().find(|row| row.bed == bed && row.solver == solver)?;
        match &row.outcome {
            Outcome::Draws(score) => Some(score.sliced_w2),
            Outcome::Failed(_) => None,
        }
    };
    Some(distance(solver)? / distance("exact")?).filter(|ratio| ratio.is_finite())
}

/// Names in the order of their first mention.
pub(super) fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    names.for_each(|name| {
        if !found.contains(&name) {
            found.push(name);
        }
    });
    found
}
