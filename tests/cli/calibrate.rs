//! `antumbra calibrate` with so few replicates of so few rounds that only the road is tested, not the verdict.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use antumbra::io::cube_hdf5;
use ndarray::Axis;
use serde_json::Value;

const SHORT: [&str; 9] = [
    "solver.start.chains=3",
    "solver.start.draw_steps=3",
    "solver.sampling.cycles=1",
    "solver.sampling.anneal=3",
    "solver.sampling.rounds=4",
    "solver.sampling.draws=4",
    "solver.sampling.denoise=1",
    "solver.sampling.leaps=2",
    "solver.sampling.restart.threshold=1e6",
];

fn calibrate(run_file: &Path, directory: &Path, more: &[&str]) -> Command {
    short("calibrate", run_file, directory, more)
}

fn short(what: &str, run_file: &Path, directory: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_antumbra"));
    command.arg(what).arg(run_file).arg("-o").arg(directory).args(["-j", "2"]).args(more);
    for setting in SHORT {
        command.args(["--set", setting]);
    }
    command.stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn run_file(folder: &Path) -> std::path::PathBuf {
    let data =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits");
    let file = folder.join("run.yaml");
    fs::write(&file, format!("data: {}\nsolver: {{name: gibbs}}\n", data.display())).unwrap();
    file
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn replicates(directory: &Path) -> Vec<Value> {
    let text = fs::read_to_string(directory.join("replicates.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
#[cfg(unix)]
fn an_interrupted_calibration_continues_and_too_few_replicates_give_no_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let (run_file, directory) = (run_file(folder.path()), folder.path().join("calibration"));
    let mut child = calibrate(&run_file, &directory, &["--replicates", "2"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("replicate 1/2")));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let before = replicates(&directory);
    assert!(!directory.join("calibration.json").exists());

    let refused = calibrate(&run_file, &directory, &["--replicates", "2"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    let resumed = calibrate(&run_file, &directory, &["--replicates", "2", "--resume"]).output().unwrap();
    // Two replicates do not tell.
    assert_eq!(resumed.status.code(), Some(1), "{}", stderr(&resumed));
    let after = replicates(&directory);
    assert_eq!((after.len(), &after[..before.len()]), (2, &before[..]));
    let report: Value =
        serde_json::from_slice(&fs::read(directory.join("calibration.json")).unwrap()).unwrap();
    assert!(report["calibrated"].is_null());
    assert_eq!((&report["replicates"], &report["draws"]), (&2.into(), &12.into()));
    let reasons = report["reasons"].to_string();
    assert!(reasons.contains("2 replicates; a verdict needs 200"), "{reasons}");
    let names: Vec<&str> =
        report["functionals"].as_array().unwrap().iter().filter_map(|f| f["name"].as_str()).collect();
    for name in [
        "total_flux_jy",
        "ring_diameter_uas",
        "ring_position_angle_deg",
        "log_likelihood",
        "prior_loss",
        "pixel_3_3",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    for figure in ["ranks.png", "coverage.svg", "tarp.pdf", "spread.png"] {
        assert!(directory.join("figures").join(figure).exists(), "{figure}");
    }
    let page = fs::read_to_string(directory.join("report.html")).unwrap();
    assert!(page.contains("no verdict") && page.contains("Ring diameter"), "{page}");
}

/// A calibration that asks for half as much spread again: samples are widened about their mean in a file of their own.
#[test]
fn recalibrated_samples_are_kept_beside_the_raw_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (run_file, directory) = (run_file(folder.path()), folder.path().join("calibration"));
    let made = calibrate(&run_file, &directory, &["--replicates", "1", "--no-plots"]).output().unwrap();
    assert_eq!(made.status.code(), Some(1), "{}", stderr(&made));
    let file = directory.join("calibration.json");
    let mut report: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    report["pixel_scaling"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .for_each(|scaling| scaling["factor"] = 1.5.into());
    fs::write(&file, report.to_string()).unwrap();
    let run = folder.path().join("run");
    let ended = short("reconstruct", &run_file, &run, &["--no-plots"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
    let raw = fs::read(run.join("posterior.h5")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_antumbra"))
        .arg("diagnose")
        .arg(&run)
        .arg("--calibration")
        .arg(&directory)
        .output()
        .unwrap();
    assert_ne!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(fs::read(run.join("posterior.h5")).unwrap(), raw);
    let [before, after] = ["posterior.h5", "posterior_recalibrated.h5"]
        .map(|name| cube_hdf5::read(&run.join(name)).unwrap().samples.mapv(f64::from));
    let [mean, same] = [&before, &after].map(|samples| samples.mean_axis(Axis(0)).unwrap());
    let largest = mean.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    assert!(mean.iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-5 * largest));
    let [narrow, wide] = [(&before, &mean), (&after, &same)].map(|(samples, mean)| samples - mean);
    assert!(narrow.iter().zip(&wide).all(|(a, b)| (1.5 * a - b).abs() < 1e-5 * largest));
}

#[test]
fn shards_of_another_set_up_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run_file = run_file(folder.path());
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let line = r#"{"setup":"x","seed":1,"replicate":0,"seconds":1.0,"error":"e","result":null}"#;
    fs::write(other.join("replicates.jsonl"), format!("{line}\n")).unwrap();
    let output = calibrate(
        &run_file,
        &folder.path().join("shard"),
        &["--replicates", "0", "--merge", other.to_str().unwrap()],
    )
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("other settings"), "{}", stderr(&output));
}
