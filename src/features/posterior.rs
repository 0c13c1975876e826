//! Posteriors of image features: one measurement per sample, summarised by median and 68 % interval.

use ndarray::{Array2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::ring::{self, Ring, Search};
use crate::{grid::Grid, io::cube::Cube, quantile::quantile, units::MICROARCSECOND};

/// Median and central 68 % interval of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// 50 % quantile.
    pub median: f64,
    /// 16 % quantile.
    pub q16: f64,
    /// 84 % quantile.
    pub q84: f64,
}

impl Interval {
    /// Quantiles of values, or nothing of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut values = values.to_vec();
        let mut at = |fraction| quantile(&mut values, fraction);
        let interval = Self { median: at(0.5), q16: at(0.16), q84: at(0.84) };
        interval.median.is_finite().then_some(interval)
    }

    /// Quantiles of angles in degrees around their circular mean; the median lies in `[0, 360)` and the
    /// other two may leave that range so that `q16 <= median <= q84`.
    pub fn of_degrees(angles: &[f64]) -> Option<Self> {
        let sum = |f: fn(f64) -> f64| angles.iter().map(|a| f(a.to_radians())).sum::<f64>();
        let centre = sum(f64::sin).atan2(sum(f64::cos)).to_degrees();
        let around: Vec<f64> =
            angles.iter().map(|a| (a - centre + 180.0).rem_euclid(360.0) - 180.0).collect();
        let offsets = Self::of(&around)?;
        let median = (centre + offsets.median).rem_euclid(360.0);
        Some(Self {
            median,
            q16: median + offsets.q16 - offsets.median,
            q84: median + offsets.q84 - offsets.median,
        })
    }
}

/// Ring features of every posterior sample.
#[derive(Debug, Clone)]
pub struct RingPosterior {
    /// Features of each sample, nothing where a sample shows no ring.
    pub rings: Vec<Option<Ring>>,
    /// Total flux of each sample, Jy.
    pub total_flux: Vec<f64>,
}

impl RingPosterior {
    /// Measures every sample of a cube of sky images in Jy/pixel.
    pub fn measure(cube: &Cube, search: &Search) -> Self {
        Self::of(&sky_images(cube), &cube.grid, search)
    }

    /// Measures images `[Y, X]` in Jy/pixel.
    pub fn of(images: &[Array2<f64>], grid: &Grid, search: &Search) -> Self {
        Self {
            rings: images.par_iter().map(|image| ring::measure(image.view(), grid, search)).collect(),
            total_flux: images.iter().map(|image| image.sum()).collect(),
        }
    }

    /// Number of samples that show a ring.
    pub fn count(&self) -> usize {
        self.rings.iter().flatten().count()
    }

    /// One feature of the samples that show a ring.
    pub fn values(&self, feature: impl Fn(&Ring) -> f64) -> Vec<f64> {
        self.rings.iter().flatten().map(feature).collect()
    }

    /// The features by their names in `diagnostics.json`; nothing for those of a ring that most samples
    /// do not show.
    pub fn summary(&self) -> Vec<(&'static str, Option<Interval>)> {
        let credible = 2 * self.count() > self.rings.len();
        let of = |feature: fn(&Ring) -> f64| Interval::of(&self.values(feature)).filter(|_| credible);
        let angles = self.values(|ring| ring.position_angle.to_degrees());
        vec![
            ("ring_diameter_uas", of(|ring| ring.diameter / MICROARCSECOND)),
            ("ring_width_uas", of(|ring| ring.width / MICROARCSECOND)),
            ("ring_position_angle_deg", Interval::of_degrees(&angles).filter(|_| credible)),
            ("ring_asymmetry", of(|ring| ring.asymmetry)),
            ("central_depression", of(|ring| ring.central_depression)),
            ("total_flux_jy", Interval::of(&self.total_flux)),
        ]
    }

    /// The side of the sky where the ring is brightest in most samples, with the fraction of samples.
    pub fn bright_side(&self) -> Option<(&'static str, f64)> {
        let sides: Vec<&str> =
            self.rings.iter().flatten().map(|ring| ring::side(ring.brightest_angle)).collect();
        let count = |side: &str| sides.iter().filter(|other| **other == side).count();
        let side = sides.iter().copied().max_by_key(|side| count(side))?;
        Some((side, count(side) as f64 / sides.len() as f64))
    }

    /// What a reader must know before trusting the features.
    pub fn warnings(&self) -> Vec<String> {
        let (count, all) = (self.count(), self.rings.len());
        if count == all {
            return Vec::new();
        }
        let rest = if 2 * count > all {
            format!("the ring features describe the other {count}")
        } else {
            "no ring features are reported".to_string()
        };
        vec![format!("{} of {all} samples show no ring: {rest}", all - count)]
    }
}

/// The samples of a cube as images `[Y, X]`, the Z axis summed.
pub(crate) fn sky_images(cube: &Cube) -> Vec<Array2<f64>> {
    cube.samples.outer_iter().map(|sample| sample.mapv(f64::from).sum_axis(Axis(0))).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;
    use crate::{features::ring::tests::BlurredRing, grid::Grid};

    #[test]
    fn intervals_of_angles_go_around_the_circle() {
        let interval = Interval::of_degrees(&[350.0, 355.0, 0.0, 5.0, 10.0]).unwrap();
        assert!((interval.median - 0.0).abs() < 1e-9 || (interval.median - 360.0).abs() < 1e-9);
        assert!((interval.q84 - interval.q16 - 13.6).abs() < 1e-9, "{interval:?}");
    }

    fn cube(images: &[&Array2<f64>]) -> Cube {
        let grid = Grid::sky(64, 160.0 * MICROARCSECOND).unwrap();
        let samples =
            Array4::from_shape_fn((images.len(), 1, 64, 64), |(s, _, y, x)| images[s][[y, x]] as f32);
        Cube { samples, grid, ..crate::io::cube::tests::example() }
    }

    #[test]
    fn samples_without_a_ring_are_counted_not_measured() {
        let grid = Grid::sky(64, 160.0 * MICROARCSECOND).unwrap();
        let (ring, blank) = (BlurredRing::M87.image(&grid), Array2::zeros((64, 64)));
        let posterior = RingPosterior::measure(&cube(&[&ring, &ring, &blank]), &Search::default());
        assert_eq!((posterior.count(), posterior.warnings().len()), (2, 1));
        let summary = posterior.summary();
        let diameter = summary.iter().find(|(name, _)| *name == "ring_diameter_uas").unwrap().1.unwrap();
        assert!((diameter.median - 40.8).abs() < 1.0, "{diameter:?}");
        assert_eq!(posterior.bright_side(), Some(("south", 1.0)));

        let posterior = RingPosterior::measure(&cube(&[&ring, &blank, &blank]), &Search::default());
        assert!(posterior.summary().iter().filter(|(_, interval)| interval.is_some()).count() == 1);
    }
}
