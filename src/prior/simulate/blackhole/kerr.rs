//! Light rays traced backwards from a distant camera through the Kerr metric (Boyer-Lindquist, G = c = M = 1).

/// Fraction of 1/r_horizon at which a ray counts as swallowed: its redshift has put out all light by then.
const SWALLOWED: f64 = 0.985;
/// Steps after which a ray that winds around the photon shell is given up.
const MOST_STEPS: usize = 400;

/// A spinning black hole. Matter always turns towards +phi, so a negative spin is a retrograde flow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kerr {
    /// Angular momentum per mass, -1 < a < 1, units of M.
    pub spin: f64,
}

/// Metric functions at one point (Bardeen, Press & Teukolsky 1972, section II), and the frame of the observer
/// of zero angular momentum there.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// r^2 + a^2 cos^2 theta.
    pub sigma: f64,
    /// r^2 - 2 r + a^2.
    pub delta: f64,
    /// Lapse: proper time per coordinate time of the zero-angular-momentum observer.
    pub lapse: f64,
    /// Angular velocity of that observer, the dragging of frames.
    pub dragging: f64,
    /// Circumferential radius sqrt(g_phi_phi).
    pub circumference: f64,
}

impl Kerr {
    /// Radius of the outer horizon.
    pub fn horizon(&self) -> f64 {
        1.0 + (1.0 - self.spin * self.spin).sqrt()
    }

    /// Radius of the innermost stable circular orbit of matter turning towards +phi
    /// (Bardeen, Press & Teukolsky 1972, eq. 2.21).
    pub fn innermost_stable_orbit(&self) -> f64 {
        let a = self.spin;
        let z1 = 1.0 + (1.0 - a * a).cbrt() * ((1.0 + a).cbrt() + (1.0 - a).cbrt());
        let z2 = (3.0 * a * a + z1 * z1).sqrt();
        3.0 + z2 - a.signum() * ((3.0 - z1) * (3.0 + z1 + 2.0 * z2)).sqrt()
    }

    /// Angular momentum per energy of a circular orbit towards +phi in the equatorial plane
    /// (Bardeen, Press & Teukolsky 1972, eqs. 2.12 and 2.13).
    pub fn keplerian_momentum(&self, radius: f64) -> f64 {
        let (a, root) = (self.spin, radius.sqrt());
        (radius * radius - 2.0 * a * root + a * a) / (radius * root - 2.0 * root + a)
    }

    /// The metric at radius r and cos theta.
    pub fn at(&self, radius: f64, cos_polar: f64) -> Place {
        let a2 = self.spin * self.spin;
        let sin2 = (1.0 - cos_polar * cos_polar).max(1e-9);
        let r2 = radius * radius;
        let sigma = r2 + a2 * cos_polar * cos_polar;
        let delta = r2 - 2.0 * radius + a2;
        let area = (r2 + a2) * (r2 + a2) - a2 * delta * sin2;
        Place {
            sigma,
            delta,
            lapse: (sigma * delta / area).sqrt(),
            dragging: 2.0 * self.spin * radius / area,
            circumference: (area * sin2 / sigma).sqrt(),
        }
    }
}

/// A light ray of unit energy followed backwards in time from infinity.
///
/// In Mino time s (affine parameter per Sigma) and with w = 1/r and u = cos theta, the squared radial and polar
/// equations (Carter 1968) are quartic polynomials, w'^2 = W(w) and u'^2 = U(u). The ray solves w'' = W'/2 and
/// u'' = U'/2, which pass turning points smoothly and begin at the camera, w = 0, exactly.
#[derive(Debug, Clone, Copy)]
pub struct Ray {
    spin: f64,
    /// Angular momentum about the spin axis.
    pub momentum: f64,
    /// Carter's constant.
    pub carter: f64,
    /// w, w', u, u'.
    state: [f64; 4],
    /// Azimuth from the camera's meridian, radians.
    pub azimuth: f64,
}

impl Ray {
    /// The ray that reaches a camera at infinity with impact parameters alpha (perpendicular to the projected spin
    /// axis) and beta (along it), units of M: L = -alpha sin i, Q = beta^2 + (alpha^2 - a^2) cos^2 i
    /// (Bardeen 1973, Cunningham & Bardeen 1973).
    pub fn from_camera(kerr: Kerr, inclination: f64, alpha: f64, beta: f64) -> Self {
        let (sin, cos) = inclination.sin_cos();
        Self {
            spin: kerr.spin,
            momentum: -alpha * sin,
            carter: beta * beta + (alpha * alpha - kerr.spin * kerr.spin) * cos * cos,
            state: [0.0, 1.0, cos, beta * sin],
            azimuth: 0.0,
        }
    }

