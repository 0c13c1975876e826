//! The whole road: a data file in, a run directory with samples, checks and figures out.

mod calibrate;
mod diagnose;
mod directory;
mod log;
mod memory;
mod merge;
mod outcome;
mod processes;
mod settings;
mod sky;
pub mod stack;
mod subject;

use std::path::{Path, PathBuf};
use std::sync::{Arc, atomic::AtomicBool};

pub use calibrate::Campaign;
pub use diagnose::{TrueImage, diagnose, draw};
pub use directory::Directory;
pub use merge::merge;
pub use outcome::{Outcome, summary};
pub use settings::Settings;
pub use stack::StackSettings;
pub use subject::{Drawn, Findings, Subject};

use log::Log;
use processes::InStep;

use crate::{
    Result,
    compute::Compute,
    ensemble::{self, Ensemble},
    instrument::Problem,
    io::stack::{file_of, recognise},
    manifest::{self, Input, Stopwatch},
    posterior::{
        Solver,
        run::{self, Enough, Observer, RunSettings},
    },
    prior::{
        Denoiser,
        card::{Card, Prior},
        counted::Counted,
    },
    rng::Rng,
};

/// Steps between two checkpoints.
const CHECKPOINT_EVERY: usize = 20;

/// Draws for each chain without which no run ends early: with fewer, R-hat says little.
const DRAWS_PER_CHAIN: usize = 12;

/// A reconstruction that is ready to start: data, prior, problem and solver.
pub struct Reconstruction {
    /// Resolved settings.
    pub settings: Settings,
    /// What is shown, with its data.
    pub subject: Box<dyn Subject>,
    /// Likelihood of the fitted data.
    pub problem: Problem,
    /// The prior's card.
    pub card: Card,
    /// The prior.
    pub prior: Box<dyn Denoiser>,
    /// Defaults that the user did not choose, in words.
    pub assumptions: Vec<String>,
    /// The processes that share this run, if there are several.
    pub ensemble: Option<Arc<dyn Ensemble>>,
    input: Input,
    /// Where it is computed.
    pub compute: Compute,
    solver: Box<dyn Solver>,
    /// Images that passed through the prior's network, in all processes.
    network_passes: u64,
}

/// What the kind of data decides.
struct Prepared {
    subject: Box<dyn Subject>,
    problem: Problem,
    prior: Box<dyn Denoiser>,
    assumptions: Vec<String>,
}

/// The settings of each reconstruction that a data file gives, with the folder of its own below the run directory if there
/// are several: one of an observation of the sky, one for every channel and time of a stack.
///
/// # Errors
/// A file that cannot be read, or a choice of channels and times that it does not have.
pub fn split(settings: &Settings) -> Result<Vec<(Option<String>, Settings)>> {
    match recognise(settings.data()?)? {
        Some(_) => stack::split(settings),
        None => Ok(vec![(None, settings.clone())]),
    }
}

/// Writes into the run directory what all reconstructions of a file give together, once they are done in their folders.
///
/// # Errors
/// A reconstruction that is not finished, or a file that cannot be written.
pub fn finish(settings: &Settings, folders: &[PathBuf], directory: &Path) -> Result<()> {
    match recognise(settings.data()?)? {
        Some(_) => stack::assemble(settings, folders, directory),
        None => Ok(()),
    }
}

/// With what a run ends.
fn enough(settings: &Settings) -> Enough {
    match settings.effective_samples {
        Some(effective) => Enough { draws: settings.samples, effective },
        None => {
            let draws = settings.samples.max(DRAWS_PER_CHAIN * settings.solver.chains());
            Enough { draws, effective: 0.0 }
        }
    }
}

