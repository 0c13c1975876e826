//! The drawing surface: points on paper to SVG through plotters.
//!
//! plotters' backends have integer coordinates, so the canvas has ten units per point.

use std::{cell::RefCell, sync::Once};

use ndarray::Array2;
use plotters::{
    coord::Shift,
    prelude::*,
    style::{
        FontTransform, RGBAColor,
        text_anchor::{HPos, Pos, VPos},
    },
};

use resvg::tiny_skia;

use super::style::{Colour, FONT};
use crate::{Error, Result};

/// DejaVu Sans; see `data/fonts/README.md`.
pub(crate) const FONT_DATA: &[u8] = include_bytes!("../../data/fonts/DejaVuSans.ttf");

/// Canvas units per point.
const UNITS: f64 = 10.0;
/// plotters writes the font size of its SVG text divided by this.
const FONT_SCALE: f64 = 1.24;
/// plotters measures text by ascent minus descent, which is this many ems of DejaVu Sans.
const FONT_HEIGHT: f64 = 1.164;
/// Points per pixel of embedded pictures (180 per inch): far finer than the pixels of the sky they show.
pub(crate) const PIXEL: f64 = 0.4;

/// Opacity that marks the place of a picture, and how it reads in the SVG.
const OPACITY_OF_PLACE: f64 = 0.001_953_125;
const PLACE_OF_PICTURE: &str = "opacity=\"0.001953125\"";

/// A place on the page, points right of and below the upper left corner.
pub(crate) type Point = [f64; 2];

/// A rectangle on the page, points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rect {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Rect {
    pub(crate) fn new(left: f64, top: f64, width: f64, height: f64) -> Self {
        Self { left, top, width, height }
    }
    pub(crate) fn right(&self) -> f64 {
        self.left + self.width
    }
    pub(crate) fn bottom(&self) -> f64 {
        self.top + self.height
    }
    pub(crate) fn centre(&self) -> Point {
        [self.left + self.width / 2.0, self.top + self.height / 2.0]
    }
    pub(crate) fn contains(&self, [x, y]: Point) -> bool {
        (self.left..=self.right()).contains(&x) && (self.top..=self.bottom()).contains(&y)
    }
}

/// Where a text's anchor lies along it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Align {
    Left,
    Centre,
    Right,
}

/// A drawing under way.
pub(crate) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
    pictures: RefCell<Vec<String>>,
}

/// Draws a picture of `width` x `height` points and returns its SVG.
///
/// # Errors
/// The drawing backend failed.
pub(crate) fn draw(width: f64, height: f64, picture: impl FnOnce(&Canvas) -> Result<()>) -> Result<String> {
    register_font();
    let [w, h] = [width, height].map(|length| (length * UNITS).round() as u32);
    let mut svg = String::new();
    let pictures = {
        let area = SVGBackend::with_string(&mut svg, (w, h)).into_drawing_area();
        let canvas = Canvas { area, pictures: RefCell::default() };
        canvas.area.fill(&plotters::style::WHITE).map_err(failed)?;
        picture(&canvas)?;
        canvas.area.present().map_err(failed)?;
        canvas.pictures.into_inner()
    };
    Ok(finish(&svg, [w, h], pictures))
}

/// Gives the page its size in points and text a fallback font, and puts the pictures in their places.
fn finish(svg: &str, [w, h]: [u32; 2], pictures: Vec<String>) -> String {
    let size = |value: u32| f64::from(value) / UNITS;
    let page = format!("width=\"{w}\" height=\"{h}\"");
    let points = format!("width=\"{}pt\" height=\"{}pt\"", size(w), size(h));
    let svg = svg.replacen(&page, &points, 1);
    let svg = svg
        .replace(&format!("font-family=\"{FONT}\""), &format!("font-family=\"{FONT}, Verdana, sans-serif\""));
    let mut pictures = pictures.into_iter();
    let mut finished = String::with_capacity(svg.len());
    for line in svg.lines() {
        let picture = if line.contains(PLACE_OF_PICTURE) { pictures.next() } else { None };
        finished.push_str(picture.as_deref().unwrap_or(line));
        finished.push('\n');
    }
    finished
}

fn register_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A font that is not registered shows as an error of the first text drawn.
        let _ = plotters::style::register_font(FONT, FontStyle::Normal, FONT_DATA);
    });
}

fn failed<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> Error {
    Error::Figure(error.to_string())
}

fn paint(colour: Colour) -> RGBAColor {
    let [r, g, b] = colour.rgb;
    RGBAColor(r, g, b, colour.opacity)
}

fn units([x, y]: Point) -> (i32, i32) {
    ((x * UNITS).round() as i32, (y * UNITS).round() as i32)
}