    /// Radius of the present point.
    pub fn radius(&self) -> f64 {
        1.0 / self.state[0]
    }

    /// cos theta of the present point.
    pub fn cos_polar(&self) -> f64 {
        self.state[2]
    }

    /// Covariant radial momentum of the photon, which flies towards the camera, times Delta.
    pub fn radial_momentum(&self) -> f64 {
        self.state[1] / (self.state[0] * self.state[0])
    }

    /// The relative violation of the radial and polar equations, zero on an exact ray.
    pub fn violation(&self) -> [f64; 2] {
        let ([w, w_rate, u, u_rate], a2) = (self.state, self.spin * self.spin);
        let (l, q) = (self.momentum, self.carter);
        let k = (l - self.spin) * (l - self.spin) + q;
        let radial = 1.0 + (a2 - l * l - q) * w * w + 2.0 * k * w.powi(3) - a2 * q * w.powi(4);
        let polar = q + (a2 - q - l * l) * u * u - a2 * u.powi(4);
        [w_rate * w_rate - radial, (u_rate * u_rate - polar) / (q.abs() + l * l + a2 + 1e-9)]
    }

    fn rate(&self, [w, w_rate, u, u_rate]: [f64; 4]) -> [f64; 4] {
        let (a, l, q) = (self.spin, self.momentum, self.carter);
        let a2 = a * a;
        let spread = a2 - l * l - q;
        let bend = (l - a) * (l - a) + q;
        [w_rate, w * (spread + w * (3.0 * bend - 2.0 * a2 * q * w)), u_rate, u * (spread - 2.0 * a2 * u * u)]
    }

    /// One Runge-Kutta step of fourth order in Mino time.
    fn advance(&mut self, step: f64) {
        let start = self.state;
        let along = |rate: [f64; 4], h: f64| std::array::from_fn(|i| start[i] + h * rate[i]);
        let k1 = self.rate(start);
        let k2 = self.rate(along(k1, 0.5 * step));
        let k3 = self.rate(along(k2, 0.5 * step));
        let k4 = self.rate(along(k3, step));
        self.azimuth += self.turn(step);
        for i in 0..4 {
            self.state[i] = start[i] + step / 6.0 * (k1[i] + 2.0 * (k2[i] + k3[i]) + k4[i]);
        }
    }

    /// Change of azimuth over a step: along a great circle, which stays exact when the ray passes a pole, plus the
    /// dragging of frames a (2 r - a L) / Delta.
    fn turn(&self, step: f64) -> f64 {
        let [w, w_rate, u, u_rate] = self.state;
        let (a, l) = (self.spin, self.momentum);
        let sin2 = (1.0 - u * u).max(1e-12);
        let angle = ((u_rate * u_rate + l * l) / sin2).sqrt() * step;
        let (cos, sinc) = (1.0 - angle * angle / 2.0 + angle.powi(4) / 24.0, 1.0 - angle * angle / 6.0);
        let circle = (-l * step * sinc).atan2(sin2 * cos - u * u_rate * step * sinc);
        let middle = w + 0.5 * step * w_rate;
        let dragged = a * middle * (2.0 - a * l * middle) / (1.0 - 2.0 * middle + a * a * middle * middle);
        circle - step * dragged
    }

