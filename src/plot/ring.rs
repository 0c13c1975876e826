//! The ring: its profiles and the posteriors of its features.

use std::f64::consts::TAU;

use ndarray::Array2;

use super::{
    Figure,
    axes::{Axis, Panel},
    canvas::{self, Align, Canvas, Rect},
    colormap::Colormap,
    posterior::from_zero,
    predicted::central_95,
    sky::{gigakelvin_per_pixel, paint},
    style::{BLACK, CURVE, LABEL, PAGE, POSTERIOR, REFERENCE, TICK, WHITE},
    ticks::number,
};
use crate::{
    Result,
    features::{Interval, RingPosterior, polar::Interpolated, sky_images},
    io::cube::Cube,
    quantile::quantile,
    units::MICROARCSECOND,
};

/// Largest radius shown, microarcseconds.
const RADIUS_UAS: f64 = 50.0;
const RADII: usize = 50;
const ANGLES: usize = 120;

/// Unwrapped mean ring, radial profile, and histograms of diameter, width, position angle and asymmetry;
/// nothing if most samples show no ring.
///
/// # Errors
/// The figure cannot be drawn.
pub fn ring(cube: &Cube, posterior: &RingPosterior) -> Result<Option<Figure>> {
    if 2 * posterior.count() <= posterior.rings.len() {
        return Ok(None);
    }
    let scale = gigakelvin_per_pixel(&cube.grid, cube.sky()?.frequency_hz);
    let unwrapped = unwrapped(cube, posterior, scale);
    let svg = canvas::draw(PAGE, 292.0, |canvas| {
        draw_unwrapped(canvas, &unwrapped, Rect::new(42.0, 8.0, 210.0, 118.0))?;
        draw_profile(canvas, &unwrapped, Rect::new(340.0, 8.0, 160.0, 118.0))?;
        draw_histograms(canvas, posterior)
    })?;
    let caption = format!(
        "{}: the ring of {} samples. Top: mean brightness unwrapped around each sample's own centre, and mean \
         radial profile with the central 95 % of the samples. Bottom: posteriors of the ring's diameter, width, \
         position angle (east of north) and asymmetry; line and shade are median and 68 % interval.",
        cube.frame.source(),
        posterior.count()
    );
    Ok(Some(Figure::new("ring", caption, svg)))
}

/// Brightness temperature `[radius, angle]` of every sample around its ring's centre, 10^9 K; `scale` is that of one
/// Jy/pixel.
fn unwrapped(cube: &Cube, posterior: &RingPosterior, scale: f64) -> Vec<Array2<f64>> {
    let radii: Vec<f64> = (0..=RADII).map(|k| radius(k) * MICROARCSECOND).collect();
    let measured = posterior.rings.iter().zip(sky_images(cube));
    let with_ring = measured.filter_map(|(ring, image)| Some(((*ring)?, image)));
    let polar = with_ring.map(|(ring, image)| {
        let image = Interpolated::new(image.view(), &cube.grid);
        let mut polar = Array2::zeros((radii.len(), ANGLES));
        for (k, mut column) in polar.columns_mut().into_iter().enumerate() {
            let ray = image.ray(ring.centre, TAU * k as f64 / ANGLES as f64, &radii);
            column.iter_mut().zip(ray).for_each(|(pixel, value)| *pixel = scale * value);
        }
        polar
    });
    polar.collect()
}

fn radius(index: usize) -> f64 {
    RADIUS_UAS * index as f64 / RADII as f64
}

fn draw_unwrapped(canvas: &Canvas, unwrapped: &[Array2<f64>], rect: Rect) -> Result<()> {
    let mut mean: Array2<f64> = Array2::zeros((RADII + 1, ANGLES));
    for polar in unwrapped {
        mean += polar;
    }
    mean /= unwrapped.len().max(1) as f64;
    let map = Colormap::Heat;
    let range = from_zero(mean.iter().copied());
    // Radius upwards, and the first angle once more at the right edge.
    let picture = Array2::from_shape_fn((RADII + 1, ANGLES + 1), |(i, j)| mean[[RADII - i, j % ANGLES]]);
    paint(canvas, rect, picture.view(), map, range)?;
    let x = Axis::linear("Position angle east of north (deg)", [0.0, 360.0], 4).every(90.0);
    Panel::new(canvas, rect, x, Axis::linear("Radius (µas)", [0.0, RADIUS_UAS], 5)).frame(WHITE)?;
    let bar = Rect::new(rect.right() + 4.0, rect.top, 7.0, rect.height);
    super::sky::colour_bar(canvas, bar, map, range, "Brightness temp. (10⁹ K)")
}

