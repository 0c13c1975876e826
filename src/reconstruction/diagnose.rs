//! The checks of a finished run, made again from its files, and against a known image if there is one.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::{
    Directory, Drawn, Reconstruction,
    calibrate::setup,
    outcome::{checks, draws, take},
};
use crate::{
    Error, Result,
    calibration::{Report, conformal::scaled},
    io::{cube::Cube, cube_hdf5},
    manifest::{self, Manifest},
    plot::{Figure, Traces, report},
    posterior::{diagnostics::Diagnostics, truth},
};

/// The image that data were simulated from.
#[derive(Debug, Clone, Copy)]
pub struct TrueImage<'a> {
    /// Where it is stored.
    pub file: &'a Path,
    /// Total flux density that it was scaled to, Jy; none where it is that of the file.
    pub flux: Option<f64>,
}

/// Recomputes all checks of the run in `root`; `truth` is the image that was simulated from, `calibration` the directory of a
/// calibration of the run's set-up.
///
/// Closures leave the position of a sky image free, so its samples are shifted onto the truth before pixels are compared. With
/// a calibration the directory also gets `posterior_recalibrated.h5`, the samples spread about their mean by what the
/// calibration found, beside the raw ones.
///
/// # Errors
/// A directory without a finished run, an image that cannot be read, or a calibration of another set-up.
pub fn diagnose(root: &Path, truth: Option<&TrueImage>, calibration: Option<&Path>) -> Result<Diagnostics> {
    let (directory, settings) = Directory::read(root)?;
    let mut run = Reconstruction::prepare(settings)?;
    let cube = cube_hdf5::read(&directory.file("posterior.h5"))?;
    let traces = Traces::read(&directory.metrics())?;
    let draws = draws(&mut run, &directory)?.thinned(run.settings.samples)?;
    let mut diagnostics = checks(&run, &draws, &traces)?;
    let drawn = Drawn { cube: &cube, draws: &draws, problem: &run.problem, traces: &traces };
    take(&mut diagnostics, run.subject.findings(&drawn, false)?);
    if let Some(truth) = truth {
        let (image, alignment) = run.subject.truth(truth, &cube.grid)?;
        let values: Vec<f32> = image.iter().copied().collect();
        let image = Tensor::from_vec(values, image.shape(), &Device::Cpu)?;
        let samples: Vec<f32> = cube.samples.iter().copied().collect();
        let samples = Tensor::from_vec(samples, cube.samples.shape(), &Device::Cpu)?;
        diagnostics.truth = truth::compare(&samples, &image, alignment)?;
    }
    if let Some(calibration) = calibration {
        let report = calibration_of(&run, calibration)?;
        if diagnostics.biased.is_none() {
            diagnostics.calibrated = report.calibrated;
        }
        if let Some(factor) = report.image_factor() {
            let recalibrated = Cube { samples: scaled(&cube.samples, factor), ..cube };
            cube_hdf5::write(&recalibrated, &directory.file("posterior_recalibrated.h5"))?;
        }
    }
    manifest::write_json(&diagnostics, &directory.diagnostics())?;
    Ok(diagnostics)
}

/// The calibration in `directory` if it is one of the run's set-up.
fn calibration_of(run: &Reconstruction, directory: &Path) -> Result<Report> {
    let file = directory.join("calibration.json");
    let report: Report = manifest::read_json(&file)?;
    match report.setup == setup(run)? {
        true => Ok(report),
        false => {
            Err(Error::format(&file, "setup", "a calibration of other data or settings than this run's"))
        }
    }
}

/// Draws the figures of the finished run in `root` again and writes its report anew.
///
/// # Errors
/// A directory without a finished run, or a figure that cannot be drawn.
pub fn draw(root: &Path) -> Result<Vec<Figure>> {
    let (directory, settings) = Directory::read(root)?;
    let cube = cube_hdf5::read(&directory.file("posterior.h5"))?;
    let diagnostics: Diagnostics = manifest::read_json(&directory.diagnostics())?;
    let made: Manifest = manifest::read_json(&directory.file("manifest.json"))?;
    let traces = Traces { rhat: diagnostics.convergence.rhat_max, ..Traces::read(&directory.metrics())? };
    let mut run = Reconstruction::prepare(settings)?;
    let draws = draws(&mut run, &directory)?.thinned(run.settings.samples)?;
    let drawn = Drawn { cube: &cube, draws: &draws, problem: &run.problem, traces: &traces };
    let figures = run.subject.findings(&drawn, true)?.figures;
    report::write(&diagnostics, &made, &figures, &directory.file("report.html"))?;
    Ok(figures)
}
