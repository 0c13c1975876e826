//! Interrupted, resumed and uninterrupted runs leave the same files; broken ones say so.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use antumbra::{
    Error, Result,
    compute::Compute,
    instrument::{Problem, exact::projection},
    posterior::{
        Draws, Solver, Step,
        run::{Enough, Observer, RunSettings, run},
        solver::TensorMap,
    },
    prior::Denoiser,
    rng::Rng,
};
use candle_core::Tensor;

use crate::devices;

/// A random walk that diverges at a given step.
struct Walk {
    compute: Compute,
    position: Tensor,
    steps: usize,
    diverges_at: Option<usize>,
    done: usize,
}

impl Walk {
    fn new(compute: &Compute) -> Self {
        let position = compute.tensor(vec![0.0; 2], &[1, 1, 1, 2]).unwrap();
        Self { compute: compute.clone(), position, steps: 10, diverges_at: None, done: 0 }
    }
}

impl Solver for Walk {
    fn steps(&self) -> usize {
        self.steps
    }

    fn step(&mut self, _: &Problem, _: &dyn Denoiser, rng: &mut Rng) -> Result<Step> {
        self.position = (&self.position + rng.normals(&[1, 1, 1, 2], &self.compute)?)?;
        let mut first = f64::from(self.position.flatten_all()?.to_vec1::<f32>()?[0]);
        if self.diverges_at == Some(self.done) {
            first = f64::NAN;
        }
        self.done += 1;
        Ok(Step { stage: "walk", metrics: vec![("first", first)] })
    }

    fn draws(&self) -> Result<Draws> {
        Ok(Draws::together(self.position.clone(), &[0], 0))
    }

    fn state(&self) -> Result<TensorMap> {
        Ok([("walk.position".to_string(), self.position.clone())].into())
    }

    fn restore(&mut self, mut state: TensorMap) -> Result<()> {
        self.position = state.remove("walk.position").unwrap();
        Ok(())
    }
}

/// Sets the stop flag after a given number of steps.
struct StopAfter<'a>(usize, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn on_step(&mut self, finished: usize, _: usize, _: &Step) {
        self.1.store(finished == self.0, Ordering::Relaxed);
    }
    fn on_checkpoint(&mut self, _: usize) {}
}

struct Flat;

impl Denoiser for Flat {
    fn denoise(&self, noisy: &Tensor, _: &Tensor) -> Result<Tensor> {
        Ok(noisy.clone())
    }
    fn shape(&self) -> [usize; 3] {
        [1, 1, 2]
    }
    fn noise_range(&self) -> (f64, f64) {
        (0.01, 10.0)
    }
    fn data_std(&self) -> f64 {
        1.0
    }
}

fn walk(walk: &mut Walk, folder: &Path, resume: bool, stop_after: usize) -> Result<()> {
    let settings = RunSettings {
        checkpoint: folder.join("checkpoint.safetensors"),
        metrics: folder.join("metrics.jsonl"),
        checkpoint_every: 4,
        enough: Enough { draws: usize::MAX, effective: 0.0 },
        resume,
        device: walk.compute.device.clone(),
        records: true,
    };
    let problem = projection(&[vec![1.0, 0.0]], &[0.0], 1.0, &walk.compute).unwrap();
    let stop = AtomicBool::new(false);
    run(walk, &problem, &Flat, &Rng::new(3), &settings, &stop, &mut StopAfter(stop_after, &stop))
}

fn files(folder: &Path) -> [Vec<u8>; 2] {
    ["checkpoint.safetensors", "metrics.jsonl"].map(|name| fs::read(folder.join(name)).unwrap())
}

#[test]
fn resumed_run_leaves_the_bytes_of_an_uninterrupted_one() {
    for compute in devices::single() {
        let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        walk(&mut Walk::new(&compute), whole.path(), false, 0).unwrap();
        let interrupted = walk(&mut Walk::new(&compute), broken.path(), false, 6);
        assert!(matches!(interrupted, Err(Error::Interrupted)));
        // What a killed run wrote after its last checkpoint is dropped on resumption.
        let metrics = broken.path().join("metrics.jsonl");
        let mut lines = fs::read(&metrics).unwrap();
        lines.extend(b"{\"step\":6,\"stage\":\"walk\",\"first\":9.0}\n{\"st");
        fs::write(&metrics, lines).unwrap();
        walk(&mut Walk::new(&compute), broken.path(), true, 0).unwrap();
        assert_eq!(files(whole.path()), files(broken.path()));
        assert_eq!(fs::read_to_string(metrics).unwrap().lines().count(), 10);
        assert_eq!(fs::read_dir(whole.path()).unwrap().count(), 2, "no temporary file stays");
    }
}

#[test]
fn finished_run_can_be_resumed_without_a_step() {
    for compute in devices::single() {
        let folder = tempfile::tempdir().unwrap();
        walk(&mut Walk::new(&compute), folder.path(), false, 0).unwrap();
        let before = files(folder.path());
        let mut again = Walk::new(&compute);
        walk(&mut again, folder.path(), true, 0).unwrap();
        assert_eq!(again.done, 0);
        assert_eq!(before, files(folder.path()));
    }
}

#[test]
fn value_that_is_not_finite_stops_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let result =
        walk(&mut Walk { diverges_at: Some(6), ..Walk::new(&Compute::cpu()) }, folder.path(), false, 0);
    let Err(Error::Diverged { what, step }) = result else { panic!("{result:?}") };
    assert_eq!((what.as_str(), step), ("walk first", 6));
    let lines = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 6);
}

#[test]
fn resumption_without_a_fitting_checkpoint_is_refused() {
    let new = || Walk::new(&Compute::cpu());
    let folder = tempfile::tempdir().unwrap();
    let missing = walk(&mut new(), folder.path(), true, 0).unwrap_err();
    assert_eq!(missing.exit_code(), 2);
    fs::write(folder.path().join("checkpoint.safetensors"), b"rubbish").unwrap();
    let damaged = walk(&mut new(), folder.path(), true, 0).unwrap_err();
    assert!(damaged.to_string().contains("not a checkpoint"), "{damaged}");
    walk(&mut new(), folder.path(), false, 0).unwrap();
    let shorter = walk(&mut Walk { steps: 5, ..new() }, folder.path(), true, 0).unwrap_err();
    assert!(shorter.to_string().contains("does not belong"), "{shorter}");
}
