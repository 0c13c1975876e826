//! Publication figures: plotters to SVG, and from there to PNG and PDF.

mod amplitude;
mod axes;
mod beds;
mod calibration;
mod calibration_report;
mod canvas;
mod closure_phase;
mod colormap;
mod convergence;
mod dirty;
mod export;
mod posterior;
mod predicted;
mod psf;
pub mod report;
mod residuals;
mod ring;
mod sky;
mod spectra;
mod stack;
mod style;
mod ticks;
mod traces;
mod uv;
pub mod verdict;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use amplitude::amplitudes;
pub use beds::beds;
pub use calibration::calibration;
pub use calibration_report::write_calibration;
pub use closure_phase::closure_phases;
pub use colormap::Colormap;
pub use convergence::convergence;
pub use dirty::dirty;
pub use export::Format;
pub use posterior::{moments, samples};
pub use predicted::Predicted;
pub use psf::psf;
pub use residuals::residuals;
pub use ring::ring;
pub use sky::Beam;
pub use stack::StackFigures;
pub use traces::{Traces, traces};
pub use uv::coverage;

use crate::{
    Error, Result,
    features::RingPosterior,
    instrument::vlbi::{Observation, fourier::Pulse},
    io::cube::Cube,
};

/// One finished figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// File name without extension.
    pub name: String,
    /// What it shows, for the report.
    pub caption: String,
    /// The drawing.
    pub svg: String,
}

impl Figure {
    fn new(name: impl Into<String>, caption: impl Into<String>, svg: String) -> Self {
        Self { name: name.into(), caption: caption.into(), svg }
    }
}

/// Everything that the figures of a run show.
#[derive(Debug, Clone, Copy)]
pub struct RunFigures<'a> {
    /// Posterior samples, Jy/pixel.
    pub cube: &'a Cube,
    /// The data that the image was fitted to: averaged, with systematic noise, without what was left out.
    pub observation: &'a Observation,
    /// Brightness between pixel centres.
    pub pulse: Pulse,
    /// Nominal resolution, drawn for scale.
    pub beam: Beam,
    /// Ring features of the samples.
    pub ring: &'a RingPosterior,
    /// Records of the sampler.
    pub traces: &'a Traces,
}

impl RunFigures<'_> {
    /// Draws all figures of the run, the images first.
    ///
    /// # Errors
    /// A cube without samples, closures without noise, or a drawing that fails.
    pub fn draw(&self) -> Result<Vec<Figure>> {
        let predicted = Predicted::new(self.cube, self.observation, self.pulse)?;
        let mut figures = vec![moments(self.cube, &self.beam)?, samples(self.cube, &self.beam)?];
        figures.extend(ring(self.cube, self.ring)?);
        figures.extend(closure_phases(self.observation, Some(&predicted))?);
        figures.push(amplitudes(self.observation, Some(&predicted))?);
        figures.extend(residuals(self.observation, &predicted)?);
        figures.extend(traces(self.traces, &self.chains(&predicted)?)?);
        figures.push(coverage(self.observation)?);
        figures.push(dirty(self.observation, self.cube.grid.shape[2] as f64 * self.cube.grid.pitch[2])?);
        Ok(figures)
    }

    /// Closure chi-square per datum of every sample, chain by chain.
    fn chains(&self, predicted: &Predicted) -> Result<Vec<Vec<f64>>> {
        let mut chains: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        let fit = residuals::closure_chi2(self.observation, predicted)?;
        for (chain, chi2) in self.cube.chains.iter().zip(fit) {
            chains.entry(*chain).or_default().push(chi2);
        }
        Ok(chains.into_values().collect())
    }
}

/// Draws what an observation alone can show.
///
/// # Errors
/// A drawing that fails.
pub fn data_figures(observation: &Observation, field_of_view: f64) -> Result<Vec<Figure>> {
    let mut figures = vec![coverage(observation)?, amplitudes(observation, None)?];
    figures.extend(closure_phases(observation, None)?);
    figures.push(dirty(observation, field_of_view)?);
    Ok(figures)
}

/// Draws the figures of a run into a directory and returns their files.
///
/// # Errors
/// Those of [`RunFigures::draw`] and [`save`].
pub fn figures(run: &RunFigures, directory: &Path, formats: &[Format]) -> Result<Vec<PathBuf>> {
    save(&run.draw()?, directory, formats)
}

/// Writes figures into a directory, which is created if need be, and returns the files' paths.
///
/// # Errors
/// A file cannot be written.
pub fn save(figures: &[Figure], directory: &Path, formats: &[Format]) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory).map_err(|error| Error::io(directory, error))?;
    let mut paths = Vec::new();
    for figure in figures {
        paths.extend(export::write(&figure.svg, &figure.name, directory, formats)?);
    }
    Ok(paths)
}