fn draw_profile(canvas: &Canvas, unwrapped: &[Array2<f64>], rect: Rect) -> Result<()> {
    let at = |k: usize| unwrapped.iter().map(|polar| polar.row(k).sum() / ANGLES as f64).collect::<Vec<_>>();
    let band: Vec<(f64, [f64; 2])> = (0..=RADII).map(|k| (radius(k), central_95(at(k)))).collect();
    let median: Vec<[f64; 2]> = (0..=RADII).map(|k| [radius(k), quantile(&mut at(k), 0.5)]).collect();
    let [_, top] = from_zero(band.iter().map(|(_, [_, high])| *high));
    let x = Axis::linear("Radius (µas)", [0.0, RADIUS_UAS], 5);
    let y = Axis::linear("Mean brightness temp. (10⁹ K)", [0.0, 1.08 * top], 5);
    let panel = Panel::new(canvas, rect, x, y);
    panel.band(&band, POSTERIOR.faded(0.3))?;
    panel.curve(&median, CURVE, POSTERIOR)?;
    panel.frame(BLACK)
}

fn draw_histograms(canvas: &Canvas, posterior: &RingPosterior) -> Result<()> {
    const GAP: f64 = 14.0;
    let angles = posterior.values(|ring| ring.position_angle.to_degrees());
    let angle = Interval::of_degrees(&angles);
    // Angles on the branch of the circle that their median lies on.
    let centre = angle.map_or(0.0, |interval| interval.median);
    let unbroken = angles.iter().map(|a| centre + (a - centre + 180.0).rem_euclid(360.0) - 180.0).collect();
    let uas = |radians: f64| radians / MICROARCSECOND;
    let features: [(&str, &str, Vec<f64>, usize); 4] = [
        ("Diameter (µas)", " µas", posterior.values(|ring| uas(ring.diameter)), 1),
        ("Width (µas)", " µas", posterior.values(|ring| uas(ring.width)), 1),
        ("Position angle (deg)", "°", unbroken, 0),
        ("Asymmetry", "", posterior.values(|ring| ring.asymmetry), 2),
    ];
    let width = (PAGE - 30.0 - 12.0 - 3.0 * GAP) / 4.0;
    for (index, (label, unit, values, decimals)) in features.into_iter().enumerate() {
        let rect = Rect::new(30.0 + index as f64 * (width + GAP), 174.0, width, 86.0);
        histogram(canvas, rect, label, unit, &values, decimals)?;
    }
    canvas.text([16.0, 217.0], "Samples", LABEL, Align::Centre, BLACK, true)
}

/// Histogram of values with median and 68 % interval, which also stand above it in numbers.
fn histogram(
    canvas: &Canvas,
    rect: Rect,
    label: &str,
    unit: &str,
    values: &[f64],
    decimals: usize,
) -> Result<()> {
    let Some(interval) = Interval::of(values) else { return Ok(()) };
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Identical samples still get a bar of a visible width.
    let smallest = 10f64.powi(-(decimals as i32));
    let margin = (0.15 * (high - low)).max(smallest);
    let [from, to] = [low - margin, high + margin];
    let bins = ((values.len() as f64).sqrt() * 1.6).round().clamp(6.0, 24.0) as usize;
    let width = (to - from) / bins as f64;
    let mut counts = vec![0usize; bins];
    for value in values {
        counts[(((value - from) / width) as usize).min(bins - 1)] += 1;
    }
    let highest = counts.iter().copied().max().unwrap_or(1) as f64;
    let y = Axis::linear("", [0.0, 1.12 * highest], 4).bare().unnamed();
    let panel = Panel::new(canvas, rect, Axis::linear(label, [from, to], 3), y);
    let (a, b) = (panel.place(interval.q16, 1.12 * highest), panel.place(interval.q84, 0.0));
    canvas.fill(Rect::new(a[0], a[1], b[0] - a[0], b[1] - a[1]), REFERENCE.faded(0.15))?;
    for (bin, count) in counts.iter().enumerate() {
        let left = from + bin as f64 * width;
        let (a, b) = (panel.place(left, *count as f64), panel.place(left + width, 0.0));
        canvas.fill(Rect::new(a[0], a[1], b[0] - a[0], b[1] - a[1]), POSTERIOR.faded(0.6))?;
    }
    panel.curve(&[[interval.median, 0.0], [interval.median, 1.12 * highest]], CURVE, REFERENCE)?;
    panel.frame(BLACK)?;
    // At least one significant digit of the interval, if there is one.
    let half = 0.5 * (interval.q84 - interval.q16);
    let digits = if half >= smallest / 100.0 { -half.log10().floor() } else { 0.0 };
    let decimals = decimals.max(digits as usize);
    let text = format!(
        "{}{unit} (+{} −{})",
        number(interval.median, decimals),
        number(interval.q84 - interval.median, decimals),
        number(interval.median - interval.q16, decimals)
    );
    canvas.text([rect.centre()[0], rect.top - 7.0], &text, TICK, Align::Centre, BLACK, false)
}
