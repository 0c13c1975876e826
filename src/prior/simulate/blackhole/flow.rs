//! A radiatively inefficient accretion flow: synchrotron light of hot, turbulent gas in the frame of its motion.

use super::{
    Range,
    kerr::{Kerr, Place, Ray},
    turbulence::{Turbulence, TurbulenceSettings},
};
use crate::rng::Rng;

/// Radius at which the emissivity is normalised, M.
const REFERENCE_RADIUS: f64 = 5.0;
/// Relative width of the inner edge.
const EDGE_SOFTNESS: f64 = 0.06;
/// Layers further than this many scale heights from the midplane are dark.
const DARK_LAYERS: f64 = 3.5;

/// Ranges that the flow of one image is drawn from.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowSettings {
    /// Spin of the hole, M; negative is retrograde.
    pub spin: Range,
    /// Angle between spin and line of sight, degrees.
    pub inclination: Range,
    /// n is proportional to r to the minus this.
    pub density_slope: Range,
    /// Electron temperature is proportional to r to the minus this.
    pub temperature_slope: Range,
    /// Field strength is proportional to r to the minus this.
    pub field_slope: Range,
    /// Observed frequency over synchrotron frequency at 5 M (drawn log-uniformly): high is compact, low extended.
    pub frequency_ratio: Range,
    /// Scale height in cos theta (drawn log-uniformly).
    pub thickness: Range,
    /// Angular momentum of the gas, fraction of the Keplerian one.
    pub rotation: Range,
    /// Speed of infall outside the innermost stable orbit, fraction of free fall.
    pub infall: Range,
    /// Share of flows that are truncated at an inner edge.
    pub truncated_share: f64,
    /// Radius of that edge, M (drawn log-uniformly).
    pub inner_edge: Range,
    /// Share of flows with a luminous wall of the jet funnel.
    pub sheath_share: f64,
    /// Emissivity of the wall relative to the midplane's (drawn log-uniformly).
    pub sheath_brightness: Range,
    /// Speed along the wall far from the hole, fraction of light.
    pub sheath_speed: Range,
    /// Speed of the wall around the axis, fraction of light.
    pub sheath_turning: Range,
    /// Share of flows that absorb their own light.
    pub absorbed_share: f64,
    /// Absorption per emissivity, in optical depths of a unit path at the reference radius (drawn log-uniformly).
    pub absorption: Range,
    /// The turbulence.
    pub turbulence: TurbulenceSettings,
}

impl Default for FlowSettings {
    fn default() -> Self {
        Self {
            spin: Range(-0.99, 0.99),
            inclination: Range(0.0, 90.0),
            density_slope: Range(0.5, 2.0),
            temperature_slope: Range(0.4, 1.1),
            field_slope: Range(0.5, 1.5),
            frequency_ratio: Range(4.0, 300.0),
            thickness: Range(0.08, 0.8),
            rotation: Range(0.4, 1.0),
            infall: Range(0.0, 1.0),
            truncated_share: 0.25,
            inner_edge: Range(2.5, 9.0),
            sheath_share: 0.25,
            sheath_brightness: Range(0.1, 3.0),
            sheath_speed: Range(0.0, 0.6),
            sheath_turning: Range(0.0, 0.6),
            absorbed_share: 0.15,
            absorption: Range(0.01, 0.15),
            turbulence: TurbulenceSettings::default(),
        }
    }
}

/// A luminous wall around the jet funnel, along the parabola r^(1/2) (1 - |cos theta|) = const.
#[derive(Debug, Clone, Copy)]
struct Sheath {
    opening: f64,
    width: f64,
    brightness: f64,
    speed: f64,
    turning: f64,
}

/// One realisation of the accretion flow around a black hole.
#[derive(Debug, Clone)]
pub struct Flow {
    /// The black hole.
    pub kerr: Kerr,
    /// Angle between spin and line of sight, radians.
    pub inclination: f64,
    stable_orbit: f64,
    density_slope: f64,
    temperature_slope: f64,
    field_slope: f64,
    frequency_ratio: f64,
    thickness: f64,
    rotation: f64,
    infall: f64,
    inner_edge: f64,
    sheath: Option<Sheath>,
    absorption: f64,
    turbulence: Turbulence,
}

