//! Compact and extended bodies: pits, vesicles, points, mitochondria and nuclei.

use std::f64::consts::TAU;

use super::{
    Range,
    scene::{Field, Scene, any_direction, chain},
};
use crate::rng::Rng;

/// Coated pits: shells and caps that show as rings or blobs, some in clusters and plaques.
pub(super) fn pits(scene: &mut Scene, rng: &mut Rng) {
    let count = number(Range(0.2, 4.0).log_uniform(rng) * scene.area(), rng);
    let diameter = Range(0.08, 0.16).uniform(rng);
    let fluorophores = 30 + rng.below(60);
    for _ in 0..count {
        let centre = scene.place(3.0, rng);
        let cluster = if rng.uniform() < 0.08 { 2 + rng.below(4) } else { 1 };
        for _ in 0..cluster {
            let spread = if cluster > 1 { scene.pixels(0.15) } else { 0.0 };
            let centre = [centre[0] + spread * rng.normal(), centre[1] + spread * rng.normal()];
            let radius = 0.5 * scene.pixels((diameter * (0.25 * rng.normal()).exp()).clamp(0.05, 0.3));
            let light = (0.5 * rng.normal()).exp() * radius * radius;
            // From a closed shell to a shallow cap.
            let floor = 2.0 * rng.uniform().powi(2) - 1.0;
            for _ in 0..fluorophores {
                let height = floor + (1.0 - floor) * rng.uniform();
                let (sin, cos) = (TAU * rng.uniform()).sin_cos();
                let across = radius * (1.0 - height * height).sqrt();
                let place = [centre[0] + across * cos, centre[1] + across * sin];
                scene.spot(place, 0.0, light / fluorophores as f64);
            }
        }
    }
}

/// Vesicles, endosomes and beads: balls of even or hollow filling.
pub(super) fn vesicles(scene: &mut Scene, rng: &mut Rng) {
    let count = number(Range(0.1, 1.5).log_uniform(rng) * scene.area(), rng);
    let typical = Range(0.1, 0.8).log_uniform(rng);
    let hollow = rng.uniform() < 0.3;
    let spread = Range(0.05, 0.6).uniform(rng);
    for _ in 0..count {
        let centre = scene.place(5.0, rng);
        let radius = 0.5 * scene.pixels(typical * (0.3 * rng.normal()).exp());
        let light = (spread * rng.normal()).exp();
        scene.tube(&[centre], 1.0, radius, |_, inside| {
            // Length of the line of sight through a ball, or through its shell.
            let across = 1.0 - inside;
            let through = (1.0 - across * across).max(0.0).sqrt();
            light * if hollow { 0.4 + 0.6 * across.powi(4) } else { through }
        });
    }
}

/// Single molecules and small particles.
pub(super) fn points(scene: &mut Scene, rng: &mut Rng) {
    let count = number(Range(0.2, 6.0).log_uniform(rng) * scene.area(), rng);
    let spread = Range(0.1, 0.8).uniform(rng);
    for _ in 0..count {
        let place = scene.place(3.0, rng);
        scene.spot(place, 0.0, (spread * rng.normal()).exp());
    }
}

/// Mitochondria: tubes with cristae, alone or dense.
pub(super) fn mitochondria(scene: &mut Scene, rng: &mut Rng) {
    const STEP: f64 = 1.0;
    let count = number(Range(0.1, 0.9).log_uniform(rng) * scene.area(), rng);
    let persistence = scene.pixels(Range(0.8, 5.0).log_uniform(rng));
    let width = Range(0.2, 0.5).uniform(rng);
    let membrane = rng.uniform() < 0.4;
    for _ in 0..count {
        let start = scene.place(10.0, rng);
        let length = scene.pixels(Range(0.6, 6.0).log_uniform(rng));
        let direction = TAU * rng.uniform();
        let points = chain(start, direction, length, persistence, STEP, rng);
        let radius = 0.5 * scene.pixels(width * (0.15 * rng.normal()).exp());
        let light = (0.3 * rng.normal()).exp();
        let period = scene.pixels(Range(0.07, 0.15).uniform(rng));
        let depth = if rng.uniform() < 0.6 { Range(0.1, 0.7).uniform(rng) } else { 0.0 };
        let wobble = Field::draw([2.0, 12.0], rng);
        scene.tube(&points, STEP, radius, |arc, inside| {
            let profile = if membrane { 1.0 - 0.6 * inside } else { 0.4 + 0.6 * inside.sqrt() };
            let cristae = (TAU * arc / period + 0.8 * wobble.at([arc, 0.0])).cos();
            light * profile * (1.0 + depth * cristae)
        });
    }
}

/// Nuclei and cytosol: a texture over many scales behind an edge, with holes.
pub(super) fn nuclei(scene: &mut Scene, rng: &mut Rng) {
    let size = scene.side as f64;
    let texture = [
        Field::draw([0.4 * size, 2.0 * size], rng),
        Field::draw([8.0, 0.4 * size], rng),
        Field::draw([3.0, 8.0], rng),
    ];
    let contrast = Range(0.05, 0.6).log_uniform(rng);
    let slope = Range(0.3, 0.9).uniform(rng);
    let centre = scene.place(0.5 * size, rng);
    let radius = scene.pixels(Range(2.0, 10.0).log_uniform(rng));
    let (sin, cos) = any_direction(rng).sin_cos();
    let stretch = Range(0.6, 1.0).uniform(rng);
    let soft = scene.blur.max(Range(0.5, 4.0).log_uniform(rng));
    scene.add(|[x, y]| {
        let (dx, dy) = (x - centre[0], y - centre[1]);
        let distance = (dx * cos + dy * sin).hypot((dy * cos - dx * sin) / stretch);
        let inside = 1.0 / (1.0 + ((distance - radius) / soft).clamp(-40.0, 40.0).exp());
        let value: f64 =
            texture.iter().enumerate().map(|(k, field)| slope.powi(k as i32) * field.at([x, y])).sum();
        inside * (contrast * value).exp()
    });
    for _ in 0..rng.below(4) {
        let hole = scene.place(0.0, rng);
        let radius = scene.pixels(Range(0.2, 1.0).log_uniform(rng));
        let depth = Range(0.3, 1.0).uniform(rng);
        scene.scale(|[x, y]| {
            let distance = (x - hole[0]).hypot(y - hole[1]);
            1.0 - depth / (1.0 + ((distance - radius) / soft).clamp(-40.0, 40.0).exp())
        });
    }
}

/// A whole number near `mean`, at least 1.
pub(super) fn number(mean: f64, rng: &mut Rng) -> usize {
    ((mean + mean.sqrt() * rng.normal()).round().max(1.0) as usize).min(400)
}
