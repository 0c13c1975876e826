//! Files that appear whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Writes `file` through `write` to a temporary name in the same folder, then renames it.
///
/// A run that is killed half-way leaves the previous file, or none, never a part of one.
///
/// # Errors
/// Those of `write`, or a failed rename.
pub fn replace(file: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let temporary = temporary_name(file);
    let written =
        write(&temporary).and_then(|()| fs::rename(&temporary, file).map_err(|e| Error::io(file, e)));
    if written.is_err() {
        // The first error is the one to report; the leftover may not even exist.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes `bytes` to `file`, whole or not at all.
///
/// # Errors
/// A folder that does not exist or cannot be written.
pub fn replace_bytes(file: &Path, bytes: &[u8]) -> Result<()> {
    replace(file, |temporary| fs::write(temporary, bytes).map_err(|e| Error::io(file, e)))
}

fn temporary_name(file: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    file.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_leftover() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cube.fits");
        replace_bytes(&file, b"old").unwrap();
        let failed = replace(&file, |temporary| {
            fs::write(temporary, b"half").unwrap();
            Err(Error::config("test", "interrupted"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
