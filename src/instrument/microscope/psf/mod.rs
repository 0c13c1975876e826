//! Point-spread functions: computed from the optics or measured.

pub mod bead;
pub mod gaussian;
mod measure;
pub mod otf;
pub mod pixel;
mod pupil;
mod quadrature;
mod wave;
pub mod zernike;

use ndarray::Array3;
use serde::{Deserialize, Serialize};

use self::{pupil::Pupil, zernike::Aberrations};
use super::Optics;
use crate::{Error, Result, grid::Grid};

/// Largest point-spread function that is computed or kept, voxels.
pub const LARGEST: usize = 1 << 28;

/// A point-spread function on a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Psf {
    /// Shape and voxel size, metres.
    pub grid: Grid,
    /// Light per voxel, `[Z, Y, X]`, of a source at the voxel shape/2. Computed ones are fractions of the light that
    /// crosses a plane, so an infinitely wide plane sums to 1.
    pub values: Array3<f64>,
}

/// How light is propagated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// Electromagnetic waves of freely rotating dipoles through sample, coverslip and immersion (Aguet 2009).
    #[default]
    Vectorial,
    /// Scalar waves through the same layers (Gibson and Lanni 1992): up to 10 % too narrow above NA 1.
    GibsonLanni,
    /// Scalar paraxial waves (Born and Wolf): too long along the axis above NA 0.5.
    BornWolf,
    /// A Gaussian (Zhang 2007): the core alone, for single planes.
    Gaussian,
}

/// Where the central plane lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Focus {
    /// Where the axis is brightest, as one focuses by eye.
    #[default]
    Best,
    /// Where the source would be sharp if all indices matched.
    Nominal,
}

/// What a computed point-spread function depends on besides its grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Objective, layers, wavelength.
    pub optics: Optics,
    /// How light is propagated.
    pub model: Model,
    /// Wavefront errors.
    pub aberrations: Aberrations,
    /// Where the central plane lies.
    pub focus: Focus,
    /// Full width of the emission band, m; 0 for a single wavelength.
    pub bandwidth: f64,
}

/// Wavelengths that stand for an emission band.
const BAND_NODES: usize = 5;

impl Recipe {
    /// The vectorial model without aberrations at one wavelength, in best focus.
    pub fn new(optics: Optics) -> Self {
        Self {
            optics,
            model: Model::default(),
            aberrations: Aberrations::default(),
            focus: Focus::default(),
            bandwidth: 0.0,
        }
    }

    /// The point-spread function averaged over each voxel of `grid`, with its centre at the voxel shape/2.
    ///
    /// # Errors
    /// Impossible optics, a grid without voxels or too large, or a model that cannot have aberrations.
    pub fn psf(&self, grid: &Grid) -> Result<Psf> {
        self.check("optics")?;
        check_grid(grid)?;
        if self.model == Model::Gaussian {
            return Ok(Psf { grid: *grid, values: gaussian::intensity(&self.optics, grid) });
        }
        let mut values = Array3::zeros(grid.shape);
        for (wavelength, share) in self.band() {
            let optics = Optics { wavelength, ..self.optics };
            let focus = self.focus_of(&optics);
            let [radius, reach] = extent(grid, focus);
            let pupil = Pupil::fit(&optics, self.model, radius, reach);
            values.scaled_add(share, &wave::intensity(&pupil, &self.aberrations, grid, focus)?);
        }
        Ok(Psf { grid: *grid, values })
    }

    /// Refuses what cannot be true; `place` names the description in the message.
    ///
    /// # Errors
    /// Impossible optics, a band wider than its centre, or a model that cannot have aberrations.
    pub fn check(&self, place: &str) -> Result<()> {
        self.optics.check(place)?;
        if !(0.0..0.5 * self.optics.wavelength).contains(&self.bandwidth) {
            let problem =
                format!("{:.4} nm cannot be; 0 nm to half the wavelength can", self.bandwidth * 1e9);
            return Err(Error::config(format!("{place}: bandwidth"), problem));
        }
        if self.model == Model::Gaussian && !self.aberrations.is_empty() {
            let problem = "a Gaussian has no pupil; use the vectorial model";
            return Err(Error::config(format!("{place}: psf.aberrations"), problem));
        }
        Ok(())
    }

    /// Wavelengths and weights of a flat emission band.
    fn band(&self) -> Vec<(f64, f64)> {
        let (centre, half) = (self.optics.wavelength, 0.5 * self.bandwidth);
        if half == 0.0 {
            return vec![(centre, 1.0)];
        }
        let rule = quadrature::gauss_legendre(BAND_NODES);
        rule.into_iter().map(|(x, weight)| (centre + half * x, 0.5 * weight)).collect()
    }

    /// Distance of the central plane from the nominal focus, m.
    fn focus_of(&self, optics: &Optics) -> f64 {
        if self.focus == Focus::Nominal {
            return 0.0;
        }
        // Index mismatch moves the focus by less than the depth; a wrong coverslip by less than its thickness error.
        let coverslip = optics.coverslip;
        let reach = optics.depth
            + (coverslip.thickness - coverslip.design_thickness).abs()
            + 4.0 * optics.wavelength / optics.numerical_aperture.powi(2);
        let step = optics.wavelength / (8.0 * optics.numerical_aperture.powi(2));
        Pupil::fit(optics, self.model, 0.0, reach).best_focus(reach, step)
    }
}

