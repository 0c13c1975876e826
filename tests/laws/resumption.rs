//! Every solver, interrupted in each of its stages, continues to the bytes of an uninterrupted run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use antumbra::{
    Error,
    compute::Compute,
    grid::Grid,
    instrument::{
        Problem,
        exact::{Projection, projection},
    },
    posterior::{
        Draws, Solver, SolverSettings, Step,
        gibbs::{Gibbs, GibbsSettings},
        run::{Enough, Observer, RunSettings, run},
    },
    prior::{
        Pyramid, Scaling,
        gaussian::Gaussian,
        mixture::{Component, Mixture},
    },
    rng::Rng,
};
use candle_core::{Device, Tensor};

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

/// A run goes to its last step.
const ALL: Enough = Enough { draws: usize::MAX, effective: 0.0 };

/// Runs a newly built solver on so many equal data until it has `enough`; returns its number of steps and, if it came
/// to its end, its draws.
fn go(
    settings: &SolverSettings,
    data: usize,
    enough: Enough,
    folder: &Path,
    resume: bool,
    after: usize,
) -> (usize, Option<Draws>) {
    let compute = Compute::cpu();
    let component = |mean: [f64; 2]| Component { weight: 1.0, mean: mean.into(), variances: vec![0.1; 2] };
    let modes = vec![component([1.0, 0.0]), component([-1.0, 0.5])];
    let prior = Mixture::new(modes, [1, 1, 2], &compute).unwrap();
    let problem = projection(&vec![vec![1.0, 0.5]; data], &vec![0.3; data], 0.4, &compute).unwrap();
    let rng = Rng::new(8);
    let mut solver = settings.build(&problem, &prior, &rng, &compute).unwrap();
    let run_settings = RunSettings {
        checkpoint: folder.join("checkpoint.safetensors"),
        metrics: folder.join("metrics.jsonl"),
        checkpoint_every: 1000,
        enough,
        resume,
        device: Device::Cpu,
        records: true,
    };
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter { after, stop: &stop };
    match run(solver.as_mut(), &problem, &prior, &rng, &run_settings, &stop, &mut observer) {
        Ok(()) => (solver.steps(), Some(solver.draws().unwrap())),
        Err(Error::Interrupted) => (solver.steps(), None),
        Err(error) => panic!("{error}"),
    }
}

/// Interrupts a solver after every step; returns the draws, and how many chains there were.
fn resumes_with(yaml: &str, data: usize) -> (Draws, usize) {
    let settings: SolverSettings = serde_yaml::from_str(yaml).unwrap();
    let whole = tempfile::tempdir().unwrap();
    let (steps, draws) = go(&settings, data, ALL, whole.path(), false, 0);
    let read = |folder: &Path| {
        ["checkpoint.safetensors", "metrics.jsonl"].map(|name| fs::read(folder.join(name)).unwrap())
    };
    for after in 1..steps {
        let broken = tempfile::tempdir().unwrap();
        assert!(go(&settings, data, ALL, broken.path(), false, after).1.is_none());
        assert!(go(&settings, data, ALL, broken.path(), true, 0).1.is_some());
        assert!(read(whole.path()) == read(broken.path()), "differs if interrupted after step {after}");
    }
    (draws.unwrap(), settings.chains())
}

fn resumes(yaml: &str) {
    let (draws, chains) = resumes_with(yaml, 1);
    assert_eq!(draws.chains(), chains);
}

