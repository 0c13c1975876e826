//! Training images of the default black-hole prior: accretion flows around Kerr holes beside simple sources.

mod flow;
mod kerr;
mod raster;
mod settings;
mod shapes;
mod turbulence;

use std::f64::consts::PI;

pub use super::range::Range;
pub use flow::{Flow, FlowSettings};
pub use kerr::{Kerr, Place, Ray};
pub use settings::{Settings, Shares};
pub use turbulence::{Turbulence, TurbulenceSettings};

use self::{
    raster::{PolarImage, Raster},
    shapes::Brightness,
};
use crate::{Result, rng::Rng};

/// Radius of the shadow of a Schwarzschild hole, sqrt(27) M: the yardstick of all images of a hole.
const SHADOW_RADIUS: f64 = 5.196_152_422_706_632;
/// Largest radius from which light is followed, M.
const OUTERMOST: f64 = 60.0;

/// Blurs after which even a point source has the least effective area.
const WIDENING_STEPS: usize = 3;

/// What a training image shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A radiatively inefficient flow around a Kerr hole.
    Flow,
    /// A ring with azimuthal modes.
    Ring,
    /// A disk with a displaced hole.
    Crescent,
    /// A filled disk.
    Disk,
    /// One to ten elliptical Gaussians.
    Gaussians,
    /// Two compact sources.
    Pair,
    /// A core with knots.
    Jet,
}

/// Draws training images; image `index` depends on the settings, the seed and the index only.
#[derive(Debug, Clone)]
pub struct Simulator {
    settings: Settings,
    pixels: usize,
    rng: Rng,
}

impl Simulator {
    /// A simulator of images with `pixels` x `pixels` pixels.
    ///
    /// # Errors
    /// Settings out of range (named with their place), or a number of pixels outside 8 to 1024.
    pub fn new(settings: Settings, pixels: usize, seed: u64) -> Result<Self> {
        settings.validate()?;
        super::check_side(pixels)?;
        Ok(Self { settings, pixels, rng: Rng::new(seed) })
    }

    /// What image `index` shows.
    pub fn kind(&self, index: u64) -> Kind {
        self.settings.shares.kind(self.rng.stream("kind of training image", index).uniform())
    }

    /// Image `index`: flux fraction per pixel, `pixels` x `pixels` values, row 0 north, column 0 east. The sum is the
    /// total flux, log-normal around 1 (`Settings::flux_jitter`).
    pub fn image(&self, index: u64) -> Vec<f64> {
        let mut rng = self.rng.stream("training image", index);
        let settings = &self.settings;
        let raster = Raster::draw(settings, self.pixels, &mut rng);
        let brightness = self.source(self.kind(index), &raster, &mut rng);
        let mut image = raster.image(&brightness);
        normalise(&mut image, 1.0);
        if rng.uniform() < settings.halo_share {
            self.add_halo(&mut image, &raster, &mut rng);
        }
        let mut image = raster.develop(image);
        self.widen(&mut image);
        normalise(&mut image, (settings.flux_jitter * rng.normal()).exp());
        image
    }

    /// Blurs an image a little at a time until its effective area (sum I)^2 / sum I^2 is at least
    /// `Settings::least_area` of the field.
    fn widen(&self, image: &mut [f64]) {
        let least = self.settings.least_area * image.len() as f64;
        // A Gaussian has the effective area 4 pi sigma^2, and blurs add up in quadrature.
        let step = shapes::FWHM * (least / (4.0 * PI * WIDENING_STEPS as f64)).sqrt();
        for _ in 0..WIDENING_STEPS {
            let (sum, squares) =
                image.iter().fold((0.0, 0.0), |(s, q), pixel| (s + pixel, q + pixel * pixel));
            if sum * sum >= least * squares {
                break;
            }
            raster::blur(image, self.pixels, step);
        }
    }

    /// The brightness of a source as a function of position in units of its diameter (the shadow's for a flow).
    fn source(&self, kind: Kind, raster: &Raster, rng: &mut Rng) -> Brightness {
        match kind {
            Kind::Flow => {
                let flow = Flow::draw(&self.settings.flow, rng);
                let scale = 2.0 * SHADOW_RADIUS;
                let field = scale / raster.diameter;
                let pixel = field / self.pixels as f64;
                let outer = (field * raster.extent()).min(OUTERMOST);
                let polar = PolarImage::of(pixel, outer, |alpha, beta| flow.intensity(alpha, beta, outer));
                Box::new(move |x, y| polar.at(scale * x, scale * y))
            }
            Kind::Ring => shapes::ring(rng),
            Kind::Crescent => shapes::crescent(rng),
            Kind::Disk => shapes::disk(rng),
            Kind::Gaussians => shapes::gaussians(rng),
            Kind::Pair => shapes::pair(rng),
            Kind::Jet => shapes::jet(rng),
        }
    }

