//! The run directory: names of its files, and who may write into it.

use std::fs;
use std::path::{Path, PathBuf};

use super::Settings;
use crate::{Error, Result, config, io::atomic, manifest};

/// A run directory.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
    /// SHA-256 of `config.yaml`.
    pub config_sha256: String,
}

impl Directory {
    /// Makes the directory and writes `config.yaml`; on resumption checks that it has not changed.
    ///
    /// # Errors
    /// A directory that cannot be written, or a resumption with other settings.
    pub fn open(root: &Path, settings: &Settings, resume: bool) -> Result<Self> {
        fs::create_dir_all(root).map_err(|e| Error::io(root, e))?;
        let yaml = config::to_yaml(settings)?;
        let file = root.join("config.yaml");
        if resume {
            let before = fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?;
            if before != yaml {
                let problem = "differs from the settings now given; repeat them, or start again with --force";
                return Err(Error::format(&file, "resume", problem));
            }
        } else {
            atomic::replace_bytes(&file, yaml.as_bytes())?;
        }
        Ok(Self { root: root.to_path_buf(), config_sha256: manifest::sha256(yaml.as_bytes()) })
    }

    /// The directory of a finished run and its settings.
    ///
    /// # Errors
    /// A directory without readable settings.
    pub fn read(root: &Path) -> Result<(Self, Settings)> {
        let file = root.join("config.yaml");
        let yaml = fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?;
        let settings =
            serde_yaml::from_str(&yaml).map_err(|e| Error::format(&file, "YAML", e.to_string()))?;
        Ok((Self { root: root.to_path_buf(), config_sha256: manifest::sha256(yaml.as_bytes()) }, settings))
    }

    /// True if a run has written there.
    pub fn is_used(root: &Path) -> bool {
        root.join("config.yaml").exists()
    }

    /// A file of the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The solver's state.
    pub fn checkpoint(&self) -> PathBuf {
        self.file("checkpoint.safetensors")
    }

    /// All checks.
    pub fn diagnostics(&self) -> PathBuf {
        self.file("diagnostics.json")
    }

    /// One line a step.
    pub fn metrics(&self) -> PathBuf {
        self.file("metrics.jsonl")
    }
}
