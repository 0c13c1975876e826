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
