//! Shards of one problem: made one by one, one of them killed and resumed, then merged.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// A shard of seconds whose first checkpoint comes before its end; all chains are kept.
const SHORT: [&str; 10] = [
    "solver.matching.particles=4",
    "solver.matching.steps=3",
    "solver.matching.draw_steps=4",
    "solver.correction.gibbs.cycles=3",
    "solver.correction.gibbs.anneal=7",
    "solver.correction.gibbs.rounds=8",
    "solver.correction.gibbs.draws=4",
    "solver.correction.gibbs.denoise=2",
    "solver.correction.gibbs.leaps=4",
    "solver.correction.gibbs.restart.threshold=1e6",
];

fn antumbra(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_antumbra"));
    command.args(arguments).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// One of two shards below `root`.
fn shard(root: &Path, number: usize, more: &[&str]) -> Command {
    let data = "data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits";
    let mut command = antumbra(&["reconstruct"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(data)).arg("-o").arg(root);
    command.args(["-j", "2", "--samples", "20", "--no-plots", "--shards", "2"]);
    command.args(["--array", &format!("{number}/2")]).args(more);
    for setting in SHORT {
        command.args(["--set", setting]);
    }
    command
}

fn ended(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    stderr
}

fn diagnostics(run: &Path) -> Value {
    serde_json::from_slice(&fs::read(run.join("diagnostics.json")).unwrap()).unwrap()
}

/// Starts the second shard, kills it after its first checkpoint, and lets it go on.
fn kill_and_resume(root: &Path) {
    let checkpoint = root.join("shard-2/checkpoint.safetensors");
    let mut child = shard(root, 2, &[]).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !checkpoint.exists() && started.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!root.join("shard-2/manifest.json").exists(), "killed before its end");
    ended(&shard(root, 2, &["--resume"]).output().unwrap(), 1);
}

#[test]
#[cfg(unix)]
fn shards_are_made_alone_and_merged() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("m87");
    let said = ended(&shard(&root, 1, &[]).output().unwrap(), 1);
    assert!(said.contains("share 1 of 2: 1 of 2 runs"), "{said}");
    let shards: [PathBuf; 2] = [1, 2].map(|number| root.join(format!("shard-{number}")));
    assert!(shards[0].join("posterior.fits").exists() && !shards[1].exists());

    kill_and_resume(&root);
    let log = fs::read_to_string(shards[1].join("log.txt")).unwrap();
    assert!(log.contains("resumed\n"), "{log}");

    let merged = folder.path().join("merged");
    let merge = |others: &[&Path]| antumbra(&["merge", "-o"]).arg(&merged).args(others).output().unwrap();
    // So short a run does not converge, and says so by its exit status.
    ended(&merge(&[&shards[0], &shards[1]]), 1);
    let (all, parts) = (diagnostics(&merged), shards.each_ref().map(|run| diagnostics(run)));
    assert_eq!((&all["samples"], &all["chains"]), (&Value::from(40), &Value::from(8)));
    let chi2 = |found: &Value| found["chi2"]["closure_phase"]["mean"].as_f64().unwrap();
    let mean = (chi2(&parts[0]) + chi2(&parts[1])) / 2.0;
    assert!((chi2(&all) / mean - 1.0).abs() < 1e-6, "{} and {mean}", chi2(&all));
    for name in ["posterior.fits", "posterior.h5", "manifest.json", "config.yaml", "log.txt", "report.html"] {
        assert!(merged.join(name).exists(), "{name} is missing");
    }
    let manifest: Value = serde_json::from_slice(&fs::read(merged.join("manifest.json")).unwrap()).unwrap();
    assert_eq!((&manifest["merged"][0]["seed"], &manifest["merged"][1]["seed"]), (&1.into(), &2.into()));

    // Its checks can be made again, it cannot be sampled further.
    ended(&antumbra(&["diagnose"]).arg(&merged).output().unwrap(), 1);
    assert_eq!(diagnostics(&merged)["rhat_max"], all["rhat_max"]);
    let twice = ended(&merge(&[&shards[0], &shards[1]]), 2);
    assert!(twice.contains("--force"), "{twice}");
    fs::remove_dir_all(&merged).unwrap();
    refusals(&shards, &|others| ended(&merge(others), 2));
}

/// What is not the same problem cannot be merged, and the difference is named.
fn refusals(shards: &[PathBuf; 2], merge: &dyn Fn(&[&Path]) -> String) {
    let said = merge(&[&shards[0], &shards[0]]);
    assert!(said.contains("seed") && said.contains("the same draws twice"), "{said}");
    let config = shards[1].join("config.yaml");
    let before = fs::read_to_string(&config).unwrap();
    fs::write(&config, before.replace("denoise: 2", "denoise: 3")).unwrap();
    let said = merge(&[&shards[0], &shards[1]]);
    assert!(said.contains("solver.correction.gibbs.denoise: is 3 here and 2 in"), "{said}");
    fs::write(&config, before).unwrap();
    let manifest = shards[1].join("manifest.json");
    let before = fs::read_to_string(&manifest).unwrap();
    let hash = serde_json::from_str::<Value>(&before).unwrap()["prior_sha256"].as_str().unwrap().to_string();
    fs::write(&manifest, before.replace(&hash, "00")).unwrap();
    let said = merge(&[&shards[0], &shards[1]]);
    assert!(said.contains("SHA-256 of the prior: is 00 here and"), "{said}");
    fs::remove_file(&manifest).unwrap();
    let said = merge(&[&shards[0], &shards[1]]);
    assert!(said.contains("not finished") && said.contains("--resume"), "{said}");
}

#[test]
fn several_files_get_folders_of_their_own_and_shares_split_them() {
    let folder = tempfile::tempdir().unwrap();
    let data = "data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits";
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join(data);
    let copies = ["a", "b", "c"].map(|name| folder.path().join(format!("{name}.yaml")));
    for file in &copies {
        fs::write(file, format!("data: {}\n", data.display())).unwrap();
    }
    let dry =
        |more: &[&str]| antumbra(&["reconstruct", "--dry-run"]).args(&copies).args(more).output().unwrap();
    let whole = dry(&[]);
    ended(&whole, 0);
    assert_eq!(String::from_utf8_lossy(&whole.stdout).lines().count(), 3);
    let half = dry(&["--array", "2/2"]);
    assert!(ended(&half, 0).contains("share 2 of 2: 1 of 3 runs"));
    let outside = antumbra(&["reconstruct", "--dry-run"])
        .args(&copies)
        .arg("--array")
        .env_remove("SLURM_ARRAY_TASK_ID")
        .output()
        .unwrap();
    assert!(ended(&outside, 2).contains("--array I/N"));
    let double = antumbra(&["reconstruct", "--dry-run"]).args([&copies[0], &copies[0]]).output().unwrap();
    assert!(ended(&double, 2).contains("two runs would go to"));
}
