//! `antumbra inspect`.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn inspect(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_antumbra")).arg("inspect").args(arguments).output().unwrap()
}

fn data(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name).to_str().unwrap().to_string()
}

/// Counts of eht-imaging for the two files that are shipped.
#[test]
fn counts_agree_with_eht_imaging() {
    let reference: Value = serde_json::from_str(include_str!("../reference/uvfits.json")).unwrap();
    for name in
        ["SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits", "SR1_M87_2017_101_hi_hops_netcal_StokesI.uvfits"]
    {
        let output = inspect(&[&data(name), "--json"]);
        assert!(output.status.success());
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let expected = &reference["files"][name];
        for (key, expected) in [
            ("source", &expected["source"]),
            ("baselines", &expected["none"]["n_baselines"]),
            ("visibilities", &expected["none"]["nvis"]),
            ("closure_phases", &expected["none"]["n_cphase_min"]),
            ("log_closure_amplitudes", &expected["none"]["n_logcamp_min"]),
            ("time_stamps", &expected["none"]["n_timestamps"]),
            ("scans", &expected["scans"]),
        ] {
            assert_eq!(&found[key], expected, "{name}: {key}");
        }
        for (key, expected) in [
            ("visibilities", "nvis"),
            ("closure_phases", "n_cphase_min"),
            ("log_closure_amplitudes", "n_logcamp_min"),
        ]
        .map(|(key, theirs)| (key, &reference["files"][name]["scan"][theirs]))
        {
            assert_eq!(&found["scan_averaged"][key], expected, "{name}: scan-averaged {key}");
        }
        for (key, expected) in [
            ("frequency_hz", &expected["rf_hz"]),
            ("bandwidth_hz", &expected["bw_hz"]),
            ("mjd", &expected["mjd"]),
            ("dec_deg", &expected["dec_deg"]),
            ("uv_max_lambda", &expected["none"]["uvdist_max"]),
        ] {
            let (found, expected) = (found[key].as_f64().unwrap(), expected.as_f64().unwrap());
            assert!((found / expected - 1.0).abs() < 1e-6, "{name}: {key} {found} {expected}");
        }
        assert_eq!(found["kind"], "visibilities");
        assert_eq!(found["polarization"], serde_json::json!(["RR", "LL", "RL", "LR"]));
        let codes: Vec<_> =
            expected["stations"].as_array().unwrap().iter().map(|s| s["site"].clone()).collect();
        assert_eq!(found["stations"], Value::Array(codes));
        assert_eq!((&found["ifs"], &found["channels"]), (&1.into(), &1.into()));
    }
}

#[test]
fn tables_name_stations_scans_and_noise() {
    let output = inspect(&[&data("SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits")]);
    let text = String::from_utf8(output.stdout).unwrap();
    for words in
        ["M87", "2017-04-05", "227.070703 GHz", "18 scans", "26.271", "6453 visibilities", "LM ", "00:46:05"]
    {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }
}

#[test]
fn broken_input_exits_with_2_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(data("SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits")).unwrap();
    for (name, bytes, words) in [
        ("cut.uvfits", &whole[..300_000], "truncated"),
        ("empty.uvfits", &[][..], "empty"),
        ("note.txt", &b"hello"[..], "not a FITS file"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let output = inspect(&[path.to_str().unwrap()]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(name) && message.contains(words), "{message}");
        assert!(output.stdout.is_empty());
    }
    let missing = inspect(&["no-such-file.uvfits"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("no-such-file.uvfits"));
    assert_eq!(inspect(&[folder.path().to_str().unwrap()]).status.code(), Some(2));
}

fn golden(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data").join(name).to_str().unwrap().to_string()
}

#[test]
fn stacks_are_described_as_json() {
    let output = inspect(&[&golden("tczyx.ome.tif"), "--json"]);
    assert!(output.status.success());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (key, expected) in [
        ("kind", serde_json::json!("stack")),
        ("axes", serde_json::json!("TCZYX")),
        ("shape", serde_json::json!([2, 2, 3, 6, 8])),
        ("dtype", serde_json::json!("uint16")),
        ("voxel_um", serde_json::json!([0.2, 0.065, 0.065])),
        ("channels", serde_json::json!(["actin", "tubulin"])),
        ("time_points", serde_json::json!(2)),
        ("wavelength_nm", serde_json::json!([525.0, 600.0])),
        ("numerical_aperture", Value::Null),
        // Planes of 6 x 8 pixels are too small to tell.
        ("noise_estimate", serde_json::json!([null, null])),
    ] {
        assert_eq!(found[key], expected, "{key}");
    }
    let output = inspect(&[&format!("{}:/data/volume", golden("datasets.h5"))]);
    let text = String::from_utf8(output.stdout).unwrap();
    for words in ["HDF5", "3 planes of 6 x 8", "uint8", "0.3 x 0.1 x 0.1 um", "noise not estimated"] {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }
}

/// The content decides, not the name.
#[test]
fn stacks_are_recognised_by_content() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "f64_lzw.tif",
        "u16_bigtiff.tif",
        "i16_big_endian.tif",
        "sequence2.dv",
        "czyx_big_endian.npy",
        "datasets.h5",
    ] {
        let path = folder.path().join("image.dat");
        std::fs::copy(golden(name), &path).unwrap();
        let dataset = if name == "datasets.h5" { ":/data/zct" } else { "" };
        let output = inspect(&[&format!("{}{dataset}", path.display()), "--json"]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["kind"], "stack", "{name}");
    }
}

#[test]
fn a_damaged_stack_exits_with_2_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(golden("u8_strips.tif")).unwrap();
    let path = folder.path().join("cut.tif");
    std::fs::write(&path, &whole[..500]).unwrap();
    let output = inspect(&[path.to_str().unwrap()]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("cut.tif") && message.contains("truncated"), "{message}");
    assert!(output.stdout.is_empty());
}
