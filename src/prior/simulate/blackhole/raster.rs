//! From a brightness on the sky to pixels: polar sampling, placement in the field of view, and blur.

use std::f64::consts::TAU;

use super::{Settings, shapes::FWHM};
use crate::rng::Rng;

/// Points per pixel along each axis at which the brightness is averaged.
const SUBPIXELS: usize = 3;
/// Directions of the polar grid.
const DIRECTIONS: usize = 96;
/// Radius up to which rings of the polar grid are evenly spaced, M; it holds the shadow's edge.
const FINE_RADIUS: f64 = 8.0;
/// Relative spacing of the rings beyond.
const COARSE_SPACING: f64 = 0.08;

/// Brightness around a black hole on rings of impact parameter, from which any pixel grid is interpolated.
#[derive(Debug, Clone)]
pub(super) struct PolarImage {
    spacing: f64,
    fine: usize,
    rings: usize,
    values: Vec<f64>,
}

impl PolarImage {
    /// Samples `intensity(alpha, beta)` out to impact parameter `outer` for pixels of size `pixel`, all in M.
    pub(super) fn of(pixel: f64, outer: f64, intensity: impl Fn(f64, f64) -> f64) -> Self {
        let fine = (FINE_RADIUS / (0.55 * pixel).clamp(0.1, 0.4)).ceil();
        let coarse = (outer / FINE_RADIUS).ln().max(0.0) / COARSE_SPACING;
        let mut polar = Self {
            spacing: FINE_RADIUS / fine,
            fine: fine as usize,
            rings: fine as usize + coarse.ceil() as usize + 1,
            values: Vec::new(),
        };
        for ring in 0..polar.rings {
            let radius = polar.radius(ring as f64);
            polar.values.extend((0..DIRECTIONS).map(|direction| {
                let (sin, cos) = (TAU * direction as f64 / DIRECTIONS as f64).sin_cos();
                intensity(radius * cos, radius * sin)
            }));
        }
        polar
    }

    /// Impact parameter of a ring; the first lies half a spacing from the centre.
    fn radius(&self, ring: f64) -> f64 {
        let beyond = ring + 0.5 - self.fine as f64;
        if beyond <= 0.0 {
            (ring + 0.5) * self.spacing
        } else {
            FINE_RADIUS * (COARSE_SPACING * beyond).exp()
        }
    }

    fn ring(&self, radius: f64) -> f64 {
        let ring = if radius <= FINE_RADIUS {
            radius / self.spacing
        } else {
            self.fine as f64 + (radius / FINE_RADIUS).ln() / COARSE_SPACING
        };
        (ring - 0.5).max(0.0)
    }

    /// The brightness at impact parameters alpha, beta; zero outside the grid.
    pub(super) fn at(&self, alpha: f64, beta: f64) -> f64 {
        let ring = self.ring(alpha.hypot(beta));
        let low = ring as usize;
        if low + 1 >= self.rings {
            return 0.0;
        }
        let turn = (beta.atan2(alpha) / TAU).rem_euclid(1.0) * DIRECTIONS as f64;
        let (left, share) = (turn as usize % DIRECTIONS, turn.fract());
        let right = (left + 1) % DIRECTIONS;
        let along = |ring: usize| {
            let row = &self.values[ring * DIRECTIONS..(ring + 1) * DIRECTIONS];
            row[left] * (1.0 - share) + row[right] * share
        };
        along(low) * (1.0 - ring.fract()) + along(low + 1) * ring.fract()
    }
}

/// Where and how large a source lies in the field of view; lengths are fractions of the field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raster {
    pixels: usize,
    /// Diameter of the source.
    pub(super) diameter: f64,
    centre: [f64; 2],
    angle: f64,
    mirrored: bool,
    /// Full width at half maximum of the blur, pixels.
    blur: f64,
    /// Pixels around the field whose light the blur may carry into it.
    margin: usize,
}

