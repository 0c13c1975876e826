//! Instrument descriptions: those that come with the program by name, a user's by the file's path.

use std::{fs, path::Path};

use serde::Deserialize;

use super::{microscope, vlbi};
use crate::{Error, Result};

/// Largest instrument file that is read, bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// What kind of instrument a description is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Telescopes.
    Vlbi,
    /// A widefield microscope.
    Widefield,
}

/// Names and YAML of the instruments that come with the program.
pub fn embedded() -> impl Iterator<Item = (&'static str, &'static str)> {
    vlbi::array::EMBEDDED.into_iter().chain(microscope::description::EMBEDDED)
}

/// The YAML of an embedded name, or of a file.
///
/// # Errors
/// Neither a known name nor a readable file.
pub fn text(name: &str) -> Result<String> {
    if let Some((_, text)) = embedded().find(|(embedded, _)| *embedded == name) {
        return Ok(text.into());
    }
    let path = Path::new(name);
    let names = embedded().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
    let size = fs::metadata(path)
        .map_err(|_| Error::config("--instrument", format!("`{name}` is neither a file nor one of {names}")))?
        .len();
    if size > LARGEST_FILE {
        return Err(Error::format(path, "file", format!("{size} bytes; an instrument needs a few thousand")));
    }
    fs::read_to_string(path).map_err(|source| Error::io(path, source))
}

/// The kind that a description names.
///
/// # Errors
/// Not YAML, or an unknown kind.
pub fn kind(text: &str, name: &str) -> Result<Kind> {
    #[derive(Deserialize)]
    struct Head {
        kind: Kind,
    }
    let head: Head = serde_yaml::from_str(text).map_err(|error| Error::config(name, error.to_string()))?;
    Ok(head.kind)
}
