//! `antumbra plot` on a data file.

use std::{path::Path, process::Command};

#[test]
fn plot_draws_a_data_file_and_prints_the_paths() {
    let folder = tempfile::tempdir().unwrap();
    let data =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data/SR1_M87_2017_101_hi_hops_netcal_StokesI.uvfits");
    let run = |format: &str| {
        Command::new(env!("CARGO_BIN_EXE_antumbra"))
            .current_dir(folder.path())
            .args(["plot", "--format", format])
            .arg(&data)
            .output()
            .unwrap()
    };
    let output = run("svg,pdf");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.lines().count(), 8, "four figures in two formats: {printed}");
    assert!(printed.lines().all(|path| folder.path().join(path).metadata().unwrap().len() > 1000));

    let output = run("jpg");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn plot_says_which_file_a_run_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_antumbra")).arg("plot").arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("posterior.h5"));
}
