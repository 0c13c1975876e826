//! Training images of the default microscope prior: structures of cells as light per object pixel.

mod bodies;
mod filaments;
mod reticulum;
mod scene;
mod settings;

pub use super::Range;
pub use settings::{Settings, Shares};

use self::scene::{Field, SIGMA, Scene};
use crate::{Result, rng::Rng};

/// What a training image shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Microtubules.
    Microtubules,
    /// A mesh of actin with stress fibres.
    Actin,
    /// Endoplasmic reticulum.
    Reticulum,
    /// Coated pits.
    Pits,
    /// Vesicles and beads.
    Vesicles,
    /// Single points.
    Points,
    /// Mitochondria.
    Mitochondria,
    /// Nuclei and cytosol.
    Nuclei,
    /// Nothing but background.
    Empty,
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

    /// What image `index` shows; a mixture shows something else besides.
    pub fn kind(&self, index: u64) -> Kind {
        self.settings.shares.kind(self.rng.stream("kind of training image", index).uniform())
    }

    /// Image `index`: brightness in units of that of the bright structures of a field of view, `pixels` x `pixels` values.
    pub fn image(&self, index: u64) -> Vec<f64> {
        let mut rng = self.rng.stream("training image", index);
        let settings = &self.settings;
        let (mut scene, kind) = (self.dark(&mut rng), self.kind(index));
        self.structures(&mut scene, kind, &mut rng);
        if rng.uniform() < settings.mixture_share {
            let mut other = scene.empty();
            let kind = settings.shares.kind(rng.uniform());
            self.structures(&mut other, kind, &mut rng);
            scene.join(&other, Range(0.1, 1.0).log_uniform(&mut rng));
        }
        self.out_of_focus(&mut scene, kind, &mut self.rng.stream("light out of focus", index));
        self.surroundings(&mut scene, &mut rng);
        let bright = (settings.brightness_jitter * rng.normal()).exp();
        let part = if rng.uniform() < settings.dim_share { settings.dim.log_uniform(&mut rng) } else { 1.0 };
        scene.middle(self.pixels).into_iter().map(|light| bright * part * light).collect()
    }

    /// An empty scene of a random scale, half as large again as the image.
    fn dark(&self, rng: &mut Rng) -> Scene {
        let side = self.pixels + 2 * (self.pixels / 4);
        let pixel = self.settings.pixel.log_uniform(rng);
        Scene::dark(side, pixel, SIGMA * self.settings.blur.uniform(rng))
    }

    /// Adds structures of one kind with brightness 1.
    fn structures(&self, scene: &mut Scene, kind: Kind, rng: &mut Rng) {
        match kind {
            Kind::Microtubules => filaments::microtubules(scene, rng),
            Kind::Actin => filaments::actin(scene, rng),
            Kind::Reticulum => reticulum::reticulum(scene, rng),
            Kind::Pits => bodies::pits(scene, rng),
            Kind::Vesicles => bodies::vesicles(scene, rng),
            Kind::Points => bodies::points(scene, rng),
            Kind::Mitochondria => bodies::mitochondria(scene, rng),
            Kind::Nuclei => bodies::nuclei(scene, rng),
            Kind::Empty => {}
        }
        scene.normalise();
    }

    /// Light of other structures of the kind, above and below the plane in focus.
    fn out_of_focus(&self, scene: &mut Scene, kind: Kind, rng: &mut Rng) {
        if rng.uniform() < self.settings.defocused_share {
            let mut other = scene.empty();
            self.structures(&mut other, kind, rng);
            other.defocus(scene.pixels(self.settings.defocus.log_uniform(rng)));
            other.normalise();
            scene.join(&other, self.settings.defocused.log_uniform(rng));
        }
    }

    /// Diffuse light between the structures, and the edge of the cell.
    fn surroundings(&self, scene: &mut Scene, rng: &mut Rng) {
        let size = scene.side as f64;
        if rng.uniform() < self.settings.background_share {
            let level = self.settings.background.log_uniform(rng);
            let unevenness = Range(0.0, 0.5).uniform(rng);
            let field = Field::draw([0.3 * size, 2.0 * size], rng);
            scene.add(|place| level * (unevenness * field.at(place)).exp());
        }
        if rng.uniform() < self.settings.edge_share {
            let at = scene.place(0.0, rng);
            let (sin, cos) = (2.0 * scene::any_direction(rng)).sin_cos();
            let soft = Range(1.0, 10.0).log_uniform(rng);
            scene.scale(|[x, y]| {
                let inside = ((x - at[0]) * cos + (y - at[1]) * sin) / soft;
                1.0 / (1.0 + (-inside).clamp(-40.0, 40.0).exp())
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(kind: Kind) -> Settings {
        let share = |other| if kind == other { 1.0 } else { 0.0 };
        let shares = Shares {
            microtubules: share(Kind::Microtubules),
            actin: share(Kind::Actin),
            reticulum: share(Kind::Reticulum),
            pits: share(Kind::Pits),
            vesicles: share(Kind::Vesicles),
            points: share(Kind::Points),
            mitochondria: share(Kind::Mitochondria),
            nuclei: share(Kind::Nuclei),
            empty: share(Kind::Empty),
        };
        let pixel = Settings::default().pixel;
        Settings { pixel, background_share: 0.0, brightness_jitter: 0.0, ..Settings::plain(shares, 1.0) }
    }

    fn images(settings: Settings, count: u64) -> Vec<Vec<f64>> {
        let simulator = Simulator::new(settings, 64, 5).unwrap();
        (0..count).map(|index| simulator.image(index)).collect()
    }

    #[test]
    fn images_are_finite_bright_and_repeatable() {
        let first = images(Settings::default(), 40);
        assert_eq!(first[7], images(Settings::default(), 8)[7]);
        assert!(first.iter().flatten().all(|light| light.is_finite() && *light >= 0.0));
        let peaks: Vec<f64> = first.iter().map(|image| image.iter().copied().fold(0.0, f64::max)).collect();
        let bright = peaks.iter().filter(|peak| (0.3..6.0).contains(*peak)).count();
        assert!(bright > 25, "{peaks:?}");
    }

    #[test]
    fn sparse_structures_light_few_pixels_and_filaments_more() {
        let lit = |kind| {
            let images = images(only(kind), 24);
            let count = images.iter().flatten().filter(|light| **light > 0.1).count();
            count as f64 / (24.0 * 4096.0)
        };
        let [points, filaments, nuclei] = [lit(Kind::Points), lit(Kind::Microtubules), lit(Kind::Nuclei)];
        assert!((0.005..0.25).contains(&points), "{points}");
        assert!(filaments > points && filaments < 0.9, "{filaments} {points}");
        assert!(nuclei > 0.3, "{nuclei}");
        assert_eq!(lit(Kind::Empty), 0.0);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let refused = |settings: Settings, name: &str| {
            let message = Simulator::new(settings, 64, 1).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        };
        refused(Settings { blur: Range(3.0, 2.0), ..Settings::default() }, "organelle.blur");
        refused(Settings { dim: Range(0.0, 0.5), ..Settings::default() }, "organelle.dim");
        let none = Shares { points: -1.0, ..Shares::default() };
        refused(Settings { shares: none, ..Settings::default() }, "organelle.shares");
        assert!(Simulator::new(Settings::default(), 4, 1).is_err());
    }
}
