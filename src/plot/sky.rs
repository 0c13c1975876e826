//! A sky image as a panel: picture, beam, scale bar and colour bar.

use std::f64::consts::{PI, TAU};

use ndarray::{Array2, ArrayView2};

use super::{
    axes::{Axis, Panel},
    canvas::{Align, Canvas, PIXEL, Point, Rect},
    colormap::Colormap,
    style::{BLACK, Colour, LABEL, THIN, TICK, WHITE},
    ticks,
};
use crate::{
    Result,
    grid::Grid,
    units::{MICROARCSECOND, brightness_temperature},
};

/// An elliptical Gaussian beam.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beam {
    /// Full widths at half maximum of the major and the minor axis, radians.
    pub fwhm: [f64; 2],
    /// Position angle of the major axis east of north, radians.
    pub angle: f64,
}

/// The circle of 20 uas with which the Event Horizon Telescope's images at 230 GHz are shown.
impl Default for Beam {
    fn default() -> Self {
        Self::circle(20.0 * MICROARCSECOND)
    }
}

impl Beam {
    /// A circular beam.
    pub fn circle(fwhm: f64) -> Self {
        Self { fwhm: [fwhm; 2], angle: 0.0 }
    }
}

/// A picture with the values that its colours stand for.
pub(crate) struct SkyImage<'a> {
    pub(crate) values: ArrayView2<'a, f64>,
    pub(crate) grid: &'a Grid,
    pub(crate) map: Colormap,
    /// Values of the first and the last colour.
    pub(crate) range: [f64; 2],
}

/// Factor from Jy/pixel to brightness temperature in 10^9 K.
pub(crate) fn gigakelvin_per_pixel(grid: &Grid, frequency_hz: f64) -> f64 {
    brightness_temperature(1.0 / (grid.pitch[1] * grid.pitch[2]), frequency_hz) / 1e9
}

/// Offsets of the field's edges from its centre, microarcseconds, east and north.
fn half_field(grid: &Grid) -> [f64; 2] {
    [2, 1].map(|axis| 0.5 * grid.shape[axis] as f64 * grid.pitch[axis] / MICROARCSECOND)
}

impl SkyImage<'_> {
    /// The panel of this image with offsets in microarcseconds, east to the left.
    pub(crate) fn panel<'c, 'a>(&self, canvas: &'c Canvas<'a>, rect: Rect) -> Panel<'c, 'a> {
        let [east, north] = half_field(self.grid);
        let x = Axis::linear("Relative RA (µas)", [east, -east], 4);
        let y = Axis::linear("Relative Dec (µas)", [-north, north], 4);
        Panel::new(canvas, rect, x, y)
    }

    /// Draws the picture.
    pub(crate) fn paint(&self, canvas: &Canvas, rect: Rect) -> Result<()> {
        paint(canvas, rect, self.values, self.map, self.range)
    }

    /// A colour bar in a rectangle, its numbers and label on the right.
    pub(crate) fn colour_bar(&self, canvas: &Canvas, rect: Rect, label: &str) -> Result<()> {
        colour_bar(canvas, rect, self.map, self.range, label)
    }

    /// The beam's half-maximum ellipse in the lower left corner.
    pub(crate) fn beam(&self, canvas: &Canvas, rect: Rect, beam: &Beam) -> Result<()> {
        const POINTS: usize = 72;
        const MARGIN: f64 = 5.0;
        let scale = self.points_per_radian(rect);
        let [major, minor] = beam.fwhm.map(|fwhm| 0.5 * fwhm * scale);
        let centre = [rect.left + MARGIN + major, rect.bottom() - MARGIN - major];
        let (sin, cos) = beam.angle.sin_cos();
        let ellipse: Vec<Point> = (0..=POINTS)
            .map(|k| {
                let (along, across) = (TAU * k as f64 / POINTS as f64).sin_cos();
                let (along, across) = (along * major, across * minor);
                // East is to the left, north is up.
                [centre[0] - along * sin - across * cos, centre[1] - along * cos + across * sin]
            })
            .collect();
        canvas.line(&ellipse, 0.9, WHITE)
    }

    /// A bar of a round length in the lower right corner with its length above.
    pub(crate) fn scale_bar(&self, canvas: &Canvas, rect: Rect, colour: Colour) -> Result<()> {
        const MARGIN: f64 = 7.0;
        let [east, _] = half_field(self.grid);
        let length = ticks::round_step(0.4 * east);
        let width = length * MICROARCSECOND * self.points_per_radian(rect);
        let (right, y) = (rect.right() - MARGIN, rect.bottom() - MARGIN);
        canvas.line(&[[right - width, y], [right, y]], 1.4, colour)?;
        let text = format!("{} µas", ticks::number(length, usize::from(length < 1.0)));
        canvas.text([right - width / 2.0, y - 2.5 - TICK / 2.0], &text, TICK, Align::Centre, colour, false)
    }

    fn points_per_radian(&self, rect: Rect) -> f64 {
        rect.width / (self.grid.shape[2] as f64 * self.grid.pitch[2])
    }
}

