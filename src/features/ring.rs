//! Ring features of one image: REx of the EHT collaboration 2019, ApJL 875 L4 (Paper IV), section 9.

use std::f64::consts::{PI, TAU};

use ndarray::ArrayView2;

use super::polar::Interpolated;
use crate::{grid::Grid, units::MICROARCSECOND};

/// Rays around the centre.
const RAYS: usize = 72;
/// Rays of the first, coarse search for the centre.
const COARSE_RAYS: usize = 24;
/// Radii along a ray in the coarse search, in the fine one, and once the centre is found.
const COARSE_RADII: usize = 25;
const SEARCH_RADII: usize = 50;
const RADII: usize = 200;
/// A ring's peak radii scatter by less than this fraction of their mean; blobs and noise scatter more.
const LARGEST_SPREAD: f64 = 0.35;
/// A ring's centre is darker than this fraction of its rim; disks and blobs are not.
const BRIGHTEST_CENTRE: f64 = 0.8;

/// Where to look for a ring; the defaults are Paper IV's for M87*.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    /// Largest radius of the rays, radians; the brightness there is the floor of the width (50 uas).
    pub outer_radius: f64,
    /// Radius of the disk whose mean brightness is the central one, radians (5 uas).
    pub inner_radius: f64,
}

impl Default for Search {
    fn default() -> Self {
        Self { outer_radius: 50.0 * MICROARCSECOND, inner_radius: 5.0 * MICROARCSECOND }
    }
}

/// The features of a ring; angles are position angles east of north in radians, `[0, 2 pi)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ring {
    /// Offset of the centre east and north of the phase centre, radians.
    pub centre: [f64; 2],
    /// Twice the mean radius of the brightness peaks, radians.
    pub diameter: f64,
    /// Twice the standard deviation of those radii, radians.
    pub diameter_spread: f64,
    /// Mean full width at half maximum above the floor, radians.
    pub width: f64,
    /// Direction of the first angular moment of the brightness on the ring.
    pub position_angle: f64,
    /// Size of that moment: 0 for an even ring, 1 for a point.
    pub asymmetry: f64,
    /// Mean brightness of the centre over that of the rim.
    pub central_depression: f64,
    /// Direction of the brightest part of the rim.
    pub brightest_angle: f64,
}

/// Measures the ring of an image `[Y, X]` on a sky grid, or nothing if the image shows no ring.
///
/// The centre minimises the standard deviation of the peak radii over their mean.
pub fn measure(image: ArrayView2<f64>, grid: &Grid, search: &Search) -> Option<Ring> {
    let [_, ny, nx] = grid.shape;
    if image.dim() != (ny, nx) || ny.min(nx) < 8 || image.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let outer = search.outer_radius.min(0.45 * (ny as f64 * grid.pitch[1]).min(nx as f64 * grid.pitch[2]));
    let interpolated = Interpolated::new(image, grid);
    let centre = find_centre(&interpolated, grid, outer)?;
    let rim = Rim::trace(&interpolated, centre, outer, RAYS, RADII)?;
    describe(&interpolated, &rim, search.inner_radius)
}

/// Peak radius of every ray from one centre.
struct Rim {
    centre: [f64; 2],
    radii: Vec<f64>,
    angles: Vec<f64>,
    /// Brightness `[ray][radius]`.
    profiles: Vec<Vec<f64>>,
    mean_radius: f64,
    spread: f64,
}

impl Rim {
    fn trace(image: &Interpolated, centre: [f64; 2], outer: f64, rays: usize, steps: usize) -> Option<Self> {
        let radii: Vec<f64> = (0..=steps).map(|k| outer * k as f64 / steps as f64).collect();
        let angles: Vec<f64> = (0..rays).map(|k| TAU * k as f64 / rays as f64).collect();
        let profiles: Vec<Vec<f64>> =
            angles.iter().map(|angle| image.ray(centre, *angle, &radii).collect()).collect();
        let peaks: Vec<f64> = profiles.iter().map(|profile| peak(profile) * outer / steps as f64).collect();
        let mean_radius = mean(&peaks);
        let variance = peaks.iter().map(|r| (r - mean_radius).powi(2)).sum::<f64>() / rays as f64;
        let rim = Self { centre, radii, angles, profiles, mean_radius, spread: variance.sqrt() };
        // A rim at the end of the rays or at their origin is an artefact of the search.
        (mean_radius > 0.1 * outer && mean_radius < 0.95 * outer).then_some(rim)
    }

