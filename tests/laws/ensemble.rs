//! Processes that share a run, here threads that talk through memory: they get what one process gets.

use std::sync::{Arc, Barrier, Mutex};

use antumbra::{
    Result,
    compute::Compute,
    ensemble::{self, Ensemble},
    instrument::exact::projection,
    posterior::{SolverSettings, Step},
    prior::mixture::{Component, Mixture},
    rng::Rng,
};
use candle_core::DType;

/// What the threads of one ensemble share.
struct Table {
    values: Mutex<Vec<Vec<f64>>>,
    barrier: Barrier,
}

/// One thread of an ensemble.
struct Seat {
    rank: usize,
    table: Arc<Table>,
}

impl Seat {
    fn exchange(&self, own: &[f64]) -> Vec<Vec<f64>> {
        self.table.values.lock().unwrap()[self.rank] = own.to_vec();
        self.table.barrier.wait();
        let all = self.table.values.lock().unwrap().clone();
        self.table.barrier.wait();
        all
    }
}

impl Ensemble for Seat {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.table.values.lock().unwrap().len()
    }

    fn sum(&self, values: &mut [f64]) -> Result<()> {
        let all = self.exchange(values);
        for (i, value) in values.iter_mut().enumerate() {
            *value = all.iter().map(|own| own[i]).sum();
        }
        Ok(())
    }

    fn gather(&self, own: &[f64]) -> Result<Vec<f64>> {
        Ok(self.exchange(own).concat())
    }

    fn abandon(&self, _: u8) {}
}

/// Runs `work` in as many threads as there are processes to stand for.
fn together<R: Send>(size: usize, work: impl Fn() -> R + Sync) -> Vec<R> {
    let table = Arc::new(Table { values: Mutex::new(vec![Vec::new(); size]), barrier: Barrier::new(size) });
    std::thread::scope(|scope| {
        let start = |rank| {
            let (work, seat) = (&work, Seat { rank, table: Arc::clone(&table) });
            scope.spawn(move || ensemble::with(Some(Arc::new(seat)), work))
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Every step of a short run of 7 chains, then its draws.
fn run(yaml: &str) -> (Vec<Step>, Vec<f64>) {
    let compute = Compute::cpu_f64();
    let component = |mean: [f64; 2]| Component { weight: 1.0, mean: mean.into(), variances: vec![0.1; 2] };
    let modes = vec![component([1.0, 0.0]), component([-1.0, 0.5])];
    let prior = Mixture::new(modes, [1, 1, 2], &compute).unwrap();
    let problem = projection(&[vec![1.0, 0.5]], &[0.3], 0.4, &compute).unwrap();
    let rng = Rng::new(8);
    let settings: SolverSettings = serde_yaml::from_str(yaml).unwrap();
    let mut solver = settings.build(&problem, &prior, &rng, &compute).unwrap();
    let steps = (0..solver.steps())
        .map(|index| solver.step(&problem, &prior, &mut rng.stream("step", index as u64)).unwrap())
        .collect();
    let images = solver.draws().unwrap().images;
    (steps, images.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap())
}

/// Compares ensembles of 1, 2 and 3 with no ensemble, whose sums only round differently.
fn agrees(yaml: &str) {
    let (steps, draws) = run(yaml);
    for size in 1..=3 {
        for (others, same) in together(size, || run(yaml)) {
            for (one, other) in steps.iter().zip(&others) {
                for ((name, a), (_, b)) in one.metrics.iter().zip(&other.metrics) {
                    assert!((a - b).abs() <= 1e-9 * a.abs().max(1.0), "{size} processes: {name} {a} {b}");
                }
            }
            let worst = draws.iter().zip(&same).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(draws.len() == same.len() && worst < 1e-9, "{size} processes: draws differ by {worst}");
        }
    }
}

/// The gradient of the auxiliary denoiser is the sum of those of the particles of each process: after each of its
/// updates, bound and loss are those of one process.
#[test]
fn particles_shared_by_processes_move_as_those_of_one() {
    agrees(
        "name: ppm
matching: {particles: 7, steps: 5, draw_steps: 4, noise_levels: 2, auxiliary: {updates: 2, batch: 5}}
correction: {kind: none}",
    );
}

#[test]
fn chains_shared_by_processes_draw_what_one_draws() {
    agrees("name: gibbs\nstart: {chains: 7}\nsampling: {cycles: 2, anneal: 3, rounds: 3, draws: 2}");
    agrees("name: langevin\nstart: {chains: 7}\nsampling: {iterations: 4, draws: 2}");
}

#[test]
fn more_processes_than_particles_are_refused() {
    let refused = together(4, || {
        let compute = Compute::cpu_f64();
        let component = Component { weight: 1.0, mean: vec![0.0; 2], variances: vec![0.1; 2] };
        let prior = Mixture::new(vec![component], [1, 1, 2], &compute).unwrap();
        let problem = projection(&[vec![1.0, 0.5]], &[0.3], 0.4, &compute).unwrap();
        let settings: SolverSettings =
            serde_yaml::from_str("name: ppm\nmatching: {particles: 3}\ncorrection: {kind: none}").unwrap();
        let mut solver = settings.build(&problem, &prior, &Rng::new(1), &compute).unwrap();
        solver.step(&problem, &prior, &mut Rng::new(2)).unwrap_err().to_string()
    });
    assert!(refused.iter().all(|said| said.contains("3 particles for 4 processes")), "{refused:?}");
}