/// Largest distance of a voxel's point from the axis and from the nominal focus, m.
fn extent(grid: &Grid, focus: f64) -> [f64; 2] {
    let [z, y, x] = [0, 1, 2].map(|axis| (0.5 * grid.shape[axis] as f64 + 1.0) * grid.pitch[axis]);
    [y.hypot(x), z + focus.abs()]
}

/// Refuses grids without voxels, with a pitch that cannot be, or larger than memory should hold.
fn check_grid(grid: &Grid) -> Result<()> {
    let voxels = grid.shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    if grid.is_empty() || voxels.is_none_or(|voxels| voxels > LARGEST) {
        return Err(Error::config("shape", format!("{:?}: use 1 to {LARGEST} voxels", grid.shape)));
    }
    if !grid.pitch.iter().all(|pitch| (1e-10..1e-3).contains(pitch)) {
        return Err(Error::config("voxel", format!("{:?} m: use 0.1 nm to 1000 um", grid.pitch)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oil() -> Optics {
        Optics::matched(1.4, 1.515, 520e-9)
    }

    /// A sample of water under oil, 5 um deep.
    fn mismatched() -> Optics {
        Optics { sample_index: 1.33, depth: 5e-6, ..oil() }
    }

    fn stack() -> Grid {
        Grid { shape: [9, 21, 21], pitch: [200e-9, 65e-9, 65e-9] }
    }

    fn largest(values: impl Iterator<Item = f64>) -> f64 {
        values.fold(0.0, |largest: f64, value| largest.max(value.abs()))
    }

    #[test]
    fn doubling_the_quadrature_changes_nothing() {
        for optics in [oil(), mismatched(), Optics::matched(0.8, 1.0, 488e-9)] {
            for model in [Model::Vectorial, Model::GibsonLanni, Model::BornWolf] {
                let [radius, reach] = extent(&stack(), 0.0);
                let nodes = pupil::sufficient_nodes(&optics, model, radius, reach);
                let at = |nodes| {
                    let pupil = Pupil::new(&optics, model, nodes);
                    wave::intensity(&pupil, &Aberrations::default(), &stack(), 0.0).unwrap()
                };
                let (once, twice) = (at(nodes), at(2 * nodes));
                let change = largest((&once - &twice).into_iter()) / largest(twice.into_iter());
                println!("{model:?}: {nodes} nodes, change {change:.1e}");
                assert!(change < 1e-6, "{model:?}: {change}");
            }
        }
    }

    /// A plain sum over the immersion angle, the form in which the integral is usually printed, on the axis of a sample
    /// with a critical angle inside the aperture.
    #[test]
    fn mismatched_layers_agree_with_a_plain_sum() {
        use rustfft::num_complex::Complex64;
        const STEPS: usize = 200_000;
        let optics = mismatched();
        let (ni, ns, k) = (1.515, 1.33, optics.wavenumber());
        let plain = |z: f64| {
            let edge = (optics.numerical_aperture / ni).asin();
            let term = |step: usize| {
                let (sin, cos) = ((step as f64 + 0.5) / STEPS as f64 * edge).sin_cos();
                let cos_sample = Complex64::from(1.0 - (ni * sin / ns).powi(2)).sqrt();
                let ts = 2.0 * ni * cos / (ni * cos + ns * cos_sample);
                let tp = 2.0 * ni * cos / (ns * cos + ni * cos_sample);
                let path = 5e-6 * ns * cos_sample + ni * cos * (-z - ni * 5e-6 / ns);
                cos.sqrt() * sin * (ts + tp * cos_sample) * (Complex64::I * k * path).exp()
            };
            (0..STEPS).map(term).sum::<Complex64>().norm_sqr()
        };
        // A voxel so small that its average is its centre.
        let grid = Grid { shape: [9, 1, 1], pitch: [200e-9, 1e-9, 1e-9] };
        let found = Recipe { focus: Focus::Nominal, ..Recipe::new(optics) }.psf(&grid).unwrap().values;
        let expected: Vec<f64> = (-4..=4).map(|n| plain(f64::from(n) * 200e-9)).collect();
        let scale = found[[4, 0, 0]] / expected[4];
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - scale * expected).abs() < 1e-4 * found, "{found} {}", scale * expected);
        }
    }

    /// In the limit of small apertures all models are the Airy pattern, (2 J1(v) / v)^2.
    #[test]
    fn small_apertures_give_the_airy_pattern() {
        let optics = Optics::matched(0.1, 1.0, 500e-9);
        let grid = Grid { shape: [1, 1, 161], pitch: [1e-6, 1e-9, 100e-9] };
        for model in [Model::Vectorial, Model::GibsonLanni, Model::BornWolf] {
            let found = Recipe { model, ..Recipe::new(optics) }.psf(&grid).unwrap().values;
            for (i, value) in found.iter().enumerate() {
                let v = optics.wavenumber() * 0.1 * (i as f64 - 80.0) * 100e-9;
                let airy = if i == 80 { 1.0 } else { (2.0 * libm::j1(v) / v).powi(2) };
                assert!((value / found[[0, 0, 80]] - airy).abs() < 3e-3, "{model:?} {i}: {value} {airy}");
            }
        }
    }

    #[test]
    fn every_plane_holds_the_same_light() {
        let grid = Grid { shape: [3, 121, 121], pitch: [0.6e-6, 65e-9, 65e-9] };
        for aberrations in [vec![], vec![(7, 40e-9), (5, 30e-9)]] {
            let aberrations = Aberrations::new(aberrations, "test").unwrap();
            let psf = Recipe { aberrations, ..Recipe::new(oil()) }.psf(&grid).unwrap();
            for plane in psf.values.outer_iter() {
                // The rest lies beyond 4 um.
                assert!((0.93..1.0).contains(&plane.sum()), "{}", plane.sum());
            }
        }
    }

    /// Tilt moves the image: a path of c Z2 = 2 c rho cos(phi) moves it by -2 c / NA.
    #[test]
    fn tilt_moves_the_image_and_coma_leaves_one_side_brighter() {
        let grid = Grid { shape: [1, 31, 31], pitch: [200e-9, 50e-9, 50e-9] };
        let with = |index, path| {
            let aberrations = Aberrations::new([(index, path)], "test").unwrap();
            Recipe { aberrations, model: Model::GibsonLanni, ..Recipe::new(oil()) }.psf(&grid).unwrap().values
        };
        let plain = Recipe { model: Model::GibsonLanni, ..Recipe::new(oil()) }.psf(&grid).unwrap().values;
        let pixels = 3.0;
        let tilted = with(2, -0.5 * 1.4 * pixels * 50e-9);
        let worst = (0..28)
            .flat_map(|x| (0..31).map(move |y| (y, x)))
            .map(|(y, x)| (tilted[[0, y, x + 3]] - plain[[0, y, x]]).abs());
        let worst = largest(worst) / largest(plain.into_iter());
        assert!(worst < 1e-4, "{worst}");
        let coma = with(8, 50e-9);
        let asymmetry = |mirror: &dyn Fn(usize, usize) -> [usize; 3]| {
            largest(coma.indexed_iter().map(|((_, y, x), value)| value - coma[mirror(y, x)]))
        };
        let peak = largest(coma.iter().copied());
        assert!(asymmetry(&|y, x| [0, y, 30 - x]) > 0.02 * peak);
        assert!(asymmetry(&|y, x| [0, 30 - y, x]) < 1e-9 * peak);
    }

    /// Defocus as an aberration of a small aperture is a change of the focus: Z4 = sqrt(3) (2 rho^2 - 1).
    #[test]
    fn the_defocus_polynomial_is_a_change_of_focus() {
        let optics = Optics::matched(0.1, 1.0, 500e-9);
        let z = 30e-6;
        let grid = Grid { shape: [1, 21, 21], pitch: [1e-6, 1e-6, 1e-6] };
        let path = -z * 0.1f64.powi(2) / 2.0 / (2.0 * 3f64.sqrt());
        let aberrations = Aberrations::new([(4, path)], "test").unwrap();
        let disturbed =
            Recipe { aberrations, model: Model::BornWolf, ..Recipe::new(optics) }.psf(&grid).unwrap();
        let stack = Grid { shape: [3, 21, 21], pitch: [z, 1e-6, 1e-6] };
        let focused = Recipe { model: Model::BornWolf, ..Recipe::new(optics) }.psf(&stack).unwrap();
        let moved = focused.values.index_axis(ndarray::Axis(0), 2).to_owned();
        let worst = largest((&disturbed.values.index_axis(ndarray::Axis(0), 0) - &moved).into_iter());
        assert!(worst < 1e-6 * largest(moved.into_iter()) + 1e-12, "{worst}");
    }

    #[test]
    fn best_focus_is_the_brightest_plane() {
        let grid = Grid { shape: [41, 1, 1], pitch: [25e-9, 65e-9, 65e-9] };
        let axis = Recipe::new(mismatched()).psf(&grid).unwrap().values;
        let brightest = axis.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        assert!(brightest.abs_diff(20) <= 1, "plane {brightest}");
    }

    #[test]
    fn absurd_requests_are_refused() {
        let psf = |shape, pitch| Recipe::new(oil()).psf(&Grid { shape, pitch });
        assert!(psf([0, 5, 5], [1e-7; 3]).is_err());
        assert!(psf([1 << 40, 1 << 40, 5], [1e-7; 3]).is_err());
        assert!(psf([1, 5, 5], [1e-7, 0.0, 1e-7]).is_err());
        let mut optics = oil();
        optics.numerical_aperture = 1.6;
        assert!(Recipe::new(optics).psf(&stack()).is_err());
    }
}