    fn normalised_spread(&self) -> f64 {
        self.spread / self.mean_radius
    }

    /// Brightness around the ring at every radius between two, `[radius][ray]`.
    fn circles(&self, from: f64, to: f64) -> Vec<Vec<f64>> {
        let inside = |r: &f64| (from..=to).contains(r);
        let indices = self.radii.iter().enumerate().filter(|(_, r)| inside(r)).map(|(k, _)| k);
        indices.map(|k| self.profiles.iter().map(|profile| profile[k]).collect()).collect()
    }
}

/// Position of the largest value in units of the spacing, refined by the parabola through its neighbours.
fn peak(profile: &[f64]) -> f64 {
    let best = profile.iter().enumerate().fold(0, |best, (k, v)| if *v > profile[best] { k } else { best });
    if best == 0 || best + 1 >= profile.len() {
        return best as f64;
    }
    let (left, middle, right) = (profile[best - 1], profile[best], profile[best + 1]);
    let curvature = left - 2.0 * middle + right;
    best as f64 + if curvature < 0.0 { 0.5 * (left - right) / curvature } else { 0.0 }
}

/// Coarse grid over the inner half of the field, then a pattern search down to 1/100 pixel.
fn find_centre(image: &Interpolated, grid: &Grid, outer: f64) -> Option<[f64; 2]> {
    const COARSE_STEP: f64 = 3.0;
    const FINEST_STEP: f64 = 0.01;
    let spread = |centre, rays, radii| {
        Rim::trace(image, centre, outer, rays, radii).map_or(f64::INFINITY, |rim| rim.normalised_spread())
    };
    let offsets = |count: usize, pitch: f64| {
        let half = (count as f64 / 4.0 / COARSE_STEP).floor() as i32;
        (-half..=half).map(move |k| k as f64 * COARSE_STEP * pitch)
    };
    let [_, ny, nx] = grid.shape;
    let mut centre = [0.0, 0.0];
    let mut best = f64::INFINITY;
    for north in offsets(ny, grid.pitch[1]) {
        for east in offsets(nx, grid.pitch[2]) {
            let value = spread([east, north], COARSE_RAYS, COARSE_RADII);
            if value < best {
                (centre, best) = ([east, north], value);
            }
        }
    }
    if !best.is_finite() {
        return None;
    }
    best = spread(centre, RAYS, SEARCH_RADII);
    let mut step = COARSE_STEP / 2.0;
    while step > FINEST_STEP {
        let mut moved = false;
        for (east, north) in [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)] {
            let trial = [centre[0] + east * step * grid.pitch[2], centre[1] + north * step * grid.pitch[1]];
            let value = spread(trial, RAYS, SEARCH_RADII);
            if value < best {
                (centre, best, moved) = (trial, value, true);
            }
        }
        if !moved {
            step /= 2.0;
        }
    }
    Some(centre)
}

fn describe(image: &Interpolated, rim: &Rim, inner_radius: f64) -> Option<Ring> {
    let radius = rim.mean_radius;
    let width = width(rim)?;
    let (position_angle, asymmetry) = first_moment(rim, radius - width / 2.0, radius + width / 2.0)?;
    let around: Vec<f64> =
        rim.angles.iter().flat_map(|a| image.ray(rim.centre, *a, &[radius]).collect::<Vec<_>>()).collect();
    let central_depression = central_brightness(image, rim.centre, inner_radius) / mean(&around);
    let brightest =
        around.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(k, _)| rim.angles[k])?;
    let is_ring = rim.normalised_spread() < LARGEST_SPREAD
        && mean(&around) > 0.0
        && central_depression < BRIGHTEST_CENTRE;
    is_ring.then_some(Ring {
        centre: rim.centre,
        diameter: 2.0 * radius,
        diameter_spread: 2.0 * rim.spread,
        width,
        position_angle,
        asymmetry,
        central_depression,
        brightest_angle: brightest,
    })
}

/// Mean over the rays of the full width at half maximum above the floor.
///
/// The floor is the mean brightness at the end of the rays. Rays that never fall to half of their peak on
/// one side have no width and do not count; nothing if fewer than half of the rays have one.
fn width(rim: &Rim) -> Option<f64> {
    let floor = mean(&rim.profiles.iter().filter_map(|profile| profile.last().copied()).collect::<Vec<_>>());
    let spacing = rim.radii.get(1)?;
    let widths: Vec<f64> =
        rim.profiles.iter().filter_map(|profile| full_width(profile, floor)).map(|w| w * spacing).collect();
    (2 * widths.len() >= rim.profiles.len()).then(|| mean(&widths))
}

