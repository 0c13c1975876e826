//! Small stacks of every format, compression and order, written by `data/make_stacks.py` with tifffile, h5py and numpy.

use std::path::{Path, PathBuf};

use antumbra::io::stack::{Channel, Metadata, Stack};

/// A file of `tests/golden/data`.
pub(super) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data").join(name)
}

/// Value of the formula in `make_stacks.py`.
fn formula(t: usize, c: usize, z: usize, y: usize, x: usize) -> f32 {
    ((100 * t + 31 * c + 57 * z + 7 * y + 3 * x) % 251) as f32
}

/// Opens `name` and compares every value with the formula plus `offset`, all at once and plane by plane.
fn check(name: &str, shape: [usize; 5], offset: f32) -> Metadata {
    let mut stack = Stack::open(&golden(name)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(stack.metadata.shape.sizes(), shape, "{name}");
    for t in 0..shape[0] {
        let values = stack.read(t).unwrap_or_else(|e| panic!("{e}"));
        for ((c, z, y, x), value) in values.indexed_iter() {
            assert_eq!(*value, formula(t, c, z, y, x) + offset, "{name} at {:?}", [t, c, z, y, x]);
        }
    }
    let [t, c, z] = [shape[0] - 1, shape[1] - 1, shape[2] - 1];
    let plane = stack.plane(t, c, z).unwrap();
    assert_eq!(plane[[1, 2]], formula(t, c, z, 1, 2) + offset, "{name}");
    assert!(stack.plane(t, c, z + 1).is_err() && stack.read(t + 1).is_err());
    stack.metadata
}

#[test]
fn tiff_of_every_type_compression_and_tiling() {
    for (name, dtype) in [
        ("u8_strips", "uint8"),
        ("u8_packbits", "uint8"),
        ("u8_white_is_zero", "uint8"),
        ("i8_none", "int8"),
        ("u16_deflate_predictor", "uint16"),
        ("u16_lzw_predictor_tiles", "uint16"),
        ("u16_bigtiff", "uint16"),
        ("u16_tiles", "uint16"),
        ("i16_big_endian", "int16"),
        ("i32_zstd_predictor", "int32"),
        ("u32_zstd", "uint32"),
        ("f32_zstd_predictor_tiles", "float32"),
        ("f32_deflate_predictor_big_endian", "float32"),
        ("f64_lzw", "float64"),
    ] {
        if name == "i8_none" {
            // The formula wraps in this type.
            let mut stack = Stack::open(&golden("i8_none.tif")).unwrap();
            assert_eq!(stack.metadata.sample.name(), dtype);
            assert_eq!(stack.plane(0, 0, 1).unwrap()[[19, 21]], formula(0, 0, 1, 19, 21) as u8 as i8 as f32);
            continue;
        }
        let offset = if dtype.starts_with('f') { 0.25 } else { 0.0 };
        let metadata = check(&format!("{name}.tif"), [1, 1, 2, 20, 22], offset);
        assert_eq!(metadata.sample.name(), dtype, "{name}");
        assert_eq!(metadata.voxel, [None; 3], "{name}");
        assert!(metadata.remarks[0].contains("taken as planes"), "{name}");
    }
    check("u8_palette.tif", [1, 1, 1, 20, 22], 0.0);
    check("rgb.tif", [1, 3, 1, 20, 22], 0.0);
    check("rgb_planes.tif", [1, 3, 1, 20, 22], 0.0);
    check("shaped.tif", [2, 2, 3, 6, 8], 0.0);
}

fn channel(name: Option<&str>, nanometres: Option<f64>) -> Channel {
    Channel { name: name.map(String::from), emission: nanometres.map(|emission| emission / 1e9) }
}

fn close(found: [Option<f64>; 3], micrometres: [Option<f64>; 3]) {
    for (found, expected) in found.iter().zip(micrometres) {
        match (found, expected) {
            (Some(found), Some(expected)) => {
                assert!((found / (expected * 1e-6) - 1.0).abs() < 1e-6, "{found}")
            }
            (found, expected) => assert_eq!(found.is_some(), expected.is_some()),
        }
    }
}

#[test]
fn ome_tiff_in_any_order() {
    for name in ["tczyx.ome.tif", "zctyx.ome.tif", "shuffled.ome.tif"] {
        let metadata = check(name, [2, 2, 3, 6, 8], 0.0);
        assert_eq!(metadata.format, "OME-TIFF");
    }
    let metadata = check("tczyx.ome.tif", [2, 2, 3, 6, 8], 0.0);
    close(metadata.voxel, [Some(0.2), Some(0.065), Some(0.065)]);
    assert_eq!(
        metadata.channels,
        [channel(Some("actin"), Some(525.0)), channel(Some("tubulin"), Some(600.0))]
    );
    let metadata = check("shuffled.ome.tif", [2, 2, 3, 6, 8], 0.0);
    close(metadata.voxel, [None, Some(0.1), Some(0.1)]);
    assert_eq!(metadata.channels, [channel(Some("a & b"), Some(525.0)), channel(None, None)]);
    assert_eq!((metadata.numerical_aperture, metadata.refractive_index), (Some(1.4), Some(1.515)));
}

#[test]
fn imagej_hyperstacks_with_many_directories_or_one() {
    let metadata = check("tzcyx_imagej.tif", [2, 2, 3, 6, 8], 0.0);
    close(metadata.voxel, [Some(0.25), Some(0.065), Some(0.065)]);
    assert_eq!(metadata.channels, [channel(Some("actin"), None), channel(Some("tubulin"), None)]);
    let metadata = check("one_directory_imagej.tif", [2, 2, 3, 6, 8], 0.0);
    close(metadata.voxel, [Some(0.25), Some(0.065), Some(0.065)]);
}

#[test]
fn deltavision_sequences_in_both_byte_orders() {
    for sequence in 0..3 {
        let metadata = check(&format!("sequence{sequence}.dv"), [2, 2, 3, 6, 8], 0.0);
        close(metadata.voxel, [Some(0.3), Some(0.1), Some(0.1)]);
        assert_eq!(metadata.channels, [channel(None, Some(525.0)), channel(None, Some(600.0))]);
    }
}

#[test]
fn arrays_and_hdf5() {
    check("czyx_big_endian.npy", [1, 2, 3, 6, 8], 0.0);
    let metadata = check("datasets.h5:/data/zct", [2, 2, 3, 6, 8], 0.25);
    assert!(metadata.remarks.is_empty(), "{:?}", metadata.remarks);
    let metadata = check("datasets.h5:/data/volume", [1, 1, 3, 6, 8], 0.0);
    close(metadata.voxel, [Some(0.3), Some(0.1), Some(0.1)]);
    let metadata = check("bigdataviewer.h5", [2, 2, 3, 6, 8], 40000.0);
    close(metadata.voxel, [Some(0.3), Some(0.1), Some(0.1)]);
    assert_eq!(metadata.channels, [channel(Some("actin"), None), channel(Some("tubulin"), None)]);
    let message = Stack::open(&golden("datasets.h5")).unwrap_err().to_string();
    assert!(message.contains("datasets.h5:/data/zct") && message.contains("/data/volume"), "{message}");
}
