//! Posterior stacks as tifffile sees them. Skipped where Python (`ANTUMBRA_PYTHON`, `python3`) has no tifffile.

use std::path::Path;
use std::process::Command;

use antumbra::grid::Grid;
use antumbra::io::cube::{Cube, Frame, MicroscopeFrame, Provenance};
use antumbra::io::cube_tiff::{write_samples, write_summaries};
use antumbra::io::stack::{Channel, Container};
use serde_json::{Value, json};

/// What tifffile says about a file; `None` where it is not installed.
fn describe(file: &Path) -> Option<Value> {
    let python = std::env::var("ANTUMBRA_PYTHON").unwrap_or("python3".into());
    let installed = Command::new(&python).args(["-c", "import tifffile"]).output();
    if !installed.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} has no tifffile");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/describe_with_tifffile.py");
    let output = Command::new(&python).arg(script).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn cube(name: &str, nanometres: f64) -> Cube {
    let grid = Grid { shape: [2, 5, 6], pitch: [200e-9, 31.3e-9, 31.3e-9] };
    let frame = MicroscopeFrame {
        source: "cell 3 \u{3b2}".into(),
        channel: Channel { name: Some(name.into()), emission: Some(nanometres * 1e-9) },
        numerical_aperture: Some(1.3),
        refractive_index: Some(1.406),
    };
    Cube {
        samples: ndarray::Array4::from_shape_fn((4, 2, 5, 6), |(s, z, y, x)| {
            (s * s * 100 + z * 50 + y * 7 + x) as f32 + nanometres as f32
        }),
        chains: vec![0, 0, 1, 1],
        grid,
        unit: "photo-electrons".into(),
        frame: Frame::Microscope(frame),
        provenance: Provenance { seed: 1, prior: "organelle".into(), config_sha256: "ab".repeat(32) },
    }
}

fn agrees(found: &Value, expected: &Value) {
    for (key, expected) in expected.as_object().unwrap() {
        match (found[key].as_f64(), expected.as_f64()) {
            (Some(found), Some(expected)) => {
                assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{key}: {found} {expected}");
            }
            _ => assert_eq!(&found[key], expected, "{key}"),
        }
    }
}

#[test]
fn tifffile_opens_posterior_stacks_with_axes_and_scale() {
    let folder = tempfile::tempdir().unwrap();
    let cubes = [cube("MT-488", 525.0), cube("actin", 600.0)];
    let summaries: Vec<_> = cubes.iter().map(|cube| cube.summary().unwrap()).collect();
    let sum: f64 = summaries
        .iter()
        .flat_map(|s| [&s.mean, &s.std, &s.q05, &s.q95])
        .flat_map(|image| image.iter().map(|&value| f64::from(value)))
        .sum();
    let last = summaries[1].q95[[1, 4, 5]];
    let names: Vec<String> = ["MT-488", "actin"]
        .iter()
        .flat_map(|channel| ["mean", "sd", "q05", "q95"].map(|summary| format!("{channel} {summary}")))
        .collect();

    let file = folder.path().join("posterior.ome.tif");
    write_summaries(&cubes, 1, Container::Ome, &file).unwrap();
    let Some(found) = describe(&file) else { return };
    let size = ["0.2\u{b5}m", "0.0313\u{b5}m", "0.0313\u{b5}m"];
    let emission = [["525"; 4], ["600"; 4]].concat();
    agrees(
        &found,
        &json!({
            "kind": "ome", "axes": "CZYX", "shape": [8, 2, 5, 6], "dtype": "float32", "big": false, "sum": sum,
            "last": last, "size": size, "names": names, "emission": emission, "aperture": "1.3", "index": "1.406",
            "image": "cell 3 \u{3b2}",
        }),
    );

    let file = folder.path().join("posterior.tif");
    write_summaries(&cubes, 1, Container::ImageJ, &file).unwrap();
    let labels: Vec<_> = [&names[..], &names[..]].concat();
    agrees(
        &describe(&file).unwrap(),
        &json!({
            "kind": "imagej", "axes": "ZCYX", "shape": [2, 8, 5, 6], "dtype": "float32", "sum": sum, "last": last,
            "unit": "um", "spacing": 0.2, "channels": 8, "slices": 2, "frames": 1, "Labels": labels, "pixel": 0.0313,
        }),
    );

    let file = folder.path().join("samples.ome.tif");
    write_samples(&cubes[0], Container::Ome, &file).unwrap();
    let sum: f64 = cubes[0].samples.iter().map(|&value| f64::from(value)).sum();
    agrees(
        &describe(&file).unwrap(),
        &json!({ "kind": "ome", "axes": "TZYX", "shape": [4, 2, 5, 6], "sum": sum, "names": ["MT-488"], "size": size }),
    );
}
