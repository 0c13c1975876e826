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
    /// Start image of each chain that is left.
    pub(super) chains: Vec<usize>,
    pub(super) x: Tensor,
    /// The last z `[K, Z, Y, X]`; none before the first round.
    pub(super) z: Option<Tensor>,
    pub(super) steps: StepSizes,
    pub(super) fits: Fits,
    /// Images `[K, Z, Y, X]` of all chains: where those that are given up were then.
    ends: Tensor,
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
    /// All chains at the start images `[K, Z, Y, X]`.
    pub(super) fn new(start: &Tensor, settings: &GibbsSettings) -> Result<Self> {
        let chains = start.dim(0)?;
        Ok(Self {
            chains: (0..chains).collect(),
            x: start.clone(),
            z: None,
            steps: StepSizes::new(chains, 0.1, QUARTER_TURN / 2.0, settings.acceptance),
            fits: Fits::new(chains),
            ends: start.clone(),
        })
    }

    /// Where all chains are, `[K, Z, Y, X]`; those that were given up, where they were then.
    pub(super) fn ends(&self) -> Result<Tensor> {
        let image = |chain: usize| match self.chains.iter().position(|left| *left == chain) {
            Some(place) => self.x.narrow(0, place, 1),
            None => self.ends.narrow(0, chain, 1),
        };
        let images = (0..self.ends.dim(0)?).map(image).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&images, 0)?)
    }

    /// Continues from [`Cycle::ends`].
    pub(super) fn restore_ends(&mut self, ends: Tensor) {
        self.ends = ends;
    }

    /// Gives up all chains but these.
    pub(super) fn narrow(&mut self, left: &[usize]) -> Result<()> {
        self.ends = self.ends()?;
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
