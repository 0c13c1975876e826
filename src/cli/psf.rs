//! `antumbra psf`: the point-spread function of a microscope as a stack.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    Error, Result,
    grid::Grid,
    instrument::microscope::{
        Microscope, Optics, Psf,
        psf::{Focus, Model, Recipe, zernike::Aberrations},
    },
    io::volume,
    plot::{self, Format},
    units::{self, Dimension},
};

/// The point-spread function of a microscope as a stack.
///
/// It is averaged over each voxel, its centre is the voxel shape/2, and values are fractions of the light that crosses a
/// plane (those of a measured function sum to 1).
#[derive(Debug, Args)]
pub(super) struct PsfCommand {
    /// Name or YAML file of a microscope; without it the flags below describe one.
    instrument: Option<String>,
    /// Voxels along Z, Y, X, for example 17,65,65.
    #[arg(long, value_delimiter = ',', required = true, num_args = 1)]
    shape: Vec<usize>,
    /// Voxel size along Z, Y, X, for example "200 nm,65 nm,65 nm".
    #[arg(long, value_delimiter = ',', required = true, num_args = 1)]
    voxel: Vec<String>,
    /// File to write: .h5, .npy or .ome.tif.
    #[arg(short, long)]
    output: PathBuf,
    /// Replaces an existing file.
    #[arg(long)]
    force: bool,
    /// Numerical aperture.
    #[arg(long)]
    na: Option<f64>,
    /// Refractive index of the immersion medium.
    #[arg(long)]
    immersion: Option<f64>,
    /// Emission wavelength, for example "520 nm".
    #[arg(long)]
    emission: Option<String>,
    /// Full width of the emission band, for example "40 nm".
    #[arg(long)]
    bandwidth: Option<String>,
    /// Refractive index of the sample.
    #[arg(long)]
    sample_index: Option<f64>,
    /// Distance of the source from the coverslip, for example "5 um".
    #[arg(long)]
    depth: Option<String>,
    /// How light is propagated.
    #[arg(long, value_enum)]
    model: Option<Model>,
    /// Where the central plane lies.
    #[arg(long, value_enum)]
    focus: Option<Focus>,
    /// Wavefront error as NOLL=PATH, root mean square, for example "11=30 nm"; may be repeated.
    #[arg(long)]
    aberration: Vec<String>,
    /// Folder of the figure; none is drawn without it.
    #[arg(long)]
    figures: Option<PathBuf>,
    /// File formats of the figure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "png,svg,pdf")]
    format: Vec<Format>,
}

