//! Visibilities as the subject of a reconstruction: their problem, files, ring features and figures.

use std::path::Path;

use ndarray::{Array3, Array4, Axis};

use super::{Directory, Drawn, Findings, Prepared, Settings, Subject};
use crate::{
    Error, Result,
    compute::Compute,
    features::{RingPosterior, ring::Search},
    grid::Grid,
    instrument::vlbi::{
        Observation,
        fourier::Pulse,
        problem::{self, IntraSite},
    },
    io::{
        cube::{Cube, Frame, SkyFrame},
        cube_fits, image, uvfits,
    },
    plot::{Beam, RunFigures},
    posterior::truth::Alignment,
    prior::{Denoiser, card::Prior},
};

/// An observation of the sky.
pub(super) struct Sky {
    /// The file's data as they are.
    observation: Observation,
    /// The data that are fitted: averaged, with systematic noise.
    fitted: Observation,
    pulse: Pulse,
    grid: Grid,
}

/// Reads a UVFITS file and sets up its problem and prior.
pub(super) fn prepare(settings: &Settings, prior: &Prior, compute: &Compute) -> Result<Prepared> {
    let data = settings.data()?;
    let observation = uvfits::read(data)?.observation(data)?;
    let network = prior.network(compute)?;
    let [_, ny, nx] = network.shape();
    if [ny, nx] != [settings.vlbi.pixels; 2] {
        let problem = format!("the prior {} makes {ny} x {nx} images; use that", settings.prior);
        return Err(Error::config("vlbi.pixels", problem));
    }
    let fitted = settings.vlbi.fitted(&observation)?;
    let problem = problem::problem(&observation, &settings.vlbi, prior.scaling(), compute)?;
    let assumptions = assumptions(settings, &observation)?;
    let grid = *problem.forward.grid();
    let subject = Box::new(Sky { observation, fitted, pulse: settings.vlbi.pulse, grid });
    Ok(Prepared { subject, problem, prior: Box::new(network), assumptions })
}

/// What was taken for granted, for the user to check.
fn assumptions(settings: &Settings, observation: &Observation) -> Result<Vec<String>> {
    let vlbi = &settings.vlbi;
    let flux = vlbi.compact_flux(observation)?;
    let mut said = vec![
        format!("field of view {} with {} x {} pixels", vlbi.fov, vlbi.pixels, vlbi.pixels),
        format!("compact flux {:.3} +- {:.3} Jy", flux.value, flux.sigma),
        format!("systematic noise {} % of each amplitude", 100.0 * vlbi.systematic),
        format!("prior {}", settings.prior),
    ];
    match (vlbi.intra_site, vlbi.total_flux(observation)?) {
        (IntraSite::Exclude, _) => {
            said.push("baselines within one site are left out: they see flux from outside the image".into());
        }
        (IntraSite::Total, Some(total)) => said.push(format!(
            "baselines within one site see a total flux of {:.3} Jy +- {} %, from outside the image too",
            total.flux,
            100.0 * total.error
        )),
        _ => {}
    }
    Ok(said)
}

impl Subject for Sky {
    fn frame(&self) -> Frame {
        let observation = &self.observation;
        Frame::Sky(SkyFrame {
            source: observation.source.clone(),
            ra_deg: observation.ra_deg,
            dec_deg: observation.dec_deg,
            frequency_hz: observation.frequency_hz,
            mjd: observation.mjd,
        })
    }

    fn unit(&self) -> String {
        "Jy/pixel".into()
    }

    fn shown(&self, samples: Array4<f32>) -> (Array4<f32>, Grid) {
        (samples, self.grid)
    }

    fn write(&self, cube: &Cube, directory: &Directory) -> Result<()> {
        cube_fits::write(cube, &directory.file("posterior.fits"))
    }

    fn truth(&self, file: &Path, grid: &Grid) -> Result<(Array3<f32>, Alignment)> {
        let pixels = image::read(file)?.onto(grid);
        Ok((pixels.mapv(|value| value as f32).insert_axis(Axis(0)), Alignment::Shift))
    }

    fn findings(&self, drawn: &Drawn, figures: bool) -> Result<Findings> {
        let Drawn { cube, traces, .. } = *drawn;
        let ring = RingPosterior::measure(cube, &Search::default());
        let features = ring.summary().into_iter();
        let features = features.filter_map(|(name, interval)| Some((name.to_string(), interval?))).collect();
        let drawn = RunFigures {
            cube,
            observation: &self.fitted,
            pulse: self.pulse,
            beam: Beam::default(),
            ring: &ring,
            traces,
        };
        let figures = if figures { drawn.draw()? } else { Vec::new() };
        Ok(Findings { features, warnings: ring.warnings(), figures })
    }
}
