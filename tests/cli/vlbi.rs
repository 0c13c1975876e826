//! The commands on interferometer data: compare, simulate, instruments.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn antumbra(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_antumbra")).args(arguments).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A crescent of 1.2 Jy, 40 x 40 pixels of 3 uas, in eht-imaging's text format.
fn write_crescent(path: &Path) {
    let header = "# SRC: M87\n# RA: 12 h 30 m 49.4234 s\n# DEC: 12 deg 23 m 28.0437 s\n# MJD: 57848.0000\n\
                  # RF: 227.0707 GHz\n# FOVX: 40 pix 0.000120 as\n# FOVY: 40 pix 0.000120 as\n\
                  # ------------------------------------\n#x (as)     y (as)       I (Jy/pixel)\n";
    let mut pixels = Vec::new();
    for i in 0..40 {
        for j in 0..40 {
            let (x, y) = ((19.5 - j as f64) * 3.0, (19.5 - i as f64) * 3.0);
            let ring = (-((x.hypot(y) - 21.0) / 6.0f64).powi(2)).exp();
            pixels.push((x, y, ring * (1.0 - 0.5 * y / x.hypot(y))));
        }
    }
    let total: f64 = pixels.iter().map(|pixel| pixel.2).sum();
    let rows = pixels
        .iter()
        .map(|(x, y, value)| format!("{:.10} {:.10} {:.10}\n", x * 1e-6, y * 1e-6, 1.2 * value / total));
    std::fs::write(path, header.to_owned() + &rows.collect::<String>()).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn closures_of_simulated_data_fit_the_truth_behind_any_gains() {
    let folder = tempfile::tempdir().unwrap();
    let (image, data) = (folder.path().join("crescent.txt"), folder.path().join("crescent.uvfits"));
    write_crescent(&image);
    let schedule = ["--duration", "10 h", "--scan", "1 min", "--interval", "30 min", "--seed", "3"];
    let simulate = |more: &[&str]| {
        let fixed = ["simulate", text(&image), "--instrument", "eht2017", "-o", text(&data)];
        antumbra(&[&fixed[..], &schedule[..], more].concat())
    };
    assert!(simulate(&[]).status.success());
    assert_eq!(simulate(&[]).status.code(), Some(2), "an existing file is not replaced");
    let compare = |average: &str| {
        json(&antumbra(&["compare", text(&image), text(&data), "--json", "--average", average]))["chi2"]
            .clone()
    };
    for average in ["none", "scan", "ehtim-scan"] {
        let fits = compare(average);
        let chi2 = |product: &str| fits[product]["chi2"].as_f64().unwrap();
        assert!(chi2("visibility") > 50.0 && chi2("amplitude") > 10.0, "{fits}");
        assert!((0.7..1.3).contains(&chi2("closure_phase")), "{fits}");
    }
    assert!(simulate(&["--force", "--no-gains"]).status.success());
    let fits = compare("scan");
    for product in ["visibility", "amplitude", "closure_phase"] {
        assert!((0.8..1.25).contains(&fits[product]["chi2"].as_f64().unwrap()), "{fits}");
    }
    let scaled = simulate(&["--force", "--flux", "600 mJy", "--systematic", "0.02"]);
    assert!(String::from_utf8(scaled.stdout).unwrap().contains("0.6000 Jy"));
    assert!(String::from_utf8(simulate(&["--force", "--flux", "-1 Jy"]).stderr).unwrap().contains("--flux"));
}

#[test]
fn instruments_are_listed_shown_and_checked() {
    let list = json(&antumbra(&["instruments", "list", "--json"]));
    let names: Vec<_> = list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names[..2], ["eht2017", "ngeht"]);
    assert!(list[0]["summary"].is_string());
    assert_eq!(json(&antumbra(&["instruments", "show", "eht2017", "--json"]))["stations"][0]["code"], "AA");
    assert_eq!(json(&antumbra(&["instruments", "check", "ngeht", "--json"]))["ok"], true);
    let missing = antumbra(&["instruments", "check", "eht2018"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("eht2017, ngeht"));
}

/// Numbers of `tests/reference/compare_with_ehtim.py`, which runs eht-imaging 1.3.2 on the same image and files.
#[test]
fn compare_gives_the_chi_square_of_eht_imaging() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let image = root.join("tests/reference/crescent.txt");
    let reference: Value = serde_json::from_str(include_str!("../reference/crescent.json")).unwrap();
    for (file, expected) in reference.as_object().unwrap() {
        let data = root.join("data").join(file);
        for (options, key) in [
            (&["--average", "none"][..], "none"),
            (&["--average", "ehtim-scan"], "ehtim-scan"),
            (&["--average", "ehtim-scan", "--systematic", "0.02"], "ehtim-scan 2 %"),
        ] {
            let report =
                json(&antumbra(&[&["compare", text(&image), text(&data), "--json"], options].concat()));
            for (product, expected) in expected[key].as_object().unwrap() {
                let (found, expected) =
                    (report["chi2"][product]["chi2"].as_f64().unwrap(), expected.as_f64().unwrap());
                assert!((found / expected - 1.0).abs() < 1e-6, "{key} {product}: {found} {expected}");
            }
        }
    }
}
