//! The chains of one fall of the coupling.

use candle_core::Tensor;

use super::GibbsSettings;
use crate::{
    Result,
    posterior::{
        hmc::QUARTER_TURN,
        restart::{self, Fits},
        step_sizes::StepSizes,
    },
};

/// What the chains carry from round to round of one cycle.
#[derive(Debug)]
pub(super) struct Cycle {
    /// Number of the start image of each chain that is left.
    pub(super) chains: Vec<usize>,
    pub(super) x: Tensor,
    /// The last z `[K, Z, Y, X]`; none before the first round.
    pub(super) z: Option<Tensor>,
    pub(super) steps: StepSizes,
    pub(super) fits: Fits,
}

/// How a round moves z.
#[derive(Clone, Copy)]
pub(super) struct Round {
    /// Its coupling r, network unit.
    pub(super) level: f64,
    /// r as a share of that of the last round.
    pub(super) fall: f64,
    pub(super) tuning: Tuning,
    /// Whether x is D(z, r) of the last round.
    pub(super) settled: bool,
}

/// What becomes of step sizes in a round.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Tuning {
    /// They are a first guess, and may be wrong by orders of magnitude.
    Found,
    /// They follow the acceptance.
    Adapted,
    /// They stay as they are, as draws are kept.
    Kept,
}

/// What a round makes of z.
pub(super) struct Moved {
    /// `[K, Z, Y, X]`, network unit.
    pub(super) z: Tensor,
    /// D(z, r), if it is known.
    pub(super) clean: Option<Tensor>,
    /// Log likelihood `[K]` of z, nats.
    pub(super) log_density: Tensor,
    /// How it was made, by name.
    pub(super) metrics: Vec<(&'static str, f64)>,
}

impl Cycle {
    /// The given chains at the images `x` `[K, Z, Y, X]`.
    pub(super) fn new(x: Tensor, chains: Vec<usize>, settings: &GibbsSettings) -> Self {
        let steps = StepSizes::new(chains.len(), 0.1, QUARTER_TURN / 2.0, settings.acceptance);
        let fits = Fits::new(chains.len());
        Self { chains, x, z: None, steps, fits }
    }

    /// Gives up all chains but these.
    pub(super) fn narrow(&mut self, left: &[usize]) -> Result<()> {
        self.chains = left.iter().map(|&i| self.chains[i]).collect();
        self.take(left)
    }

    /// Chain i continues where chain `sources[i]` is.
    pub(super) fn take(&mut self, sources: &[usize]) -> Result<()> {
        let index = restart::index(sources, &self.x)?;
        self.x = self.x.index_select(&index, 0)?;
        if let Some(z) = &self.z {
            self.z = Some(z.index_select(&index, 0)?);
        }
        self.steps.copy_from(sources);
        self.fits.copy_from(sources);
        Ok(())
    }
}
