//! `antumbra bench run`: what a whole reconstruction costs: time, network passes, memory, effective samples per second.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::{
    Error, Result,
    cli::{self, reconstruct::Reconstruct},
    manifest::{self, Manifest},
    posterior::diagnostics::Diagnostics,
    reconstruction::Directory,
};

/// Reconstruct, then say what it cost: time, network passes, memory, effective samples per second
#[derive(Debug, Args)]
pub(in crate::cli) struct Run {
    #[command(flatten)]
    reconstruct: Reconstruct,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Run {
    /// Reconstructs and prints the costs of each run.
    ///
    /// # Errors
    /// Those of the reconstruction.
    pub(in crate::cli) fn run(&self) -> Result<ExitCode> {
        let done = self.reconstruct.run()?;
        let mut all = Vec::new();
        for folder in self.reconstruct.folders()? {
            for part in Directory::runs(&folder)? {
                all.push(Cost::of(&Directory::below(&folder, &part))?);
            }
        }
        let text = if self.json {
            serde_json::to_string_pretty(&all).map_err(|e| Error::config("--json", e.to_string()))? + "\n"
        } else {
            all.iter().map(Cost::describe).collect()
        };
        cli::print(&text);
        Ok(done)
    }
}

/// What a run cost and what it gave.
#[derive(Debug, Serialize)]
struct Cost {
    directory: String,
    threads: usize,
    /// Wall-clock time of everything, s.
    seconds: f64,
    /// Wall-clock time of the sampler, s.
    sampling_seconds: f64,
    /// Images that passed through the prior's network.
    network_passes: u64,
    /// Largest resident memory of the process, MB.
    peak_memory_mb: Option<f64>,
    samples: usize,
    rhat_max: Option<f64>,
    ess_bulk_min: Option<f64>,
    /// Effective samples per second of sampling.
    ess_per_second: Option<f64>,
}

impl Cost {
    fn of(run: &Path) -> Result<Self> {
        let manifest: Manifest = manifest::read_json(&run.join("manifest.json"))?;
        let diagnostics: Diagnostics = manifest::read_json(&run.join("diagnostics.json"))?;
        let spent = |part: &str| {
            manifest
                .timings
                .iter()
                .filter(|timing| part.is_empty() || timing.part == part)
                .map(|t| t.seconds)
                .sum()
        };
        let (seconds, sampling_seconds): (f64, f64) = (spent(""), spent("sampling"));
        Ok(Self {
            directory: run.display().to_string(),
            threads: manifest.threads,
            seconds,
            sampling_seconds,
            network_passes: manifest.network_passes,
            peak_memory_mb: manifest.peak_memory_mb,
            samples: diagnostics.samples,
            rhat_max: diagnostics.convergence.rhat_max,
            ess_bulk_min: diagnostics.convergence.ess_bulk_min,
            ess_per_second: diagnostics.convergence.ess_bulk_min.map(|ess| ess / sampling_seconds),
        })
    }

    fn describe(&self) -> String {
        let number = |value: Option<f64>| value.map_or("unknown".into(), |value| format!("{value:.3}"));
        format!(
            "{}: {:.1} s on {} threads, of which {:.1} s sampling; {} network passes ({:.1} a second); at most {} MB\n\
             {} samples, R-hat {}, effective sample size {}: {} a second\n",
            self.directory,
            self.seconds,
            self.threads,
            self.sampling_seconds,
            self.network_passes,
            self.network_passes as f64 / self.sampling_seconds,
            self.peak_memory_mb.map_or("unknown".into(), |mb| format!("{mb:.0}")),
            self.samples,
            number(self.rhat_max),
            number(self.ess_bulk_min),
            number(self.ess_per_second),
        )
    }
}
