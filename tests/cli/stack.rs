//! `antumbra reconstruct` and `diagnose` on stacks, with so few steps that only the road is tested, not the fit.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use antumbra::io::{
    cube_hdf5,
    stack::{Channel, Container, Metadata, SampleType, Shape, Stack, Title, write},
};
use antumbra::rng::Rng;
use ndarray::Array2;
use serde_json::Value;

const INSTRUMENT: &str = "
kind: widefield
summary: test microscope
emission: 520 nm
objective: {numerical_aperture: 1.2, immersion_index: 1.33, magnification: 60}
psf: {model: gaussian}
camera: {pixel: 6 um, conversion_gain: 0.5, offset: 100, read_noise: 1.5}
";

/// A run of seconds.
const SHORT: [&str; 9] = [
    "microscope.background=10",
    "solver.start.chains=2",
    "solver.start.draw_steps=2",
    "solver.sampling.cycles=1",
    "solver.sampling.anneal=3",
    "solver.sampling.rounds=4",
    "solver.sampling.draws=2",
    "solver.sampling.leaps=16",
    "microscope.border=0.6",
];

/// Two channels of 32 x 32 pixels of 100 nm with a spot each, 200 photo-electrons high, on a camera with gain 2 ADU/e-.
fn write_stack(file: &Path, voxel: [Option<f64>; 3]) {
    let shape = Shape { time: 1, channels: 2, z: 1, y: 32, x: 32 };
    let mut metadata = Metadata::new("OME-TIFF", shape, SampleType::F32);
    metadata.voxel = voxel;
    metadata.channels = [("red", 610e-9), ("green", 520e-9)]
        .map(|(name, emission)| Channel { name: Some(name.into()), emission: Some(emission) })
        .to_vec();
    let mut rng = Rng::new(4);
    let images = [10.0, 20.0].map(|centre| {
        Array2::from_shape_fn((32, 32), |(y, x)| {
            let square = (y as f64 - 16.0).powi(2) + (x as f64 - centre).powi(2);
            let light = 10.0 + 200.0 * (-square / 5.0).exp();
            (100.0 + 2.0 * (light + light.sqrt() * rng.normal())) as f32
        })
    });
    write(&metadata, Container::Ome, &Title::default(), |_, channel, _| images[channel].view(), file)
        .unwrap();
}

fn antumbra(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_antumbra")).current_dir(folder).args(arguments).output().unwrap()
}

