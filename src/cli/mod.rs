//! The command line: one file per command, errors to stderr, results to stdout.

mod array;
mod bench;
mod calibrate;
mod compare;
mod diagnose;
mod inspect;
mod instruments;
mod merge;
mod plot;
mod priors;
mod progress;
mod psf;
mod reconstruct;
mod settings;
mod simulate;
mod solvers;
mod train;

use std::{
    io::Write as _,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::{Parser, Subcommand};

use crate::{Error, Result, reconstruction::Directory};

/// Calibrated posterior images from interferometer files and microscope stacks.
#[derive(Debug, Parser)]
#[command(name = "antumbra", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measurements of speed and quality.
    #[command(subcommand)]
    Bench(bench::Bench),
    Calibrate(Box<calibrate::Calibrate>),
    Diagnose(diagnose::Diagnose),
    Reconstruct(Box<reconstruct::Reconstruct>),
    Inspect(inspect::Inspect),
    Plot(plot::Plot),
    /// The trained priors.
    #[command(subcommand)]
    Priors(priors::Priors),
    /// The posterior samplers.
    #[command(subcommand)]
    Solvers(solvers::Solvers),
    Train(train::Train),
    Compare(compare::Compare),
    Instruments(instruments::Instruments),
    Merge(merge::Merge),
    Psf(Box<psf::PsfCommand>),
    Simulate(simulate::Simulate),
}

/// Runs the program on the process's arguments and returns its exit status.
///
/// 0 done, 1 done but a check failed, 2 wrong input, 3 failed computation, 130 interrupted.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // A closed stdout or stderr is not worth an error of its own.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            note(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Writes results to stdout. That nobody reads them any more (`| head`) is not an error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes a line to stderr, also if nobody listens.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Bench(command) => command.run(),
        Command::Calibrate(command) => command.run(),
        Command::Diagnose(command) => command.run(),
        Command::Reconstruct(command) => command.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Plot(plot) => plot.run(),
        Command::Priors(command) => command.run(),
        Command::Solvers(command) => command.run(),
        Command::Train(train) => train.run(),
        Command::Compare(command) => command.run(),
        Command::Instruments(command) => command.run(),
        Command::Merge(command) => command.run(),
        Command::Psf(command) => command.run(),
        Command::Simulate(command) => command.run(),
    }
}

/// Refuses to write over a file without `--force`.
fn refuse_to_replace(file: &Path, force: bool) -> Result<()> {
    match file.exists() && !force {
        true => {
            Err(Error::config("--output", format!("{} exists; add --force to replace it", file.display())))
        }
        false => Ok(()),
    }
}

/// Refuses to write over an earlier run unless it is to be `replaced` or continued.
fn refuse_to_mix(directory: &Path, replaced: bool) -> Result<()> {
    if Directory::is_used(directory) && !replaced {
        let problem = format!("{} holds a run; add --resume, --force, or another -o", directory.display());
        return Err(Error::config("-o", problem));
    }
    Ok(())
}

/// A flag that Ctrl-C and SIGTERM set.
fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .map_err(|e| Error::config("Ctrl-C", format!("cannot be caught: {e}")))?;
    Ok(stop)
}

/// Runs `work` on a pool of so many threads, 0 for as many as there are cores. A parallel loop that starts inside the
/// pool need not wake a thread for it to run.
fn on_threads<R: Send>(count: usize, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(if count == 0 { cores } else { count }).build();
    pool.map_err(|e| Error::config("--threads", e.to_string()))?.install(work)
}
