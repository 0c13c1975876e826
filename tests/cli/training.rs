//! `antumbra train` and `antumbra priors`.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// A training of seconds: 16 x 16 pixels, rings and disks only.
const TINY: &str = "
name: tiny
images:
  count: 16
  held_out: 8
  simulator: {name: blackhole, shares: {flow: 0, ring: 1, crescent: 0, disk: 1, gaussians: 0, pair: 0, jet: 0}}
architecture: {pixels: 16, widths: [8, 8], embedding: 8, groups: 4, blocks: [1, 1]}
training: {steps: 8, batch: 4, checkpoint_every: 4}
";

fn antumbra(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_antumbra")).current_dir(folder).args(arguments).output().unwrap()
}

fn trained() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tiny.yaml"), TINY).unwrap();
    folder
}

#[test]
fn training_writes_a_prior_that_can_be_shown_and_sampled() {
    let folder = trained();
    let output = antumbra(folder.path(), &["train", "tiny.yaml", "-o", "a.safetensors", "-j", "1"]);
    let errors = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("step 8 held-out loss"), "{errors}");
    let card = antumbra(folder.path(), &["priors", "show", "a.yaml"]);
    assert!(String::from_utf8_lossy(&card.stdout).contains("steps: 8"));
    let drawn = antumbra(folder.path(), &["priors", "sample", "a.yaml", "-n", "2", "-o", "a.fits"]);
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    assert!(fs::read(folder.path().join("a.fits")).unwrap().starts_with(b"SIMPLE  ="));
    for again in
        [&["priors", "sample", "a.yaml", "-o", "a.fits"][..], &["train", "tiny.yaml", "-o", "a.safetensors"]]
    {
        let refused = antumbra(folder.path(), again);
        assert_eq!(refused.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("--force"));
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_byte_and_resuming_goes_on() {
    let folder = trained();
    let train = |name: &str, extra: &[&str]| {
        let output = antumbra(folder.path(), &[&["train", "tiny.yaml", "-o", name], extra].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(folder.path().join(name)).unwrap()
    };
    let one = train("one.safetensors", &["-j", "1"]);
    assert_eq!(one, train("two.safetensors", &["-j", "2"]));
    assert_ne!(one, train("two.safetensors", &["--resume", "--set", "training.steps=9"]));
}

#[test]
#[cfg(unix)]
fn an_interrupted_training_leaves_a_checkpoint_to_continue_from() {
    let folder = trained();
    let train = |extra: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_antumbra"));
        command.current_dir(folder.path()).args(["train", "tiny.yaml", "-o", "a.safetensors"]).args(extra);
        command.stderr(Stdio::piped());
        command
    };
    let mut child = train(&["--set", "training.steps=1000000"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("train loss")));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let resumed = train(&["--resume", "--set", "training.steps=1"]).output().unwrap();
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
}

#[test]
fn wrong_settings_and_files_are_named() {
    let folder = trained();
    let message = |arguments: &[&str]| {
        let output = antumbra(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).to_string()
    };
    assert!(message(&["train", "tiny.yaml", "-o", "a.txt"]).contains(".safetensors"));
    assert!(message(&["train", "none.yaml", "-o", "a.safetensors"]).contains("none.yaml"));
    let wrong = message(&["train", "tiny.yaml", "-o", "a.safetensors", "--set", "training.batch=0"]);
    assert!(wrong.contains("training.batch"), "{wrong}");
    let wrong = message(&["train", "tiny.yaml", "-o", "a.safetensors", "--set", "architecture.groups=3"]);
    assert!(wrong.contains("groups"), "{wrong}");
    assert!(message(&["priors", "show", "nonesuch"]).contains("blackhole64"));
}

#[test]
fn the_default_prior_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let output = antumbra(folder.path(), &["priors", "list", "--json"]);
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let entry = list.as_array().unwrap().iter().find(|entry| entry["name"] == "blackhole64").unwrap();
    assert_eq!((&entry["pixels"], &entry["source"]), (&64.into(), &"built in".into()));
}