    /// Follows the ray until it falls in or leaves the sphere of radius `outer`, and calls `visit` with the ray and
    /// the affine length of the step at points that lie about `angle` radians (and relative radii) apart.
    /// Returns whether the ray came from the horizon.
    pub fn trace(mut self, outer: f64, angle: f64, mut visit: impl FnMut(&Self, f64)) -> bool {
        let horizon = 1.0 + (1.0 - self.spin * self.spin).sqrt();
        let swing = (self.carter + self.momentum * self.momentum).abs().sqrt();
        for _ in 0..MOST_STEPS {
            let [w, w_rate, ..] = self.state;
            let mut step = angle / (w_rate.abs() / w.max(1.0 / outer) + swing);
            if w_rate > 0.0 {
                step = step.min((1.0 / horizon - w) / w_rate * 0.5);
            }
            self.advance(step);
            let [w, w_rate, u, _] = self.state;
            if w * horizon > SWALLOWED {
                return true;
            }
            if w * outer < 1.0 {
                if w_rate < 0.0 {
                    return false;
                }
                continue;
            }
            visit(&self, step * (1.0 / (w * w) + self.spin * self.spin * u * u));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Impact parameter between rays that fall in and rays that escape, by bisection from inside outwards.
    fn critical(kerr: Kerr, inclination: f64, direction: [f64; 2]) -> f64 {
        let (mut inside, mut outside) = (0.0, 12.0);
        for _ in 0..40 {
            let middle = 0.5 * (inside + outside);
            let ray = Ray::from_camera(kerr, inclination, middle * direction[0], middle * direction[1]);
            if ray.trace(60.0, 0.05, |_, _| ()) { inside = middle } else { outside = middle }
        }
        inside
    }

    #[test]
    fn shadow_of_schwarzschild_has_radius_root_27() {
        for (inclination, direction) in [(0.3, [1.0, 0.0]), (1.2, [0.6, 0.8]), (0.0, [0.0, 1.0])] {
            let radius = critical(Kerr { spin: 0.0 }, inclination, direction);
            assert!((radius - 27f64.sqrt()).abs() < 2e-3, "{inclination} {radius}");
        }
    }

    #[test]
    fn shadow_of_kerr_ends_at_the_equatorial_photon_orbits() {
        // r = 2 (1 + cos(2/3 arccos(-+a))) and b = L/E there (Bardeen, Press & Teukolsky 1972, eqs. 2.12, 2.13
        // and 2.18: at the photon orbit |L/E| = 3 sqrt(r) -+ a).
        for spin in [0.5_f64, 0.9] {
            for sense in [1.0, -1.0] {
                let orbit = 2.0 * (1.0 + (2.0 / 3.0 * (-sense * spin).acos()).cos());
                let impact = 3.0 * orbit.sqrt() - sense * spin;
                let edge = critical(Kerr { spin }, std::f64::consts::FRAC_PI_2, [-sense, 0.0]);
                assert!((edge - impact).abs() < 5e-3, "spin {spin} sense {sense}: {edge} {impact}");
            }
        }
    }

    #[test]
    fn rays_conserve_energy_momentum_and_carter_constant() {
        for (spin, inclination, alpha, beta) in
            [(0.9, 1.0, 4.0, 3.0), (-0.99, 1.5, -5.0, 2.0), (0.7, 0.1, 0.3, 7.0), (0.99, 0.8, -2.5, 0.0)]
        {
            let ray = Ray::from_camera(Kerr { spin }, inclination, alpha, beta);
            let mut worst = 0.0f64;
            ray.trace(60.0, 0.1, |ray, _| {
                worst = ray.violation().iter().fold(worst, |worst, v| worst.max(v.abs()));
            });
            assert!(worst < 1e-3, "spin {spin}: {worst}");
        }
    }

    #[test]
    fn distant_rays_bend_by_four_over_b() {
        // A ray in the equatorial plane at impact parameter b sweeps pi + 4/b + (15 pi/4)/b^2.
        let b = 200.0;
        let ray = Ray::from_camera(Kerr { spin: 0.0 }, std::f64::consts::FRAC_PI_2, -b, 0.0);
        let (mut swept, mut last, mut ahead) = (0.0_f64, 0.0_f64, 0.0);
        ray.trace(1e5, 0.05, |ray, _| {
            swept += (ray.azimuth - last).abs();
            last = ray.azimuth;
            ahead = b / ray.radius();
        });
        let expected = std::f64::consts::PI + 4.0 / b + 3.75 * std::f64::consts::PI / (b * b);
        assert!((swept + ahead - expected).abs() < 1e-5, "{} {expected}", swept + ahead);
    }

    #[test]
    fn stable_orbits_are_those_of_bardeen() {
        let radius = |spin: f64| Kerr { spin }.innermost_stable_orbit();
        assert!((radius(0.0) - 6.0).abs() < 1e-12);
        assert!((radius(1.0) - 1.0).abs() < 1e-5 && (radius(-1.0) - 9.0).abs() < 1e-12);
    }
}
