//! Posterior images: mean, standard deviation and a grid of samples.

use ndarray::{Array2, Axis as Dimension};

use super::{
    Figure,
    canvas::{self, Align, Canvas, Rect},
    colormap::Colormap,
    sky::{Beam, SkyImage, gigakelvin_per_pixel},
    style::{PAGE, TICK, WHITE},
};
use crate::{Result, features::sky_images, io::cube::Cube};

/// Label of brightness colour bars.
const BRIGHTNESS: &str = "Brightness temperature (10⁹ K)";

/// Mean and standard deviation side by side, with a nominal beam for scale.
///
/// # Errors
/// A cube without samples.
pub fn moments(cube: &Cube, beam: &Beam) -> Result<Figure> {
    const SIDE: f64 = 165.0;
    let scale = gigakelvin_per_pixel(&cube.grid, cube.sky()?.frequency_hz);
    let summary = cube.summary()?;
    let parts = [
        (summary.mean, Colormap::Heat, "Posterior mean"),
        (summary.std, Colormap::Viridis, "Posterior standard deviation"),
    ];
    let svg = canvas::draw(PAGE, SIDE + 52.0, |canvas| {
        for (index, (values, map, title)) in parts.iter().enumerate() {
            let rect = Rect::new(40.0 + 258.0 * index as f64, 18.0, SIDE, SIDE);
            let values = values.mapv(|value| scale * f64::from(value)).sum_axis(Dimension(0));
            let range = from_zero(values.iter().copied());
            let image = SkyImage { values: values.view(), grid: &cube.grid, map: *map, range };
            image.paint(canvas, rect)?;
            image.beam(canvas, rect, beam)?;
            let panel = image.panel(canvas, rect);
            panel.frame(WHITE)?;
            panel.title(title)?;
            let bar = Rect::new(rect.right() + 4.0, rect.top, 7.0, SIDE);
            image.colour_bar(canvas, bar, BRIGHTNESS)?;
        }
        Ok(())
    })?;
    let caption = format!(
        "{}: posterior mean and standard deviation of {} samples, pixel by pixel and not convolved. \
         The ellipse in the corner is the nominal beam, for scale.",
        cube.frame.source(),
        cube.samples.len_of(Dimension(0))
    );
    Ok(Figure::new("posterior", caption, svg))
}

/// Up to nine samples with one colour scale.
///
/// # Errors
/// The figure cannot be drawn.
pub fn samples(cube: &Cube, beam: &Beam) -> Result<Figure> {
    const COLUMNS: usize = 3;
    const SIDE: f64 = 98.0;
    const GAP: f64 = 4.0;
    let scale = gigakelvin_per_pixel(&cube.grid, cube.sky()?.frequency_hz);
    let images = sky_images(cube);
    let shown = chosen(images.len(), COLUMNS * COLUMNS);
    let pictures: Vec<Array2<f64>> = shown.iter().map(|index| &images[*index] * scale).collect();
    let range = from_zero(pictures.iter().flatten().copied());
    let rows = shown.len().div_ceil(COLUMNS);
    let right = GAP + COLUMNS as f64 * (SIDE + GAP);
    let height = rows as f64 * (SIDE + GAP) + 2.0 * GAP;
    let svg = canvas::draw(right + 46.0, height, |canvas| {
        for (index, values) in pictures.iter().enumerate() {
            let (row, column) = ((index / COLUMNS) as f64, (index % COLUMNS) as f64);
            let rect = Rect::new(GAP + column * (SIDE + GAP), 1.5 * GAP + row * (SIDE + GAP), SIDE, SIDE);
            let image = SkyImage { values: values.view(), grid: &cube.grid, map: Colormap::Heat, range };
            image.paint(canvas, rect)?;
            let number = format!("{}", shown[index] + 1);
            canvas.text([rect.left + 5.0, rect.top + 8.0], &number, TICK, Align::Left, WHITE, false)?;
            if index == 0 {
                image.beam(canvas, rect, beam)?;
                image.scale_bar(canvas, rect, WHITE)?;
                compass(canvas, rect)?;
                let bar = Rect::new(right, 1.5 * GAP, 7.0, rows as f64 * (SIDE + GAP) - GAP);
                image.colour_bar(canvas, bar, BRIGHTNESS)?;
            }
        }
        Ok(())
    })?;
    let caption = format!(
        "{}: {} of {} posterior samples with one colour scale; each is an image that data and prior allow.",
        cube.frame.source(),
        shown.len(),
        images.len()
    );
    Ok(Figure::new("samples", caption, svg))
}

/// Arrows to the north and the east in the upper right corner.
fn compass(canvas: &Canvas, rect: Rect) -> Result<()> {
    const LENGTH: f64 = 12.0;
    let origin = [rect.right() - 10.0, rect.top + 12.0 + LENGTH];
    let north = [origin[0], origin[1] - LENGTH];
    let east = [origin[0] - LENGTH, origin[1]];
    canvas.line(&[north, origin, east], 0.8, WHITE)?;
    canvas.text([north[0], north[1] - 4.5], "N", TICK, Align::Centre, WHITE, false)?;
    canvas.text([east[0] - 1.5, east[1]], "E", TICK, Align::Right, WHITE, false)
}

/// At most `wanted` indices spread evenly over `count` samples.
pub(crate) fn chosen(count: usize, wanted: usize) -> Vec<usize> {
    let wanted = wanted.min(count);
    (0..wanted).map(|k| k * count / wanted).collect()
}

/// From zero to the largest value, or to one if nothing is positive.
pub(crate) fn from_zero(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let top = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    [0.0, if top > 0.0 { top } else { 1.0 }]
}
