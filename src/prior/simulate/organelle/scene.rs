//! The picture that structures are drawn into: spots, tubes and balls of light, and smooth random fields.

use std::f64::consts::{PI, TAU};

use rustfft::num_complex::Complex64;

use crate::{rng::Rng, tensor::fft::Fft2};

/// Standard deviation of a Gaussian of full width 1 at half maximum.
pub(super) const SIGMA: f64 = 0.424_660_900_144_009_5;

/// Distance in standard deviations beyond which a spot gives no light.
const REACH: f64 = 4.0;

/// A place in pixels; (0, 0) is the upper left corner.
pub(super) type Place = [f64; 2];

/// Light per pixel on a square that is larger than the image.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    /// Pixels along each side.
    pub(super) side: usize,
    /// Size of a pixel, micrometres.
    pub(super) pixel: f64,
    /// Standard deviation of the blur, pixels.
    pub(super) blur: f64,
    /// Light, row-major.
    pub(super) light: Vec<f64>,
}

impl Scene {
    /// A dark scene.
    pub(super) fn dark(side: usize, pixel: f64, blur: f64) -> Self {
        Self { side, pixel, blur, light: vec![0.0; side * side] }
    }

    /// A dark scene of the same scale.
    pub(super) fn empty(&self) -> Self {
        Self::dark(self.side, self.pixel, self.blur)
    }

    /// Area, square micrometres.
    pub(super) fn area(&self) -> f64 {
        (self.side as f64 * self.pixel).powi(2)
    }

    /// A length in micrometres as pixels.
    pub(super) fn pixels(&self, micrometres: f64) -> f64 {
        micrometres / self.pixel
    }

    /// A uniformly drawn place up to `beyond` pixels outside the scene.
    pub(super) fn place(&self, beyond: f64, rng: &mut Rng) -> Place {
        let length = self.side as f64 + 2.0 * beyond;
        [length * rng.uniform() - beyond, length * rng.uniform() - beyond]
    }

    /// Calls `each` with the index and the squared distance of all pixels within `reach` of a place.
    fn near(&self, [x, y]: Place, reach: f64, mut each: impl FnMut(usize, f64)) {
        let range = |centre: f64| {
            let low = (centre - reach).floor().clamp(0.0, self.side as f64) as usize;
            let high = (centre + reach).ceil().clamp(0.0, self.side as f64) as usize;
            low..high
        };
        for row in range(y) {
            let dy = row as f64 + 0.5 - y;
            for column in range(x) {
                let dx = column as f64 + 0.5 - x;
                each(row * self.side + column, dx * dx + dy * dy);
            }
        }
    }

    /// Adds a spot with `light` in all and standard deviation `width` in pixels, blurred like everything.
    pub(super) fn spot(&mut self, place: Place, width: f64, light: f64) {
        let variance = width * width + self.blur * self.blur;
        let peak = light / (TAU * variance);
        let mut spots = std::mem::take(&mut self.light);
        self.near(place, REACH * variance.sqrt(), |index, square| {
            spots[index] += peak * (-0.5 * square / variance).exp();
        });
        self.light = spots;
    }

    /// Adds what `brightness(arc, depth)` says of every pixel within `radius` of a curve of points one `step` apart: arc is
    /// the place along the curve in pixels, depth falls from 1 on the curve to 0 at the radius. Edges are blurred.
    pub(super) fn tube(
        &mut self,
        points: &[Place],
        step: f64,
        radius: f64,
        brightness: impl Fn(f64, f64) -> f64,
    ) {
        let soft = self.blur.max(0.3);
        let mut nearest: Vec<Option<(f64, usize)>> = vec![None; self.light.len()];
        for (number, point) in points.iter().enumerate() {
            self.near(*point, radius + 3.0 * soft, |index, square| {
                if nearest[index].is_none_or(|(least, _)| square < least) {
                    nearest[index] = Some((square, number));
                }
            });
        }
        for (light, nearest) in self.light.iter_mut().zip(nearest) {
            if let Some((square, number)) = nearest {
                let distance = square.sqrt();
                let edge = 0.5 * (1.0 - libm::erf((distance - radius) / (soft * 2f64.sqrt())));
                let depth = (1.0 - distance / radius).clamp(0.0, 1.0);
                *light += edge * brightness(number as f64 * step, depth);
            }
        }
    }

    /// Multiplies the light by what `factor` says of a place.
    pub(super) fn scale(&mut self, factor: impl Fn(Place) -> f64) {
        let side = self.side;
        for (index, light) in self.light.iter_mut().enumerate() {
            *light *= factor([(index % side) as f64 + 0.5, (index / side) as f64 + 0.5]);
        }
    }

    /// Adds what `light` says of a place.
    pub(super) fn add(&mut self, light: impl Fn(Place) -> f64) {
        let side = self.side;
        for (index, sum) in self.light.iter_mut().enumerate() {
            *sum += light([(index % side) as f64 + 0.5, (index / side) as f64 + 0.5]);
        }
    }