/// Full width at half maximum above `floor` around the largest value, in units of the spacing.
fn full_width(profile: &[f64], floor: f64) -> Option<f64> {
    let top = peak(profile).round() as usize;
    let half = floor + 0.5 * (profile.get(top)? - floor);
    let crossing = |outside: usize, inside: usize| {
        let (a, b) = (profile[outside], profile[inside]);
        outside as f64 + (half - a) / (b - a) * (inside as f64 - outside as f64)
    };
    let left = (0..top).rev().find(|k| profile[*k] < half)?;
    let right = (top + 1..profile.len()).find(|k| profile[*k] < half)?;
    Some(crossing(right, right - 1) - crossing(left, left + 1))
}

/// Direction and relative size of the first angular moment, averaged over the radii of the ring.
fn first_moment(rim: &Rim, from: f64, to: f64) -> Option<(f64, f64)> {
    let mut direction = [0.0, 0.0];
    let mut sizes = Vec::new();
    for circle in rim.circles(from, to) {
        let moment = |f: fn(f64) -> f64| rim.angles.iter().zip(&circle).map(|(a, i)| i * f(*a)).sum::<f64>();
        let (sin, cos) = (moment(f64::sin), moment(f64::cos));
        let size = sin.hypot(cos);
        let total: f64 = circle.iter().sum();
        if size > 0.0 && total > 0.0 {
            direction = [direction[0] + sin / size, direction[1] + cos / size];
            sizes.push(size / total);
        }
    }
    (!sizes.is_empty()).then(|| (direction[0].atan2(direction[1]).rem_euclid(TAU), mean(&sizes)))
}

/// Mean brightness of the disk of a radius around the centre.
fn central_brightness(image: &Interpolated, centre: [f64; 2], radius: f64) -> f64 {
    const STEPS: i32 = 6;
    let offsets = (-STEPS..=STEPS).flat_map(|i| (-STEPS..=STEPS).map(move |j| (i, j)));
    let inside: Vec<f64> = offsets
        .filter(|(i, j)| i * i + j * j <= STEPS * STEPS)
        .map(|(i, j)| {
            let scale = radius / f64::from(STEPS);
            image.at(centre[0] + f64::from(i) * scale, centre[1] + f64::from(j) * scale)
        })
        .collect();
    mean(&inside)
}