impl PsfCommand {
    /// Computes, prints the numbers, writes the stack and the figure.
    ///
    /// # Errors
    /// A description or flag that cannot be, or files that cannot be written.
    pub(super) fn run(&self) -> Result<ExitCode> {
        super::refuse_to_replace(&self.output, self.force)?;
        let grid = self.grid()?;
        let microscope = self.microscope()?;
        let name = self.instrument.as_deref().unwrap_or("--voxel");
        if let Some(warning) = microscope.recipe.optics.check_sampling(&grid, name)? {
            super::note(&format!("warning: {warning}"));
        }
        let psf = microscope.psf(&grid)?;
        let unit = if microscope.measured.is_some() {
            "fraction of the light"
        } else {
            "fraction of the light of a plane"
        };
        volume::write(psf.values.mapv(|value| value as f32).view(), grid.pitch, unit, &self.output)?;
        super::print(&self.summary(&psf, &microscope));
        if let Some(folder) = &self.figures {
            let figure = plot::psf(&psf, &microscope.recipe.optics)?;
            for path in plot::save(&[figure], folder, &self.format)? {
                super::print(&format!("{}\n", path.display()));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn grid(&self) -> Result<Grid> {
        let three = |flag: &str| Error::config(flag, "needs three values, along Z, Y and X");
        let shape = self.shape.clone().try_into().map_err(|_| three("--shape"))?;
        let pitch: Vec<f64> = self.voxel.iter().map(|text| length(text, "--voxel")).collect::<Result<_>>()?;
        Ok(Grid { shape, pitch: pitch.try_into().map_err(|_| three("--voxel"))? })
    }

    /// The described microscope with the flags laid over it.
    fn microscope(&self) -> Result<Microscope> {
        let mut microscope = match &self.instrument {
            Some(name) => Microscope::find(name)?,
            None => self.plain()?,
        };
        let Recipe { optics, model, aberrations, focus, bandwidth } = &mut microscope.recipe;
        if let Some(na) = self.na {
            optics.numerical_aperture = na;
        }
        if let Some(index) = self.immersion {
            (optics.immersion.index, optics.immersion.design_index) = (index, index);
        }
        if let Some(index) = self.sample_index {
            optics.sample_index = index;
        }
        for (text, flag, value) in [
            (&self.emission, "--emission", &mut optics.wavelength),
            (&self.depth, "--depth", &mut optics.depth),
            (&self.bandwidth, "--bandwidth", bandwidth),
        ] {
            if let Some(text) = text {
                *value = length(text, flag)?;
            }
        }
        *model = self.model.unwrap_or(*model);
        *focus = self.focus.unwrap_or(*focus);
        if !self.aberration.is_empty() {
            *aberrations = self.aberrations()?;
        }
        microscope.recipe.check(self.instrument.as_deref().unwrap_or("flags"))?;
        Ok(microscope)
    }

    /// A microscope that the flags alone describe.
    fn plain(&self) -> Result<Microscope> {
        let (Some(na), Some(immersion), Some(emission)) = (self.na, self.immersion, &self.emission) else {
            let problem = "give --na, --immersion and --emission, or the name of an instrument";
            return Err(Error::config("INSTRUMENT", problem));
        };
        let optics = Optics::matched(na, immersion, length(emission, "--emission")?);
        Ok(Microscope {
            summary: "described by flags".into(),
            recipe: Recipe::new(optics),
            measured: None,
            pixel: None,
            camera: None,
            reconstruct: serde_json::Value::Null,
        })
    }

    fn aberrations(&self) -> Result<Aberrations> {
        const FLAG: &str = "--aberration";
        let term = |text: &String| {
            let pair = text.split_once('=').and_then(|(noll, path)| Some((noll.trim().parse().ok()?, path)));
            let (noll, path) =
                pair.ok_or_else(|| Error::config(FLAG, format!("`{text}`; write for example \"11=30 nm\"")))?;
            Ok((noll, length(path, FLAG)?))
        };
        Aberrations::new(self.aberration.iter().map(term).collect::<Result<Vec<_>>>()?, FLAG)
    }

    fn summary(&self, psf: &Psf, microscope: &Microscope) -> String {
        let optics = &microscope.recipe.optics;
        let width =
            |axis| psf.fwhm(axis).map_or("wider than the stack".into(), |w| format!("{:.1} nm", w * 1e9));
        let mut lines = vec![
            ("FWHM lateral", format!("x {}, y {}", width(2), width(1))),
            ("FWHM axial", if psf.grid.shape[0] > 1 { width(0) } else { "one plane".into() }),
            ("cut-off lateral", format!("{:.3} /um", optics.cut_off() * 1e-6)),
            ("cut-off axial", format!("{:.3} /um", optics.axial_cut_off() * 1e-6)),
            ("brightest voxel", format!("{:?}", psf.peak())),
        ];
        if microscope.measured.is_none() {
            lines.push(("light in the stack", format!("{:.1} %", 100.0 * psf.light_inside())));
        }
        let text: String = lines.iter().map(|(name, value)| format!("{name:<20}{value}\n")).collect();
        format!("{text}{}\n", self.output.display())
    }
}

fn length(text: &str, flag: &str) -> Result<f64> {
    units::parse(text, Dimension::Length, flag)
}
