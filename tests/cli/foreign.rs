//! A prior of microtubules alone is told that coated pits are foreign to it, and that microtubules are not.

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
        Range, SimulatorSettings,
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

/// A training of half a minute on tiles of 32 x 32 pixels of 30 nm.
const PRIOR: &str = "
name: microtubules
images:
  count: 512
  held_out: 32
  simulator:
    name: organelle
    shares: {microtubules: 1, actin: 0, reticulum: 0, pits: 0, vesicles: 0, points: 0, mitochondria: 0, nuclei: 0, empty: 0}
    mixture_share: 0
    edge_share: 0
    pixel: [0.03, 0.03]
architecture: {pixels: 32, patch: 2, widths: [16, 32], blocks: [1, 1], embedding: 16, groups: 4}
training: {steps: 400, batch: 16, learning_rate: 3.0e-3}
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

/// What a camera sees of a cell with these structures, 300 photo-electrons a pixel on average.
fn photograph(shares: Shares, seed: u64, file: &Path) {
    let microscope = Microscope::parse(INSTRUMENT, "scope").unwrap();
    let domain = Domain::new([1, PIXELS, PIXELS], [PITCH; 3], 2, [0, 16, 16], 2).unwrap();
    let psf = microscope.psf(&Grid { shape: [1, 33, 33], pitch: domain.object.pitch }).unwrap();
    let dark = Field { background: vec![5.0], ..Field::default() };
    let forward = Widefield::new(&psf, &domain, &dark, &Compute::cpu_f64()).unwrap();
    let settings = Settings {
        shares,
        mixture_share: 0.0,
        edge_share: 0.0,
        dim_share: 0.0,
        pixel: Range(0.03, 0.03),
        ..Settings::default()
    };
    let cell = SimulatorSettings::Organelle(settings).build(domain.object.shape[1], seed).unwrap().image(0);
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
fn pits_are_foreign_to_a_prior_of_microtubules_and_microtubules_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("scope.yaml"), INSTRUMENT).unwrap();
    fs::write(path.join("prior.yaml"), PRIOR).unwrap();
    antumbra(path, &["train", "prior.yaml", "-o", "microtubules.safetensors"]);
    let none = Shares {
        microtubules: 0.0,
        actin: 0.0,
        reticulum: 0.0,
        pits: 0.0,
        vesicles: 0.0,
        points: 0.0,
        mitochondria: 0.0,
        nuclei: 0.0,
        empty: 0.0,
    };
    let flagged = |name: &str, shares: Shares| {
        let data = format!("{name}.ome.tif");
        photograph(shares, 3, &path.join(&data));
        let settings = SAMPLER.iter().flat_map(|setting| ["--set", setting]);
        let first = ["reconstruct", &data, "--instrument", "scope.yaml", "--voxel", "60 nm,60 nm"];
        let prior = ["--prior", "microtubules.yaml", "--solver", "gibbs", "--no-plots", "-o", name];
        antumbra(path, &first.into_iter().chain(prior).chain(settings).collect::<Vec<_>>());
        let found = fs::read_to_string(path.join(name).join("diagnostics.json")).unwrap();
        let found: Value = serde_json::from_str(&found).unwrap();
        println!("{name}: {}", found["out_of_distribution"]);
        let warnings = found["warnings"].as_array().unwrap().clone();
        warnings
            .iter()
            .any(|warning| warning.as_str().unwrap().contains("the prior does not know such images"))
    };
    assert!(flagged("pits", Shares { pits: 1.0, ..none.clone() }));
    assert!(!flagged("filaments", Shares { microtubules: 1.0, ..none }));
}
