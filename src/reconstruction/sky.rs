//! Visibilities as the subject of a reconstruction: their problem, files, ring features and figures.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::Tensor;
use ndarray::{Array3, Array4, Axis};

use super::{
    Directory, Drawn, Findings, Prepared, Settings, Subject, TrueImage,
    subject::{not_foretold, pixels},
};
use crate::{
    Error, Result,
    calibration::{Functional, Kind},
    compute::Compute,
    features::{
        RingPosterior,
        blurred::Blurred,
        ring::{Ring, Search},
    },
    grid::Grid,
    instrument::{
        Likelihood, Problem,
        held_out::Foretold,
        vlbi::{
            Observation, Vlbi,
            held_out::{self, Baselines},
            problem::{self, DataProduct, IntraSite},
            replica::Replica,
        },
    },
    io::{
        cube::{Cube, Frame, SkyFrame},
        cube_fits, image, uvfits,
    },
    plot::{Beam, Predicted, RunFigures},
    posterior::truth::Alignment,
    prior::card::Prior,
    rng::Rng,
    tensor::to_host,
    units::MICROARCSECOND,
};

/// An observation of the sky.
pub(super) struct Sky {
    /// The file's data as they are, without what is held out.
    observation: Observation,
    /// The same with it, averaged and with systematic noise, and the baselines that are held out.
    complete: Option<(Observation, Baselines)>,
    /// The data that are fitted: averaged, with systematic noise.
    fitted: Observation,
    settings: Vlbi,
    grid: Grid,
}

/// Reads a UVFITS file and sets up its problem and prior.
pub(super) fn prepare(settings: &Settings, prior: &Prior, compute: &Compute) -> Result<Prepared> {
    if settings.stack.hold_out != 0.0 {
        let problem = "leaves out camera pixels, of which visibilities have none; set vlbi.hold_out instead";
        return Err(Error::config("stack.hold_out", problem));
    }
    let data = settings.data()?;
    let mut observation = uvfits::read(data)?.observation(data)?;
    let mut complete = None;
    if let Some(hold_out) = &settings.vlbi.hold_out {
        let held = hold_out.baselines(&observation, &mut Rng::new(settings.seed).stream("hold out", 0))?;
        let all = settings.vlbi.fitted(&observation)?;
        observation = held_out::without(&observation, &held);
        complete = Some((all, held));
    }
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
    let subject = Box::new(Sky { observation, complete, fitted, settings: settings.vlbi.clone(), grid });
    Ok(Prepared { subject, problem, prior: network, assumptions })
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

    fn truth(&self, truth: &TrueImage, grid: &Grid) -> Result<(Array3<f32>, Alignment)> {
        let mut image = image::read(truth.file)?;
        if let Some(flux) = truth.flux {
            image.scale_to(flux)?;
        }
        let pixels = image.onto(grid);
        Ok((pixels.mapv(|value| value as f32).insert_axis(Axis(0)), Alignment::Shift))
    }

    /// Flux and centroid are no measurements: they say of every image what the prior leaves open.
    fn acceptance(&self, problem: &Problem, image: &Tensor) -> Result<f64> {
        let predicted = problem.predict(image)?;
        let assumed = self
            .settings
            .data
            .iter()
            .zip(&problem.likelihoods)
            .filter(|(product, _)| matches!(product, DataProduct::Flux | DataProduct::Centroid));
        let mut log_prob = 0.0;
        for (_, likelihood) in assumed {
            log_prob += to_host(&likelihood.log_prob(&predicted)?)?.iter().sum::<f64>();
        }
        Ok(log_prob.exp())
    }

    fn simulate(&self, problem: &Problem, truth: &Tensor, rng: &Rng) -> Result<Vec<Arc<dyn Likelihood>>> {
        let pixels = to_host(&problem.scaling.to_image(truth)?)?;
        Replica::new(&self.observation, &self.settings)?.likelihoods(&pixels, &self.grid, rng)
    }

    /// Pixels are blurred to an eighth of the field of view, 20 uas of 160.
    fn functionals(&self, samples: &Array4<f32>) -> Vec<(Functional, Vec<Option<f64>>)> {
        let images: Vec<_> = samples.outer_iter().map(|s| s.mapv(f64::from).sum_axis(Axis(0))).collect();
        let found = RingPosterior::of(&images, &self.grid, &Search::default());
        let ring = |feature: fn(&Ring) -> f64| -> Vec<Option<f64>> {
            found.rings.iter().map(|ring| ring.as_ref().map(feature)).collect()
        };
        let [_, rows, columns] = self.grid.shape;
        let spacing = [rows, columns].map(|size| size as f64 / 8.0);
        let mut all = vec![
            ("total_flux_jy", Kind::Scalar, found.total_flux.iter().copied().map(Some).collect()),
            ("ring_diameter_uas", Kind::Scalar, ring(|ring| ring.diameter / MICROARCSECOND)),
            ("ring_width_uas", Kind::Scalar, ring(|ring| ring.width / MICROARCSECOND)),
            ("ring_position_angle_deg", Kind::Angle, ring(|ring| ring.position_angle.to_degrees())),
            ("ring_asymmetry", Kind::Scalar, ring(|ring| ring.asymmetry)),
        ]
        .into_iter()
        .map(|(name, kind, values)| (Functional::new(name, kind), values))
        .collect();
        pixels(&mut all, &Blurred::new([rows, columns], spacing[1], spacing), &images);
        all
    }

    fn findings(&self, drawn: &Drawn, figures: bool) -> Result<Findings> {
        let Drawn { cube, traces, .. } = *drawn;
        let held_out = self.foretold(cube)?;
        let ring = RingPosterior::measure(cube, &Search::default());
        let features = ring.summary().into_iter();
        let features = features.filter_map(|(name, interval)| Some((name.to_string(), interval?))).collect();
        let drawn = RunFigures {
            cube,
            observation: &self.fitted,
            pulse: self.settings.pulse,
            beam: Beam::default(),
            ring: &ring,
            traces,
        };
        let figures = if figures { drawn.draw()? } else { Vec::new() };
        let mut warnings = ring.warnings();
        warnings.extend(not_foretold(held_out.as_ref()));
        let shown = ring.count() as f64 / ring.rings.len().max(1) as f64;
        let occupancy = [("ring".to_string(), shown)].into();
        Ok(Findings { features, occupancy, held_out, warnings, figures })
    }
}

impl Sky {
    /// How well the samples foretell what was left out of the fit, if anything was.
    fn foretold(&self, cube: &Cube) -> Result<Option<BTreeMap<String, Foretold>>> {
        let Some((complete, held)) = &self.complete else { return Ok(None) };
        let predicted = Predicted::new(cube, complete, self.settings.pulse)?;
        Ok(Some(held_out::foretold(complete, held, self.settings.snr_cut, predicted.visibilities.view())))
    }
}
