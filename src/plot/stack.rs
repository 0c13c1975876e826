//! Figures of a microscope's posterior: data, classical image, mean, standard deviation, quantiles, samples, a profile,
//! agreement of samples, residuals, and the microscope's response.

use ndarray::{Array2, ArrayView3, Axis as Dimension};

use super::{
    Figure,
    axes::{Axis, Panel},
    canvas::{self, Align, Canvas, Rect},
    colormap::Colormap,
    posterior::{chosen, from_zero},
    psf::psf,
    sky::{colour_bar, paint},
    spectra,
    style::{BLACK, CURVE, Colour, LABEL, PAGE, POSTERIOR, REFERENCE, TICK, WHITE},
    ticks,
    traces::{Traces, traces},
};
use crate::{
    Result,
    instrument::microscope::{Optics, Psf},
    io::cube::{Cube, Summary},
};

/// Quantile of an image that is drawn in the brightest colour: single hot voxels must not darken the rest.
const BRIGHTEST: f64 = 0.999;

/// Everything that the figures of a stack show.
#[derive(Debug, Clone, Copy)]
pub struct StackFigures<'a> {
    /// Posterior samples.
    pub cube: &'a Cube,
    /// Data above the background on camera pixels `[Z, Y, X]`.
    pub light: ArrayView3<'a, f32>,
    /// Classical deconvolution on the samples' grid `[Z, Y, X]`.
    pub classical: ArrayView3<'a, f32>,
    /// Residuals of the first sample over their standard deviations, planes or raw frames `[F, Y, X]`.
    pub residuals: ArrayView3<'a, f32>,
    /// Correlation of samples with each other at frequencies in 1/m.
    pub agreement: &'a [[f64; 2]],
    /// The microscope's response.
    pub psf: &'a Psf,
    /// Its objective.
    pub optics: &'a Optics,
    /// Records of the sampler.
    pub traces: &'a Traces,
}