impl Raster {
    /// Draws size, place, orientation (uniform), handedness (the view from below the equator is the mirror image of
    /// the one from above) and blur.
    pub(super) fn draw(settings: &Settings, pixels: usize, rng: &mut Rng) -> Self {
        let wide = rng.uniform() < settings.wide_offset_share;
        let offset = if wide { settings.wide_offset } else { settings.offset };
        let blurred = rng.uniform() < settings.blur_share;
        let fwhm = if blurred { settings.blur_fwhm.uniform(rng) } else { settings.least_blur };
        let blur = fwhm * pixels as f64;
        Self {
            pixels,
            diameter: settings.diameter.log_uniform(rng),
            centre: [offset * rng.normal(), offset * rng.normal()],
            angle: TAU * rng.uniform(),
            mirrored: rng.uniform() < 0.5,
            blur,
            margin: blur.ceil() as usize,
        }
    }

    /// Width of the field and its margins, fields of view.
    pub(super) fn extent(&self) -> f64 {
        self.side() as f64 / self.pixels as f64
    }

    fn side(&self) -> usize {
        self.pixels + 2 * self.margin
    }

    /// Pixels of the field and its margins for a brightness given in units of the source's diameter.
    pub(super) fn image(&self, brightness: &dyn Fn(f64, f64) -> f64) -> Vec<f64> {
        let (sin, cos) = self.angle.sin_cos();
        let side = self.side();
        let points = side * SUBPIXELS;
        let offset = |i: usize| ((i as f64 + 0.5) / points as f64 - 0.5) * self.extent();
        let mut image = vec![0.0; side * side];
        for row in 0..points {
            for column in 0..points {
                let (west, north) = (offset(column) - self.centre[0], -offset(row) - self.centre[1]);
                let x = (west * cos + north * sin) / self.diameter;
                let y = (north * cos - west * sin) / self.diameter;
                let y = if self.mirrored { -y } else { y };
                image[row / SUBPIXELS * side + column / SUBPIXELS] += brightness(x, y);
            }
        }
        image
    }

    /// Blurs an image of the field and its margins and cuts the margins off.
    pub(super) fn develop(&self, mut image: Vec<f64>) -> Vec<f64> {
        blur(&mut image, self.side(), self.blur);
        let rows = image.chunks_exact(self.side()).skip(self.margin).take(self.pixels);
        rows.flat_map(|row| &row[self.margin..self.margin + self.pixels]).copied().collect()
    }
}

/// Blurs a square image by a Gaussian of the given full width at half maximum in pixels; light that leaves is lost.
pub(super) fn blur(image: &mut [f64], pixels: usize, fwhm: f64) {
    let rate = -0.5 * (FWHM / fwhm.max(1e-3)).powi(2);
    let reach = ((1.7 * fwhm).ceil() as usize).min(pixels - 1);
    let mut kernel: Vec<f64> = (0..=reach).map(|k| (rate * (k * k) as f64).exp()).collect();
    let total = kernel[0] + 2.0 * kernel[1..].iter().sum::<f64>();
    kernel.iter_mut().for_each(|weight| *weight /= total);
    // Blurring along rows and transposing, twice, blurs along both axes.
    for _ in 0..2 {
        let source = image.to_vec();
        for (i, row) in source.chunks_exact(pixels).enumerate() {
            for j in 0..pixels {
                let near =
                    |k: usize| row.get(j + k).unwrap_or(&0.0) + row.get(j.wrapping_sub(k)).unwrap_or(&0.0);
                image[j * pixels + i] =
                    kernel[0] * row[j] + (1..=reach).map(|k| kernel[k] * near(k)).sum::<f64>();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_sky_stays_even_up_to_the_edge() {
        let settings = Settings { blur_share: 1.0, ..Settings::default() };
        let raster = Raster::draw(&settings, 32, &mut Rng::new(2));
        let image = raster.develop(raster.image(&|_, _| 1.0));
        assert_eq!(image.len(), 32 * 32);
        let (least, most) = image.iter().fold((f64::MAX, 0.0), |(a, b), v| (v.min(a), v.max(b)));
        assert!(least > 0.95 * most, "{least} {most}");
    }
}
