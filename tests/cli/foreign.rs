//! A prior of black holes is told that microtubules are foreign to it, a prior of cells that they are not.

use std::{fs, path::Path, process::Command};

use antumbra::{
    compute::Compute,
    grid::Grid,
    instrument::microscope::{
        Domain, Field, Microscope, Widefield,
        likelihood::{Noise, ShiftedPoisson},
    },
    io::stack::{Container, Metadata, SampleType, Shape, Title, write},
    prior::simulate::{
        SimulatorSettings,
        organelle::{Settings, Shares},
    },
    rng::Rng,
};
use ndarray::Array2;
use serde_json::Value;

const INSTRUMENT: &str = "
kind: widefield
summary: test microscope
emission: 520 nm
objective: {numerical_aperture: 1.3, immersion_index: 1.515, magnification: 100}
psf: {model: gaussian}
camera: {pixel: 6 um, conversion_gain: 1, offset: 0, read_noise: 1.5}
";

const SAMPLER: [&str; 9] = [
    "microscope.background=5",
    "solver.start.chains=4",
    "solver.start.draw_steps=4",
    "solver.sampling.cycles=1",
    "solver.sampling.anneal=16",
    "solver.sampling.rounds=8",
    "solver.sampling.draws=2",
    "solver.sampling.start_level=3",
    "solver.sampling.final_level=0.2",
];

const PIXELS: usize = 40;
const PITCH: f64 = 60e-9;

fn antumbra(folder: &Path, arguments: &[&str]) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_antumbra")).current_dir(folder).args(arguments).output().unwrap();
    // Exit status 1: done, but a check failed.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What a camera sees of microtubules, 300 photo-electrons a pixel on average.
fn photograph(seed: u64, file: &Path) {
    let microscope = Microscope::parse(INSTRUMENT, "scope").unwrap();
    let domain = Domain::new([1, PIXELS, PIXELS], [PITCH; 3], 2, [0, 16, 16], 2).unwrap();
    let psf = microscope.psf(&Grid { shape: [1, 33, 33], pitch: domain.object.pitch }).unwrap();
    let dark = Field { background: vec![5.0], ..Field::default() };
    let forward = Widefield::new(&psf, &domain, &dark, &Compute::cpu_f64()).unwrap();
    let settings = Settings::plain(Shares { microtubules: 1.0, ..Shares::NONE }, 0.03);
    let cell = SimulatorSettings::Organelle(Box::new(settings))
        .build(domain.object.shape[1], seed)
        .unwrap()
        .image(0);
    let light: f64 = forward.predict(&cell).unwrap().iter().map(|value| value - 5.0).sum();
    let scale = 300.0 * (PIXELS * PIXELS) as f64 / light;
    let expected = forward.predict(&cell.iter().map(|value| value * scale).collect::<Vec<_>>()).unwrap();
    let noise = ShiftedPoisson { data: expected.clone(), read_variance: vec![2.25] };
    let mut rng = Rng::new(seed);
    let seen = expected.iter().enumerate().map(|(pixel, light)| noise.draw(pixel, *light, &mut rng) as f32);
    let image = Array2::from_shape_vec((PIXELS, PIXELS), seen.collect()).unwrap();
    let shape = Shape { time: 1, channels: 1, z: 1, y: PIXELS, x: PIXELS };
    let metadata = Metadata::new("OME-TIFF", shape, SampleType::F32);
    write(&metadata, Container::Ome, &Title::default(), |_, _, _| image.view(), file).unwrap();
}

#[test]
fn filaments_are_foreign_to_a_prior_of_black_holes_and_not_to_one_of_cells() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("scope.yaml"), INSTRUMENT).unwrap();
    photograph(3, &path.join("cell.ome.tif"));
    let flagged = |prior: &str| {
        let settings = SAMPLER.iter().flat_map(|setting| ["--set", setting]);
        let first = ["reconstruct", "cell.ome.tif", "--instrument", "scope.yaml", "--voxel", "60 nm,60 nm"];
        let second = ["--prior", prior, "--solver", "gibbs", "--no-plots", "-o", prior];
        antumbra(path, &first.into_iter().chain(second).chain(settings).collect::<Vec<_>>());
        let found = fs::read_to_string(path.join(prior).join("diagnostics.json")).unwrap();
        let found: Value = serde_json::from_str(&found).unwrap();
        println!("{prior}: {}", found["out_of_distribution"]);
        let warnings = found["warnings"].as_array().unwrap().clone();
        warnings
            .iter()
            .any(|warning| warning.as_str().unwrap().contains("the prior does not know such images"))
    };
    assert!(flagged("blackhole64"));
    assert!(!flagged("organelle64"));
}