impl StackFigures<'_> {
    /// Draws all figures, the images first. Of a stack with several planes the brightest is shown, and the section along the
    /// axis through its brightest row.
    ///
    /// # Errors
    /// A cube without samples, or a drawing that fails.
    pub fn draw(&self) -> Result<Vec<Figure>> {
        let summary = self.cube.summary()?;
        let [plane, row] = brightest(&summary.mean.view());
        let mut figures = vec![
            self.overview(&summary, Cut::Plane(plane))?,
            self.quantiles(&summary, Cut::Plane(plane))?,
            self.samples(Cut::Plane(plane))?,
        ];
        if self.cube.grid.shape[0] > 1 {
            figures.insert(1, self.overview(&summary, Cut::Row(row))?);
        }
        figures.push(self.profile(&summary, plane, row)?);
        let (source, cut_off) = (self.cube.frame.source(), self.optics.cut_off());
        let pitch = [1, 2].map(|axis| self.cube.grid.pitch[axis] * self.scale() as f64);
        figures.push(spectra::agreement(self.agreement, cut_off, source)?);
        figures.push(spectra::whiteness(self.residuals, pitch, cut_off, source)?);
        figures.push(psf(self.psf, self.optics)?);
        figures.extend(traces(self.traces, &[])?);
        Ok(figures)
    }

    /// Data, classical image, mean and standard deviation.
    fn overview(&self, summary: &Summary, cut: Cut) -> Result<Figure> {
        let [light, classical] = [cut.of(self.light, self.scale()), cut.of(self.classical, 1)];
        let [mean, std] = [cut.of(summary.mean.view(), 1), cut.of(summary.std.view(), 1)];
        let range = to_quantile(mean.iter().chain(&classical).copied());
        let panels = [
            Picture {
                title: "Data above the background",
                range: to_quantile(light.iter().copied()),
                values: light,
                map: Colormap::Grey,
                unit: "per camera pixel",
            },
            Picture {
                title: "Richardson-Lucy, for comparison",
                range,
                values: classical,
                map: Colormap::Grey,
                unit: &self.cube.unit,
            },
            Picture {
                title: "Posterior mean",
                range,
                values: mean,
                map: Colormap::Grey,
                unit: &self.cube.unit,
            },
            Picture {
                title: "Posterior standard deviation",
                range: to_quantile(std.iter().copied()),
                values: std,
                map: Colormap::Viridis,
                unit: &self.cube.unit,
            },
        ];
        let caption = format!(
            "{}: {}. Data above the background, classical deconvolution without uncertainty, and mean and standard deviation of {} posterior samples, voxel by voxel.",
            self.cube.frame.source(),
            cut.words(),
            self.cube.samples.len_of(Dimension(0))
        );
        Ok(Figure::new(cut.name("posterior"), caption, self.grid_of(&panels, cut)?))
    }

    /// The 5 % and 95 % quantiles.
    fn quantiles(&self, summary: &Summary, cut: Cut) -> Result<Figure> {
        let [low, high] = [cut.of(summary.q05.view(), 1), cut.of(summary.q95.view(), 1)];
        let range = to_quantile(high.iter().copied());
        let picture =
            |title, values| Picture { title, values, map: Colormap::Grey, range, unit: &self.cube.unit };
        let panels = [picture("5 % quantile", low), picture("95 % quantile", high)];
        let caption = format!(
            "{}: {}. Nine of ten samples lie between these two images, voxel by voxel; structure that the left one shows too is certain.",
            self.cube.frame.source(),
            cut.words()
        );
        Ok(Figure::new("quantiles", caption, self.grid_of(&panels, cut)?))
    }

    /// Panels two by two, each with its scale bar and colour bar.
    fn grid_of(&self, panels: &[Picture], cut: Cut) -> Result<String> {
        const WIDTH: f64 = 178.0;
        const TOP: f64 = 16.0;
        let size = self.extent(cut);
        let width = WIDTH.min(WIDTH * size[1] / size[0]);
        let height = width * size[0] / size[1];
        let rows = panels.len().div_ceil(2) as f64;
        canvas::draw(PAGE, rows * (height + TOP + 4.0), |canvas| {
            for (index, panel) in panels.iter().enumerate() {
                let left = 4.0 + PAGE / 2.0 * (index % 2) as f64;
                let top = TOP + (index / 2) as f64 * (height + TOP + 4.0);
                let rect = Rect::new(left, top, width, height);
                panel.draw(canvas, rect)?;
                scale_bar(canvas, rect, size[1])?;
            }
            Ok(())
        })
    }

    /// Up to nine samples with one scale.
    fn samples(&self, cut: Cut) -> Result<Figure> {
        const COLUMNS: usize = 3;
        const SIDE: f64 = 134.0;
        const GAP: f64 = 4.0;
        let size = self.extent(cut);
        let width = SIDE.min(SIDE * size[1] / size[0]);
        let height = width * size[0] / size[1];
        let count = self.cube.samples.len_of(Dimension(0));
        let shown = chosen(count, COLUMNS * COLUMNS);
        let sample = |index: &usize| cut.of(self.cube.samples.index_axis(Dimension(0), *index), 1);
        let pictures: Vec<Array2<f64>> = shown.iter().map(sample).collect();
        let range = to_quantile(pictures.iter().flatten().copied());
        let rows = shown.len().div_ceil(COLUMNS);
        let right = GAP + COLUMNS as f64 * (width + GAP);
        let svg = canvas::draw(right + 60.0, rows as f64 * (height + GAP) + GAP, |canvas| {
            for (index, values) in pictures.iter().enumerate() {
                let left = GAP + (index % COLUMNS) as f64 * (width + GAP);
                let rect = Rect::new(left, GAP + (index / COLUMNS) as f64 * (height + GAP), width, height);
                paint(canvas, rect, values.view(), Colormap::Grey, range)?;
                let place = [rect.left + 5.0, rect.top + 8.0];
                canvas.text(place, &format!("{}", shown[index] + 1), TICK, Align::Left, WHITE, false)?;
                if index == 0 {
                    scale_bar(canvas, rect, size[1])?;
                }
            }
            let bar = Rect::new(right, GAP, 7.0, rows as f64 * (height + GAP) - GAP);
            colour_bar(canvas, bar, Colormap::Grey, range, &self.cube.unit)
        })?;
        let caption = format!(
            "{}: {} of {count} posterior samples with one scale; each is an image that data and prior allow.",
            self.cube.frame.source(),
            shown.len()
        );
        Ok(Figure::new("samples", caption, svg))
    }

    /// The brightest row of a plane: data, classical image, mean and 90 % band.
    fn profile(&self, summary: &Summary, plane: usize, row: usize) -> Result<Figure> {
        const HEIGHT: f64 = 130.0;
        let pitch = self.cube.grid.pitch[2] * 1e6;
        let at = |column: usize| (column as f64 + 0.5) * pitch;
        let along = |values: ArrayView3<f32>| -> Vec<[f64; 2]> {
            let line =
                values.index_axis_move(Dimension(0), plane).index_axis_move(Dimension(0), row).to_owned();
            line.iter().enumerate().map(|(column, value)| [at(column), f64::from(*value)]).collect()
        };
        let (mean, low, high) =
            (along(summary.mean.view()), along(summary.q05.view()), along(summary.q95.view()));
        let classical = along(self.classical);
        let factor = self.scale();
        let camera = self.light.index_axis(Dimension(0), plane);
        let camera = camera.index_axis(Dimension(0), row / factor);
        let voxels = (factor * factor) as f64;
        let data: Vec<[f64; 2]> = camera
            .iter()
            .enumerate()
            .map(|(pixel, value)| [(pixel as f64 + 0.5) * factor as f64 * pitch, f64::from(*value) / voxels])
            .collect();
        let band: Vec<(f64, [f64; 2])> = low.iter().zip(&high).map(|(l, h)| (l[0], [l[1], h[1]])).collect();
        let top = high.iter().chain(&classical).chain(&data).map(|point| point[1]);
        let [_, top] = from_zero(top);
        let bottom = data.iter().chain(&low).map(|point| point[1]).fold(0.0, f64::min);
        let length = self.cube.grid.shape[2] as f64 * pitch;
        let svg = canvas::draw(PAGE, HEIGHT + 52.0, |canvas| {
            let rect = Rect::new(52.0, 16.0, PAGE - 62.0, HEIGHT);
            let x = Axis::linear("x (µm)", [0.0, length], 8);
            let panel =
                Panel::new(canvas, rect, x, Axis::linear(&self.cube.unit, [1.05 * bottom, 1.05 * top], 5));
            panel.band(&band, POSTERIOR.faded(0.3))?;
            panel.curve(&classical, CURVE, REFERENCE)?;
            panel.curve(&mean, CURVE, POSTERIOR)?;
            panel.markers(&data, 1.1, BLACK)?;
            panel.frame(BLACK)?;
            legend(canvas, rect)
        })?;
        let caption = format!(
            "{}: row {} of plane {}. Posterior mean with 90 % band, Richardson-Lucy deconvolution, and data above the background, spread evenly over the voxels of each camera pixel.",
            self.cube.frame.source(),
            row + 1,
            plane + 1
        );
        Ok(Figure::new("profile", caption, svg))
    }

    /// Voxels per camera pixel.
    fn scale(&self) -> usize {
        (self.cube.grid.shape[2] / self.light.dim().2.max(1)).max(1)
    }

    /// Height and width of a cut, micrometres.
    fn extent(&self, cut: Cut) -> [f64; 2] {
        let grid = &self.cube.grid;
        let length = |axis: usize| grid.shape[axis] as f64 * grid.pitch[axis] * 1e6;
        match cut {
            Cut::Plane(_) => [length(1), length(2)],
            Cut::Row(_) => [length(0), length(2)],
        }
    }
}

