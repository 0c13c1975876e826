//! Settings of a reconstruction: what `config.yaml` holds.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{memory, stack::StackSettings};
use crate::{
    Error, Result,
    instrument::{microscope, vlbi::Vlbi},
    posterior::{SolverSettings, StartSettings, gibbs::GibbsSettings, restart::Restart},
    tensor::precision::Precision,
};

/// The prior of a run that names none, for visibilities and for stacks.
const DEFAULT_PRIORS: [&str; 2] = ["blackhole64", "organelle64"];

/// Memory that the default settings of a stack stay below, bytes.
const MEMORY: usize = 7 << 30;
/// Voxels times evaluations of the prior that they stay below, half as many in volumes: about six minutes on two cores.
const WORK: usize = 850_000_000;
/// Chains, and draws of each, for smaller and larger stacks, and the least of all.
const CHAINS: [[usize; 2]; 8] = [[32, 2], [16, 4], [8, 8], [8, 4], [4, 8], [4, 4], [2, 4], [1, 4]];
const LEAST: [usize; 2] = [1, 2];

/// Rounds of a chain after its fall that give so many draws: a quarter of them is burn-in.
fn rounds(draws: usize) -> usize {
    draws + draws / 2
}

/// One short fall from near an image that explains the data.
pub(super) fn sampling() -> GibbsSettings {
    GibbsSettings {
        cycles: 1,
        start_level: 3.0,
        final_level: 0.1,
        anneal: 12,
        linger: 0.5955,
        denoise: 5,
        trajectories: 3,
        // Small images are not drawn at once; they are sampled like large ones all the same.
        kinetic: false,
        // The likelihood has one mode: no chain is lost in another.
        restart: Restart { threshold: 1e3, ..Restart::default() },
        ..GibbsSettings::default()
    }
}

/// The same for several planes, whose convolutions cost as much as the network: fewer and shorter moves.
fn sampling_of_volumes() -> GibbsSettings {
    GibbsSettings { anneal: 8, denoise: 3, trajectories: 1, leaps: 8, ..sampling() }
}

/// Settings of a reconstruction; every field has a default but `data`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Data file.
    pub data: Option<PathBuf>,
    /// Name or file of an instrument whose settings are the lowest layer above the defaults.
    pub instrument: Option<String>,
    /// Name or weights file of the prior.
    pub prior: String,
    /// Posterior sampler and its settings.
    pub solver: SolverSettings,
    /// How visibilities become a likelihood.
    pub vlbi: Vlbi,
    /// How a stack is read and cut.
    pub stack: StackSettings,
    /// How a stack becomes a likelihood.
    pub microscope: microscope::problem::Settings,
    /// Number of posterior samples in the cube.
    pub samples: usize,
    /// Independent ones, for means and for tails, that the samples are to be worth when a run ends, after so many cycles of its sampler
    /// as that takes. Without, it ends with 12 draws for each chain.
    pub effective_samples: Option<f64>,
    /// Seed of all random numbers.
    pub seed: u64,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// What a GPU multiplies with in networks: `full`, `tf32` or `bf16`.
    pub precision: Precision,
    /// Number of threads; 0 means all cores.
    pub threads: usize,
    /// Draw figures.
    pub plots: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: None,
            instrument: None,
            prior: DEFAULT_PRIORS[0].into(),
            solver: SolverSettings::default(),
            vlbi: Vlbi::default(),
            stack: StackSettings::default(),
            microscope: microscope::problem::Settings::default(),
            samples: 256,
            effective_samples: None,
            seed: 1,
            device: "auto".into(),
            precision: Precision::Full,
            threads: 0,
            plots: true,
        }
    }
}

impl Settings {
    /// Defaults for objects of so many voxels, in one plane or several: few chains, because each holds a large image, and the
    /// fewer the larger it is. They start at an image that explains the data, so one short fall is enough.
    pub fn for_stacks(voxels: usize, volume: bool) -> Self {
        let threads = rayon::current_num_threads();
        let (sampling, share) = if volume { (sampling_of_volumes(), 2) } else { (sampling(), 1) };
        let fits = |&[chains, draws]: &[usize; 2]| {
            let passes = (sampling.anneal + rounds(draws)) * sampling.denoise;
            let work = voxels.saturating_mul(share * chains * passes);
            work < WORK && memory::predicted(voxels, chains, chains * draws, threads) < MEMORY
        };
        let [chains, draws] = CHAINS.into_iter().find(fits).unwrap_or(LEAST);
        let start = StartSettings { chains, draw_steps: 4 };
        let sampling = GibbsSettings { rounds: rounds(draws), draws, ..sampling };
        Self {
            prior: DEFAULT_PRIORS[1].into(),
            solver: SolverSettings::Gibbs { start, sampling },
            samples: chains * draws,
            ..Self::default()
        }
    }

    /// The data file.
    ///
    /// # Errors
    /// None is named.
    pub fn data(&self) -> Result<&Path> {
        self.data.as_deref().ok_or_else(|| Error::config("data", "no data file; name one"))
    }

    /// Refuses values that no run can have.
    ///
    /// # Errors
    /// The first such value, by its path.
    pub fn validate(&self) -> Result<()> {
        if self.samples == 0 {
            return Err(Error::config("samples", "0 samples; use 64 or more"));
        }
        if self.samples > 100_000 {
            return Err(Error::config("samples", format!("{} samples; at most 100000", self.samples)));
        }
        if self.effective_samples.is_some_and(|wanted| !(wanted > 0.0 && wanted <= self.samples as f64)) {
            let problem = format!("must be positive and at most the number of samples, {}", self.samples);
            return Err(Error::config("effective_samples", problem));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chains(voxels: usize, volume: bool) -> [usize; 2] {
        let settings = Settings::for_stacks(voxels, volume);
        let SolverSettings::Gibbs { start, sampling } = settings.solver else {
            panic!("{:?}", settings.solver)
        };
        assert_eq!(settings.samples, start.chains * sampling.draws);
        [start.chains, sampling.draws]
    }

    #[test]
    fn larger_stacks_get_fewer_chains() {
        for volume in [false, true] {
            assert_eq!(chains(1, volume), CHAINS[0]);
            assert_eq!(chains(usize::MAX, volume), LEAST);
            let mut before = CHAINS[0];
            for voxels in (12..34).map(|power| 1 << power) {
                let [chains, draws] = chains(voxels, volume);
                assert!(chains <= before[0] && chains * draws <= before[0] * before[1], "{voxels}");
                before = [chains, draws];
            }
            assert_eq!(before, LEAST);
        }
    }
}
