//! The ranges that training images of cells are drawn from.

use super::{Kind, Range};
use crate::{Error, Result, prior::simulate::choose};

/// Shares of what the images show; they are normalised to a sum of one.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shares {
    /// Microtubules.
    pub microtubules: f64,
    /// Actin: a mesh with stress fibres.
    pub actin: f64,
    /// Endoplasmic reticulum: tubules between three-way junctions, sheets.
    pub reticulum: f64,
    /// Coated pits: shells and caps.
    pub pits: f64,
    /// Vesicles and beads: filled balls.
    pub vesicles: f64,
    /// Single points.
    pub points: f64,
    /// Mitochondria.
    pub mitochondria: f64,
    /// Nuclei and cytosol: textures with an edge.
    pub nuclei: f64,
    /// Nothing but background.
    pub empty: f64,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            microtubules: 0.25,
            actin: 0.12,
            reticulum: 0.12,
            pits: 0.12,
            vesicles: 0.08,
            points: 0.06,
            mitochondria: 0.13,
            nuclei: 0.09,
            empty: 0.03,
        }
    }
}

impl Shares {
    /// No images at all, to name single kinds with.
    pub const NONE: Self = Self {
        microtubules: 0.0,
        actin: 0.0,
        reticulum: 0.0,
        pits: 0.0,
        vesicles: 0.0,
        points: 0.0,
        mitochondria: 0.0,
        nuclei: 0.0,
        empty: 0.0,
    };

    fn table(&self) -> [(f64, Kind); 9] {
        [
            (self.microtubules, Kind::Microtubules),
            (self.actin, Kind::Actin),
            (self.reticulum, Kind::Reticulum),
            (self.pits, Kind::Pits),
            (self.vesicles, Kind::Vesicles),
            (self.points, Kind::Points),
            (self.mitochondria, Kind::Mitochondria),
            (self.nuclei, Kind::Nuclei),
            (self.empty, Kind::Empty),
        ]
    }

    /// The kind at quantile `quantile` in [0, 1).
    pub(super) fn kind(&self, quantile: f64) -> Kind {
        choose(self.table(), quantile)
    }
}

/// The distribution of training images. Lengths are micrometres.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What the images show.
    pub shares: Shares,
    /// Share of images that show two kinds at once.
    pub mixture_share: f64,
    /// Share of images with light of structures of the same kind from above and below the plane in focus.
    pub defocused_share: f64,
    /// Standard deviation of its blur (drawn log-uniformly).
    pub defocus: Range,
    /// Its brightness relative to that of the structures in focus (drawn log-uniformly).
    pub defocused: Range,
    /// Size of a pixel (drawn log-uniformly).
    pub pixel: Range,
    /// Full width at half maximum of the blur of an image, pixels: what the prior takes for sharp.
    pub blur: Range,
    /// Share of images with diffuse light between the structures.
    pub background_share: f64,
    /// Its brightness relative to that of structures (drawn log-uniformly).
    pub background: Range,
    /// Share of images that the edge of a cell crosses.
    pub edge_share: f64,
    /// Share of images from a dim part of the field of view.
    pub dim_share: f64,
    /// Brightness of a dim part relative to that of a bright one (drawn log-uniformly).
    pub dim: Range,
    /// Standard deviation of the logarithm of the brightness of a bright part.
    pub brightness_jitter: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shares: Shares::default(),
            mixture_share: 0.2,
            defocused_share: 0.5,
            defocus: Range(0.1, 0.8),
            defocused: Range(0.03, 0.7),
            pixel: Range(0.025, 0.06),
            blur: Range(1.4, 3.2),
            background_share: 0.6,
            background: Range(0.01, 0.3),
            edge_share: 0.12,
            dim_share: 0.3,
            dim: Range(0.1, 0.8),
            brightness_jitter: 0.3,
        }
    }
}

impl Settings {
    /// Images of bright structures in focus that fill the field of view, with pixels of this size, micrometres.
    pub fn plain(shares: Shares, pixel: f64) -> Self {
        Self {
            shares,
            mixture_share: 0.0,
            edge_share: 0.0,
            dim_share: 0.0,
            defocused_share: 0.0,
            pixel: Range(pixel, pixel),
            ..Self::default()
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn validate(&self) -> Result<()> {
        let single = |value: f64| Range(value, value);
        let unit = (0.0, 1.0);
        let table = [
            ("mixture_share", single(self.mixture_share), unit),
            ("defocused_share", single(self.defocused_share), unit),
            ("defocus", self.defocus, (0.01, 10.0)),
            ("defocused", self.defocused, (1e-3, 10.0)),
            ("pixel", self.pixel, (0.005, 1.0)),
            ("blur", self.blur, (1.2, 20.0)),
            ("background_share", single(self.background_share), unit),
            ("background", self.background, (1e-6, 1.0)),
            ("edge_share", single(self.edge_share), unit),
            ("dim_share", single(self.dim_share), unit),
            ("dim", self.dim, (1e-3, 1.0)),
            ("brightness_jitter", single(self.brightness_jitter), (0.0, 2.0)),
        ];
        for (name, Range(low, high), (least, most)) in table {
            if !(least <= low && low <= high && high <= most) {
                let problem = format!("{low} to {high} is not an increasing range within {least} to {most}");
                return Err(Error::config(format!("organelle.{name}"), problem));
            }
        }
        let shares = self.shares.table().map(|(share, _)| share);
        if shares.iter().any(|share| !(*share >= 0.0 && share.is_finite()))
            || shares.iter().sum::<f64>() <= 0.0
        {
            return Err(Error::config("organelle.shares", "must not be negative, nor all zero"));
        }
        Ok(())
    }
}
