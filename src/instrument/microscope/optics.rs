//! The light path from an emitter to the objective, and what it can resolve.

use crate::{Error, Result, grid::Grid};

/// Refractive indices of transparent matter at visible wavelengths.
const REFRACTIVE_INDEX: std::ops::RangeInclusive<f64> = 1.0..=2.5;
/// Emission wavelengths that objectives are made for, m.
const WAVELENGTH: std::ops::RangeInclusive<f64> = 200e-9..=2e-6;

/// Thickness of a layer between emitter and objective, and its index, as used and as the objective was designed for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer {
    /// Refractive index.
    pub index: f64,
    /// Refractive index of the design.
    pub design_index: f64,
    /// Thickness, m; of the immersion layer it follows the focus and is not used.
    pub thickness: f64,
    /// Thickness of the design, m.
    pub design_thickness: f64,
}

impl Layer {
    /// A layer as the objective was designed for.
    pub fn designed(index: f64, thickness: f64) -> Self {
        Self { index, design_index: index, thickness, design_thickness: thickness }
    }
}

/// Emission wavelength, objective, and the layers of the Gibson-Lanni model: sample, coverslip, immersion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optics {
    /// Emission wavelength in vacuum, m.
    pub wavelength: f64,
    /// Numerical aperture.
    pub numerical_aperture: f64,
    /// Between objective and coverslip; the design thickness is the working distance.
    pub immersion: Layer,
    /// Coverslip.
    pub coverslip: Layer,
    /// Refractive index around the emitter.
    pub sample_index: f64,
    /// Distance of the emitter from the coverslip, m.
    pub depth: f64,
}

impl Optics {
    /// An emitter at the coverslip of a sample with the immersion's index; coverslip 170 um of index 1.515, working
    /// distance 150 um.
    pub fn matched(numerical_aperture: f64, index: f64, wavelength: f64) -> Self {
        Self {
            wavelength,
            numerical_aperture,
            immersion: Layer::designed(index, 150e-6),
            coverslip: Layer::designed(1.515, 170e-6),
            sample_index: index,
            depth: 0.0,
        }
    }

    /// Wavenumber in vacuum, rad/m.
    pub fn wavenumber(&self) -> f64 {
        std::f64::consts::TAU / self.wavelength
    }

    /// Largest n sin(theta) of waves that propagate from the sample into the objective.
    pub fn aperture(&self) -> f64 {
        self.numerical_aperture.min(self.sample_index)
    }

    /// Spatial frequency above which a widefield image holds no signal, 2 NA / wavelength, 1/m.
    pub fn cut_off(&self) -> f64 {
        2.0 * self.aperture() / self.wavelength
    }

    /// Spatial frequency along the axis above which the image holds no signal, 1/m:
    /// (n - sqrt(n^2 - NA^2)) / wavelength.
    pub fn axial_cut_off(&self) -> f64 {
        let n = self.sample_index;
        (n - (n * n - self.aperture().powi(2)).max(0.0).sqrt()) / self.wavelength
    }

    /// Refuses what cannot be true; `place` names the description in the message.
    ///
    /// # Errors
    /// A value outside what is physical, with the value.
    pub fn check(&self, place: &str) -> Result<()> {
        let refuse = |key: &str, problem: String| Err(Error::config(format!("{place}: {key}"), problem));
        if !WAVELENGTH.contains(&self.wavelength) {
            let nanometres = self.wavelength * 1e9;
            return refuse("emission", format!("{nanometres:.4} nm cannot be; 200 nm to 2000 nm can"));
        }
        for (key, index) in [
            ("immersion.index", self.immersion.index),
            ("immersion.design_index", self.immersion.design_index),
            ("coverslip.index", self.coverslip.index),
            ("coverslip.design_index", self.coverslip.design_index),
            ("sample_index", self.sample_index),
        ] {
            if !REFRACTIVE_INDEX.contains(&index) {
                return refuse(key, format!("{index} cannot be a refractive index; 1 to 2.5 can"));
            }
        }
        for (key, thickness) in [
            ("working_distance", self.immersion.design_thickness),
            ("coverslip.thickness", self.coverslip.thickness),
            ("coverslip.design_thickness", self.coverslip.design_thickness),
            ("depth", self.depth),
        ] {
            if !(0.0..=0.1).contains(&thickness) {
                let micrometres = thickness * 1e6;
                return refuse(key, format!("{micrometres} um cannot be; 0 um to 100000 um can"));
            }
        }
        self.check_aperture(place)
    }

