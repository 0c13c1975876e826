//! Microscopes described in YAML, checked when they are read.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ndarray::Axis;
use serde::{Deserialize, Serialize};

use super::{
    Optics,
    optics::Layer,
    psf::{Focus, Model, Psf, Recipe, bead, otf, pixel, zernike::Aberrations},
};
use crate::{
    Error, Result,
    grid::Grid,
    instrument::file,
    io::{radial_otf, stack::Stack},
    units::Length,
};

/// Microscopes that come with the program: name and YAML.
pub const EMBEDDED: [(&str, &str); 3] = [
    ("widefield_oil_1.4", include_str!("../../../instruments/widefield_oil_1.4.yaml")),
    ("widefield_water_1.2", include_str!("../../../instruments/widefield_water_1.2.yaml")),
    ("widefield_air_0.8", include_str!("../../../instruments/widefield_air_0.8.yaml")),
];

/// A widefield microscope, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Microscope {
    /// One sentence about it.
    pub summary: String,
    /// What its computed point-spread function depends on.
    pub recipe: Recipe,
    /// A measured point-spread function or transfer function that takes the computed one's place.
    pub measured: Option<Measured>,
    /// Camera pixel in the sample, m, where the description tells it.
    pub pixel: Option<f64>,
    /// How the camera turns photo-electrons into numbers, where the description tells it.
    pub camera: Option<Camera>,
    /// Settings of a reconstruction that suit this microscope, in the layout of a run file.
    pub reconstruct: serde_json::Value,
}

/// A file with a measured response; its path is relative to the working directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// A stack of one or several beads.
    Beads(PathBuf),
    /// A radial optical transfer function (MRC or CSV).
    RadialOtf(PathBuf),
}

/// Camera constants: electrons = (number - offset) * conversion gain, plus read noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Camera {
    /// Photo-electrons per unit of the recorded numbers (ADU).
    pub conversion_gain: f64,
    /// Number recorded without light, ADU.
    pub offset: f64,
    /// Standard deviation without light, photo-electrons.
    pub read_noise: f64,
}

