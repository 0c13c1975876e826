//! A panel with axes: frame, inward ticks on all sides, labels, and data drawn inside it.

use super::{
    canvas::{Align, Canvas, Point, Rect},
    style::{BLACK, Colour, LABEL, THIN, TICK, TICK_LENGTH},
    ticks::{self, Ticks},
};
use crate::Result;

/// Gap between tick labels and frame.
const GAP: f64 = 3.0;

/// One axis: its label and how values lie along it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    label: String,
    range: [f64; 2],
    logarithmic: bool,
    ticks: Ticks,
    named: bool,
}

impl Axis {
    /// A linear axis from the first to the second value (which may be the smaller one).
    pub(crate) fn linear(label: impl Into<String>, range: [f64; 2], ticks: usize) -> Self {
        let ticks = ticks::linear(range, ticks);
        Self { label: label.into(), range, logarithmic: false, ticks, named: true }
    }

    /// A logarithmic axis between two positive values.
    pub(crate) fn logarithmic(label: impl Into<String>, range: [f64; 2]) -> Self {
        Self { label: label.into(), range, logarithmic: true, ticks: ticks::logarithmic(range), named: true }
    }

    /// The same axis with ticks at the multiples of a step.
    pub(crate) fn every(mut self, step: f64) -> Self {
        let [from, to] = self.range;
        self.ticks = ticks::multiples(from.min(to), from.max(to), step);
        self
    }

    /// The same axis without numbers and label, for panels that share it with a neighbour.
    pub(crate) fn unnamed(mut self) -> Self {
        self.named = false;
        self
    }

    /// The same axis without any ticks.
    pub(crate) fn bare(mut self) -> Self {
        self.ticks = Ticks::default();
        self
    }

    /// Position along the axis, 0 at its start and 1 at its end.
    fn fraction(&self, value: f64) -> f64 {
        let place = |v: f64| if self.logarithmic { v.max(f64::MIN_POSITIVE).ln() } else { v };
        let [from, to] = self.range.map(place);
        (place(value) - from) / (to - from)
    }
}

/// A rectangle of the page with two axes.
pub(crate) struct Panel<'c, 'a> {
    pub(crate) canvas: &'c Canvas<'a>,
    pub(crate) rect: Rect,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
}

impl<'c, 'a> Panel<'c, 'a> {
    pub(crate) fn new(canvas: &'c Canvas<'a>, rect: Rect, x: Axis, y: Axis) -> Self {
        Self { canvas, rect, x, y }
    }

    /// Place on the page of a pair of values.
    pub(crate) fn place(&self, x: f64, y: f64) -> Point {
        let Rect { left, width, height, .. } = self.rect;
        [left + self.x.fraction(x) * width, self.rect.bottom() - self.y.fraction(y) * height]
    }

    /// Frame, ticks and labels in a colour for the ticks; call it after the data so that they stay visible.
    pub(crate) fn frame(&self, colour: Colour) -> Result<()> {
        let rect = self.rect;
        self.ticks(colour)?;
        self.canvas.outline(rect, THIN, BLACK)?;
        let mut widest = 0.0_f64;
        if self.x.named {
            for (value, label) in &self.x.ticks.major {
                let x = self.place(*value, self.y.range[0])[0];
                let place = [x, rect.bottom() + GAP + TICK / 2.0];
                self.canvas.text(place, label, TICK, Align::Centre, BLACK, false)?;
            }
            let tall = if self.x.ticks.major.is_empty() { 0.0 } else { TICK };
            let place = [rect.centre()[0], rect.bottom() + 2.0 * GAP + tall + LABEL / 2.0];
            self.canvas.text(place, &self.x.label, LABEL, Align::Centre, BLACK, false)?;
        }
        if self.y.named {
            for (value, label) in &self.y.ticks.major {
                let y = self.place(self.x.range[0], *value)[1];
                self.canvas.text([rect.left - GAP, y], label, TICK, Align::Right, BLACK, false)?;
                widest = widest.max(self.canvas.text_width(label, TICK)?);
            }
            let place = [rect.left - 2.0 * GAP - widest - LABEL / 2.0, rect.centre()[1]];
            self.canvas.text(place, &self.y.label, LABEL, Align::Centre, BLACK, true)?;
        }
        Ok(())
    }

    fn ticks(&self, colour: Colour) -> Result<()> {
        let Rect { left, top, .. } = self.rect;
        let (right, bottom) = (self.rect.right(), self.rect.bottom());
        let with_length = |ticks: &Ticks| {
            let major = ticks.major.iter().map(|(value, _)| (*value, TICK_LENGTH));
            let minor = ticks.minor.iter().map(|value| (*value, TICK_LENGTH / 2.0));
            major.chain(minor).collect::<Vec<_>>()
        };
        for (value, length) in with_length(&self.x.ticks) {
            let x = self.place(value, self.y.range[0])[0];
            self.canvas.line(&[[x, bottom], [x, bottom - length]], THIN, colour)?;
            self.canvas.line(&[[x, top], [x, top + length]], THIN, colour)?;
        }
        for (value, length) in with_length(&self.y.ticks) {
            let y = self.place(self.x.range[0], value)[1];
            self.canvas.line(&[[left, y], [left + length, y]], THIN, colour)?;
            self.canvas.line(&[[right, y], [right - length, y]], THIN, colour)?;
        }
        Ok(())
    }