impl Canvas<'_> {
    /// A line through points, `width` points thick.
    pub(crate) fn line(&self, points: &[Point], width: f64, colour: Colour) -> Result<()> {
        let style = paint(colour).stroke_width((width * UNITS).round() as u32);
        let points: Vec<_> = points.iter().copied().map(units).collect();
        self.area.draw(&PathElement::new(points, style)).map_err(failed)
    }

    /// A filled polygon.
    pub(crate) fn polygon(&self, points: &[Point], colour: Colour) -> Result<()> {
        let points: Vec<_> = points.iter().copied().map(units).collect();
        self.area.draw(&Polygon::new(points, paint(colour))).map_err(failed)
    }

    /// A filled rectangle.
    pub(crate) fn fill(&self, rect: Rect, colour: Colour) -> Result<()> {
        let (l, t, r, b) = (rect.left, rect.top, rect.right(), rect.bottom());
        self.polygon(&[[l, t], [r, t], [r, b], [l, b]], colour)
    }

    /// A frame around a rectangle.
    pub(crate) fn outline(&self, rect: Rect, width: f64, colour: Colour) -> Result<()> {
        let (l, t, r, b) = (rect.left, rect.top, rect.right(), rect.bottom());
        // The first side is drawn twice so that the first corner is closed like the others.
        self.line(&[[l, t], [r, t], [r, b], [l, b], [l, t], [r, t]], width, colour)
    }

    /// A filled disk.
    pub(crate) fn disk(&self, centre: Point, radius: f64, colour: Colour) -> Result<()> {
        let radius = (radius * UNITS).round() as i32;
        self.area.draw(&Circle::new(units(centre), radius, paint(colour).filled())).map_err(failed)
    }

    /// Text of a font size in points, vertically centred on its digits; `upwards` turns it a quarter left.
    pub(crate) fn text(
        &self,
        place: Point,
        text: &str,
        size: f64,
        align: Align,
        colour: Colour,
        upwards: bool,
    ) -> Result<()> {
        // The backend centres on half of the x-height; digits and capitals reach higher.
        let shift = 0.115 * size;
        let place = if upwards { [place[0] + shift, place[1]] } else { [place[0], place[1] + shift] };
        let horizontal = match align {
            Align::Left => HPos::Left,
            Align::Centre => HPos::Center,
            Align::Right => HPos::Right,
        };
        let transform = if upwards { FontTransform::Rotate270 } else { FontTransform::None };
        let font = FontDesc::from((FONT, size * UNITS * FONT_SCALE)).transform(transform);
        let paint = paint(colour);
        let style = TextStyle::from(font).color(&paint).pos(Pos::new(horizontal, VPos::Center));
        self.area.draw(&Text::new(text.to_string(), units(place), style)).map_err(failed)
    }

    /// Width of a text, points.
    pub(crate) fn text_width(&self, text: &str, size: f64) -> Result<f64> {
        let font = FontDesc::from((FONT, size * UNITS * FONT_SCALE));
        let (width, _) = self.area.estimate_text_size(text, &TextStyle::from(font)).map_err(failed)?;
        Ok(f64::from(width) / UNITS * FONT_HEIGHT / FONT_SCALE)
    }

    /// A picture whose pixels are [`PIXEL`] points wide, with its upper left corner at a place.
    ///
    /// The backend draws pictures as one rectangle per pixel, so a marked rectangle keeps the place of the
    /// PNG that [`finish`] puts there.
    pub(crate) fn picture(&self, place: Point, pixels: &Array2<[u8; 3]>) -> Result<()> {
        let (rows, columns) = pixels.dim();
        let (x, y) = units(place);
        let [width, height] = [columns, rows].map(|pixels| (pixels as f64 * PIXEL * UNITS).round() as i32);
        let corners = [(x, y), (x + width, y + height)];
        let marked = RGBAColor(0, 0, 0, OPACITY_OF_PLACE).filled();
        self.area.draw(&Rectangle::new(corners, marked)).map_err(failed)?;
        self.pictures.borrow_mut().push(format!(
            "<image x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" \
             preserveAspectRatio=\"none\" href=\"data:image/png;base64,{}\"/>",
            base64(&png(pixels)?)
        ));
        Ok(())
    }
}

/// Encodes opaque pixels as PNG.
fn png(pixels: &Array2<[u8; 3]>) -> Result<Vec<u8>> {
    let (rows, columns) = pixels.dim();
    let mut pixmap = tiny_skia::Pixmap::new(columns as u32, rows as u32)
        .ok_or_else(|| Error::Figure("a picture without pixels".into()))?;
    for (target, [r, g, b]) in pixmap.pixels_mut().iter_mut().zip(pixels) {
        *target = tiny_skia::ColorU8::from_rgba(*r, *g, *b, 255).premultiply();
    }
    pixmap.encode_png().map_err(|error| Error::Figure(error.to_string()))
}

/// Base64 with padding (RFC 4648, section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |k: usize| u32::from(chunk.get(k).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for k in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * k)) as usize & 63];
            text.push(if k <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_agrees_with_the_test_vectors_of_rfc_4648() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn pictures_replace_their_places_in_order() {
        let pixels = Array2::from_elem((5, 10), [10, 20, 30]);
        let svg = draw(20.0, 10.0, |canvas| {
            canvas.picture([1.0, 2.0], &pixels)?;
            canvas.picture([11.0, 2.0], &pixels)?;
            canvas.text([1.0, 1.0], "a < b", 8.0, Align::Left, super::super::style::BLACK, false)
        })
        .unwrap();
        assert!(svg.starts_with("<svg width=\"20pt\" height=\"10pt\" viewBox=\"0 0 200 100\""), "{svg}");
        let places: Vec<_> = svg.match_indices("<image x=").collect();
        assert_eq!(places.len(), 2);
        // 10 x 5 pixels of 0.4 points.
        assert!(svg.contains("<image x=\"10\" y=\"20\" width=\"40\" height=\"20\""), "{svg}");
        assert!(!svg.contains(PLACE_OF_PICTURE) && svg.contains("a &lt; b"), "{svg}");
    }
}