impl Flow {
    /// Draws a flow.
    pub fn draw(settings: &FlowSettings, rng: &mut Rng) -> Self {
        let kerr = Kerr { spin: settings.spin.uniform(rng) };
        let occurs = |share: f64, rng: &mut Rng| rng.uniform() < share;
        Self {
            kerr,
            inclination: settings.inclination.uniform(rng).to_radians(),
            stable_orbit: kerr.innermost_stable_orbit(),
            density_slope: settings.density_slope.uniform(rng),
            temperature_slope: settings.temperature_slope.uniform(rng),
            field_slope: settings.field_slope.uniform(rng),
            frequency_ratio: settings.frequency_ratio.log_uniform(rng),
            thickness: settings.thickness.log_uniform(rng),
            rotation: settings.rotation.uniform(rng),
            infall: settings.infall.uniform(rng),
            inner_edge: if occurs(settings.truncated_share, rng) {
                settings.inner_edge.log_uniform(rng)
            } else {
                0.0
            },
            sheath: occurs(settings.sheath_share, rng).then(|| Sheath {
                opening: Range(0.3, 1.4).uniform(rng),
                width: Range(0.04, 0.2).uniform(rng),
                brightness: settings.sheath_brightness.log_uniform(rng),
                speed: settings.sheath_speed.uniform(rng),
                turning: settings.sheath_turning.uniform(rng),
            }),
            absorption: if occurs(settings.absorbed_share, rng) {
                settings.absorption.log_uniform(rng)
            } else {
                0.0
            },
            turbulence: Turbulence::draw(&settings.turbulence, rng),
        }
    }

    /// Specific intensity, arbitrary unit, at impact parameters alpha, beta (M) of light from within radius `outer`.
    ///
    /// Along a ray I/nu^3 grows by j/nu^2 per affine length (Lorentz invariants), so that with g = observed over
    /// emitted frequency the observed intensity grows by g^2 j exp(-tau), tau by kappa/g.
    pub fn intensity(&self, alpha: f64, beta: f64, outer: f64) -> f64 {
        let (mut light, mut depth) = (0.0, 0.0);
        // A step of 1.5 scale heights integrates a Gaussian layer to better than a thousandth.
        let angle = (1.5 * self.thickness).clamp(0.12, 0.25);
        Ray::from_camera(self.kerr, self.inclination, alpha, beta).trace(outer, angle, |ray, length| {
            let height = ray.cos_polar() / self.thickness;
            let wall = self.wall(ray);
            if height.abs() > DARK_LAYERS && wall == 0.0 {
                return;
            }
            let disk = (-0.5 * height * height).exp();
            let (radius, place) = (ray.radius(), self.kerr.at(ray.radius(), ray.cos_polar()));
            let [outward, turning] = self.velocity(radius, ray.cos_polar(), &place, wall / (wall + disk));
            let shift = redshift(ray, &place, outward, turning);
            let log_radius = radius.ln();
            let emissivity = self.synchrotron(radius, log_radius - REFERENCE_RADIUS.ln(), shift)
                * (disk * self.turbulence.factor(log_radius, ray.azimuth, ray.cos_polar()) + wall);
            light += shift * shift * emissivity * length * f64::exp(-depth);
            if self.absorption > 0.0 {
                // Rayleigh-Jeans: kappa = j / (nu^2 T).
                let cooling = (radius / REFERENCE_RADIUS).powf(self.temperature_slope);
                depth += self.absorption * emissivity * shift * length * cooling;
            }
        });
        light
    }

    /// Emissivity of the funnel's wall relative to the midplane's, 0 far from the wall.
    fn wall(&self, ray: &Ray) -> f64 {
        let Some(sheath) = &self.sheath else { return 0.0 };
        let distance = (ray.radius().sqrt() * (1.0 - ray.cos_polar().abs()) - sheath.opening) / sheath.width;
        if distance.abs() > DARK_LAYERS {
            0.0
        } else {
            sheath.brightness * (-0.5 * distance * distance).exp()
        }
    }

    /// Thermal synchrotron emissivity n B F(X) relative to n B at the reference radius, with the fit
    /// F = (X^1/2 + 2^(11/12) X^1/6)^2 exp(-X^1/3) of Leung, Gammie & Noble 2011, X = nu / nu_s, nu_s ~ B T^2.
    /// `log_radius` is relative to the reference radius.
    fn synchrotron(&self, radius: f64, log_radius: f64, shift: f64) -> f64 {
        let steepness = self.field_slope + 2.0 * self.temperature_slope;
        let square = (((self.frequency_ratio / shift).ln() + log_radius * steepness) / 3.0).exp();
        let shape = square * (square + 2f64.powf(11.0 / 12.0)).powi(2);
        let reference = self.frequency_ratio.cbrt();
        let emissivity =
            shape * (reference - square - log_radius * (self.density_slope + self.field_slope)).exp();
        if self.inner_edge == 0.0 {
            return emissivity;
        }
        emissivity / (1.0 + ((1.0 - radius / self.inner_edge) / EDGE_SOFTNESS).exp())
    }

