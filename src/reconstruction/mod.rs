//! The whole road: a data file in, a run directory with samples, checks and figures out.

mod diagnose;
mod directory;
mod log;
mod outcome;
mod settings;

use std::path::Path;
use std::sync::atomic::AtomicBool;

pub use diagnose::diagnose;
pub use directory::Directory;
pub use outcome::{Outcome, summary};
pub use settings::Settings;

use log::Log;

use crate::{
    Error, Result,
    compute::Compute,
    instrument::{
        Problem,
        vlbi::{
            Observation,
            problem::{self, IntraSite},
        },
    },
    io::{cube::SkyFrame, uvfits},
    manifest::{self, Input, Stopwatch},
    posterior::{
        Solver,
        run::{self, Observer, RunSettings},
    },
    prior::{
        Denoiser,
        card::{Card, Prior},
        unet::UNet,
    },
    rng::Rng,
};

/// Steps between two checkpoints.
const CHECKPOINT_EVERY: usize = 20;

/// A reconstruction that is ready to start: data, prior, problem and solver.
pub struct Reconstruction {
    /// Resolved settings.
    pub settings: Settings,
    /// The file's data as they are.
    pub observation: Observation,
    /// The data that are fitted: averaged, with systematic noise.
    pub fitted: Observation,
    /// Likelihood of the fitted data.
    pub problem: Problem,
    /// The prior's card.
    pub card: Card,
    /// The prior.
    pub prior: UNet,
    /// Defaults that the user did not choose, in words.
    pub assumptions: Vec<String>,
    input: Input,
    compute: Compute,
    solver: Box<dyn Solver>,
}

impl Reconstruction {
    /// Reads data and prior and sets up problem and solver.
    ///
    /// # Errors
    /// Settings or files that cannot be used.
    pub fn prepare(settings: Settings) -> Result<Self> {
        settings.validate()?;
        let data = settings.data.clone().ok_or_else(|| Error::config("data", "no data file; name one"))?;
        let compute = Compute::named(&settings.device)?;
        let input = manifest::hash_file(&data)?;
        let observation = uvfits::read(&data)?.observation(&data)?;
        let found = Prior::find(&settings.prior)?;
        let prior = found.network(&compute)?;
        let [_, ny, nx] = prior.shape();
        if [ny, nx] != [settings.vlbi.pixels; 2] {
            let problem = format!("the prior {} makes {ny} x {nx} images; use that", settings.prior);
            return Err(Error::config("vlbi.pixels", problem));
        }
        let fitted = settings.vlbi.fitted(&observation)?;
        let problem = problem::problem(&observation, &settings.vlbi, found.scaling(), &compute)?;
        let rng = Rng::new(settings.seed);
        let solver = settings.solver.build(&problem, &prior, &rng, &compute)?;
        let assumptions = assumptions(&settings, &observation)?;
        let card = found.card;
        Ok(Self { settings, observation, fitted, problem, card, prior, assumptions, input, compute, solver })
    }

    /// What a run would do, for `--dry-run`.
    pub fn describe(&self) -> String {
        let data: Vec<_> = self
            .problem
            .likelihoods
            .iter()
            .map(|likelihood| format!("{} {}", likelihood.count(), likelihood.name()))
            .collect();
        let chains = self.settings.solver.chains();
        format!("{chains} chains, {} steps, fitted to {}", self.solver.steps(), data.join(", "))
    }

    /// Runs the solver and writes everything that a run directory holds.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once `stop` is set, after a checkpoint; failures of solver and output.
    pub fn run(
        mut self,
        directory: &Path,
        resume: bool,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        let directory = Directory::open(directory, &self.settings, resume)?;
        let mut watch = Stopwatch::start();
        let run = RunSettings {
            checkpoint: directory.checkpoint(),
            metrics: directory.metrics(),
            checkpoint_every: CHECKPOINT_EVERY,
            resume,
            device: self.compute.device.clone(),
        };
        let rng = Rng::new(self.settings.seed);
        let mut log = Log::open(&directory.file("log.txt"), resume, &self.assumptions, observer)?;
        run::run(self.solver.as_mut(), &self.problem, &self.prior, &rng, &run, stop, &mut log)?;
        watch.lap("sampling");
        Outcome::write(&self, &directory, watch)
    }

    /// Place, frequency and date of the observation.
    fn sky(&self) -> SkyFrame {
        let observation = &self.observation;
        SkyFrame {
            source: observation.source.clone(),
            ra_deg: observation.ra_deg,
            dec_deg: observation.dec_deg,
            frequency_hz: observation.frequency_hz,
            mjd: observation.mjd,
        }
    }
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
