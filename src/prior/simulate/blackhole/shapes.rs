//! Simple sources beside the accretion flows, so that the prior does not force a ring.

use std::f64::consts::{PI, TAU};

use super::Range;
use crate::rng::Rng;

/// Full width at half maximum of a Gaussian over its standard deviation.
pub(super) const FWHM: f64 = 2.354_820_045;

/// Brightness at a point (x, y); lengths are in units of the source's diameter.
pub(super) type Brightness = Box<dyn Fn(f64, f64) -> f64 + Send>;

/// A smooth step: 1 well inside, 0 well outside an edge of the given width.
fn soft_edge(inside_by: f64, width: f64) -> f64 {
    1.0 / (1.0 + (-4.0 * inside_by / width).exp())
}

/// A Gaussian ring of unit diameter with azimuthal modes of order one to three and a thickness that may vary with
/// azimuth.
pub(super) fn ring(rng: &mut Rng) -> Brightness {
    let width = Range(0.04, 0.6).log_uniform(rng) / FWHM;
    let ellipticity = Range(0.8, 1.0).uniform(rng);
    let swell = 0.4 * rng.uniform();
    let modes: Vec<(f64, f64)> =
        (1..=3).map(|m| (0.6 * rng.uniform() / f64::from(m), TAU * rng.uniform())).collect();
    let floor = if rng.uniform() < 0.3 { Range(0.02, 0.4).log_uniform(rng) } else { 0.0 };
    Box::new(move |x, y| {
        let (radius, angle) = (x.hypot(y / ellipticity), y.atan2(x));
        let azimuthal: f64 =
            modes.iter().enumerate().map(|(i, (a, p))| 2.0 * a * ((i + 1) as f64 * angle - p).cos()).sum();
        let local = width * (1.0 + swell * (angle - modes[0].1).cos());
        let offset = (radius - 0.5) / local;
        (1.0 + azimuthal).max(0.0) * ((-0.5 * offset * offset).exp() + floor * soft_edge(0.5 - radius, 0.1))
    })
}

/// A disk with a displaced hole, edges of random softness and a brightness gradient (the crescent of Kamruddin &
/// Dexter 2013, softened).
pub(super) fn crescent(rng: &mut Rng) -> Brightness {
    let hole = 0.5 * Range(0.3, 0.9).uniform(rng);
    let shift = (0.5 - hole) * Range(0.0, 1.0).uniform(rng);
    let softness = Range(0.03, 0.3).log_uniform(rng);
    let gradient = rng.uniform();
    let floor = 0.3 * rng.uniform() * rng.uniform();
    Box::new(move |x, y| {
        let outer = soft_edge(0.5 - x.hypot(y), softness);
        let inner = soft_edge(hole - (x + shift).hypot(y), softness);
        outer * (1.0 - (1.0 - floor) * inner) * (1.0 + gradient * 2.0 * x).max(0.0)
    })
}

/// A disk of unit diameter with a soft edge, from limb-darkened to limb-brightened.
pub(super) fn disk(rng: &mut Rng) -> Brightness {
    let softness = Range(0.03, 0.5).log_uniform(rng);
    let axis_ratio = Range(0.6, 1.0).uniform(rng);
    let limb = Range(-0.8, 0.8).uniform(rng);
    Box::new(move |x, y| {
        let radius = x.hypot(y / axis_ratio);
        soft_edge(0.5 - radius, softness) * (1.0 + limb * (8.0 * radius * radius - 1.0).clamp(-1.0, 1.0))
    })
}

/// An elliptical Gaussian: centre, standard deviations, orientation and peak.
struct Blob {
    x: f64,
    y: f64,
    major: f64,
    minor: f64,
    angle: f64,
    peak: f64,
}

impl Blob {
    /// A blob of the given flux at (x, y) whose major axis has the given full width at half maximum.
    fn draw(x: f64, y: f64, fwhm: f64, flux: f64, rng: &mut Rng) -> Self {
        let major = fwhm / FWHM;
        let minor = major * Range(0.35, 1.0).uniform(rng);
        Self { x, y, major, minor, angle: PI * rng.uniform(), peak: flux / (major * minor) }
    }

    fn at(&self, x: f64, y: f64) -> f64 {
        let (sin, cos) = self.angle.sin_cos();
        let (dx, dy) = (x - self.x, y - self.y);
        let (p, q) = ((dx * cos + dy * sin) / self.major, (dy * cos - dx * sin) / self.minor);
        self.peak * (-0.5 * (p * p + q * q)).exp()
    }
}

fn sum(blobs: Vec<Blob>) -> Brightness {
    Box::new(move |x, y| blobs.iter().map(|blob| blob.at(x, y)).sum())
}

/// One to three elliptical Gaussians, now and then a crowd of up to ten.
pub(super) fn gaussians(rng: &mut Rng) -> Brightness {
    let count = if rng.uniform() < 0.25 { 4 + rng.below(7) } else { 1 + rng.below(3) };
    let spread = if count == 1 { 0.0 } else { Range(0.2, 0.6).uniform(rng) };
    let blobs = (0..count).map(|_| {
        let (x, y) = (spread * rng.normal(), spread * rng.normal());
        let (fwhm, flux) = (Range(0.2, 1.3).log_uniform(rng), Range(0.1, 1.0).log_uniform(rng));
        Blob::draw(x, y, fwhm, flux, rng)
    });
    sum(blobs.collect())
}

/// Two compact sources a diameter or more apart.
pub(super) fn pair(rng: &mut Rng) -> Brightness {
    let half = 0.5 * Range(0.8, 1.8).uniform(rng);
    let blobs = [-half, half].map(|x| {
        let (fwhm, flux) = (Range(0.1, 0.8).log_uniform(rng), Range(0.1, 1.0).log_uniform(rng));
        Blob::draw(x, 0.0, fwhm, flux, rng)
    });
    sum(blobs.into())
}

/// A bright core and a bent row of fading knots.
pub(super) fn jet(rng: &mut Rng) -> Brightness {
    let knots = 2 + rng.below(5);
    let length = Range(0.8, 2.5).uniform(rng);
    let bend = 0.5 * rng.normal();
    let fading = Range(0.3, 0.9).uniform(rng);
    let fwhm = Range(0.15, 0.5).log_uniform(rng);
    let mut blobs = vec![Blob::draw(0.0, 0.0, fwhm, 1.0, rng)];
    for knot in 1..=knots {
        let along = (knot as f64 + 0.4 * (rng.uniform() - 0.5)) / knots as f64;
        let flux = fading.powi(knot as i32) * Range(0.3, 1.3).uniform(rng);
        let (x, y) = (length * along, bend * along * along * length + 0.05 * rng.normal());
        blobs.push(Blob::draw(x, y, fwhm * (1.0 + along), flux, rng));
    }
    sum(blobs)
}
