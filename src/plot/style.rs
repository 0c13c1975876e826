//! Sizes, strokes and colours of the figures; lengths are points (1/72 inch).

use super::colormap::oklch;

/// Width of a journal column, 3.5 inches.
pub(crate) const COLUMN: f64 = 252.0;
/// Width of a journal page, 7.1 inches.
pub(crate) const PAGE: f64 = 511.2;

/// Font family of all figures; other programs may substitute the sans-serif that is like it.
pub(crate) const FONT: &str = "DejaVu Sans";
/// Axis labels and panel titles.
pub(crate) const LABEL: f64 = 8.0;
/// Tick labels, legends and annotations.
pub(crate) const TICK: f64 = 7.0;

/// Frames, ticks, error bars.
pub(crate) const THIN: f64 = 0.6;
/// Curves.
pub(crate) const CURVE: f64 = 1.1;
/// Length of major ticks; minor ones have half of it.
pub(crate) const TICK_LENGTH: f64 = 3.6;

/// A colour with opacity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Colour {
    pub(crate) rgb: [u8; 3],
    pub(crate) opacity: f64,
}

impl Colour {
    pub(crate) const fn new(r: u8, g: u8, b: u8) -> Self {
        Self { rgb: [r, g, b], opacity: 1.0 }
    }

    /// The same colour, partly transparent.
    pub(crate) const fn faded(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }
}

pub(crate) const BLACK: Colour = Colour::new(0, 0, 0);
pub(crate) const WHITE: Colour = Colour::new(255, 255, 255);
pub(crate) const GREY: Colour = Colour::new(120, 120, 120);
/// Model, posterior (blue of Okabe and Ito's colour-blind safe palette).
pub(crate) const POSTERIOR: Colour = Colour::new(0, 114, 178);
/// Reference values and truths (vermillion of the same palette).
pub(crate) const REFERENCE: Colour = Colour::new(213, 94, 0);

/// The `index`-th of `count` colours that differ in hue and, between neighbours, in lightness.
pub(crate) fn categorical(index: usize, count: usize) -> Colour {
    let hue = 20.0 + 340.0 * index as f64 / count.max(1) as f64;
    let lightness = [0.45, 0.68, 0.56][index % 3];
    let [r, g, b] = oklch(lightness, 0.85, hue);
    Colour::new(r, g, b)
}