/// A plane through a stack.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Across the axis.
    Plane(usize),
    /// Along the axis, through a row of voxels.
    Row(usize),
}

impl Cut {
    /// The values of a stack in which `scale` voxels make a pixel.
    fn of(self, stack: ArrayView3<f32>, scale: usize) -> Array2<f64> {
        let cut = match self {
            Self::Plane(plane) => stack.index_axis_move(Dimension(0), plane),
            Self::Row(row) => stack.index_axis_move(Dimension(1), row / scale),
        };
        cut.mapv(f64::from)
    }

    fn name(self, name: &str) -> String {
        match self {
            Self::Plane(_) => name.into(),
            Self::Row(_) => format!("{name}_along_axis"),
        }
    }

    fn words(self) -> String {
        match self {
            Self::Plane(plane) => format!("plane {}", plane + 1),
            Self::Row(row) => format!("section along the axis through row {}", row + 1),
        }
    }
}

/// An image with its title, colours and unit.
struct Picture<'a> {
    title: &'a str,
    values: Array2<f64>,
    map: Colormap,
    range: [f64; 2],
    unit: &'a str,
}

impl Picture<'_> {
    fn draw(&self, canvas: &Canvas, rect: Rect) -> Result<()> {
        paint(canvas, rect, self.values.view(), self.map, self.range)?;
        canvas.outline(rect, 0.6, BLACK)?;
        let place = [rect.centre()[0], rect.top - 3.0 - LABEL / 2.0];
        canvas.text(place, self.title, LABEL, Align::Centre, BLACK, false)?;
        let bar = Rect::new(rect.right() + 4.0, rect.top, 7.0, rect.height);
        colour_bar(canvas, bar, self.map, self.range, self.unit)
    }
}

