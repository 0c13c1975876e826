//! Truncated, corrupt, absurd and wrong stacks: an error that says what to do, never a panic or a huge allocation.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use antumbra::{Error, io::stack::Stack, rng::Rng};

use super::stacks::golden;

/// Opens a stack and reads everything in it.
fn read_all(path: &Path) -> Result<(), Error> {
    let mut stack = Stack::open(path)?;
    (0..stack.metadata.shape.time).try_for_each(|time| stack.read(time).map(|_| ()))
}

/// The golden stacks with one of these endings.
fn samples(endings: &[&str]) -> Vec<PathBuf> {
    let files = fs::read_dir(golden("")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| endings.iter().any(|ending| path.to_str().unwrap().ends_with(ending))).collect();
    files.sort();
    files
}

#[test]
fn cut_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for sample in samples(&[".tif", ".dv", ".npy", ".h5"]) {
        let whole = fs::read(&sample).unwrap();
        for part in [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98] {
            let name = sample.file_name().unwrap();
            let path = folder.path().join(name);
            fs::write(&path, &whole[..(whole.len() as f64 * part) as usize]).unwrap();
            // Some files end in what nobody needs: a colour map, an XML description behind the pixels.
            if let Err(error) = read_all(&path) {
                let message = error.to_string();
                assert_eq!(error.exit_code(), 2, "{message}");
                assert!(message.contains(name.to_str().unwrap()), "{message}");
            } else {
                assert!(part > 0.1, "{name:?} cut to {part} was read");
            }
        }
    }
}

/// HDF5 is left out: its library is not ours to test.
#[test]
fn flipped_bytes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(11);
    for sample in samples(&[".tif", ".dv", ".npy"]) {
        let whole = fs::read(&sample).unwrap();
        let path = folder.path().join(sample.file_name().unwrap());
        for _ in 0..60 {
            let mut bytes = whole.clone();
            for _ in 0..1 + rng.below(4) {
                // Headers and directories matter more than pixels.
                let reach = if rng.below(2) == 0 { bytes.len().min(600) } else { bytes.len() };
                let place = rng.below(reach);
                bytes[place] = rng.below(256) as u8;
            }
            fs::write(&path, &bytes).unwrap();
            let read = catch_unwind(|| read_all(&path).map_err(|e| e.to_string()));
            if read.is_err() {
                let kept = std::env::temp_dir().join(sample.file_name().unwrap());
                fs::write(&kept, &bytes).unwrap();
                panic!("{} makes the reader panic", kept.display());
            }
        }
    }
}

/// A header that announces a terabyte or more, for each format.
#[test]
fn absurd_sizes_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut files = Vec::new();
    // NPY
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000, 100000, 100000), }\n";
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.as_bytes());
    files.push(write("tera.npy", &npy));
    let start = npy.iter().position(|&byte| byte == b'(').unwrap() + 1;
    npy[start..start + 4].copy_from_slice(b"0000");
    files.push(write("empty.npy", &npy));
    // DeltaVision
    let mut dv = fs::read(golden("sequence0.dv")).unwrap();
    for word in 0..3 {
        dv[4 * word..4 * word + 4].copy_from_slice(&1_000_000i32.to_le_bytes());
    }
    files.push(write("tera.dv", &dv));
    dv[..4].copy_from_slice(&(-5i32).to_le_bytes());
    files.push(write("negative.dv", &dv));
    // TIFF, uncompressed and Zstandard: width and height are the first tags of the first directory.
    for name in ["u8_strips.tif", "u32_zstd.tif", "u16_tiles.tif", "u16_lzw_predictor_tiles.tif"] {
        let mut tiff = fs::read(golden(name)).unwrap();
        for tag in [256u16, 257] {
            let entry =
                tiff.windows(4).position(|w| w[..2] == tag.to_le_bytes() && w[2..] != [0, 0]).unwrap();
            tiff[entry + 2..entry + 4].copy_from_slice(&4u16.to_le_bytes());
            tiff[entry + 8..entry + 12].copy_from_slice(&1_000_000u32.to_le_bytes());
        }
        files.push(write(name, &tiff));
    }
    // ImageJ: more images in one directory than there are.
    let mut imagej = fs::read(golden("one_directory_imagej.tif")).unwrap();
    let start = imagej.windows(8).position(|window| window == b"frames=2").unwrap();
    imagej[start..start + 8].copy_from_slice(b"frames=9");
    files.push(write("more_frames.tif", &imagej));
    for path in files {
        let error = read_all(&path).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::Format { .. }), "{message}");
        assert!(message.contains(path.file_name().unwrap().to_str().unwrap()), "{message}");
    }
}

#[test]
fn wrong_files_are_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("note.tif", b"hello, this is not an image".to_vec(), "not a stack"),
        ("empty.tif", Vec::new(), "not a stack"),
        ("half.npy", b"\x93NUMPY\x01\x00".to_vec(), "ends in its header"),
        ("header.tif", b"II*\0\x08\0\0\0".to_vec(), "damaged or truncated"),
        (
            "strings.npy",
            npy("{'descr': '<U4', 'fortran_order': False, 'shape': (2, 2), }"),
            "save integers or floats",
        ),
        (
            "columns.npy",
            npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }"),
            "ascontiguousarray",
        ),
        ("line.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }"), "2 to 5 axes"),
    ];
    for (name, bytes, words) in cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let message = Stack::open(&path).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(words), "{message}");
    }
    let message = Stack::open(&golden("datasets.h5:/data/absent")).unwrap_err().to_string();
    assert!(message.contains("/data/absent"), "{message}");
    let message = Stack::open(&golden("datasets.h5:/data/table")).unwrap_err().to_string();
    assert!(message.contains("2 to 5 axes"), "{message}");
    let message = Stack::open(Path::new("no-such-file.tif")).unwrap_err().to_string();
    assert!(message.contains("no-such-file.tif"), "{message}");
}

/// An array file with 64 bytes of data.
fn npy(header: &str) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend([0; 64]);
    bytes
}
