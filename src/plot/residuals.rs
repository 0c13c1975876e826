//! Normalised residuals of the closures against the standard normal.

use super::{
    Figure,
    axes::{Axis, Panel},
    canvas::{self, Align, Canvas, Rect},
    predicted::{Predicted, central_95},
    style::{BLACK, CURVE, Colour, GREY, PAGE, POSTERIOR, REFERENCE, THIN},
};
use crate::{
    Result,
    instrument::vlbi::{
        Observation,
        closure::{independent_quadrangles, independent_triangles},
        likelihood::wrap,
    },
    quantile::quantile,
};

/// Residuals of one data product over their standard deviations, of every sample.
struct Residuals {
    product: &'static str,
    /// Hours UTC and the residuals of all samples, datum by datum.
    data: Vec<(f64, Vec<f64>)>,
}

/// Residuals of every sample against time, and their histogram beside N(0, 1); nothing without closures.
///
/// # Errors
/// A visibility without amplitude or noise, or the figure cannot be drawn.
pub fn residuals(observation: &Observation, predicted: &Predicted) -> Result<Option<Figure>> {
    let products = [closure_phases(observation, predicted)?, log_closure_amplitudes(observation, predicted)?];
    let products: Vec<_> = products.into_iter().filter(|product| !product.data.is_empty()).collect();
    if products.is_empty() {
        return Ok(None);
    }
    const HEIGHT: f64 = 110.0;
    const GAP: f64 = 10.0;
    let bottom = 8.0 + products.len() as f64 * (HEIGHT + GAP) - GAP;
    let svg = canvas::draw(PAGE, bottom + 32.0, |canvas| {
        for (row, product) in products.iter().enumerate() {
            let top = 8.0 + row as f64 * (HEIGHT + GAP);
            draw_product(canvas, product, top, HEIGHT, row + 1 == products.len())?;
        }
        Ok(())
    })?;
    let caption = format!(
        "{}: residuals of the closures, data minus sample over the noise, of independent sets. Left: median and \
         central 95 % over the samples. Right: all samples, and the standard normal that a right model and a \
         right noise would give.",
        observation.source
    );
    Ok(Some(Figure::new("residuals", caption, svg)))
}

/// Mean square of the closures' normalised residuals in every sample.
pub(crate) fn closure_chi2(observation: &Observation, predicted: &Predicted) -> Result<Vec<f64>> {
    let phases = closure_phases(observation, predicted)?.data;
    let all: Vec<_> =
        phases.into_iter().chain(log_closure_amplitudes(observation, predicted)?.data).collect();
    let samples = predicted.visibilities.nrows();
    let square = |sample: usize| all.iter().map(|(_, residuals)| residuals[sample].powi(2)).sum::<f64>();
    Ok((0..samples).map(|sample| square(sample) / all.len().max(1) as f64).collect())
}

fn closure_phases(observation: &Observation, predicted: &Predicted) -> Result<Residuals> {
    let phases: Vec<f64> = observation.visibilities.iter().map(|row| row.value.arg()).collect();
    let closures = independent_triangles(observation)?.into_iter().flat_map(|set| set.closures);
    let data = closures.map(|closure| {
        let (measured, sigma) = (closure.sum(&phases), closure.sigma(observation));
        let model = predicted.closure_phases(&closure);
        (closure.time / 3600.0, model.into_iter().map(|model| wrap(measured - model) / sigma).collect())
    });
    Ok(Residuals { product: "Closure phase", data: data.collect() })
}

fn log_closure_amplitudes(observation: &Observation, predicted: &Predicted) -> Result<Residuals> {
    let closures = independent_quadrangles(observation)?.into_iter().flat_map(|set| set.closures);
    let data = closures.map(|closure| {
        let (measured, sigma) = closure.debiased(observation);
        let model = predicted.log_closure_amplitudes(&closure);
        (closure.time / 3600.0, model.into_iter().map(|model| (measured - model) / sigma).collect())
    });
    Ok(Residuals { product: "Log closure amplitude", data: data.collect() })
}