    fn check_aperture(&self, place: &str) -> Result<()> {
        let aperture = self.numerical_aperture;
        let place = format!("{place}: numerical_aperture");
        if !(aperture.is_finite() && aperture >= 0.01) {
            return Err(Error::config(place, format!("{aperture} cannot be; 0.01 to 1.7 can")));
        }
        let layers = [
            ("immersion", self.immersion.index.min(self.immersion.design_index)),
            ("coverslip", self.coverslip.index.min(self.coverslip.design_index)),
        ];
        for (layer, index) in layers {
            if aperture >= index {
                return Err(Error::config(
                    place,
                    format!("{aperture} is not below the {layer}'s index {index}; correct one of them"),
                ));
            }
        }
        Ok(())
    }

    /// How well a pixel samples what the objective resolves.
    pub fn sampling(&self, pitch: f64) -> Sampling {
        let nyquist = 0.5 / self.cut_off();
        match pitch {
            p if p <= nyquist => Sampling::Fine,
            p if p <= MOST_COARSE * nyquist => Sampling::Aliased { nyquist },
            _ => Sampling::TooCoarse { nyquist },
        }
    }

    /// Warns of pixels above the Nyquist pitch of the grid's axes and refuses those far above.
    ///
    /// # Errors
    /// A pitch that is not positive, or so coarse that the point-spread function lies within a pixel.
    pub fn check_sampling(&self, grid: &Grid, place: &str) -> Result<Option<String>> {
        let mut warning = None;
        let axes = if grid.shape[1] > 1 && grid.shape[2] > 1 { &grid.pitch[1..] } else { &grid.pitch[2..] };
        for &pitch in axes {
            if !(pitch.is_finite() && pitch > 0.0) {
                return Err(Error::config(
                    place,
                    format!("a pixel of {pitch} m cannot be; write for example 65 nm"),
                ));
            }
            let [pixel, cut_off] = [pitch * 1e9, self.cut_off() * 1e-6];
            match self.sampling(pitch) {
                Sampling::Fine => {}
                Sampling::Aliased { nyquist } => {
                    warning = Some(format!(
                        "{place}: pixels of {pixel:.1} nm undersample the cut-off of {cut_off:.2}/um; {:.1} nm would do",
                        nyquist * 1e9
                    ));
                }
                Sampling::TooCoarse { nyquist } => {
                    return Err(Error::config(
                        place,
                        format!(
                            "pixels of {pixel:.1} nm are more than {MOST_COARSE} times the {:.1} nm that the cut-off of \
                             {cut_off:.2}/um needs; check magnification and binning",
                            nyquist * 1e9
                        ),
                    ));
                }
            }
        }
        Ok(warning)
    }
}

/// Pixels coarser than this many Nyquist pitches are refused: no structure of the point-spread function is left.
const MOST_COARSE: f64 = 4.0;

/// How a pixel compares with half the period of the cut-off frequency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// Nothing is lost.
    Fine,
    /// Frequencies near the cut-off alias; the forward model accounts for it.
    Aliased {
        /// Largest pitch that samples the cut-off, m.
        nyquist: f64,
    },
    /// The point-spread function is smaller than a pixel.
    TooCoarse {
        /// Largest pitch that samples the cut-off, m.
        nyquist: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_optics_are_refused_with_the_value() {
        let sound = Optics::matched(1.4, 1.515, 520e-9);
        sound.check("x").unwrap();
        let refused = |change: &dyn Fn(&mut Optics), words: &[&str]| {
            let mut optics = sound;
            change(&mut optics);
            let message = optics.check("x.yaml").unwrap_err().to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        };
        refused(&|o| o.numerical_aperture = 1.52, &["numerical_aperture", "1.52", "1.515"]);
        refused(&|o| o.numerical_aperture = -1.0, &["numerical_aperture", "-1"]);
        refused(&|o| o.numerical_aperture = f64::NAN, &["numerical_aperture"]);
        refused(&|o| o.wavelength = 520.0, &["emission"]);
        refused(&|o| o.sample_index = 0.9, &["sample_index", "0.9"]);
        refused(&|o| o.coverslip.thickness = -1e-6, &["coverslip.thickness"]);
        refused(&|o| o.depth = f64::INFINITY, &["depth"]);
    }

    #[test]
    fn coarse_pixels_are_warned_of_and_then_refused() {
        let optics = Optics::matched(1.4, 1.515, 520e-9);
        let check =
            |pitch| optics.check_sampling(&Grid { shape: [1, 8, 8], pitch: [1e-7, pitch, pitch] }, "x");
        assert_eq!(check(65e-9).unwrap(), None);
        let warning = check(108e-9).unwrap().unwrap();
        assert!(
            warning.contains("108.0 nm") && warning.contains("5.38/um") && warning.contains("92.9 nm"),
            "{warning}"
        );
        assert!(check(500e-9).unwrap_err().to_string().contains("500.0 nm"));
        assert!(check(0.0).is_err());
    }
}
