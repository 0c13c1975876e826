//! Who may import whom: the layers of ARCHITECTURE.md.

use std::fs;
use std::path::Path;

/// A layer, and the layers of this crate that its files must not name.
const FORBIDDEN: [(&str, &[&str]); 8] = [
    ("io", &["tensor", "instrument", "prior", "posterior", "calibration", "plot", "reconstruction", "cli"]),
    ("tensor", &["instrument", "prior", "posterior", "calibration", "plot", "reconstruction", "cli", "io"]),
    ("prior", &["instrument", "posterior", "calibration", "plot", "reconstruction", "cli"]),
    ("features", &["posterior", "calibration", "plot", "reconstruction", "cli"]),
    ("instrument", &["posterior", "calibration", "plot", "reconstruction", "cli"]),
    ("posterior", &["calibration", "plot", "reconstruction", "cli"]),
    ("calibration", &["instrument", "features", "plot", "reconstruction", "cli"]),
    ("plot", &["reconstruction", "cli"]),
];

/// `instrument` may use the one type `prior::Scaling`, and `io::uvfits` the plain `Observation`.
const ALLOWED: [(&str, &str); 2] = [("instrument", "prior::Scaling"), ("io", "instrument::vlbi::")];

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_string();
            found.push((path.display().to_string(), code));
        }
    }
}

#[test]
fn layers_import_only_what_lies_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut offences = Vec::new();
    for (layer, forbidden) in FORBIDDEN {
        let mut files = Vec::new();
        sources(&root.join(layer), &mut files);
        for (file, code) in files {
            let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            // Spread `crate::{a::B, c::D}` so that each path can be searched for.
            for other in forbidden {
                let direct = format!("crate::{other}::");
                let nested = format!("{other}::");
                let named = code.contains(&direct)
                    || code.match_indices("use crate::{").any(|(start, _)| {
                        let block = code[start..].split(';').next().unwrap_or_default();
                        block.split([',', '{']).any(|path| path.trim().starts_with(&nested))
                    });
                let excused = ALLOWED.iter().any(|(from, path)| {
                    *from == layer && path.starts_with(other) && only_names(&code, other, path)
                });
                if named && !excused {
                    offences.push(format!("{file} imports {other}"));
                }
            }
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

/// True if every mention of `other::` in the code is a mention of `path`, or opens a list below it.
fn only_names(code: &str, other: &str, path: &str) -> bool {
    let nested = format!("{other}::");
    code.match_indices(&nested).all(|(start, _)| code[start..].starts_with(path))
}