fn draw_product(canvas: &Canvas, product: &Residuals, top: f64, height: f64, last: bool) -> Result<()> {
    let all: Vec<f64> = product.data.iter().flat_map(|(_, residuals)| residuals).copied().collect();
    let limit = limit(&all);
    let hours = product.data.iter().map(|(time, _)| *time);
    let [first, end] = hours.fold([f64::INFINITY, f64::NEG_INFINITY], |[a, b], t| [a.min(t), b.max(t)]);
    let margin = (0.04 * (end - first)).max(0.05);
    let range = [first - margin, end + margin];
    let named = |axis: Axis| if last { axis } else { axis.unnamed() };
    let time = named(Axis::linear("Time (h UTC)", range, 6));
    let panel = Panel::new(
        canvas,
        Rect::new(42.0, top, 330.0, height),
        time,
        Axis::linear("Residual / σ", [-limit, limit], 5),
    );
    panel.curve(&[[range[0], 0.0], [range[1], 0.0]], THIN, GREY)?;
    for (time, residuals) in &product.data {
        panel.error_bars(&[(*time, central_95(residuals.clone()))], 1.0, POSTERIOR.faded(0.35))?;
        panel.markers(&[[*time, quantile(&mut residuals.clone(), 0.5)]], 1.1, POSTERIOR)?;
    }
    panel.note([0.02, 0.08], product.product, Align::Left, BLACK)?;
    panel.frame(BLACK)?;
    draw_histogram(canvas, &all, limit, Rect::new(378.0, top, 125.0, height), last)
}

/// Density of residuals along a vertical axis, with the standard normal.
fn draw_histogram(canvas: &Canvas, values: &[f64], limit: f64, rect: Rect, last: bool) -> Result<()> {
    const BINS: usize = 40;
    let width = 2.0 * limit / BINS as f64;
    let mut counts = [0usize; BINS];
    for value in values {
        if let Some(count) = counts.get_mut(((value + limit) / width).floor().max(0.0) as usize)
            && value.abs() <= limit
        {
            *count += 1;
        }
    }
    let density = |bin: usize| counts[bin] as f64 / (values.len() as f64 * width);
    let normal = |x: f64| (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
    let highest = (0..BINS).map(density).fold(normal(0.0), f64::max);
    let x = Axis::linear("Density", [0.0, 1.08 * highest], 4);
    let x = if last { x } else { x.unnamed() };
    let panel = Panel::new(canvas, rect, x, Axis::linear("", [-limit, limit], 5).unnamed());
    for bin in 0..BINS {
        let low = -limit + bin as f64 * width;
        let (a, b) = (panel.place(0.0, low + width), panel.place(density(bin), low));
        canvas.fill(Rect::new(a[0], a[1], b[0] - a[0], b[1] - a[1]), light())?;
    }
    let curve: Vec<[f64; 2]> =
        (0..=160).map(|k| -limit + limit * f64::from(k) / 80.0).map(|y| [normal(y), y]).collect();
    panel.curve(&curve, CURVE, REFERENCE)?;
    panel.note([0.95, 0.08], "N(0, 1)", Align::Right, REFERENCE)?;
    let outside = values.iter().filter(|value| value.abs() > limit).count();
    if outside > 0 {
        let text = format!("{:.1} % outside", 100.0 * outside as f64 / values.len() as f64);
        panel.note([0.95, 0.92], &text, Align::Right, BLACK)?;
    }
    panel.frame(BLACK)
}

const fn light() -> Colour {
    POSTERIOR.faded(0.45)
}

/// Half range of the residual axis: holds 99 % of the values, between 4 and 12.
fn limit(values: &[f64]) -> f64 {
    let mut sizes: Vec<f64> = values.iter().map(|value| value.abs()).collect();
    let most = quantile(&mut sizes, 0.99);
    if most.is_finite() { most.clamp(4.0, 12.0).ceil() } else { 4.0 }
}
