//! Filaments: microtubules and actin as worm-like chains of single fluorophores.

use std::f64::consts::{PI, TAU};

use rand_distr::{Distribution, Poisson};

use super::{
    Range,
    scene::{Field, Place, SIGMA, Scene, any_direction, chain},
};
use crate::rng::Rng;

/// Distance between points of a chain, pixels.
const STEP: f64 = 0.5;
/// Persistence lengths, micrometres: apparent ones of microtubules in cells, and those of actin.
const MICROTUBULE: Range = Range(20.0, 100.0);
const ACTIN: Range = Range(10.0, 17.0);

/// How the filaments of one image lie.
enum Course {
    /// In any direction.
    Random,
    /// Along a direction that varies from place to place.
    Aligned(f64, Field, f64),
    /// Away from an organising centre.
    Radial(Place),
}

impl Course {
    fn draw(scene: &Scene, rng: &mut Rng) -> Self {
        match rng.uniform() {
            part if part < 0.35 => Self::Random,
            part if part < 0.7 => {
                let size = scene.side as f64;
                let spread = Range(0.05, 0.6).uniform(rng);
                Self::Aligned(any_direction(rng), Field::draw([size, 4.0 * size], rng), spread)
            }
            _ => Self::Radial(scene.place(scene.side as f64, rng)),
        }
    }

    fn direction(&self, at: Place, rng: &mut Rng) -> f64 {
        match self {
            Self::Random => TAU * rng.uniform(),
            Self::Aligned(mean, field, spread) => {
                let flip = if rng.uniform() < 0.5 { PI } else { 0.0 };
                mean + flip + 0.4 * field.at(at) + spread * rng.normal()
            }
            Self::Radial(centre) => (at[1] - centre[1]).atan2(at[0] - centre[0]) + 0.15 * rng.normal(),
        }
    }
}

/// Microtubules: nearly straight, some in bundles, some out of focus.
pub(super) fn microtubules(scene: &mut Scene, rng: &mut Rng) {
    let course = Course::draw(scene, rng);
    let density = Range(0.3, 5.0).log_uniform(rng);
    let persistence = scene.pixels(MICROTUBULE.log_uniform(rng));
    let width = scene.pixels(Range(0.045, 0.06).uniform(rng)) * SIGMA;
    let labelling = Range(30.0, 400.0).log_uniform(rng);
    let spread = Range(0.1, 0.5).uniform(rng);
    let mut left = density * scene.area();
    while left > 0.0 {
        let length = Range(1.5, 12.0).log_uniform(rng);
        let start = scene.place(0.3 * scene.side as f64, rng);
        let direction = course.direction(start, rng);
        let bundle = if rng.uniform() < 0.12 { 2 + rng.below(3) } else { 1 };
        let gap = scene.pixels(Range(0.05, 0.15).uniform(rng));
        let points = chain(start, direction, scene.pixels(length), persistence, STEP, rng);
        let defocus =
            if rng.uniform() < 0.25 { scene.pixels(Range(0.03, 0.2).log_uniform(rng)) } else { 0.0 };
        let brightness = (spread * rng.normal()).exp();
        for member in 0..bundle {
            let shift = gap * (member as f64 - 0.5 * (bundle - 1) as f64);
            let normal = [-direction.sin() * shift, direction.cos() * shift];
            let moved: Vec<Place> = points.iter().map(|p| [p[0] + normal[0], p[1] + normal[1]]).collect();
            speckle(scene, &moved, width.hypot(defocus), labelling, brightness, rng);
        }
        left -= length * bundle as f64;
    }
}

/// Actin: a mesh of short filaments, and in some images stress fibres with a periodic pattern.
pub(super) fn actin(scene: &mut Scene, rng: &mut Rng) {
    let course = Course::draw(scene, rng);
    let persistence = scene.pixels(ACTIN.uniform(rng));
    let labelling = Range(50.0, 400.0).log_uniform(rng);
    let fibres = if rng.uniform() < 0.6 { 1 + rng.below(6) } else { 0 };
    let mesh = Range(1.0, 15.0).log_uniform(rng) * if fibres > 0 { 0.4 } else { 1.0 };
    let mut left = mesh * scene.area();
    while left > 0.0 {
        let length = Range(0.3, 4.0).log_uniform(rng);
        let start = scene.place(5.0, rng);
        let direction = if rng.uniform() < 0.5 { course.direction(start, rng) } else { TAU * rng.uniform() };
        let points = chain(start, direction, scene.pixels(length), persistence, STEP, rng);
        speckle(scene, &points, scene.pixels(0.008), labelling, (0.3 * rng.normal()).exp(), rng);
        left -= length;
    }
    for _ in 0..fibres {
        let start = scene.place(0.0, rng);
        let direction = course.direction(start, rng);
        let reach = 1.5 * scene.side as f64;
        let back = [start[0] - 0.5 * reach * direction.cos(), start[1] - 0.5 * reach * direction.sin()];
        let points = chain(back, direction, reach, 3.0 * persistence, STEP, rng);
        let radius = 0.5 * scene.pixels(Range(0.08, 0.4).log_uniform(rng));
        let light = Range(1.0, 6.0).log_uniform(rng) / scene.pixels(0.1);
        let period = scene.pixels(Range(0.5, 1.0).uniform(rng));
        let depth = if rng.uniform() < 0.4 { Range(0.1, 0.6).uniform(rng) } else { 0.0 };
        let phase = TAU * rng.uniform();
        scene.tube(&points, STEP, radius, |arc, inside| {
            light * inside.powf(0.3) * (1.0 + depth * (TAU * arc / period + phase).cos())
        });
    }
}

/// Lights single fluorophores along a chain: `labelling` per micrometre on average, 1 unit of light per pixel length.
fn speckle(scene: &mut Scene, points: &[Place], width: f64, labelling: f64, brightness: f64, rng: &mut Rng) {
    let mean = labelling * STEP * scene.pixel;
    let Ok(poisson) = Poisson::new(mean) else { return };
    for point in points {
        let count: f64 = poisson.sample(rng);
        if count > 0.0 {
            scene.spot(*point, width, brightness * STEP * count / mean);
        }
    }
}
