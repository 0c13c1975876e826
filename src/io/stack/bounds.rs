//! Announced sizes against the real length of a file, before memory is taken.

use std::path::Path;

use crate::{Error, Result};

/// Largest factors by which each compression can shrink data, so that a larger announcement is absurd.
pub(super) mod expansion {
    /// Stored as they are.
    pub(in super::super) const NONE: u64 = 1;
    /// Runs of 128 bytes in two.
    pub(in super::super) const PACKBITS: u64 = 64;
    /// Deflate: a match of 258 bytes in two bits.
    pub(in super::super) const DEFLATE: u64 = 1032;
    /// LZW: strings of up to 3839 bytes in twelve bits.
    pub(in super::super) const LZW: u64 = 2560;
    /// Zstandard: a block of 128 KiB of one repeated byte in four bytes.
    pub(in super::super) const ZSTD: u64 = 32768;
}

/// Length of a file, bytes.
pub(super) fn length(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).map_err(|source| Error::io(path, source))?.len())
}

/// Number of bytes that `sizes` of so many bytes each announce.
pub(super) fn announced(path: &Path, place: &str, sizes: &[u64], bytes: u64) -> Result<u64> {
    if let Some(axis) = sizes.iter().position(|&size| size == 0) {
        let problem = format!("size {} of {} is zero; nothing to read", axis + 1, sizes.len());
        return Err(Error::format(path, place, problem));
    }
    sizes.iter().try_fold(bytes, |product, &size| product.checked_mul(size)).ok_or_else(|| {
        Error::format(path, place, "the announced size overflows; the header is damaged: copy the file again")
    })
}

/// Refuses an announcement that `available` bytes, expanded at most `expansion` times, cannot hold.
pub(super) fn fits(path: &Path, place: &str, announced: u64, available: u64, expansion: u64) -> Result<()> {
    if announced <= available.saturating_mul(expansion) {
        return Ok(());
    }
    let problem = format!(
        "{announced} bytes of data are announced, but the file has only {available} for them; it is truncated or its \
         header is damaged: copy or export it again"
    );
    Err(Error::format(path, place, problem))
}

/// A size from a file as a number that this machine can count to.
pub(super) fn size(path: &Path, place: &str, value: i64) -> Result<usize> {
    usize::try_from(value).ok().filter(|&size| size > 0).ok_or_else(|| {
        let problem = format!("a size of {value}; the header is damaged: copy or export the file again");
        Error::format(path, place, problem)
    })
}

/// So many zeros, or an error where memory does not suffice; `None` stands for a number beyond counting.
pub(super) fn zeros(count: Option<usize>) -> Result<Vec<f32>> {
    let mut values: Vec<f32> = Vec::new();
    let reserved = count.is_some_and(|count| values.try_reserve_exact(count).is_ok());
    drop(values);
    match count {
        // Fresh zeroed pages cost nothing until they are written.
        Some(count) if reserved => Ok(vec![0.0; count]),
        _ => Err(Error::config("stack", "does not fit into memory; crop it, or export fewer planes")),
    }
}