/// What the YAML file holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMicroscope {
    #[serde(rename = "kind")]
    _kind: Kind,
    summary: String,
    emission: Length,
    bandwidth: Option<Length>,
    objective: RawObjective,
    #[serde(default)]
    coverslip: RawCoverslip,
    sample: Option<RawSample>,
    #[serde(default)]
    psf: RawPsf,
    camera: Option<RawCamera>,
    #[serde(default)]
    reconstruct: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Widefield,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawObjective {
    numerical_aperture: f64,
    immersion_index: f64,
    /// Index of the immersion for which the objective was made.
    design_index: Option<f64>,
    magnification: Option<f64>,
    working_distance: Option<Length>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCoverslip {
    thickness: Option<Length>,
    design_thickness: Option<Length>,
    index: Option<f64>,
    design_index: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSample {
    index: f64,
    depth: Option<Length>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPsf {
    #[serde(default)]
    model: Model,
    #[serde(default)]
    focus: Focus,
    /// Path difference, root mean square, by Noll index.
    #[serde(default)]
    aberrations: BTreeMap<usize, Length>,
    measured: Option<Measured>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCamera {
    /// Size of a pixel on the chip.
    pixel: Length,
    /// Pixels along an axis that are read out as one.
    #[serde(default = "one")]
    binning: usize,
    conversion_gain: Option<f64>,
    offset: Option<f64>,
    read_noise: Option<f64>,
}

fn one() -> usize {
    1
}

impl Microscope {
    /// The microscope of an embedded name, or of a YAML file.
    ///
    /// # Errors
    /// Neither a known name nor a readable file, or a description that cannot be true.
    pub fn find(name: &str) -> Result<Self> {
        Self::parse(&file::text(name)?, name)
    }

    /// Reads and checks YAML; `name` stands for it in errors.
    ///
    /// # Errors
    /// A missing or unknown key, a quantity without its unit, or a value that cannot be true.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let raw: RawMicroscope =
            serde_yaml::from_str(text).map_err(|error| Error::config(name, error.to_string()))?;
        let optics = optics(&raw);
        optics.check(name)?;
        let aberrations = raw.psf.aberrations.iter().map(|(&index, path)| (index, path.0));
        let recipe = Recipe {
            optics,
            model: raw.psf.model,
            aberrations: Aberrations::new(aberrations, &format!("{name}: psf.aberrations"))?,
            focus: raw.psf.focus,
            bandwidth: raw.bandwidth.map_or(0.0, |width| width.0),
        };
        recipe.check(name)?;
        let microscope = Self {
            summary: raw.summary.clone(),
            recipe,
            measured: raw.psf.measured.clone(),
            pixel: pixel(&raw, name)?,
            camera: camera(&raw, name)?,
            reconstruct: raw.reconstruct.into(),
        };
        microscope.sampling(name)?;
        Ok(microscope)
    }

    /// The point-spread function on a grid: the measured one, with the pixel that it holds, if there is one, else the computed one.
    ///
    /// # Errors
    /// A measurement that cannot be read or contradicts the optics, or a grid that cannot be.
    pub fn psf(&self, grid: &Grid) -> Result<Psf> {
        Ok(self.psf_and_pixel(grid)?.0)
    }

    /// The point-spread function on an object's grid for a camera with pixels of `camera` metres along Y and X: sums over blocks of
    /// voxels hold the camera's pixel once. A measured transfer function is taken to be one of the same camera.
    ///
    /// # Errors
    /// Those of [`Microscope::psf`].
    pub fn response(&self, grid: &Grid, camera: [f64; 2]) -> Result<Psf> {
        Ok(match self.psf_and_pixel(grid)? {
            (psf, Pixel::Voxel) => psf,
            (psf, Pixel::OfBeads(pixel)) => pixel::narrowed(&psf, pixel),
            (psf, Pixel::OfCamera) => pixel::narrowed(&psf, camera),
        })
    }

    fn psf_and_pixel(&self, grid: &Grid) -> Result<(Psf, Pixel)> {
        match &self.measured {
            None => Ok((self.recipe.psf(grid)?, Pixel::Voxel)),
            Some(Measured::Beads(path)) => {
                let (psf, pixel) = beads(path, grid)?;
                Ok((psf, Pixel::OfBeads(pixel)))
            }
            Some(Measured::RadialOtf(path)) => {
                let measured = radial_otf::read(path)?;
                otf::check_cut_off(&measured, self.recipe.optics.cut_off())?;
                Ok((otf::from_radial_otf(&measured, grid)?, Pixel::OfCamera))
            }
        }
    }

    /// A warning where the camera's pixels undersample the cut-off frequency.
    ///
    /// # Errors
    /// Pixels so coarse that they cannot be meant.
    pub fn sampling(&self, name: &str) -> Result<Option<String>> {
        let Some(pixel) = self.pixel else { return Ok(None) };
        let grid = Grid { shape: [1, 2, 2], pitch: [pixel; 3] };
        self.recipe.optics.check_sampling(&grid, &format!("{name}: camera.pixel"))
    }
}

/// What a point-spread function was averaged over across the axis.
enum Pixel {
    /// A voxel of its grid.
    Voxel,
    /// A pixel of a bead stack, metres along Y and X.
    OfBeads([f64; 2]),
    /// A pixel of the microscope's camera.
    OfCamera,
}

/// The point-spread function of a bead stack, which must tell its voxel size, and the pixel that it holds; the first channel and
/// time point count.
fn beads(path: &Path, grid: &Grid) -> Result<(Psf, [f64; 2])> {
    let mut stack = Stack::open(path)?;
    let [z, y, x] = stack.metadata.voxel;
    let single = stack.metadata.shape.z == 1;
    let (Some(z), Some(y), Some(x)) = (z.or(single.then_some(grid.pitch[0])), y, x) else {
        let problem = "the file does not tell its voxel size; export it with the pixel size along Z, Y and X";
        return Err(Error::format(path, "voxel size", problem));
    };
    let volume = stack.read(0)?;
    Ok((bead::from_beads(volume.index_axis(Axis(0), 0), [z, y, x], grid)?, [y, x]))
}

fn optics(raw: &RawMicroscope) -> Optics {
    let objective = &raw.objective;
    let length = |value: Option<Length>, default: f64| value.map_or(default, |length| length.0);
    let standard = Optics::matched(objective.numerical_aperture, objective.immersion_index, raw.emission.0);
    let design_thickness = length(raw.coverslip.design_thickness, standard.coverslip.design_thickness);
    let design_index = raw.coverslip.design_index.unwrap_or(standard.coverslip.design_index);
    let working_distance = length(objective.working_distance, standard.immersion.design_thickness);
    Optics {
        immersion: Layer {
            index: objective.immersion_index,
            design_index: objective.design_index.unwrap_or(objective.immersion_index),
            thickness: working_distance,
            design_thickness: working_distance,
        },
        coverslip: Layer {
            index: raw.coverslip.index.unwrap_or(design_index),
            design_index,
            thickness: length(raw.coverslip.thickness, design_thickness),
            design_thickness,
        },
        sample_index: raw.sample.as_ref().map_or(standard.sample_index, |sample| sample.index),
        depth: raw.sample.as_ref().map_or(0.0, |sample| length(sample.depth, 0.0)),
        ..standard
    }
}

fn pixel(raw: &RawMicroscope, name: &str) -> Result<Option<f64>> {
    let Some(camera) = &raw.camera else { return Ok(None) };
    let magnification = raw.objective.magnification.ok_or_else(|| {
        Error::config(
            format!("{name}: objective.magnification"),
            "is needed with camera.pixel; write for example 60",
        )
    })?;
    if !(0.5..=1000.0).contains(&magnification) {
        let place = format!("{name}: objective.magnification");
        return Err(Error::config(place, format!("{magnification} cannot be; 0.5 to 1000 can")));
    }
    if !(1e-7..=1e-3).contains(&camera.pixel.0) || !(1..=64).contains(&camera.binning) {
        let place = format!("{name}: camera.pixel");
        let problem = format!("{} binned by {} cannot be; 100 nm to 1 mm can", camera.pixel, camera.binning);
        return Err(Error::config(place, problem));
    }
    Ok(Some(camera.pixel.0 * camera.binning as f64 / magnification))
}

fn camera(raw: &RawMicroscope, name: &str) -> Result<Option<Camera>> {
    let Some(camera) = &raw.camera else { return Ok(None) };
    let (conversion_gain, offset, read_noise) =
        match (camera.conversion_gain, camera.offset, camera.read_noise) {
            (None, None, None) => return Ok(None),
            (Some(gain), Some(offset), Some(noise)) => (gain, offset, noise),
            _ => {
                let problem = "conversion_gain, offset and read_noise belong together; give all or none";
                return Err(Error::config(format!("{name}: camera"), problem));
            }
        };
    for (key, value, range) in [
        ("conversion_gain", conversion_gain, 1e-4..=1e4),
        ("offset", offset, -1e6..=1e6),
        ("read_noise", read_noise, 0.0..=1e4),
    ] {
        if !range.contains(&value) {
            let problem = format!("{value} cannot be; {} to {} can", range.start(), range.end());
            return Err(Error::config(format!("{name}: camera.{key}"), problem));
        }
    }
    Ok(Some(Camera { conversion_gain, offset, read_noise }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_microscopes_are_sound() {
        for (name, text) in EMBEDDED {
            let microscope = Microscope::parse(text, name).unwrap();
            println!("{name}: {:?}", microscope.sampling(name).unwrap());
        }
    }

    #[test]
    fn impossible_microscopes_are_refused_with_their_place() {
        let (_, text) = EMBEDDED[0];
        for (from, to, words) in [
            ("numerical_aperture: 1.4", "numerical_aperture: 1.6", ["numerical_aperture", "1.515"]),
            ("emission: 520 nm", "emission: 520", ["emission", "nm"]),
            ("emission: 520 nm", "emission: 520 um", ["emission", "520000"]),
            ("pixel: 6.5 um", "pixel: -6.5 um", ["camera.pixel", "cannot be"]),
            ("magnification: 100", "magnification: 10", ["camera.pixel", "650.0 nm"]),
            ("magnification: 100, ", "", ["objective.magnification", "needed"]),
            ("pixel: 6.5 um", "pixel: 6.5 um, offset: 100", ["camera", "belong together"]),
            (
                "pixel: 6.5 um",
                "pixel: 6.5 um, offset: 100, conversion_gain: 0, read_noise: 1",
                ["camera.conversion_gain", "0 cannot be"],
            ),
            ("kind: widefield", "kind: widefield\npsf: {aberrations: {30: 5 nm}}", ["psf.aberrations", "30"]),
            ("kind: widefield", "kind: widefield\ncolour: red", ["colour", ""]),
        ] {
            let error = Microscope::parse(&text.replace(from, to), "x.yaml").unwrap_err().to_string();
            assert!(error.contains("x.yaml") && words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn layers_follow_the_description() {
        let text = "kind: widefield\nsummary: s\nemission: 600 nm\nbandwidth: 40 nm\n\
                    objective: {numerical_aperture: 1.2, immersion_index: 1.333}\n\
                    coverslip: {thickness: 150 um}\nsample: {index: 1.38, depth: 10 um}\n\
                    psf: {model: gibson-lanni, focus: nominal, aberrations: {11: 30 nm}}\n";
        let recipe = Microscope::parse(text, "x").unwrap().recipe;
        let optics = recipe.optics;
        assert_eq!((optics.coverslip.thickness, optics.coverslip.design_thickness), (150e-6, 170e-6));
        assert_eq!((optics.sample_index, recipe.bandwidth), (1.38, 40e-9));
        assert!((optics.depth - 10e-6).abs() < 1e-18);
        assert_eq!((recipe.model, recipe.focus), (Model::GibsonLanni, Focus::Nominal));
        assert!((recipe.aberrations.path(1.0, 0.0) - 30e-9 * 5f64.sqrt()).abs() < 1e-15);
    }
}
