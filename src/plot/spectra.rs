//! Figures in the frequency domain: up to where samples agree, and whether residuals are white.

use ndarray::{ArrayView3, Axis as Dimension};

use super::{
    Figure,
    axes::{Axis, Panel},
    canvas::{self, Align, Rect},
    colormap::Colormap,
    sky::{colour_bar, paint},
    style::{BLACK, CURVE, GREY, PAGE, POSTERIOR, REFERENCE, THIN},
};
use crate::{
    Result,
    features::rings::{AGREEMENT, Rings, resolved},
};

/// Height of the panels, points.
const HEIGHT: f64 = 150.0;
/// Residuals beyond so many standard deviations get the colours' ends.
const LIMIT: f64 = 4.0;

/// The correlation of samples with each other, ring by ring, with the cut-off frequency of the objective in 1/m.
///
/// # Errors
/// The figure cannot be drawn.
pub(super) fn agreement(correlation: &[[f64; 2]], cut_off: f64, source: &str) -> Result<Figure> {
    let end = frequency_end(correlation, cut_off);
    let svg = canvas::draw(PAGE, HEIGHT + 46.0, |canvas| {
        let rect = Rect::new(46.0, 12.0, PAGE - 62.0, HEIGHT);
        let x = Axis::linear("Spatial frequency (1/µm)", [0.0, end], 8);
        let panel = Panel::new(canvas, rect, x, Axis::linear("Ring correlation", [-0.1, 1.05], 6));
        panel.curve(&[[0.0, 0.0], [end, 0.0]], THIN, GREY)?;
        panel.curve(&[[0.0, AGREEMENT], [end, AGREEMENT]], THIN, BLACK)?;
        upright(&panel, cut_off * 1e-6, [-0.1, 1.05])?;
        panel.curve(&micrometres(correlation), CURVE, POSTERIOR)?;
        panel.note([0.985, 0.75], "1/7", Align::Right, BLACK)?;
        let beside = cut_off * 1e-6 / end + 0.01;
        panel.note([beside, 0.06], "cut-off of the objective", Align::Left, REFERENCE)?;
        panel.frame(BLACK)
    })?;
    let words = match resolved(correlation) {
        Some(frequency) => format!("It falls below 1/7 at {:.0} nm.", 1e9 / frequency),
        None => "It stays above 1/7 at all frequencies.".into(),
    };
    let caption = format!(
        "{source}: Fourier ring correlation between posterior samples of different chains. Where it is high the data \
         decide what the image shows, where it is low the prior does. {words}"
    );
    Ok(Figure::new("ring_correlation", caption, svg))
}

/// Residuals `[F, Y, X]` of a sample over their standard deviations: the first plane or frame, and the power of all
/// against frequency, on camera pixels of `pitch` metres (Y, X).
///
/// # Errors
/// The figure cannot be drawn.
pub(super) fn whiteness(
    residuals: ArrayView3<f32>,
    pitch: [f64; 2],
    cut_off: f64,
    source: &str,
) -> Result<Figure> {
    let (_, rows, columns) = residuals.dim();
    let power = Rings::new([rows, columns], pitch).power(residuals.outer_iter());
    let first = residuals.index_axis(Dimension(0), 0).mapv(f64::from);
    let end = frequency_end(&power, cut_off);
    let top = power.iter().map(|point| point[1]).fold(2.0, f64::max) * 1.05;
    let svg = canvas::draw(PAGE, HEIGHT + 46.0, |canvas| {
        let side = HEIGHT / rows.max(columns) as f64;
        let picture = Rect::new(8.0, 12.0, side * columns as f64, side * rows as f64);
        paint(canvas, picture, first.view(), Colormap::Grey, [-LIMIT, LIMIT])?;
        canvas.outline(picture, 0.6, BLACK)?;
        let bar = Rect::new(picture.right() + 4.0, 12.0, 7.0, picture.height);
        colour_bar(canvas, bar, Colormap::Grey, [-LIMIT, LIMIT], "Residual / σ")?;
        let left = HEIGHT + 100.0;
        let x = Axis::linear("Spatial frequency (1/µm)", [0.0, end], 5);
        let rect = Rect::new(left, 12.0, PAGE - left - 12.0, HEIGHT);
        let panel = Panel::new(canvas, rect, x, Axis::linear("Power of the residual", [0.0, top], 5));
        panel.curve(&[[0.0, 1.0], [end, 1.0]], THIN, BLACK)?;
        upright(&panel, cut_off * 1e-6, [0.0, top])?;
        panel.curve(&micrometres(&power), CURVE, POSTERIOR)?;
        panel.frame(BLACK)
    })?;
    let caption = format!(
        "{source}: what one posterior sample leaves of the data, over the noise's standard deviation, and its power ring by \
         ring. A right model of microscope, background and noise leaves white noise of power 1; the red line is the \
         cut-off frequency of the objective."
    );
    Ok(Figure::new("residuals", caption, svg))
}

/// The end of the frequency axis, 1/um.
fn frequency_end(curve: &[[f64; 2]], cut_off: f64) -> f64 {
    let last = curve.last().map_or(cut_off, |point| point[0]);
    1e-6 * last.min(2.2 * cut_off)
}

fn micrometres(curve: &[[f64; 2]]) -> Vec<[f64; 2]> {
    curve.iter().map(|[frequency, value]| [1e-6 * frequency, *value]).collect()
}

fn upright(panel: &Panel, at: f64, [bottom, top]: [f64; 2]) -> Result<()> {
    panel.curve(&[[at, bottom], [at, top]], THIN, REFERENCE)
}
