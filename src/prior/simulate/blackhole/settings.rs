//! The ranges that training images are drawn from.

use super::{Kind, Range, flow::FlowSettings};
use crate::{Error, Result, prior::simulate::choose};

/// Shares of what the images show; they are normalised to a sum of one.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shares {
    /// Accretion flows around Kerr holes.
    pub flow: f64,
    /// Rings with azimuthal modes.
    pub ring: f64,
    /// Crescents.
    pub crescent: f64,
    /// Disks.
    pub disk: f64,
    /// One to ten Gaussians.
    pub gaussians: f64,
    /// Double sources.
    pub pair: f64,
    /// A core with knots.
    pub jet: f64,
}

impl Default for Shares {
    fn default() -> Self {
        Self { flow: 0.62, ring: 0.1, crescent: 0.06, disk: 0.05, gaussians: 0.09, pair: 0.04, jet: 0.04 }
    }
}

impl Shares {
    fn table(&self) -> [(f64, Kind); 7] {
        [
            (self.flow, Kind::Flow),
            (self.ring, Kind::Ring),
            (self.crescent, Kind::Crescent),
            (self.disk, Kind::Disk),
            (self.gaussians, Kind::Gaussians),
            (self.pair, Kind::Pair),
            (self.jet, Kind::Jet),
        ]
    }

    /// The kind at quantile `quantile` in [0, 1).
    pub(super) fn kind(&self, quantile: f64) -> Kind {
        choose(self.table(), quantile)
    }
}

/// The distribution of training images. Lengths are fractions of the field of view.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What the images show.
    pub shares: Shares,
    /// Diameter of the shadow, ring or other source (drawn log-uniformly).
    pub diameter: Range,
    /// Standard deviation of the centre along each axis.
    pub offset: f64,
    /// Share of images with the wide offset.
    pub wide_offset_share: f64,
    /// Standard deviation of the wide offset.
    pub wide_offset: f64,
    /// Share of images with a faint, wide halo.
    pub halo_share: f64,
    /// Full width at half maximum of the halo.
    pub halo_fwhm: Range,
    /// Flux of the halo, fraction of the total (drawn log-uniformly).
    pub halo_flux: Range,
    /// Share of images blurred by a round Gaussian.
    pub blur_share: f64,
    /// Full width at half maximum of the blur.
    pub blur_fwhm: Range,
    /// Full width at half maximum of the blur of all other images.
    pub least_blur: f64,
    /// Least effective area, (sum I)^2 / sum I^2 over the field's area: more compact images are blurred.
    pub least_area: f64,
    /// Standard deviation of the logarithm of the total flux.
    pub flux_jitter: f64,
    /// The accretion flow.
    pub flow: FlowSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shares: Shares::default(),
            diameter: Range(0.12, 0.5),
            offset: 0.04,
            wide_offset_share: 0.05,
            wide_offset: 0.12,
            halo_share: 0.2,
            halo_fwhm: Range(0.4, 1.2),
            halo_flux: Range(0.02, 0.3),
            blur_share: 0.5,
            blur_fwhm: Range(0.02, 0.12),
            least_blur: 0.018,
            least_area: 0.012,
            flux_jitter: 0.12,
            flow: FlowSettings::default(),
        }
    }
}

impl Settings {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting that is out of range, by name.
    pub fn validate(&self) -> Result<()> {
        let flow = &self.flow;
        let turbulence = &flow.turbulence;
        let unit = (0.0, 1.0);
        let (any, positive) = ((f64::MIN, f64::MAX), (1e-6, 1e6));
        let single = |value: f64| Range(value, value);
        let table = [
            ("diameter", self.diameter, (0.02, 2.0)),
            ("offset", single(self.offset), unit),
            ("wide_offset_share", single(self.wide_offset_share), unit),
            ("wide_offset", single(self.wide_offset), unit),
            ("halo_share", single(self.halo_share), unit),
            ("halo_fwhm", self.halo_fwhm, (1e-3, 1e3)),
            ("halo_flux", self.halo_flux, (1e-6, 1.0)),
            ("blur_share", single(self.blur_share), unit),
            ("blur_fwhm", self.blur_fwhm, unit),
            ("least_blur", single(self.least_blur), unit),
            ("least_area", single(self.least_area), unit),
            ("flux_jitter", single(self.flux_jitter), unit),
            ("flow.spin", flow.spin, (-0.998, 0.998)),
            ("flow.inclination", flow.inclination, (0.0, 180.0)),
            ("flow.density_slope", flow.density_slope, (-5.0, 5.0)),
            ("flow.temperature_slope", flow.temperature_slope, (-5.0, 5.0)),
            ("flow.field_slope", flow.field_slope, (-5.0, 5.0)),
            ("flow.frequency_ratio", flow.frequency_ratio, positive),
            ("flow.thickness", flow.thickness, (0.02, 10.0)),
            ("flow.rotation", flow.rotation, (-1.0, 1.0)),
            ("flow.infall", flow.infall, unit),
            ("flow.truncated_share", single(flow.truncated_share), unit),
            ("flow.inner_edge", flow.inner_edge, (0.1, 1e3)),
            ("flow.sheath_share", single(flow.sheath_share), unit),
            ("flow.sheath_brightness", flow.sheath_brightness, positive),
            ("flow.sheath_speed", flow.sheath_speed, (0.0, 0.99)),
            ("flow.sheath_turning", flow.sheath_turning, (-0.95, 0.95)),
            ("flow.absorbed_share", single(flow.absorbed_share), unit),
            ("flow.absorption", flow.absorption, positive),
            ("flow.turbulence.amplitude", turbulence.amplitude, (0.0, 5.0)),
            ("flow.turbulence.radial_length", turbulence.radial_length, positive),
            ("flow.turbulence.azimuthal_length", turbulence.azimuthal_length, positive),
            ("flow.turbulence.slope", turbulence.slope, (0.0, 20.0)),
            ("flow.turbulence.winding", turbulence.winding, any),
            ("flow.turbulence.layering", turbulence.layering, any),
        ];
        for (name, Range(low, high), (least, most)) in table {
            if !(least <= low && low <= high && high <= most) {
                let problem = format!("[{low}, {high}] is not an increasing range within {least} to {most}");
                return Err(Error::config(name, problem));
            }
        }
        let shares = self.shares.table().map(|(share, _)| share);
        if shares.iter().any(|share| !(0.0..=1e6).contains(share)) || shares.iter().sum::<f64>() <= 0.0 {
            return Err(Error::config("shares", "must not be negative, and one of them must be positive"));
        }
        Ok(())
    }
}