/// A bar of a round length in the lower right corner of a picture `width` micrometres wide.
fn scale_bar(canvas: &Canvas, rect: Rect, width: f64) -> Result<()> {
    const MARGIN: f64 = 7.0;
    let length = ticks::round_step(0.2 * width);
    let (right, y) = (rect.right() - MARGIN, rect.bottom() - MARGIN);
    canvas.line(&[[right - length / width * rect.width, y], [right, y]], 1.8, WHITE)?;
    let decimals = (-length.log10().floor()).max(0.0) as usize;
    let text = format!("{} µm", ticks::number(length, decimals));
    let middle = right - 0.5 * length / width * rect.width;
    let half = 0.5 * canvas.text_width(&text, TICK)?;
    let place = [middle.min(rect.right() - half - 2.0), y - 3.0 - TICK / 2.0];
    canvas.text(place, &text, TICK, Align::Centre, WHITE, false)
}

/// What the curves of the profile are, above it.
fn legend(canvas: &Canvas, rect: Rect) -> Result<()> {
    let entries: [(&str, Colour); 3] =
        [("posterior mean, 90 % band", POSTERIOR), ("Richardson-Lucy", REFERENCE), ("data", BLACK)];
    let mut left = rect.left;
    for (name, colour) in entries {
        let y = rect.top - 7.0;
        canvas.line(&[[left, y], [left + 10.0, y]], 1.6, colour)?;
        canvas.text([left + 13.0, y], name, TICK, Align::Left, BLACK, false)?;
        left += 26.0 + canvas.text_width(name, TICK)?;
    }
    Ok(())
}

/// Plane and row of the brightest voxel.
fn brightest(mean: &ArrayView3<f32>) -> [usize; 2] {
    let peak = mean.indexed_iter().max_by(|a, b| a.1.total_cmp(b.1));
    peak.map_or([0, 0], |((plane, row, _), _)| [plane, row])
}

/// From zero to a high quantile.
fn to_quantile(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    from_zero(std::iter::once(crate::quantile::quantile(&mut values, BRIGHTEST)))
}