/// Where forty data leave no doubt, half of the chains are in the wrong mode, and nothing carries them over.
#[test]
fn gibbs_with_chains_that_are_given_up() {
    let yaml = "name: gibbs
start: {chains: 8}
sampling: {cycles: 3, anneal: 0, rounds: 4, draws: 2, start_level: 0.02, final_level: 0.02}";
    let (draws, chains) = resumes_with(yaml, 40);
    assert!((1..chains).contains(&draws.chains()), "{} of {chains} chains left", draws.chains());
    assert_eq!(draws.images.dim(0).unwrap(), draws.len());
    // Reheated cycles go on from those that are left.
    let mut left: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (time, chain) in draws.time.iter().zip(&draws.chain) {
        left.entry(*time).or_default().insert(*chain);
    }
    let times: Vec<_> = left.values().collect();
    assert!(times.len() == 3 * 2 && times.windows(2).all(|pair| pair[1].is_subset(pair[0])), "{left:?}");
    // No chain is given up twice, as one that came back would be.
    let (settings, folder) = (serde_yaml::from_str(yaml).unwrap(), tempfile::tempdir().unwrap());
    go(&settings, 40, ALL, folder.path(), false, 0);
    let metrics = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let given_up: f64 = lines.filter_map(|line| line["dropped"].as_f64()).sum();
    assert_eq!(given_up, (chains - times[times.len() - 1].len()) as f64);
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

/// Three chains leave three draws a cycle: five are there after the second of at most four cycles.
#[test]
fn a_run_ends_with_the_cycle_that_brings_enough_draws() {
    let yaml = "name: gibbs\nstart: {chains: 3}\nsampling: {cycles: 4, anneal: 2, rounds: 3}";
    let settings: SolverSettings = serde_yaml::from_str(yaml).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let metrics = || fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let (_, draws) = go(&settings, 1, Enough { draws: 5, ..ALL }, folder.path(), false, 0);
    assert_eq!((draws.unwrap().len(), metrics().lines().count()), (6, 1 + 5 + 4));
    let before = metrics();
    let (_, draws) = go(&settings, 1, Enough { draws: 5, ..ALL }, folder.path(), true, 0);
    assert_eq!((draws.unwrap().len(), metrics()), (6, before), "a finished run has nothing to resume");
    let (_, draws) = go(&settings, 1, Enough { draws: 7, ..ALL }, folder.path(), true, 0);
    assert_eq!(draws.unwrap().len(), 9, "but goes on if more draws are asked for");
}

/// Of draws that are nearly independent, more are worth more: the run goes on until they are worth what was asked for.
#[test]
fn a_run_ends_once_its_draws_are_worth_enough() {
    let yaml = "name: gibbs\nstart: {chains: 3}\nsampling: {cycles: 60, anneal: 4, rounds: 3}";
    let settings: SolverSettings = serde_yaml::from_str(yaml).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let draws = |effective: f64| {
        let enough = Enough { draws: 40, effective };
        go(&settings, 1, enough, folder.path(), false, 0).1.unwrap().len()
    };
    let (few, more, all) = (draws(4.0), draws(30.0), draws(1e6));
    println!("{few} {more} {all}");
    assert!(few >= 40 && few < more && more < all && all == 3 * 60, "{few} {more} {all}");
}

/// Chains that live on half as many pixels for some rounds, saved and restored after every one.
#[test]
fn gibbs_that_begins_on_coarser_pixels() {
    let compute = Compute::cpu();
    let white = |side: usize| {
        let pixels = side * side;
        Box::new(Gaussian::diagonal(vec![0.0; pixels], vec![1.0; pixels], [1, side, side], &compute).unwrap())
    };
    let prior = Pyramid::new(white(4), white(2), Scaling::IDENTITY).unwrap();
    let problem = projection(&[vec![0.25; 16]], &[1.0], 0.3, &compute).unwrap();
    let grid = Grid::sky(4, 1e-9).unwrap();
    let matrix = compute.tensor(vec![0.25; 16], &[1, 16]).unwrap();
    let problem = Problem { forward: Arc::new(Projection { grid, matrix }), ..problem };
    let settings = GibbsSettings {
        cycles: 2,
        reheats: 1,
        anneal: 12,
        rounds: 2,
        coarse_level: Some(1.0),
        ..GibbsSettings::default()
    };
    let new = || {
        let start = Rng::new(2).normals(&[3, 1, 4, 4], &compute).unwrap();
        Gibbs::new(settings.clone(), start).unwrap()
    };
    let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (mut whole, mut broken, mut sides) = (new(), new(), BTreeSet::new());
    for step in 0..whole.steps() {
        let rng = || Rng::new(5).stream("step", step as u64);
        whole.step(&problem, &prior, &mut rng()).unwrap();
        let mut next = new();
        if step > 0 {
            next.restore(broken.state().unwrap()).unwrap();
        }
        next.step(&problem, &prior, &mut rng()).unwrap();
        broken = next;
        let [ours, theirs] = [&whole, &broken].map(|gibbs| gibbs.state().unwrap().remove("gibbs.x").unwrap());
        sides.insert(ours.dim(3).unwrap());
        assert_eq!(values(&ours), values(&theirs), "after round {step}");
    }
    assert_eq!(Vec::from_iter(sides), [2, 4]);
    let [ours, theirs] = [whole, broken].map(|gibbs| values(&gibbs.draws().unwrap().images));
    assert!(!ours.is_empty() && ours == theirs);
}

/// Matching whose objective rests ends before its last step, and its correction follows.
#[test]
fn matching_that_rests() {
    let yaml = "name: ppm\nmatching: {family: {name: mixture, components: 2, rank: 1}, particles: 4, steps: 60, patience: 2}\ncorrection: {kind: gibbs, gibbs: {cycles: 1, anneal: 2, rounds: 3}}";
    let settings: SolverSettings = serde_yaml::from_str(yaml).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (steps, _) = go(&settings, 1, ALL, folder.path(), false, 0);
    assert!(steps < 60, "{steps}");
    resumes(yaml);
}

#[test]
fn langevin_from_the_prior() {
    resumes("name: langevin\nstart: {chains: 3}\nsampling: {cycles: 2, anneal: 3, iterations: 2, draws: 1}");
}

/// Every rival of the literature, with few steps; the blind one has a test beside it.
#[test]
fn rivals() {
    for settings in SolverSettings::rivals().into_iter().filter(|rival| rival.name() != "blind_dps") {
        let mut settings = serde_json::to_value(&settings).unwrap();
        settings["chains"] = 3.into();
        settings["schedule"]["steps"] = 4.into();
        for (training, few) in [("training", 2), ("images", 4)] {
            if settings.get(training).is_some() {
                settings[training] = few.into();
            }
        }
        resumes(&settings.to_string());
    }
}