/// Fills a rectangle with values `[row, column]`, linear between their centres like triangular pixels.
pub(crate) fn paint(
    canvas: &Canvas,
    rect: Rect,
    values: ArrayView2<f64>,
    map: Colormap,
    [low, high]: [f64; 2],
) -> Result<()> {
    let (ny, nx) = values.dim();
    let [columns, rows] = [rect.width, rect.height].map(|length| (length / PIXEL).round() as usize);
    let place = |k: usize, of: usize, pixels: usize| {
        ((k as f64 + 0.5) / of as f64 * pixels as f64 - 0.5).clamp(0.0, pixels as f64 - 1.0)
    };
    let pixels = Array2::from_shape_fn((rows, columns), |(i, j)| {
        let value = bilinear(values, place(i, rows, ny), place(j, columns, nx));
        map.colour((value - low) / (high - low))
    });
    canvas.picture([rect.left, rect.top], &pixels)
}

/// A colour bar in a rectangle, its numbers and label on the right.
pub(crate) fn colour_bar(
    canvas: &Canvas,
    rect: Rect,
    map: Colormap,
    range: [f64; 2],
    label: &str,
) -> Result<()> {
    let [low, high] = range;
    let gradient = Array2::from_shape_fn((256, 1), |(i, _)| low + (high - low) * (255 - i) as f64 / 255.0);
    paint(canvas, rect, gradient.view(), map, range)?;
    canvas.outline(rect, THIN, BLACK)?;
    let count = (rect.height / 22.0).clamp(2.0, 6.0) as usize;
    let mut widest = 0.0_f64;
    for (value, text) in ticks::linear(range, count).major {
        let y = rect.bottom() - (value - low) / (high - low) * rect.height;
        canvas.line(&[[rect.right(), y], [rect.right() + 2.0, y]], THIN, BLACK)?;
        canvas.text([rect.right() + 4.0, y], &text, TICK, Align::Left, BLACK, false)?;
        widest = widest.max(canvas.text_width(&text, TICK)?);
    }
    let place = [rect.right() + 8.0 + widest + LABEL / 2.0, rect.centre()[1]];
    canvas.text(place, label, LABEL, Align::Centre, BLACK, true)
}

/// Value between four pixels at fractional row and column indices inside the array.
fn bilinear(values: ArrayView2<f64>, y: f64, x: f64) -> f64 {
    let (ny, nx) = values.dim();
    let (top, left) = (y.floor() as usize, x.floor() as usize);
    let (bottom, right) = ((top + 1).min(ny - 1), (left + 1).min(nx - 1));
    let (fy, fx) = (y.fract(), x.fract());
    let upper = values[[top, left]] * (1.0 - fx) + values[[top, right]] * fx;
    let lower = values[[bottom, left]] * (1.0 - fx) + values[[bottom, right]] * fx;
    upper * (1.0 - fy) + lower * fy
}

/// Angular scale of a baseline length in wavelengths, microarcseconds.
pub(crate) fn fringe_spacing(wavelengths: f64) -> f64 {
    1.0 / wavelengths / MICROARCSECOND
}

/// Points of a circle around the origin.
pub(crate) fn circle(radius: f64) -> Vec<[f64; 2]> {
    (0..=180).map(|k| PI * f64::from(k) / 90.0).map(|a| [radius * a.cos(), radius * a.sin()]).collect()
}