    /// Radial and azimuthal velocity against the zero-angular-momentum observer.
    ///
    /// The gas keeps a fraction of the Keplerian angular momentum (the innermost stable orbit's within it), spread as
    /// sin^2 theta, and falls at a fraction of the free fall from rest at infinity, sqrt(1 - lapse^2), which rises to
    /// one in the plunge. Gas in the funnel's wall flows out instead.
    fn velocity(&self, radius: f64, cos_polar: f64, place: &Place, wall_share: f64) -> [f64; 2] {
        let sin2 = 1.0 - cos_polar * cos_polar;
        let momentum = self.rotation * sin2 * self.kerr.keplerian_momentum(radius.max(self.stable_orbit));
        let turning = momentum * place.lapse / (place.circumference * (1.0 - place.dragging * momentum));
        let [lifted, swirled] = self.sheath.map_or([0.0; 2], |wall| [wall.speed, wall.turning]);
        let turning = wall_share * swirled + (1.0 - wall_share) * turning.clamp(-0.95, 0.95);
        let plunge = (1.0 - radius / self.stable_orbit).max(0.0).sqrt();
        let fall = (1.0 - place.lapse * place.lapse).max(0.0).sqrt();
        let inward = fall * (self.infall + (1.0 - self.infall) * plunge);
        let outward = wall_share * lifted * (1.0 - fall) - (1.0 - wall_share) * inward;
        let outward = outward * (1.0 - turning * turning).sqrt();
        [outward.clamp(-0.99, 0.99), turning]
    }
}

/// Observed over emitted frequency of gas that moves with the given velocity against the local observer of zero
/// angular momentum.
fn redshift(ray: &Ray, place: &Place, outward: f64, turning: f64) -> f64 {
    let energy = (1.0 - place.dragging * ray.momentum) / place.lapse;
    let radial = ray.radial_momentum() / (place.sigma * place.delta).sqrt();
    let azimuthal = ray.momentum / place.circumference;
    let boost = (1.0 - outward * outward - turning * turning).max(1e-4).sqrt();
    boost / (energy - outward * radial - turning * azimuthal).max(1e-3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm(spin: f64, inclination: f64) -> Flow {
        let settings = FlowSettings {
            spin: Range(spin, spin),
            inclination: Range(inclination, inclination),
            rotation: Range(1.0, 1.0),
            infall: Range(0.0, 0.0),
            truncated_share: 0.0,
            sheath_share: 0.0,
            absorbed_share: 0.0,
            turbulence: TurbulenceSettings { amplitude: Range(0.0, 0.0), ..TurbulenceSettings::default() },
            ..FlowSettings::default()
        };
        Flow::draw(&settings, &mut Rng::new(3))
    }

    #[test]
    fn the_approaching_side_is_brighter() {
        let flow = calm(0.5, 60.0);
        // Matter turns towards +phi, so it approaches on the side of negative alpha.
        for distance in [6.0, 8.0, 12.0] {
            let (approaching, receding) =
                (flow.intensity(-distance, 0.0, 40.0), flow.intensity(distance, 0.0, 40.0));
            assert!(approaching > 2.0 * receding, "{distance}: {approaching} {receding}");
        }
        let face_on = calm(0.5, 0.0);
        let ratio = face_on.intensity(-7.0, 0.0, 40.0) / face_on.intensity(0.0, 7.0, 40.0);
        assert!((ratio - 1.0).abs() < 1e-6, "{ratio}");
    }

    #[test]
    fn gas_on_a_circular_orbit_has_the_known_redshift() {
        // Seen face on, light of a Keplerian orbit around a Schwarzschild hole has g = sqrt(1 - 3/r), whatever its path.
        let flow = calm(0.0, 0.0);
        let ray = Ray::from_camera(flow.kerr, 0.0, 9.0, 0.0);
        let mut checked = 0;
        ray.trace(60.0, 0.1, |ray, _| {
            let place = flow.kerr.at(ray.radius(), 0.0);
            if ray.radius() > 6.0 {
                let [outward, turning] = flow.velocity(ray.radius(), 0.0, &place, 0.0);
                let expected = (1.0 - 3.0 / ray.radius()).sqrt();
                assert!((redshift(ray, &place, outward, turning) - expected).abs() < 1e-9);
                checked += 1;
            }
        });
        assert!(checked > 5);
    }

    #[test]
    fn light_is_suppressed_within_the_shadow() {
        let flow = calm(0.0, 20.0);
        let ring = (0..16).map(|i| flow.intensity(4.9 + 0.05 * f64::from(i), 0.0, 40.0)).fold(0.0, f64::max);
        assert!(flow.intensity(0.0, 0.0, 40.0) < 0.5 * ring);
    }
}