fn reconstruct(folder: &Path, more: &[&str]) -> Output {
    fs::write(folder.join("scope.yaml"), INSTRUMENT).unwrap();
    let settings = SHORT.iter().flat_map(|setting| ["--set", setting]);
    let first = ["reconstruct", "stack.ome.tif", "--instrument", "scope.yaml", "-o", "run", "-j", "2"];
    let arguments: Vec<&str> = first.into_iter().chain(settings).chain(more.iter().copied()).collect();
    antumbra(folder, &arguments)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(file: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn every_channel_gets_a_posterior_on_the_finer_grid_with_its_name_and_wavelength() {
    let folder = tempfile::tempdir().unwrap();
    write_stack(&folder.path().join("stack.ome.tif"), [None, Some(1e-7), Some(1e-7)]);
    let output = reconstruct(folder.path(), &["--imagej", "--samples", "4"]);
    // So short a run does not converge, and says so by its exit status.
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("emission at 610 nm") && stderr(&output).contains("emission at 520 nm"));
    let run = folder.path().join("run");
    let stack = Stack::open(&run.join("posterior.ome.tif")).unwrap();
    let names: Vec<_> = stack.metadata.channels.iter().filter_map(|channel| channel.name.clone()).collect();
    assert_eq!(names[..4], ["red mean", "red sd", "red q05", "red q95"]);
    assert_eq!((names.len(), names[4].as_str()), (8, "green mean"));
    assert_eq!(stack.metadata.shape.sizes(), [1, 8, 1, 64, 64]);
    let voxel = stack.metadata.voxel.map(Option::unwrap_or_default);
    assert!((voxel[1] / 5e-8 - 1.0).abs() < 1e-6 && (voxel[2] / 5e-8 - 1.0).abs() < 1e-6, "{voxel:?}");
    assert!((stack.metadata.channels[0].emission.unwrap() / 610e-9 - 1.0).abs() < 1e-6);
    assert_eq!(Stack::open(&run.join("posterior.tif")).unwrap().metadata.shape.sizes(), [1, 8, 1, 64, 64]);
    for channel in ["time-1-channel-1", "time-1-channel-2"] {
        let part = run.join(channel);
        for name in
            ["diagnostics.json", "manifest.json", "config.yaml", "metrics.jsonl", "log.txt", "report.html"]
        {
            assert!(part.join(name).exists(), "{channel}/{name}");
        }
        let figures = [
            "posterior",
            "quantiles",
            "samples",
            "profile",
            "ring_correlation",
            "residuals",
            "psf",
            "traces",
        ];
        for name in figures {
            assert!(part.join(format!("figures/{name}.png")).exists(), "{channel}/{name}");
        }
        let cube = cube_hdf5::read(&part.join("posterior.h5")).unwrap();
        assert_eq!(
            (cube.samples.shape(), cube.unit.as_str()),
            (&[4, 1, 64, 64][..], "photo-electrons per voxel")
        );
        let samples = Stack::open(&part.join("samples.ome.tif")).unwrap().metadata;
        assert_eq!(samples.shape.sizes(), [4, 1, 1, 64, 64]);
        assert!((samples.voxel[2].unwrap() / 5e-8 - 1.0).abs() < 1e-6);
        let features = &json(&part.join("diagnostics.json"))["features"];
        let light = features["light_of_data"]["median"].as_f64().unwrap();
        // 200 e- times pi times 5 pixels.
        assert!((light / 3142.0 - 1.0).abs() < 0.15, "{light}");
        assert!(features["light_over_data"]["median"].is_number());
    }
}

#[test]
fn checks_can_be_made_again_and_against_a_truth() {
    let folder = tempfile::tempdir().unwrap();
    write_stack(&folder.path().join("stack.ome.tif"), [None, Some(1e-7), Some(1e-7)]);
    let output = reconstruct(folder.path(), &["--no-plots", "--samples", "4", "--set", "stack.channels=[2]"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let before = json(&folder.path().join("run/diagnostics.json"));
    // Any image of the right size will do.
    let truth = ["diagnose", "run", "--truth", "run/posterior.ome.tif"];
    let output = antumbra(folder.path(), &truth);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let after = json(&folder.path().join("run/diagnostics.json"));
    assert_eq!((&before["rhat_max"], &before["chi2"]), (&after["rhat_max"], &after["chi2"]));
    assert!(before["truth"]["coverage_68"].is_null() && after["truth"]["coverage_68"].is_number());
    let output = antumbra(folder.path(), &["plot", "run", "--format", "svg"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(folder.path().join("run/figures/profile.svg").exists());
}

#[test]
fn what_a_stack_lacks_is_named_with_the_flag_that_gives_it() {
    let folder = tempfile::tempdir().unwrap();
    let stack = folder.path().join("stack.ome.tif");
    write_stack(&stack, [None; 3]);
    let plain = INSTRUMENT.replace("magnification: 60", "magnification: 60, working_distance: 1 mm");
    let nowhere = plain.split("camera:").next().unwrap().to_string();
    fs::write(folder.path().join("bare.yaml"), nowhere).unwrap();
    let refused = |arguments: &[&str], words: &[&str]| {
        let output =
            antumbra(folder.path(), &[&["reconstruct", "stack.ome.tif", "--dry-run"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(words.iter().all(|word| stderr(&output).contains(word)), "{}", stderr(&output));
    };
    refused(&["--instrument", "bare.yaml"], &["--voxel", "along Y"]);
    refused(&[], &["--instrument", "numerical aperture"]);
    refused(
        &["--instrument", "bare.yaml", "--voxel", "100 nm,100 nm", "--set", "stack.channels=[3]"],
        &["3", "2"],
    );
    refused(&["--instrument", "bare.yaml", "--voxel", "100,100"], &["unit"]);
    let given = ["reconstruct", "stack.ome.tif", "--dry-run", "--instrument", "bare.yaml", "--voxel"];
    fs::write(folder.path().join("bare.yaml"), INSTRUMENT).unwrap();
    let output =
        antumbra(folder.path(), &[&given[..], &["100 nm,100 nm", "--set", "microscope.border=0.6"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("2 times 32 chains") && told.contains("GiB of memory"), "{told}");
    let pixels = |voxel: &str| antumbra(folder.path(), &[&given[..], &[voxel]].concat());
    let output = pixels("130 nm,130 nm");
    assert!(output.status.success() && stderr(&output).contains("undersample"), "{}", stderr(&output));
    let output = pixels("600 nm,600 nm");
    assert!(output.status.code() == Some(2) && stderr(&output).contains("binning"), "{}", stderr(&output));
    let part = ["--set", "microscope.crop={top: 30, left: 0, height: 4, width: 8}"];
    refused(
        &[&["--instrument", "bare.yaml", "--voxel", "100 nm,100 nm"], &part[..]].concat(),
        &["crop", "row 30"],
    );
}

/// Blocks of 4 x 4 of the 1024 pixels until they hold 2 % of them: two.
#[test]
fn data_left_out_of_the_fit_are_foretold() {
    let folder = tempfile::tempdir().unwrap();
    write_stack(&folder.path().join("stack.ome.tif"), [None, Some(1e-7), Some(1e-7)]);
    let more =
        ["--no-plots", "--samples", "4", "--set", "stack.channels=[2]", "--set", "stack.hold_out=0.02"];
    let output = reconstruct(folder.path(), &more);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("32 of 1024 data are left out of the fit"), "{}", stderr(&output));
    let run = folder.path().join("run");
    let found = json(&run.join("diagnostics.json"));
    let held = &found["held_out"]["shifted_poisson"];
    assert_eq!((&held["count"], &found["chi2"]["shifted_poisson"]["count"]), (&32.into(), &992.into()));
    assert_eq!(held["per_sample"].as_array().unwrap().len(), 4);
    assert!(held["mean"].as_f64().unwrap() > 0.0 && held["predictive"].as_f64().unwrap() > 0.0, "{held}");
    assert!(fs::read_to_string(run.join("report.html")).unwrap().contains("Left out of the fit"));

    // Checks that are made again leave out the same pixels; other seeds leave out others, so runs are not merged.
    let output = antumbra(folder.path(), &["diagnose", "run"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(json(&run.join("diagnostics.json"))["held_out"], found["held_out"]);
    let output = antumbra(folder.path(), &["merge", "run", "run", "-o", "merged"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("stack.hold_out"), "{}", stderr(&output));
}

#[test]
fn what_cannot_be_left_out_is_refused_with_its_setting() {
    let folder = tempfile::tempdir().unwrap();
    write_stack(&folder.path().join("stack.ome.tif"), [None, Some(1e-7), Some(1e-7)]);
    for (arguments, place) in [
        (["--set", "stack.hold_out=0.7"], "stack.hold_out: 0.7"),
        (["--set", "stack.hold_out=-0.1"], "stack.hold_out: -0.1"),
        (["--hold-out", "0.7"], "stack.hold_out: 0.7"),
        (["--hold-out", "AZ"], "stack.hold_out (from flag)"),
        (["--set", "vlbi.hold_out=0.1"], "set stack.hold_out instead"),
    ] {
        let output = reconstruct(folder.path(), &[&["--dry-run"][..], &arguments[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(place), "{arguments:?}: {}", stderr(&output));
    }
}