impl Reconstruction {
    /// Reads data and prior and sets up problem and solver; `settings` are of one reconstruction, see [`split`].
    ///
    /// # Errors
    /// Settings or files that cannot be used.
    pub fn prepare(mut settings: Settings) -> Result<Self> {
        settings.validate()?;
        let compute = Compute::named(&settings.device)?;
        settings.precision.apply();
        let input = manifest::hash_file(&file_of(settings.data()?))?;
        let found = Prior::find(&settings.prior)?;
        let Prepared { subject, problem, prior, assumptions } = match recognise(settings.data()?)? {
            Some(_) => {
                let prepared = stack::prepare(&settings, &found, &compute)?;
                let (problem, prior) = (&prepared.problem, prepared.prior.as_ref());
                stack::resolve(&mut settings.solver, problem, prior, &compute)?;
                prepared
            }
            None => sky::prepare(&settings, &found, &compute)?,
        };
        let rng = Rng::new(settings.seed);
        let solver = settings.solver.build(&problem, prior.as_ref(), &rng, &compute)?;
        let card = found.card;
        Ok(Self {
            settings,
            subject,
            problem,
            card,
            prior,
            assumptions,
            ensemble: None,
            input,
            compute,
            solver,
            network_passes: 0,
        })
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
        let [z, y, x] = self.prior.shape();
        let steps = self.solver.steps();
        let draws = self.settings.solver.draws();
        let memory = memory::predicted(z * y * x, chains, draws, rayon::current_num_threads());
        format!(
            "{chains} chains of {z} x {y} x {x} voxels, {steps} steps, fitted to {}, about {:.1} GiB of memory",
            data.join(", "),
            memory as f64 / f64::from(1 << 30)
        )
    }

    /// Runs the solver and writes everything that a run directory holds.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`] once `stop` is set, after a checkpoint; failures of solver and output.
    pub fn run(
        mut self,
        directory: &Path,
        resume: bool,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        self.settle(directory, resume, stop, observer)?;
        let directory = Directory::open(directory, &self.settings, resume)?;
        let mut watch = Stopwatch::start();
        let mut log = Log::open(&directory.file("log.txt"), resume, &self.assumptions, observer)?;
        self.sample(&directory, resume, stop, &mut log)?;
        watch.lap("sampling");
        Outcome::write(&self, &self.solver.draws()?, Vec::new(), &directory, watch)
    }

    /// Takes part in a run that the first process of the ensemble does by [`Reconstruction::run`].
    ///
    /// # Errors
    /// As of [`Reconstruction::run`].
    pub fn take_part(mut self, directory: &Path, resume: bool, stop: &AtomicBool) -> Result<()> {
        self.settle(directory, resume, stop, &mut ())?;
        let directory = Directory::of_another(directory, &self.settings)?;
        self.sample(&directory, resume, stop, &mut ())
    }

    /// Finds what the settings leave open and only samples can tell; a resumed run has found it before.
    fn settle(
        &mut self,
        directory: &Path,
        resume: bool,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        if recognise(self.settings.data()?)?.is_none() {
            return Ok(());
        }
        if resume {
            let (_, before) = Directory::read(directory)?;
            let found = &mut self.settings.stack.brightness;
            *found = found.or(before.stack.brightness);
        }
        stack::settle(self, stop, observer)
    }

    /// See [`stack::resolve`], of the problem as it is now.
    fn resolve(&mut self) -> Result<()> {
        let (problem, prior) = (&self.problem, self.prior.as_ref());
        stack::resolve(&mut self.settings.solver, problem, prior, &self.compute)?;
        self.solver =
            self.settings.solver.build(problem, prior, &Rng::new(self.settings.seed), &self.compute)?;
        Ok(())
    }

    fn sample(
        &mut self,
        directory: &Directory,
        resume: bool,
        asked: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let settings = RunSettings {
            checkpoint: directory.checkpoint(),
            metrics: directory.metrics(),
            checkpoint_every: CHECKPOINT_EVERY,
            enough: enough(&self.settings),
            resume,
            device: self.compute.device.clone(),
            records: self.ensemble.as_ref().is_none_or(|ensemble| ensemble.rank() == 0),
        };
        let (rng, stop) = (Rng::new(self.settings.seed), AtomicBool::new(false));
        let mut in_step = InStep::new(self.ensemble.clone(), asked, &stop, observer);
        let (solver, prior) = (self.solver.as_mut(), Counted::new(self.prior.as_ref()));
        let mut passes = [0.0];
        let done = ensemble::with(self.ensemble.clone(), || {
            run::run(solver, &self.problem, &prior, &rng, &settings, &stop, &mut in_step)?;
            passes = [prior.forwards() as f64];
            ensemble::sum(&mut passes)
        });
        self.network_passes = passes[0] as u64;
        in_step.verdict().and(done)
    }
}
