//! `antumbra psf` and the descriptions of microscopes.

use std::process::{Command, Output};

use antumbra::io::stack::Stack;
use serde_json::Value;

fn antumbra(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_antumbra")).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into()
}

#[test]
fn a_named_microscope_gives_stack_numbers_and_figure() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let sizes = ["--shape", "9,33,33", "--voxel", "200 nm,65 nm,65 nm"];
    let output = antumbra(
        &[&["psf", "widefield_oil_1.4", "-o", &path("psf.h5"), "--figures", &path("figures")], &sizes[..]]
            .concat(),
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_string();
    assert!(line("FWHM lateral").contains("x 214."), "{text}");
    assert!(line("cut-off lateral").contains("5.385 /um"), "{text}");
    for figure in ["figures/psf.png", "figures/psf.svg", "figures/psf.pdf"] {
        assert!(std::fs::metadata(path(figure)).unwrap().len() > 1000);
    }
    let hdf5 = hdf5::File::open(path("psf.h5")).unwrap();
    let dataset = hdf5.dataset("volume").unwrap();
    assert_eq!(dataset.shape(), [9, 33, 33]);
    assert_eq!(dataset.attr("element_size_um").unwrap().read_raw::<f64>().unwrap(), [0.2, 0.065, 0.065]);
    let values = dataset.read_raw::<f32>().unwrap();
    let brightest = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap();
    assert_eq!(brightest, (4 * 33 + 16) * 33 + 16);
    let output = antumbra(&[&["psf", "widefield_oil_1.4", "-o", &path("psf.ome.tif")], &sizes[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let mut stack = Stack::open(path("psf.ome.tif").as_ref()).unwrap();
    let voxel = stack.metadata.voxel.map(Option::unwrap_or_default);
    assert!(voxel.iter().zip([200e-9, 65e-9, 65e-9]).all(|(v, e)| (v / e - 1.0).abs() < 1e-9), "{voxel:?}");
    assert_eq!(stack.volume(0, 0).unwrap().into_iter().collect::<Vec<_>>(), values);
}

#[test]
fn flags_alone_describe_a_microscope_and_a_second_run_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str| {
        let file = folder.path().join(name);
        let output = antumbra(&[
            "psf",
            "--na",
            "1.2",
            "--immersion",
            "1.333",
            "--emission",
            "600 nm",
            "--sample-index",
            "1.38",
            "--depth",
            "2 um",
            "--aberration",
            "11=20 nm",
            "--aberration",
            "7=15 nm",
            "--shape",
            "3,15,15",
            "--voxel",
            "250 nm,80 nm,80 nm",
            "-o",
            file.to_str().unwrap(),
        ]);
        assert!(output.status.success(), "{}", stderr(&output));
        std::fs::read(file).unwrap()
    };
    let bytes = run("a.npy");
    assert!(bytes.starts_with(b"\x93NUMPY") && bytes.len() == 128 + 4 * 3 * 15 * 15);
    assert!(bytes == run("b.npy"));
}

#[test]
fn what_cannot_be_is_refused_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("psf.npy");
    let refused = |arguments: &[&str], word: &str| {
        let output = antumbra(&[&["psf", "-o", file.to_str().unwrap()], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
        assert!(!file.exists());
    };
    let oil = "widefield_oil_1.4";
    refused(&[oil, "--shape", "3,9,9", "--voxel", "200,65,65"], "no unit");
    refused(&[oil, "--shape", "3,9", "--voxel", "200 nm,65 nm,65 nm"], "--shape");
    refused(&[oil, "--shape", "3,9,9", "--voxel", "200 nm,650 nm,650 nm"], "650.0 nm");
    refused(&[oil, "--na", "1.6", "--shape", "3,9,9", "--voxel", "200 nm,65 nm,65 nm"], "1.515");
    refused(&["eht2017", "--shape", "3,9,9", "--voxel", "200 nm,65 nm,65 nm"], "eht2017");
    refused(&["--shape", "3,9,9", "--voxel", "200 nm,65 nm,65 nm"], "--na");
    refused(&[oil, "--shape", "99999999,99999999,9", "--voxel", "200 nm,65 nm,65 nm"], "voxels");
}

#[test]
fn microscopes_are_listed_shown_and_checked_beside_the_arrays() {
    let list = antumbra(&["instruments", "list", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let kind = |name: &str| {
        list.as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap()["kind"].clone()
    };
    assert_eq!((kind("eht2017"), kind("widefield_water_1.2")), ("vlbi".into(), "widefield".into()));
    assert!(antumbra(&["instruments", "show", "widefield_air_0.8"]).status.success());
    let check = antumbra(&["instruments", "check", "widefield_air_0.8"]);
    assert!(check.status.success() && stderr(&check).contains("162.5 nm"), "{}", stderr(&check));
}