    /// Brightness of the structures: the 99.5 % quantile, or a third of the peak where structures are small.
    pub(super) fn brightness(&self) -> f64 {
        let mut sorted = self.light.clone();
        sorted.sort_by(f64::total_cmp);
        let peak = sorted.last().copied().unwrap_or_default();
        let quantile = sorted.get((sorted.len() as f64 * 0.995) as usize).copied().unwrap_or_default();
        quantile.max(peak / 3.0)
    }

    /// Gives the structures the brightness 1.
    pub(super) fn normalise(&mut self) {
        let brightness = self.brightness();
        if brightness > 0.0 {
            self.light.iter_mut().for_each(|light| *light /= brightness);
        }
    }

    /// Adds `share` of the light of a scene of the same size.
    pub(super) fn join(&mut self, other: &Self, share: f64) {
        self.light.iter_mut().zip(&other.light).for_each(|(light, more)| *light += share * more);
    }

    /// Blurs the light by a Gaussian of standard deviation `width`, pixels, as if it went on periodically.
    pub(super) fn defocus(&mut self, width: f64) {
        let side = self.side;
        let fft = Fft2::new([side, side]);
        let mut modes: Vec<Complex64> = self.light.iter().map(|&light| light.into()).collect();
        fft.forward(&mut modes);
        let turns = |index: usize| TAU * index.min(side - index) as f64 / side as f64;
        for (index, mode) in modes.iter_mut().enumerate() {
            let square = turns(index / side).powi(2) + turns(index % side).powi(2);
            *mode *= (-0.5 * width * width * square).exp();
        }
        fft.inverse(&mut modes);
        self.light.iter_mut().zip(modes).for_each(|(light, mode)| *light = mode.re.max(0.0));
    }

    /// The light in the middle `pixels` x `pixels`.
    pub(super) fn middle(&self, pixels: usize) -> Vec<f64> {
        let first = (self.side - pixels) / 2;
        let row = |row: usize| &self.light[row * self.side + first..][..pixels];
        (first..first + pixels).flat_map(row).copied().collect()
    }
}

/// A random field of mean 0 and variance 1: a sum of plane waves.
#[derive(Debug, Clone)]
pub(super) struct Field {
    waves: Vec<[f64; 3]>,
}

impl Field {
    /// Waves in the sum: enough for values that are nearly Gaussian.
    const WAVES: usize = 24;

    /// Wavelengths are drawn log-uniformly from a range in pixels.
    pub(super) fn draw([shortest, longest]: [f64; 2], rng: &mut Rng) -> Self {
        let mut wave = || {
            let length = shortest * (longest / shortest).powf(rng.uniform());
            let (sin, cos) = (TAU * rng.uniform()).sin_cos();
            [TAU / length * cos, TAU / length * sin, TAU * rng.uniform()]
        };
        Self { waves: (0..Self::WAVES).map(|_| wave()).collect() }
    }

    /// The value at a place.
    pub(super) fn at(&self, [x, y]: Place) -> f64 {
        let sum: f64 = self.waves.iter().map(|[kx, ky, phase]| (kx * x + ky * y + phase).cos()).sum();
        sum * (2.0 / Self::WAVES as f64).sqrt()
    }
}

/// A worm-like chain: points `step` pixels apart whose direction forgets itself over the persistence length, in pixels.
pub(super) fn chain(
    start: Place,
    direction: f64,
    length: f64,
    persistence: f64,
    step: f64,
    rng: &mut Rng,
) -> Vec<Place> {
    let turn = (step / persistence).sqrt();
    let (mut place, mut angle) = (start, direction);
    let count = (length / step).clamp(1.0, 4000.0) as usize;
    (0..count)
        .map(|_| {
            let here = place;
            angle += turn * rng.normal();
            place = [place[0] + step * angle.cos(), place[1] + step * angle.sin()];
            here
        })
        .collect()
}

/// A direction drawn uniformly from the half circle.
pub(super) fn any_direction(rng: &mut Rng) -> f64 {
    PI * rng.uniform()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A point out of focus keeps its light and is as wide as the blur says, also across the border.
    #[test]
    fn defocus_spreads_light_and_keeps_it() {
        let (side, width) = (48, 3.0);
        let mut scene = Scene::dark(side, 0.03, 1.0);
        scene.light[2 * side + 24] = 7.0;
        scene.defocus(width);
        assert!((scene.light.iter().sum::<f64>() - 7.0).abs() < 1e-9);
        let peak = 7.0 / (TAU * width * width);
        assert!((scene.light[2 * side + 24] / peak - 1.0).abs() < 1e-6);
        assert!((scene.light[(side - 1) * side + 24] / (peak * (-0.5f64).exp()) - 1.0).abs() < 1e-6);
    }
}
