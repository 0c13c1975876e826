//! Gains of stations that nobody knows, found together with the image.

use antumbra::{
    compute::Compute,
    grid::Grid,
    instrument::{
        Problem,
        vlbi::{
            Vlbi,
            array::{Array, Schedule, Source},
            gains::{GainModel, SkyModel, simulate},
            problem::{DataProduct, IntraSite, problem},
        },
    },
    posterior::{Solver, SolverSettings},
    prior::{Scaling, gaussian::Gaussian},
    rng::Rng,
    units::Flux,
};
use candle_core::Tensor;

const SIDE: usize = 12;
/// Standard deviation of the prior's pixels, Jy.
const UNIT: f64 = 0.02;
/// The station whose amplitudes are wrong, and by which factor: 1.8 standard deviations of what a gain is
/// taken to be.
const WRONG: (&str, f64) = ("LM", 1.2);

fn settings() -> Vlbi {
    Vlbi {
        data: vec![DataProduct::Visibility],
        intra_site: IntraSite::Keep,
        systematic: 0.05,
        flux: Some(Flux(1.0)),
        pixels: SIDE,
        ..Vlbi::default()
    }
}

/// A blob off the centre, network unit: the mean of the prior.
fn blob(grid: &Grid) -> Vec<f64> {
    let (east, north, width) = (grid.east(), grid.north(), grid.pitch[1]);
    let value = |y: &f64, x: &f64| 5.0 / UNIT * (-((x - width) / width).powi(2) - (y / width).powi(2)).exp();
    north.iter().flat_map(|y| east.iter().map(move |x| value(y, x))).collect()
}

/// All steps of the solver `name`.
fn finished(name: &str, problem: &Problem, prior: &Gaussian) -> Box<dyn Solver> {
    let mut settings = SolverSettings::named(name).unwrap();
    settings.set_chains(16);
    let rng = Rng::new(3);
    let mut solver = settings.build(problem, prior, &rng, &Compute::cpu()).unwrap();
    for step in 0..solver.steps() {
        solver.step(problem, prior, &mut rng.stream("step", step as u64)).unwrap();
    }
    solver
}

/// Moduli of predicted visibilities `[1, M, 2]`.
fn amplitudes(visibilities: &Tensor) -> Vec<f32> {
    visibilities.sqr().unwrap().sum(2).unwrap().sqrt().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The EHT with one station whose amplitudes are a fifth too large in all scans. Blind sampling finds about
/// half of that error and leaves the other stations alone; sampling by nominal gains puts all of it into the
/// image.
#[test]
fn a_wrong_amplitude_is_found_with_the_image() {
    let compute = Compute::cpu();
    let grid = settings().grid().unwrap();
    let mean = blob(&grid);
    let mut rng = Rng::new(1);
    let truth: Vec<f64> = mean.iter().map(|mean| mean + rng.normal()).collect();
    let pixels: Vec<f64> = truth.iter().map(|value| UNIT * value).collect();
    let source = Source { name: "BLOB".into(), ra_deg: 187.7, dec_deg: 12.39, mjd: 57848.0 };
    let schedule = Schedule { start: 3.6e3, duration: 2.5e4, scan: 60.0, interval: 1200.0 };
    let like = Array::find("eht2017").unwrap().observe(&source, &schedule).unwrap();
    let model = SkyModel { pixels: &pixels, grid: &grid, pulse: settings().pulse };
    let mut data = simulate(&like, model, &GainModel::NONE, true, &Rng::new(2)).unwrap();
    let wrong = data.stations.iter().position(|station| station.code == WRONG.0).unwrap();
    for row in data.visibilities.iter_mut().filter(|row| row.stations.contains(&wrong)) {
        row.value *= WRONG.1;
    }

    let problem = problem(&data, &settings(), Scaling { unit: UNIT, dark: 0.0 }, &compute).unwrap();
    let prior = Gaussian::diagonal(mean, vec![1.0; SIDE * SIDE], [1, SIDE, SIDE], &compute).unwrap();
    let truth = compute.tensor(truth, &[1, 1, SIDE, SIDE]).unwrap();
    let error = |solver: &dyn Solver| {
        let mean = solver.draws().unwrap().images.mean_keepdim(0).unwrap();
        let square = (mean - &truth).unwrap().sqr().unwrap().mean_all().unwrap();
        square.to_scalar::<f32>().unwrap().sqrt()
    };
    let (blind, nominal) = (finished("blind_dps", &problem, &prior), finished("dps", &problem, &prior));
    let [own, told] = [error(blind.as_ref()), error(nominal.as_ref())];

    let parameters = blind.state().unwrap().remove("memory.parameters").unwrap().mean_keepdim(0).unwrap();
    let image = problem.scaling.to_image(&truth).unwrap();
    let found = amplitudes(&problem.blind().unwrap().apply_with(&image, &parameters).unwrap());
    let plain = amplitudes(&problem.forward.apply(&image).unwrap());
    let fitted = settings().fitted(&data).unwrap().visibilities;
    let factor = |of_wrong: bool| {
        let rows = fitted.iter().zip(found.iter().zip(&plain));
        let rows = rows.filter(|(row, _)| row.stations.contains(&wrong) == of_wrong);
        let factors: Vec<f32> = rows.map(|(_, (found, plain))| found / plain).collect();
        factors.iter().sum::<f32>() / factors.len() as f32
    };
    let [of_wrong, of_others] = [true, false].map(factor);
    println!("amplitudes with {} times {of_wrong:.3}, true {}, without {of_others:.3}", WRONG.0, WRONG.1);
    println!("rms error of the mean image {own:.3}, of dps by nominal gains {told:.3}");
    assert!((1.06..1.25).contains(&of_wrong) && (of_others - 1.0).abs() < 0.05, "{of_wrong} {of_others}");
    assert!(own < 0.85 * told, "{own} {told}");
}
