//! Endoplasmic reticulum: curved tubules between the neighbours of a random point set, and sheets.

use super::{
    Range,
    bodies::number,
    scene::{Field, Place, SIGMA, Scene},
};
use crate::rng::Rng;

/// Distance between points of a tubule, pixels.
const STEP: f64 = 0.5;

/// Tubules that meet in threes, and in some images sheets with holes.
pub(super) fn reticulum(scene: &mut Scene, rng: &mut Rng) {
    let spacing = scene.pixels(Range(0.35, 1.2).log_uniform(rng));
    let beyond = spacing;
    let area = (scene.side as f64 + 2.0 * beyond).powi(2);
    let junctions = spread_out(scene, number(area / (spacing * spacing), rng), beyond, 0.6 * spacing, rng);
    let width = scene.pixels(Range(0.06, 0.12).uniform(rng)) * SIGMA;
    let bend = Range(0.0, 0.25).uniform(rng);
    let granularity = Range(0.0, 0.5).uniform(rng);
    for (from, to) in edges(&junctions) {
        tubule(scene, from, to, width, bend, granularity, rng);
    }
    if rng.uniform() < 0.35 {
        let field = Field::draw([scene.pixels(0.5), scene.pixels(3.0)], rng);
        let threshold = Range(0.0, 1.5).uniform(rng);
        let light = Range(0.3, 0.8).uniform(rng) / width.hypot(scene.blur);
        let sharp = Range(2.0, 8.0).uniform(rng);
        scene.add(|place| 0.4 * light / (1.0 + (-sharp * (field.at(place) - threshold)).exp()));
    }
}

/// Places at least `least` apart, as far as some tries find them.
fn spread_out(scene: &Scene, count: usize, beyond: f64, least: f64, rng: &mut Rng) -> Vec<Place> {
    let mut found: Vec<Place> = Vec::new();
    for _ in 0..8 * count {
        let new = scene.place(beyond, rng);
        if found.iter().all(|old| distance(*old, new) > least) {
            found.push(new);
        }
        if found.len() == count {
            break;
        }
    }
    found
}

fn distance(a: Place, b: Place) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// The relative neighbourhood graph (Toussaint 1980): two points are joined if no third is nearer to both.
fn edges(points: &[Place]) -> Vec<(Place, Place)> {
    let mut joined = Vec::new();
    for (i, &a) in points.iter().enumerate() {
        for &b in &points[..i] {
            let length = distance(a, b);
            if points.iter().all(|&c| distance(a, c).max(distance(b, c)) >= length) {
                joined.push((a, b));
            }
        }
    }
    joined
}

/// Light along an arc between two junctions.
fn tubule(scene: &mut Scene, from: Place, to: Place, width: f64, bend: f64, granularity: f64, rng: &mut Rng) {
    let length = distance(from, to);
    let rise = bend * rng.normal();
    let grains = Field::draw([3.0, 10.0], rng);
    let origin = scene.place(0.0, rng)[0];
    let count = (length / STEP).ceil().max(1.0) as usize;
    for k in 0..count {
        let t = k as f64 / count as f64;
        let side = rise * 4.0 * t * (1.0 - t);
        let place = [
            from[0] + t * (to[0] - from[0]) - side * (to[1] - from[1]),
            from[1] + t * (to[1] - from[1]) + side * (to[0] - from[0]),
        ];
        let light = (granularity * grains.at([t * length, origin])).exp();
        scene.spot(place, width, light * STEP);
    }
}