/// The side of the sky that a position angle points to: `north`, `north-east`, ... `north-west`.
pub fn side(position_angle: f64) -> &'static str {
    const SIDES: [&str; 8] =
        ["north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west"];
    let eighth = (position_angle.rem_euclid(TAU) / (PI / 4.0)).round() as usize;
    SIDES[eighth % SIDES.len()]
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use ndarray::Array2;

    use super::*;

    /// A ring of 1 Jy blurred by a circular Gaussian: the field's m-ring of order 1.
    pub(crate) struct BlurredRing {
        pub(crate) diameter_uas: f64,
        pub(crate) fwhm_uas: f64,
        pub(crate) angle_deg: f64,
        pub(crate) moment: f64,
        pub(crate) centre_uas: [f64; 2],
    }

    impl BlurredRing {
        pub(crate) const M87: Self = Self {
            diameter_uas: 42.0,
            fwhm_uas: 12.0,
            angle_deg: 170.0,
            moment: 0.23,
            centre_uas: [3.1, -4.7],
        };

        /// Brightness, Jy per square microarcsecond, at an offset in microarcseconds.
        fn at(&self, east: f64, north: f64) -> f64 {
            const POINTS: usize = 240;
            let s = self.fwhm_uas / (8.0 * 2f64.ln()).sqrt();
            (0..POINTS)
                .map(|k| {
                    let angle = TAU * k as f64 / POINTS as f64;
                    let x = east - self.centre_uas[0] - self.diameter_uas / 2.0 * angle.sin();
                    let y = north - self.centre_uas[1] - self.diameter_uas / 2.0 * angle.cos();
                    let weight = 1.0 + 2.0 * self.moment * (angle - self.angle_deg.to_radians()).cos();
                    weight * (-(x * x + y * y) / (2.0 * s * s)).exp()
                })
                .sum::<f64>()
                / (POINTS as f64 * TAU * s * s)
        }

        pub(crate) fn image(&self, grid: &Grid) -> Array2<f64> {
            let (east, north) = (grid.east(), grid.north());
            let area = grid.pitch[1] * grid.pitch[2] / MICROARCSECOND.powi(2);
            Array2::from_shape_fn((grid.shape[1], grid.shape[2]), |(i, j)| {
                area * self.at(east[j] / MICROARCSECOND, north[i] / MICROARCSECOND)
            })
        }

        /// Mean diameter of the brightness peaks around the true centre, from the formula itself.
        fn peak_diameter_uas(&self) -> f64 {
            let brightest = |angle: f64| {
                let at = |r: f64| {
                    self.at(self.centre_uas[0] + r * angle.sin(), self.centre_uas[1] + r * angle.cos())
                };
                (1000..2500).map(|k| f64::from(k) / 100.0).max_by(|a, b| at(*a).total_cmp(&at(*b))).unwrap()
            };
            (0..8).map(|k| 2.0 * brightest(f64::from(k) * TAU / 8.0)).sum::<f64>() / 8.0
        }
    }

    fn sky(pixels: usize, uas: f64) -> Grid {
        Grid::sky(pixels, uas * MICROARCSECOND).unwrap()
    }

    #[test]
    fn a_blurred_ring_gives_back_its_numbers() {
        let truth = BlurredRing::M87;
        for (pixels, field) in [(64, 160.0), (100, 160.0), (64, 120.0)] {
            let grid = sky(pixels, field);
            let ring = measure(truth.image(&grid).view(), &grid, &Search::default()).unwrap();
            let uas = |angle: f64| angle / MICROARCSECOND;
            assert!((uas(ring.diameter) - truth.peak_diameter_uas()).abs() < 0.15, "{ring:?}");
            assert!((uas(ring.width) - truth.fwhm_uas).abs() < 0.6, "width {}", uas(ring.width));
            assert!((ring.position_angle.to_degrees() - truth.angle_deg).abs() < 1.0, "{ring:?}");
            assert!((ring.asymmetry - truth.moment).abs() < 0.02, "asymmetry {}", ring.asymmetry);
            assert!((uas(ring.centre[0]) - truth.centre_uas[0]).abs() < 1.0, "{ring:?}");
            assert!((uas(ring.centre[1]) - truth.centre_uas[1]).abs() < 1.0, "{ring:?}");
            assert_eq!(side(ring.brightest_angle), "south");
        }
    }

    #[test]
    fn the_position_angle_runs_from_north_through_east() {
        let grid = sky(64, 160.0);
        for (angle_deg, expected) in
            [(0.0, "north"), (90.0, "east"), (225.0, "south-west"), (300.0, "north-west")]
        {
            let image = BlurredRing { angle_deg, ..BlurredRing::M87 }.image(&grid);
            let ring = measure(image.view(), &grid, &Search::default()).unwrap();
            let error = (ring.position_angle.to_degrees() - angle_deg + 180.0).rem_euclid(360.0) - 180.0;
            assert!(error.abs() < 1.0, "{angle_deg}: {error}");
            assert_eq!(side(ring.position_angle), expected);
        }
    }

    #[test]
    fn images_without_a_ring_have_no_features() {
        let grid = sky(64, 160.0);
        let blob = BlurredRing { diameter_uas: 0.0, fwhm_uas: 30.0, ..BlurredRing::M87 }.image(&grid);
        let (east, north) = (grid.east(), grid.north());
        let disk = Array2::from_shape_fn((64, 64), |(i, j)| {
            f64::from(east[j].hypot(north[i]) < 25.0 * MICROARCSECOND)
        });
        let gauss = |x: f64, y: f64| (-(x * x + y * y) / 50.0).exp();
        let double = Array2::from_shape_fn((64, 64), |(i, j)| {
            let (x, y) = (east[j] / MICROARCSECOND, north[i] / MICROARCSECOND);
            gauss(x - 20.0, y) + 0.7 * gauss(x + 20.0, y - 5.0)
        });
        let mut rng = crate::rng::Rng::new(1);
        let noise = Array2::from_shape_fn((64, 64), |_| rng.uniform());
        let flat = Array2::from_elem((64, 64), 1.0);
        let images = [("blob", blob), ("disk", disk), ("double", double), ("noise", noise), ("flat", flat)];
        for (name, image) in images {
            assert_eq!(measure(image.view(), &grid, &Search::default()), None, "{name}");
        }
    }
}