    /// Adds a faint, wide Gaussian that shares the source's centre.
    fn add_halo(&self, image: &mut [f64], raster: &Raster, rng: &mut Rng) {
        let fwhm = self.settings.halo_fwhm.uniform(rng) / raster.diameter;
        let flux = self.settings.halo_flux.log_uniform(rng);
        let rate = -0.5 * (shapes::FWHM / fwhm).powi(2);
        let mut halo = raster.image(&move |x: f64, y: f64| (rate * (x * x + y * y)).exp());
        normalise(&mut halo, flux);
        image.iter_mut().zip(halo).for_each(|(pixel, extra)| *pixel = *pixel * (1.0 - flux) + extra);
    }
}

/// Image `index` of the default distribution with `pixels` x `pixels` pixels; see [`Simulator::image`].
///
/// # Errors
/// A number of pixels outside 8 to 1024.
pub fn training_image(seed: u64, index: u64, pixels: usize) -> Result<Vec<f64>> {
    Ok(Simulator::new(Settings::default(), pixels, seed)?.image(index))
}

/// Scales an image to the given sum; an image without light becomes a uniform one.
fn normalise(image: &mut [f64], flux: f64) {
    let total: f64 = image.iter().sum();
    if total.is_finite() && total > 0.0 {
        image.iter_mut().for_each(|pixel| *pixel *= flux / total);
    } else {
        let count = image.len() as f64;
        image.fill(flux / count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    fn simulator() -> Simulator {
        Simulator::new(Settings::default(), 32, 7).unwrap()
    }

    #[test]
    fn images_are_finite_positive_and_of_the_stated_flux() {
        let simulator = simulator();
        let logs: Vec<f64> = (0..150u64)
            .into_par_iter()
            .map(|index| {
                let image = simulator.image(index);
                assert_eq!(image.len(), 32 * 32);
                assert!(image.iter().all(|pixel| pixel.is_finite() && *pixel >= 0.0), "image {index}");
                image.iter().sum::<f64>().ln()
            })
            .collect();
        let mean = logs.iter().sum::<f64>() / 150.0;
        let deviation = (logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / 150.0).sqrt();
        assert!(mean.abs() < 0.04 && (deviation - 0.12).abs() < 0.028, "{mean} {deviation}");
    }

    #[test]
    fn an_image_depends_on_seed_and_index_only() {
        let simulator = simulator();
        let alone: Vec<Vec<f64>> = (0..8).map(|index| simulator.image(index)).collect();
        let together: Vec<Vec<f64>> = (0..8u64).into_par_iter().map(|index| simulator.image(index)).collect();
        assert_eq!(alone, together);
        assert_ne!(alone[0], alone[1]);
        assert_eq!(alone[3], training_image(7, 3, 32).unwrap());
        assert_ne!(alone[3], training_image(8, 3, 32).unwrap());
    }

    #[test]
    fn kinds_come_in_the_stated_shares() {
        let simulator = simulator();
        let count = |kind| (0..4000).filter(|index| simulator.kind(*index) == kind).count() as f64 / 4000.0;
        let shares = Shares::default();
        for (kind, share) in [
            (Kind::Flow, shares.flow),
            (Kind::Ring, shares.ring),
            (Kind::Disk, shares.disk),
            (Kind::Gaussians, shares.gaussians),
            (Kind::Jet, shares.jet),
        ] {
            let error = (share * (1.0 - share) / 4000.0).sqrt();
            assert!((count(kind) - share).abs() < 4.0 * error, "{kind:?}: {} {share}", count(kind));
        }
    }

    #[test]
    fn compact_images_are_widened_to_the_least_area() {
        let simulator = simulator();
        let mut image = vec![0.0; 32 * 32];
        image[15 * 32 + 16] = 1.0;
        simulator.widen(&mut image);
        let area = image.iter().sum::<f64>().powi(2) / image.iter().map(|pixel| pixel * pixel).sum::<f64>();
        let least = Settings::default().least_area * 1024.0;
        assert!(area > 0.9 * least && area < 1.3 * least, "{area} {least}");
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let mut settings = Settings::default();
        settings.flow.spin = Range(-2.0, 0.9);
        let message = Simulator::new(settings, 32, 0).unwrap_err().to_string();
        assert!(message.contains("flow.spin"), "{message}");
        let settings: Settings =
            serde_yaml::from_str("diameter: [0.2, 0.3]\nflow: {spin: [0.9, 0.9]}").unwrap();
        assert_eq!((settings.diameter, settings.flow.spin), (Range(0.2, 0.3), Range(0.9, 0.9)));
        assert!(Simulator::new(Settings::default(), 4, 0).is_err());
    }
}
