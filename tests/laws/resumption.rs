//! Every solver, interrupted in each of its stages, continues to the bytes of an uninterrupted run.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use antumbra::{
    Error,
    compute::Compute,
    posterior::{
        SolverSettings, Step,
        run::{Observer, RunSettings, run},
    },
    prior::mixture::{Component, Mixture},
    rng::Rng,
};
use candle_core::Device;

use crate::closed_form::bed::linear_problem;

/// Sets the stop flag once `after` steps are done.
struct StopAfter<'a> {
    after: usize,
    stop: &'a AtomicBool,
}

impl Observer for StopAfter<'_> {
    fn on_step(&mut self, finished: usize, _: usize, _: &Step) {
        self.stop.store(finished == self.after, Ordering::Relaxed);
    }
    fn on_checkpoint(&mut self, _: usize) {}
}

/// Runs a newly built solver; returns its number of steps and whether it came to its end.
fn go(settings: &SolverSettings, folder: &Path, resume: bool, after: usize) -> (usize, bool) {
    let compute = Compute::cpu();
    let component = |mean: [f64; 2]| Component { weight: 1.0, mean: mean.into(), variances: vec![0.1; 2] };
    let modes = vec![component([1.0, 0.0]), component([-1.0, 0.5])];
    let prior = Mixture::new(modes, [1, 1, 2], &compute).unwrap();
    let problem = linear_problem(&[vec![1.0, 0.5]], &[0.3], 0.4, &compute);
    let rng = Rng::new(8);
    let mut solver = settings.build(&problem, &prior, &rng, &compute).unwrap();
    let run_settings = RunSettings {
        checkpoint: folder.join("checkpoint.safetensors"),
        metrics: folder.join("metrics.jsonl"),
        checkpoint_every: 1000,
        resume,
        device: Device::Cpu,
    };
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter { after, stop: &stop };
    match run(solver.as_mut(), &problem, &prior, &rng, &run_settings, &stop, &mut observer) {
        Ok(()) => {
            let draws = solver.draws().unwrap();
            assert_eq!(draws.dims5().unwrap().0, settings.chains());
            (solver.steps(), true)
        }
        Err(Error::Interrupted) => (solver.steps(), false),
        Err(error) => panic!("{error}"),
    }
}

fn resumes(yaml: &str) {
    let settings: SolverSettings = serde_yaml::from_str(yaml).unwrap();
    let whole = tempfile::tempdir().unwrap();
    let (steps, done) = go(&settings, whole.path(), false, 0);
    assert!(done);
    let read = |folder: &Path| {
        ["checkpoint.safetensors", "metrics.jsonl"].map(|name| fs::read(folder.join(name)).unwrap())
    };
    for after in 1..steps {
        let broken = tempfile::tempdir().unwrap();
        assert!(!go(&settings, broken.path(), false, after).1);
        assert!(go(&settings, broken.path(), true, 0).1);
        assert!(read(whole.path()) == read(broken.path()), "differs if interrupted after step {after}");
    }
}

#[test]
fn ppm_with_langevin_correction() {
    resumes(
        "name: ppm
matching: {particles: 6, steps: 6, draw_steps: 6, resample_from: 6}
correction: {kind: langevin, langevin: {iterations: 4, draws: 2}}",
    );
}

#[test]
fn ppm_with_gibbs_correction() {
    resumes(
        "name: ppm
matching: {particles: 4, steps: 3, draw_steps: 6, auxiliary: {updates: 2, batch: 3}}
correction: {kind: gibbs, gibbs: {cycles: 2, anneal: 2, rounds: 3, draws: 2}}",
    );
}

#[test]
fn ppm_alone() {
    resumes("name: ppm\nmatching: {particles: 4, steps: 4, draw_steps: 6}\ncorrection: {kind: none}");
}

#[test]
fn gibbs_from_the_prior() {
    resumes("name: gibbs\nstart: {chains: 3}\nsampling: {cycles: 2, anneal: 2, rounds: 3, draws: 2}");
}

#[test]
fn langevin_from_the_prior() {
    resumes("name: langevin\nstart: {chains: 3}\nsampling: {iterations: 4, draws: 2}");
}