    /// A curve through data, cut at the frame.
    pub(crate) fn curve(&self, data: &[[f64; 2]], width: f64, colour: Colour) -> Result<()> {
        let points: Vec<Point> = data.iter().map(|[x, y]| self.place(*x, *y)).collect();
        for part in clipped(&points, &self.rect) {
            self.canvas.line(&part, width, colour)?;
        }
        Ok(())
    }

    /// Filled disks of a radius in points; those outside the frame are left out.
    pub(crate) fn markers(&self, data: &[[f64; 2]], radius: f64, colour: Colour) -> Result<()> {
        let places = data.iter().map(|[x, y]| self.place(*x, *y)).filter(|place| self.rect.contains(*place));
        for place in places {
            self.canvas.disk(place, radius, colour)?;
        }
        Ok(())
    }

    /// Vertical error bars from low to high, cut at the frame.
    pub(crate) fn error_bars(&self, data: &[(f64, [f64; 2])], width: f64, colour: Colour) -> Result<()> {
        for (x, [low, high]) in data {
            self.curve(&[[*x, *low], [*x, *high]], width, colour)?;
        }
        Ok(())
    }

    /// The area between two curves over the same abscissae.
    pub(crate) fn band(&self, data: &[(f64, [f64; 2])], colour: Colour) -> Result<()> {
        let lower = data.iter().map(|(x, [low, _])| self.place(*x, *low));
        let upper = data.iter().rev().map(|(x, [_, high])| self.place(*x, *high));
        let Rect { left, top, .. } = self.rect;
        let inside = |[x, y]: Point| [x.clamp(left, self.rect.right()), y.clamp(top, self.rect.bottom())];
        let outline: Vec<Point> = lower.chain(upper).map(inside).collect();
        if outline.len() < 4 { Ok(()) } else { self.canvas.polygon(&outline, colour) }
    }

    /// A text inside the frame at fractions of its width and height from the upper left corner.
    pub(crate) fn note(&self, at: [f64; 2], text: &str, align: Align, colour: Colour) -> Result<()> {
        let place = [self.rect.left + at[0] * self.rect.width, self.rect.top + at[1] * self.rect.height];
        self.canvas.text(place, text, TICK, align, colour, false)
    }

    /// A title above the frame.
    pub(crate) fn title(&self, text: &str) -> Result<()> {
        let place = [self.rect.centre()[0], self.rect.top - GAP - LABEL / 2.0];
        self.canvas.text(place, text, LABEL, Align::Centre, BLACK, false)
    }
}

/// The parts of a line inside a rectangle.
fn clipped(points: &[Point], rect: &Rect) -> Vec<Vec<Point>> {
    let mut parts: Vec<Vec<Point>> = Vec::new();
    for pair in points.windows(2) {
        let Some([a, b]) = clipped_segment(pair[0], pair[1], rect) else { continue };
        match parts.last_mut() {
            Some(part) if part.last() == Some(&a) => part.push(b),
            _ => parts.push(vec![a, b]),
        }
    }
    parts
}

/// The part of a segment inside a rectangle (Liang-Barsky), or nothing.
fn clipped_segment(a: Point, b: Point, rect: &Rect) -> Option<[Point; 2]> {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let (mut enter, mut leave) = (0.0_f64, 1.0_f64);
    let sides = [
        (-dx, a[0] - rect.left),
        (dx, rect.right() - a[0]),
        (-dy, a[1] - rect.top),
        (dy, rect.bottom() - a[1]),
    ];
    for (speed, distance) in sides {
        if !(speed.is_finite() && distance.is_finite()) || (speed == 0.0 && distance < 0.0) {
            return None;
        }
        if speed < 0.0 {
            enter = enter.max(distance / speed);
        } else if speed > 0.0 {
            leave = leave.min(distance / speed);
        }
    }
    let at = |t: f64| {
        if t == 0.0 {
            a
        } else if t == 1.0 {
            b
        } else {
            [a[0] + t * dx, a[1] + t * dy]
        }
    };
    (enter <= leave).then(|| [at(enter), at(leave)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_end_at_the_frame() {
        let rect = Rect::new(0.0, 0.0, 10.0, 10.0);
        let line = [[-5.0, 5.0], [5.0, 5.0], [5.0, 20.0], [f64::NAN, 1.0], [1.0, 1.0], [2.0, 2.0]];
        let parts = clipped(&line, &rect);
        assert_eq!(parts, [vec![[0.0, 5.0], [5.0, 5.0], [5.0, 10.0]], vec![[1.0, 1.0], [2.0, 2.0]]]);
    }

    #[test]
    fn reversed_and_logarithmic_axes_place_their_ends() {
        let east = Axis::linear("", [80.0, -80.0], 4);
        assert_eq!([80.0, -80.0, 0.0].map(|x| east.fraction(x)), [0.0, 1.0, 0.5]);
        let jansky = Axis::logarithmic("", [0.01, 1.0]);
        assert!((jansky.fraction(0.1) - 0.5).abs() < 1e-12);
    }
}
