//! The checks of a finished run, made again from its files, and against a known image if there is one.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::{
    Directory, Drawn, Reconstruction,
    outcome::{checks, draws, take},
};
use crate::{
    Result,
    io::cube_hdf5,
    manifest::{self, Manifest},
    plot::{Figure, Traces, report},
    posterior::{diagnostics::Diagnostics, run, truth},
};

/// Recomputes all checks of the run in `root`; `truth` is an image that was simulated from.
///
/// Closures leave the position of a sky image free, so its samples are shifted onto the truth before pixels are compared.
///
/// # Errors
/// A directory without a finished run, or an image that cannot be read.
pub fn diagnose(root: &Path, truth: Option<&Path>) -> Result<Diagnostics> {
    let (directory, settings) = Directory::read(root)?;
    let mut run = Reconstruction::prepare(settings)?;
    let cube = cube_hdf5::read(&directory.file("posterior.h5"))?;
    run::restore(run.solver.as_mut(), &directory.checkpoint(), &run.compute.device)?;
    let traces = Traces::read(&directory.metrics())?;
    let draws = draws(&run)?;
    let mut diagnostics = checks(&run, &draws, &traces)?;
    let drawn = Drawn { cube: &cube, draws: &draws, problem: &run.problem, traces: &traces };
    take(&mut diagnostics, run.subject.findings(&drawn, false)?);
    if let Some(file) = truth {
        let (image, alignment) = run.subject.truth(file, &cube.grid)?;
        let values: Vec<f32> = image.iter().copied().collect();
        let image = Tensor::from_vec(values, image.shape(), &Device::Cpu)?;
        let samples: Vec<f32> = cube.samples.iter().copied().collect();
        let samples = Tensor::from_vec(samples, cube.samples.shape(), &Device::Cpu)?;
        diagnostics.truth = truth::compare(&samples, &image, alignment)?;
    }
    manifest::write_json(&diagnostics, &directory.diagnostics())?;
    Ok(diagnostics)
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
    let traces = Traces { rhat: diagnostics.rhat_max, ..Traces::read(&directory.metrics())? };
    let mut run = Reconstruction::prepare(settings)?;
    run::restore(run.solver.as_mut(), &directory.checkpoint(), &run.compute.device)?;
    let drawn = Drawn { cube: &cube, draws: &draws(&run)?, problem: &run.problem, traces: &traces };
    let figures = run.subject.findings(&drawn, true)?.figures;
    report::write(&diagnostics, &made, &figures, &directory.file("report.html"))?;
    Ok(figures)
}
