//! The stack readers against tifffile, h5py and numpy on real microscope files.

use std::path::{Path, PathBuf};

use antumbra::io::stack::{Channel, Stack};
use serde_json::Value;

/// A real stack of the folder of data that is not shipped; `None` where that is absent.
fn find(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = std::env::var_os("SHARED_DATA").map_or(root.join("../shared"), PathBuf::from);
    let found = Some(shared.join("data/microscopy").join(name)).filter(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not here");
    }
    found
}

#[test]
fn real_stacks_agree_with_other_readers() {
    let reference: Value = serde_json::from_str(include_str!("stacks.json")).unwrap();
    for (name, expected) in reference.as_object().unwrap() {
        let Some(path) = find(name) else { continue };
        let mut stack = Stack::open(&path).unwrap();
        assert_eq!(serde_json::json!(stack.metadata.shape.sizes()), expected["shape"], "{name}");
        assert_eq!(stack.metadata.sample.name(), expected["dtype"], "{name}");
        let times: Vec<_> = (0..stack.metadata.shape.time).map(|time| stack.read(time).unwrap()).collect();
        let sum = |power: i32| times.iter().flatten().map(|&value| f64::from(value).powi(power)).sum::<f64>();
        for (power, key) in [(1, "sum"), (2, "square_sum")] {
            let expected = expected[key].as_f64().unwrap();
            assert!((sum(power) / expected - 1.0).abs() < 1e-12, "{name}: {key} {}", sum(power));
        }
        for probe in expected["values"].as_array().unwrap() {
            let [t, c, z, y, x] = [0, 1, 2, 3, 4].map(|axis| probe[axis].as_u64().unwrap() as usize);
            assert_eq!(f64::from(times[t][[c, z, y, x]]), probe[5].as_f64().unwrap(), "{name}");
        }
    }
}

#[test]
fn scales_and_channels_of_real_files() {
    let um = |value: f64| Some(value * 1e-6);
    let emission = |nanometres: f64| Channel { name: None, emission: Some(nanometres / 1e9) };
    let named = |name: &str| Channel { name: Some(name.into()), emission: None };
    let pixel = 1.0 / 23.466652;
    for (name, voxel, channels) in [
        ("bead_air_na0.85_520nm.ome.tif", [um(0.3), um(0.13), um(0.13)], vec![named("bead-520")]),
        ("mt_widefield.ome.tif", [None, um(0.0626), um(0.0626)], vec![named("MT-488")]),
        ("mt_widefield.mrc", [um(0.16), um(0.0626), um(0.0626)], vec![Channel::default()]),
        ("mt_sim_raw9.mrc", [um(0.16), um(0.0626), um(0.0626)], vec![emission(525.0)]),
        ("celegans_airyscan_2d.tif", [None, um(pixel), um(pixel)], vec![Channel::default()]),
        ("mt_single_frames_hyperstack.tif", [um(0.16), um(0.0626), um(0.0626)], vec![Channel::default(); 3]),
        ("epfl_bead25_data.tif", [None; 3], vec![Channel::default()]),
        ("toxo_2ch_17z.dv", [um(0.3), um(0.13262), um(0.13262)], vec![emission(525.0), emission(632.0)]),
    ] {
        let Some(path) = find(name) else { continue };
        let metadata = Stack::open(&path).unwrap().metadata;
        assert_eq!(metadata.channels, channels, "{name}");
        for (found, expected) in metadata.voxel.iter().zip(voxel) {
            assert_eq!(found.is_some(), expected.is_some(), "{name}: {:?}", metadata.voxel);
            let (found, expected) = (found.unwrap_or(1.0), expected.unwrap_or(1.0));
            assert!((found / expected - 1.0).abs() < 1e-9, "{name}: {:?}", metadata.voxel);
        }
    }
}

/// The header word that holds a pixel size in images holds a frequency step here.
#[test]
fn a_transfer_function_is_not_taken_for_an_image() {
    let Some(path) = find("otf2d_radial_488nm.mrc") else { return };
    let message = Stack::open(&path).unwrap_err().to_string();
    assert!(message.contains("complex") && message.contains("otf2d_radial_488nm.mrc"), "{message}");
}
