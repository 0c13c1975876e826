//! Width and contrast of the brightest thin structure that a line through an image crosses.

use ndarray::{ArrayView1, ArrayView2, Axis};

/// Lines through the middle of an image, by name, with the axis that they run along.
pub const LINES: [(&str, usize); 2] = [("row", 1), ("column", 0)];

/// What a line shows where it crosses the brightest structure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crossing {
    /// Full width at half of the height above the darkest point of the line, pixels.
    pub width: f64,
    /// (brightest - darkest) / (brightest + darkest).
    pub contrast: f64,
}

/// Brightness along the line through the middle of an image `[Y, X]` that runs along `axis`, averaged over `breadth` pixels
/// across it.
pub fn profile(image: ArrayView2<f64>, axis: usize, breadth: usize) -> Vec<f64> {
    let across = Axis(1 - axis);
    let size = image.len_of(across);
    let breadth = breadth.clamp(1, size.max(1));
    let first = (size - breadth) / 2;
    let lane = |line: usize| -> ArrayView1<f64> { image.index_axis(across, line) };
    let sum = |i: usize| (first..first + breadth).map(|line| lane(line)[i]).sum::<f64>();
    (0..image.len_of(Axis(axis))).map(|i| sum(i) / breadth as f64).collect()
}

/// The crossing of a profile; none where it is even, not positive, or still above half of its height at an end.
pub fn crossing(profile: &[f64]) -> Option<Crossing> {
    let (peak, &brightest) = profile.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
    let darkest = profile.iter().copied().fold(f64::INFINITY, f64::min);
    if !(brightest > darkest && brightest + darkest > 0.0) {
        return None;
    }
    let half = 0.5 * (brightest + darkest);
    // Where the profile falls through half of the height, between pixels.
    let reach = |next: fn(usize) -> Option<usize>| -> Option<f64> {
        let mut here = peak;
        loop {
            let there = next(here).filter(|&i| i < profile.len())?;
            if profile[there] <= half {
                let part = (profile[here] - half) / (profile[here] - profile[there]);
                return Some(here.abs_diff(peak) as f64 + part);
            }
            here = there;
        }
    };
    let width = reach(|i| i.checked_sub(1))? + reach(|i| i.checked_add(1))?;
    Some(Crossing { width, contrast: (brightest - darkest) / (brightest + darkest) })
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// A Gaussian filament of standard deviation s on an even ground has width 2.355 s.
    #[test]
    fn a_gaussian_filament_has_its_width_and_contrast() {
        let (s, ground, height) = (2.5, 1.0, 4.0);
        let filament = |offset: f64| ground + height * (-0.5 * (offset / s).powi(2)).exp();
        let image = Array2::from_shape_fn((40, 61), |(_, x)| filament(x as f64 - 27.3));
        let found = crossing(&profile(image.view(), 1, 5)).unwrap();
        assert!((found.width - 2.355 * s).abs() < 0.06, "{found:?}");
        assert!((found.contrast - height / (height + 2.0 * ground)).abs() < 0.01, "{found:?}");
        let turned = crossing(&profile(image.t(), 0, 5)).unwrap();
        assert!((turned.width - found.width).abs() < 1e-12);
        assert!(crossing(&profile(image.view(), 0, 5)).is_none(), "along the filament nothing is crossed");
    }

    #[test]
    fn structures_at_the_end_of_a_line_have_no_width() {
        assert_eq!(crossing(&[5.0, 4.0, 1.0, 0.0]), None);
        assert_eq!(crossing(&[]), None);
    }
}
