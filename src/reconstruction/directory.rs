//! The run directory: names of its files, and who may write into it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Settings;
use crate::{Error, Result, config, io::atomic, manifest};

const CHECKPOINT: &str = "checkpoint.safetensors";
const DRAWS: &str = "draws.safetensors";
const MANIFEST: &str = "manifest.json";

/// A run directory.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
    /// SHA-256 of `config.yaml`.
    pub config_sha256: String,
}

impl Directory {
    /// Makes the directory and writes `config.yaml`; on resumption checks that it has not changed but for the number of
    /// samples, which only says when a run ends, and that of threads, on which no result depends.
    ///
    /// # Errors
    /// A directory that cannot be written, or a resumption with other settings.
    pub fn open(root: &Path, settings: &Settings, resume: bool) -> Result<Self> {
        fs::create_dir_all(root).map_err(|e| Error::io(root, e))?;
        let yaml = config::to_yaml(settings)?;
        let file = root.join("config.yaml");
        if resume {
            let (_, before) = Self::read(root)?;
            let Settings { samples, threads, .. } = *settings;
            if config::to_yaml(&Settings { samples, threads, ..before })? != yaml {
                let problem = "differs from the settings now given in more than the numbers of samples and threads; repeat them, or start again with --force";
                return Err(Error::format(&file, "resume", problem));
            }
        } else {
            // What is left of an earlier run must not be taken for a part of this one.
            for stale in [CHECKPOINT, DRAWS, MANIFEST].map(|name| root.join(name)) {
                if stale.exists() {
                    fs::remove_file(&stale).map_err(|e| Error::io(&stale, e))?;
                }
            }
        }
        atomic::replace_bytes(&file, yaml.as_bytes())?;
        Ok(Self { root: root.to_path_buf(), config_sha256: manifest::sha256(yaml.as_bytes()) })
    }

    /// The directory that another process opens, which is not touched.
    ///
    /// # Errors
    /// Settings that YAML cannot hold.
    pub fn of_another(root: &Path, settings: &Settings) -> Result<Self> {
        let yaml = config::to_yaml(settings)?;
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

    /// The run directories that one data file gave: the root itself, with an empty name, or those of the channels and
    /// times of a stack below it.
    ///
    /// # Errors
    /// There is no run.
    pub fn runs(root: &Path) -> Result<BTreeSet<PathBuf>> {
        if Self::is_used(root) {
            return Ok([PathBuf::new()].into());
        }
        let failed = |e| Error::io(root, e);
        let entries =
            fs::read_dir(root).map_err(failed)?.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
        let runs = entries.iter().filter(|entry| Self::is_used(&entry.path()));
        let runs: BTreeSet<PathBuf> = runs.map(|entry| entry.file_name().into()).collect();
        if runs.is_empty() {
            let problem = "missing; name a directory that `reconstruct` wrote";
            return Err(Error::format(root, "config.yaml", problem));
        }
        Ok(runs)
    }

    /// The run directory of the given name, as [`Directory::runs`] lists them.
    pub fn below(root: &Path, name: &Path) -> PathBuf {
        if name.as_os_str().is_empty() { root.to_path_buf() } else { root.join(name) }
    }

    /// True if a run has written there.
    pub fn is_used(root: &Path) -> bool {
        root.join("config.yaml").exists()
    }

    /// True if a run was interrupted there after its first checkpoint, or finished.
    pub fn is_resumable(root: &Path) -> bool {
        Self::is_used(root) && root.join(CHECKPOINT).exists()
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file of the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The solver's state.
    pub fn checkpoint(&self) -> PathBuf {
        self.file(CHECKPOINT)
    }

    /// The draws of merged runs, which have no solver's state.
    pub fn draws(&self) -> PathBuf {
        self.file(DRAWS)
    }

    /// Versions, hashes and timings; a run without it is not finished.
    pub fn manifest(&self) -> PathBuf {
        self.file(MANIFEST)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_numbers_of_samples_and_threads_may_change_on_resumption() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::default();
        Directory::open(folder.path(), &settings, false).unwrap();
        let fewer =
            Settings { samples: settings.samples / 2, threads: settings.threads + 1, ..settings.clone() };
        Directory::open(folder.path(), &fewer, true).unwrap();
        assert_eq!(Directory::read(folder.path()).unwrap().1.samples, fewer.samples);
        let other = Settings { seed: settings.seed + 1, ..fewer };
        let refused = Directory::open(folder.path(), &other, true).unwrap_err().to_string();
        assert!(refused.contains("config.yaml") && refused.contains("--force"), "{refused}");
    }
}
