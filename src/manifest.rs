//! `manifest.json`: versions, seed, hashes, device and timings, enough to repeat a run.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result, io::atomic};

/// An input file and the hash of its bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Path as given.
    pub path: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
}

/// Wall-clock time of one part of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The part.
    pub part: String,
    /// Seconds.
    pub seconds: f64,
}

/// Everything needed to repeat a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this program.
    pub version: String,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Data that were read.
    pub inputs: Vec<Input>,
    /// Name of the prior.
    pub prior: String,
    /// SHA-256 of the prior's weights, where it has weights.
    pub prior_sha256: Option<String>,
    /// SHA-256 of `config.yaml`.
    pub config_sha256: String,
    /// Device of the tensors.
    pub device: String,
    /// Number of threads.
    pub threads: usize,
    /// Defaults that the user did not choose, in words.
    pub assumptions: Vec<String>,
    /// Time spent.
    pub timings: Vec<Timing>,
    /// Images that passed through the prior's network while this process sampled.
    #[serde(default)]
    pub network_passes: u64,
    /// Largest resident memory of the process, MB, where the system tells.
    #[serde(default)]
    pub peak_memory_mb: Option<f64>,
    /// The runs that were merged into this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<Merged>,
}

/// One of the runs that were merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Merged {
    /// Its run directory, as given.
    pub directory: String,
    /// Its seed.
    pub seed: u64,
    /// SHA-256 of its `config.yaml`.
    pub config_sha256: String,
}

impl Manifest {
    /// Writes the manifest as JSON.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        write_json(self, file)
    }
}

/// Writes any value as indented JSON, whole or not at all.
///
/// # Errors
/// A folder that cannot be written.
pub fn write_json<T: Serialize>(value: &T, file: &Path) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::format(file, "JSON", format!("{e}; please report this")))?;
    text.push('\n');
    atomic::replace_bytes(file, text.as_bytes())
}

/// Reads a JSON file.
///
/// # Errors
/// A file that is missing or is not such JSON.
pub fn read_json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    let text = fs::read_to_string(file).map_err(|e| Error::io(file, e))?;
    serde_json::from_str(&text).map_err(|e| Error::format(file, "JSON", e.to_string()))
}

/// Hash of a file's bytes.
///
/// # Errors
/// A file that cannot be read.
pub fn hash_file(file: &Path) -> Result<Input> {
    let failed = |e| Error::io(file, e);
    let mut reader = fs::File::open(file).map_err(failed)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let count = reader.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    Ok(Input { path: file.display().to_string(), sha256: hexadecimal(&hasher.finalize()) })
}

/// SHA-256 of bytes, hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Measures the parts of a run one after the other.
pub struct Stopwatch {
    since: Instant,
    timings: Vec<Timing>,
}

impl Stopwatch {
    /// Starts the first part.
    pub fn start() -> Self {
        Self { since: Instant::now(), timings: Vec::new() }
    }

    /// Ends the running part under this name and starts the next.
    pub fn lap(&mut self, part: &str) {
        self.timings.push(Timing { part: part.into(), seconds: self.since.elapsed().as_secs_f64() });
        self.since = Instant::now();
    }

    /// The measured parts.
    pub fn timings(self) -> Vec<Timing> {
        self.timings
    }
}
