//! `antumbra reconstruct` and `diagnose` on real data, with so few steps that only the road is tested, not the fit.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use antumbra::io::cube_hdf5;
use serde_json::Value;

/// A run of seconds; after so few rounds hardly a chain fits, and all are kept.
const SHORT: [&str; 10] = [
    "solver.matching.particles=4",
    "solver.matching.steps=3",
    "solver.matching.draw_steps=4",
    "solver.correction.gibbs.cycles=2",
    "solver.correction.gibbs.anneal=6",
    "solver.correction.gibbs.rounds=8",
    "solver.correction.gibbs.draws=4",
    "solver.correction.gibbs.denoise=2",
    "solver.correction.gibbs.leaps=4",
    "solver.correction.gibbs.restart.threshold=1e6",
];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits")
}

fn antumbra(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_antumbra"));
    command.args(arguments).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn reconstruct(directory: &Path, more: &[&str]) -> Command {
    let mut command = antumbra(&["reconstruct"]);
    command.arg(data()).arg("-o").arg(directory).args(["-j", "2"]).args(more);
    for setting in SHORT {
        command.args(["--set", setting]);
    }
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_run_writes_every_file_of_its_directory() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let output = reconstruct(&run, &[]).output().unwrap();
    // So short a run does not converge, and says so by its exit status.
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    for name in [
        "posterior.fits",
        "posterior.h5",
        "diagnostics.json",
        "metrics.jsonl",
        "manifest.json",
        "config.yaml",
        "checkpoint.safetensors",
        "log.txt",
        "report.html",
        "figures",
    ] {
        assert!(run.join(name).exists(), "{name} is missing");
    }
    for extension in ["png", "svg", "pdf"] {
        let figures = fs::read_dir(run.join("figures")).unwrap();
        let count =
            figures.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == extension));
        assert!(count.count() >= 8, "figures as {extension}");
    }
    let diagnostics: Value =
        serde_json::from_slice(&fs::read(run.join("diagnostics.json")).unwrap()).unwrap();
    assert_eq!(diagnostics["chains"], 4);
    assert!(diagnostics["chi2"]["closure_phase"]["mean"].as_f64().unwrap() > 0.0);
    assert!(diagnostics["rhat_max"].is_number() && diagnostics["truth"]["coverage_68"].is_null());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("report.html") && said.contains("warning"), "{said}");

    let again = reconstruct(&run, &[]).output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("--force"), "{}", stderr(&again));

    let checks = antumbra(&["diagnose", run.to_str().unwrap(), "--json"]).output().unwrap();
    assert_eq!(checks.status.code(), Some(1), "{}", stderr(&checks));
    let repeated: Value = serde_json::from_slice(&checks.stdout).unwrap();
    // The cube holds Jy/pixel in single precision, the run worked in the prior's unit.
    for number in ["/chi2/closure_phase/mean", "/chi2/log_closure_amplitude/mean", "/rhat_max"] {
        let [first, second] =
            [&diagnostics, &repeated].map(|found| found.pointer(number).unwrap().as_f64().unwrap());
        assert!((first / second - 1.0).abs() < 1e-4, "{number}: {first} and {second}");
    }

    // Most pixels of the mean lie within the samples' intervals, but not of the mean made a hundred times as bright.
    let held = |more: &[&str]| {
        let mut command = antumbra(&["diagnose", run.to_str().unwrap(), "--json", "--truth"]);
        let output = command.arg(&run).args(more).output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        found.pointer("/truth/coverage_95").unwrap().as_f64().unwrap()
    };
    assert!(held(&[]) > 0.5 && held(&["--flux", "60 Jy"]) < 0.1);
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_continues_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parted) = (folder.path().join("whole"), folder.path().join("parted"));
    let first = reconstruct(&whole, &["--no-plots"]).output().unwrap();
    assert_eq!(first.status.code(), Some(1), "{}", stderr(&first));

    let mut child = reconstruct(&parted, &["--no-plots"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("step")));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    // Nobody reads on: a closed stderr must not matter.
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!parted.join("posterior.fits").exists());
    let resumed = reconstruct(&parted, &["--no-plots", "--resume"]).output().unwrap();
    assert_eq!(resumed.status.code(), Some(1), "{}", stderr(&resumed));
    for name in ["posterior.fits", "posterior.h5", "metrics.jsonl", "diagnostics.json"] {
        assert!(
            fs::read(whole.join(name)).unwrap() == fs::read(parted.join(name)).unwrap(),
            "{name} differs"
        );
    }
}

/// Matching and both kinds of cycles of its correction. Ten chains are denoised in two parts.
#[test]
fn the_number_of_threads_does_not_change_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["1", "2"].map(|threads| {
        let run = folder.path().join(threads);
        let mut command = antumbra(&["reconstruct", "--no-plots", "-j", threads]);
        command.arg(data()).arg("-o").arg(&run);
        for setting in SHORT.into_iter().chain(["solver.matching.particles=10"]) {
            command.args(["--set", setting]);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        run
    });
    for name in ["checkpoint.safetensors", "metrics.jsonl", "diagnostics.json"] {
        assert!(fs::read(one.join(name)).unwrap() == fs::read(two.join(name)).unwrap(), "{name} differs");
    }
    // The headers of cubes know the settings, and with them the number of threads.
    let [one, two] = [one, two].map(|run| cube_hdf5::read(&run.join("posterior.h5")).unwrap().samples);
    assert!(!one.is_empty() && one == two);
}

#[test]
fn settings_show_their_origin_and_mistakes_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let run_file = folder.path().join("run.yaml");
    fs::write(&run_file, format!("data: {}\nseed: 5\nsamples: 32\n", data().display())).unwrap();
    let run_file = run_file.to_str().unwrap();
    let output =
        antumbra(&["reconstruct", run_file, "--print-config", "--instrument", "eht2017", "--seed", "9"])
            .env("ANTUMBRA_SAMPLES", "48")
            .output()
            .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let origin = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_string();
    assert!(origin("seed: 9").ends_with("# flag"), "{text}");
    assert!(origin("samples: 48").ends_with("# ANTUMBRA_SAMPLES"), "{text}");
    assert!(origin("vlbi.average").ends_with("# eht2017"), "{text}");
    assert!(origin("prior").ends_with("# default"), "{text}");

    let output = antumbra(&["reconstruct", run_file, "--print-config", "--solver", "gibbs"])
        .args(["--set", "solver.start.chains=16"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("solver.name: \"gibbs\"") && text.contains("solver.start.chains: 16"), "{text}");

    for (arguments, expected) in [
        (vec!["--set", "vlbi.fov=160"], "uas"),
        (vec!["--set", "vlbi.fovv=160 uas"], "fovv"),
        (vec!["--solver", "magic"], "magic"),
        (vec!["--prior", "nonsense"], "nonsense"),
        (vec!["--device", "tpu"], "--device"),
        (vec!["--instrument", "nowhere"], "nowhere"),
        (vec!["--samples", "0"], "samples"),
    ] {
        let output = antumbra(&["reconstruct", run_file, "--dry-run"]).args(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
    let missing = antumbra(&["reconstruct", "no_such_file.uvfits", "--dry-run"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("no_such_file.uvfits"));
}
