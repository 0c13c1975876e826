//! The one run loop: steps, metrics, checkpoints, interruption and resumption of every solver.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use candle_core::{Device, Tensor};

use crate::{
    Error, Result,
    instrument::Problem,
    posterior::{
        Convergence,
        solver::{Solver, Step, TensorMap},
    },
    prior::Denoiser,
    rng::Rng,
    transfer::Transfer,
};

/// Name under which a checkpoint keeps the number of finished steps.
const FINISHED: &str = "run.finished";

/// With what a run may end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Enough {
    /// Number of draws.
    pub draws: usize,
    /// Number of independent ones that so many of them are worth, see [`Convergence::effective`]; 0 if that does not matter.
    pub effective: f64,
}

impl Enough {
    /// Whether `solver` may end here with what it has.
    fn is_there(self, solver: &dyn Solver, problem: &Problem) -> Result<bool> {
        if solver.finished_draws() < self.draws.max(1) {
            return Ok(false);
        }
        if self.effective <= 0.0 {
            return Ok(true);
        }
        let kept = solver.draws()?.thinned(self.draws)?;
        Ok(Convergence::under(problem, &kept)?.effective() >= self.effective)
    }
}

/// Where a run keeps its records.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// The solver's state in safetensors, replaced as a whole at each checkpoint.
    pub checkpoint: PathBuf,
    /// One JSON object a line for every finished step.
    pub metrics: PathBuf,
    /// Number of steps between two checkpoints; one more is written at the end.
    pub checkpoint_every: usize,
    /// With what the run ends even before the solver's last step.
    pub enough: Enough,
    /// Continue from the checkpoint instead of starting afresh.
    pub resume: bool,
    /// Device to which a checkpoint is read.
    pub device: Device,
    /// Whether this process writes metrics and checkpoints: of those that share a run, only one does.
    pub records: bool,
}

/// Who watches a run.
pub trait Observer {
    /// `finished` of at most `total` steps are done, the last one with outcome `step`.
    fn on_step(&mut self, finished: usize, total: usize, step: &Step);

    /// A checkpoint after `finished` steps was written.
    fn on_checkpoint(&mut self, finished: usize);
}

/// Nobody watches.
impl Observer for () {
    fn on_step(&mut self, _: usize, _: usize, _: &Step) {}
    fn on_checkpoint(&mut self, _: usize) {}
}

/// Runs `solver` to its last step or until it has enough draws, or to a checkpoint once `stop` is set.
///
/// Step k draws from stream `("step", k)` of `rng`, so a resumed run repeats an uninterrupted one bit for bit.
///
/// # Errors
/// [`Error::Interrupted`] after `stop`, [`Error::Diverged`] for a metric or state that is not finite, a missing or
/// foreign checkpoint on resumption, a file that cannot be written, and those of the solver.
pub fn run(
    solver: &mut dyn Solver,
    problem: &Problem,
    prior: &dyn Denoiser,
    rng: &Rng,
    settings: &RunSettings,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<()> {
    let first = if settings.resume { restore(solver, &settings.checkpoint, &settings.device)? } else { 0 };
    let mut metrics = settings.records.then(|| Metrics::open(&settings.metrics, first)).transpose()?;
    let is_done = |solver: &dyn Solver, finished| -> Result<bool> {
        Ok(finished >= solver.steps() || settings.enough.is_there(solver, problem)?)
    };
    let mut index = first;
    let mut done = is_done(solver, index)?;
    while !done {
        let step = solver.step(problem, prior, &mut rng.stream("step", index as u64))?;
        if let Some(metrics) = &mut metrics {
            metrics.append(index, &step)?;
        }
        index += 1;
        done = is_done(solver, index)?;
        observer.on_step(index, solver.steps(), &step);
        let stopped = stop.load(Ordering::Relaxed) && !done;
        if stopped || done || index % settings.checkpoint_every.max(1) == 0 {
            if settings.records {
                save(solver, index, &settings.checkpoint)?;
            }
            observer.on_checkpoint(index);
        }
        if stopped {
            return Err(Error::Interrupted);
        }
    }
    Ok(())
}

/// The file of metrics, one JSON object a line.
struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the file and drops all lines but those of the `kept` first steps.
    fn open(path: &Path, kept: usize) -> Result<Self> {
        let failed = |source| Error::io(path, source);
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        let mut length = 0;
        let mut lines = BufReader::new(&file);
        for index in 0..kept {
            let read = lines.read_until(b'\n', &mut Vec::new()).map_err(failed)?;
            if read == 0 {
                let problem = format!("the checkpoint is at step {kept}; start again without --resume");
                return Err(Error::format(path, format!("line {}", index + 1), problem));
            }
            length += read as u64;
        }
        file.set_len(length).map_err(failed)?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    fn append(&mut self, index: usize, step: &Step) -> Result<()> {
        let mut line = serde_json::Map::new();
        line.insert("step".into(), index.into());
        line.insert("stage".into(), step.stage.into());
        for &(name, value) in &step.metrics {
            if !value.is_finite() {
                return Err(Error::Diverged { what: format!("{} {name}", step.stage), step: index });
            }
            line.insert(name.into(), value.into());
        }
        writeln!(self.file, "{}", serde_json::Value::Object(line))
            .map_err(|source| Error::io(&self.path, source))
    }
}

/// Writes the solver's state under a temporary name and renames it, so that a killed run leaves a whole file.
fn save(solver: &dyn Solver, finished: usize, path: &Path) -> Result<()> {
    let mut state = solver.state()?;
    for (name, tensor) in &state {
        if !is_finite(tensor)? {
            return Err(Error::Diverged { what: name.clone(), step: finished });
        }
    }
    state.insert(FINISHED.into(), Tensor::new(finished as i64, &Device::Cpu)?);
    let temporary = path.with_extension("partial");
    candle_core::safetensors::save(&state, &temporary)?;
    fs::rename(&temporary, path).map_err(|source| Error::io(path, source))
}

/// Gives the checkpoint to the solver and returns the number of finished steps.
///
/// # Errors
/// A checkpoint that is missing, damaged or of another run.
pub fn restore(solver: &mut dyn Solver, path: &Path, device: &Device) -> Result<usize> {
    if !path.is_file() {
        return Err(Error::config("--resume", format!("there is no checkpoint {}", path.display())));
    }
    let damaged = |_| Error::format(path, "header", "not a checkpoint; start again without --resume");
    let mut state: TensorMap = candle_core::safetensors::load(path, device).map_err(damaged)?;
    let foreign = || {
        let problem = "does not belong to this run; start again without --resume";
        Error::format(path, FINISHED, problem)
    };
    let finished = state.remove(FINISHED).ok_or_else(foreign)?;
    let finished = finished.read_scalar::<i64>().ok().and_then(|n| usize::try_from(n).ok());
    let finished = finished.filter(|&n| n <= solver.steps()).ok_or_else(foreign)?;
    solver.restore(state)?;
    Ok(finished)
}

/// A sum over an array with an infinite or undefined value is not finite either.
fn is_finite(tensor: &Tensor) -> Result<bool> {
    if !tensor.dtype().is_float() || tensor.elem_count() == 0 {
        return Ok(true);
    }
    let sum = (tensor.zeros_like()? * tensor)?.flatten_all()?.sum_all()?;
    Ok(sum.to_dtype(candle_core::DType::F64)?.read_scalar::<f64>()?.is_finite())
}
