//! A point-spread function: sections through its peak, and its transfer function with the cut-off.

use ndarray::{Array2, ArrayView2, Axis as Dimension};

use super::{
    Figure,
    axes::{Axis, Panel},
    canvas::{self, Align, Canvas, Rect},
    colormap::Colormap,
    sky::{colour_bar, paint},
    style::{BLACK, CURVE, GREY, PAGE, POSTERIOR, REFERENCE, THIN, TICK, WHITE},
};
use crate::{
    Result,
    instrument::microscope::{Optics, Psf},
};

/// Side of a section, points.
const SIDE: f64 = 118.0;
/// Points of the transfer function's curve.
const POINTS: usize = 160;

/// Draws the plane through the peak, the section along the axis if there are several planes, and the modulus of the
/// transfer function of the central plane with the cut-off and the Nyquist frequency of the voxel.
///
/// # Errors
/// The figure cannot be drawn.
pub fn psf(psf: &Psf, optics: &Optics) -> Result<Figure> {
    let [z, y, _] = psf.peak();
    let lateral = psf.values.index_axis(Dimension(0), z);
    let axial = psf.values.index_axis(Dimension(1), y);
    let mut sections = vec![("Focal plane", lateral, [1, 2], ["y (µm)", "x (µm)"])];
    if psf.grid.shape[0] > 1 {
        sections.push(("Along the axis", axial, [0, 2], ["z (µm)", "x (µm)"]));
    }
    let peak = psf.values[psf.peak()];
    let svg = canvas::draw(PAGE, SIDE + 52.0, |canvas| {
        for (index, (title, values, axes, labels)) in sections.iter().enumerate() {
            let rect = Rect::new(38.0 + 158.0 * index as f64, 18.0, SIDE, SIDE);
            section(canvas, rect, psf, *values, peak, *axes, *labels)?.title(title)?;
        }
        let right = 38.0 + 158.0 * sections.len() as f64;
        let bar = Rect::new(right - 36.0, 18.0, 6.0, SIDE);
        colour_bar(canvas, bar, Colormap::Heat, [0.0, 1.0], "√(intensity / peak)")?;
        transfer(canvas, Rect::new(right + 46.0, 18.0, PAGE - right - 56.0, SIDE), psf, optics)
    })?;
    let micrometres =
        |axis| psf.fwhm(axis).map_or("wider than the stack".into(), |w| format!("{:.3} µm", w * 1e6));
    let caption = format!(
        "Point-spread function. Full width at half maximum across {}, along the axis {}; lateral cut-off {:.2}/µm. \
         Colours show the square root of the intensity, so that the rings are seen.",
        micrometres(2),
        micrometres(0),
        optics.cut_off() * 1e-6
    );
    Ok(Figure::new("psf", caption, svg))
}

/// A section with offsets from the centre in micrometres, as large as the rectangle allows with equal scales.
fn section<'c, 'a>(
    canvas: &'c Canvas<'a>,
    rect: Rect,
    psf: &Psf,
    values: ArrayView2<f64>,
    peak: f64,
    axes: [usize; 2],
    [down, across]: [&str; 2],
) -> Result<Panel<'c, 'a>> {
    let extent = axes.map(|axis| psf.grid.shape[axis] as f64 * psf.grid.pitch[axis] * 1e6);
    let scale = (rect.height / extent[0]).min(rect.width / extent[1]);
    let [height, width] = extent.map(|length| length * scale);
    let [x, y] = rect.centre();
    let rect = Rect::new(x - width / 2.0, y - height / 2.0, width, height);
    let roots: Array2<f64> = values.mapv(|value| (value / peak).max(0.0).sqrt());
    paint(canvas, rect, roots.view(), Colormap::Heat, [0.0, 1.0])?;
    let range = |axis: usize| {
        let pitch = psf.grid.pitch[axis] * 1e6;
        let before = (psf.grid.shape[axis] / 2) as f64 + 0.5;
        [-before * pitch, (psf.grid.shape[axis] as f64 - before) * pitch]
    };
    let [top, bottom] = range(axes[0]);
    let panel = Panel::new(
        canvas,
        rect,
        Axis::linear(across, range(axes[1]), 3),
        // Rows run down the page.
        Axis::linear(down, [bottom, top], 3),
    );
    panel.frame(WHITE)?;
    Ok(panel)
}

fn transfer(canvas: &Canvas, rect: Rect, psf: &Psf, optics: &Optics) -> Result<()> {
    let (cut_off, nyquist) = (optics.cut_off(), 0.5 / psf.grid.pitch[2]);
    let end = (1.25 * cut_off).max(1.05 * nyquist.min(2.0 * cut_off));
    let frequencies: Vec<f64> = (0..=POINTS).map(|k| end * k as f64 / POINTS as f64).collect();
    let values = psf.lateral_otf(&frequencies);
    let x = Axis::linear("Spatial frequency (1/µm)", [0.0, end * 1e-6], 4);
    let panel = Panel::new(canvas, rect, x, Axis::linear("|OTF|", [0.0, 1.05], 5));
    for (frequency, name, colour) in [(cut_off, "cut-off", REFERENCE), (nyquist, "Nyquist", GREY)] {
        if frequency < end {
            let at = frequency * 1e-6;
            panel.curve(&[[at, 0.0], [at, 1.05]], THIN, colour)?;
            let place = [panel.place(at, 0.0)[0] - 2.0 - TICK / 2.0, rect.top + 4.0];
            let middle = [place[0], place[1] + 0.5 * canvas.text_width(name, TICK)?];
            canvas.text(middle, name, TICK, Align::Centre, colour, true)?;
        }
    }
    let curve: Vec<[f64; 2]> = frequencies.iter().zip(&values).map(|(f, value)| [f * 1e-6, *value]).collect();
    panel.curve(&curve, CURVE, POSTERIOR)?;
    panel.frame(BLACK)?;
    panel.title("Transfer function")
}
