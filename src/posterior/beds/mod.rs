//! Exact beds: problems whose posterior can be drawn from exactly, and how far a solver's draws are from it.

mod distance;
mod exact;
mod field;
mod low_rank;
mod mixture;
mod settings;
mod table;

use candle_core::Tensor;

pub use distance::{mmd2, score_ksd, sliced_w2};
pub use exact::{Component, Covariance, Diagonal, LinearPosterior};
pub use settings::settings;
pub use table::{Outcome, Row, Score, floor, measure, score};

use crate::{Error, Result, compute::Compute, instrument::Problem, prior::Denoiser, rng::Rng};

/// A problem with a known posterior.
pub struct Bed {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is, in words.
    pub summary: &'static str,
    /// Exact prior.
    pub prior: Box<dyn Denoiser>,
    /// The data.
    pub problem: Problem,
    /// The exact posterior.
    pub exact: LinearPosterior,
    /// Draws that tell solvers apart at a tolerable cost.
    pub draws: usize,
}

/// A bed's name, what it is, and how it is made.
type Recipe = (&'static str, &'static str, fn(&Rng, &Compute) -> Result<Parts>);

/// Prior, problem, exact posterior, number of draws.
type Parts = (Box<dyn Denoiser>, Problem, LinearPosterior, usize);

/// All beds.
const BEDS: [Recipe; 19] = [
    ("gaussian-1d", "N(0, 1) prior, y = 1.5 with noise 0.5: posterior N(1.2, 0.2)", mixture::gaussian_1d),
    ("ring-2d", "8 modes on a ring, one noisy projection", mixture::ring),
    ("grid-2d", "9 modes on a grid, one noisy projection", mixture::grid),
    ("score-ksd-16", "2 modes of weights 0.8 and 0.2 in 16 dimensions, 14 observations", mixture::two_modes),
    ("mixture-8-1", "25 modes in 8 dimensions, 1 observation", |r, c| mixture::modes_25(8, 1, r, c)),
    ("mixture-8-2", "25 modes in 8 dimensions, 2 observations", |r, c| mixture::modes_25(8, 2, r, c)),
    ("mixture-8-4", "25 modes in 8 dimensions, 4 observations", |r, c| mixture::modes_25(8, 4, r, c)),
    ("mixture-80-1", "25 modes in 80 dimensions, 1 observation", |r, c| mixture::modes_25(80, 1, r, c)),
    ("mixture-80-2", "25 modes in 80 dimensions, 2 observations", |r, c| mixture::modes_25(80, 2, r, c)),
    ("mixture-80-4", "25 modes in 80 dimensions, 4 observations", |r, c| mixture::modes_25(80, 4, r, c)),
    ("mixture-800-1", "25 modes in 800 dimensions, 1 observation", |r, c| mixture::modes_25(800, 1, r, c)),
    ("mixture-800-2", "25 modes in 800 dimensions, 2 observations", |r, c| mixture::modes_25(800, 2, r, c)),
    ("mixture-800-4", "25 modes in 800 dimensions, 4 observations", |r, c| mixture::modes_25(800, 4, r, c)),
    ("field-psf-32", "random field of 32 x 32 pixels through a Gaussian blur", |r, c| field::psf(32, r, c)),
    ("field-vlbi-32", "random field of 32 x 32 pixels, 28 % of its Fourier modes", |r, c| {
        field::vlbi(32, r, c)
    }),
    ("field-psf-64", "random field of 64 x 64 pixels through a Gaussian blur", |r, c| field::psf(64, r, c)),
    ("field-vlbi-64", "random field of 64 x 64 pixels, 28 % of its Fourier modes", |r, c| {
        field::vlbi(64, r, c)
    }),
    ("low-rank-psf-32", "images of 4 components of rank 8 through a Gaussian blur", low_rank::psf),
    ("low-rank-vlbi-32", "images of 4 components of rank 8, 28 % of their Fourier modes", low_rank::vlbi),
];

impl Bed {
    /// Names and summaries of all beds.
    pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
        BEDS.iter().map(|(name, summary, _)| (*name, *summary))
    }

    /// The bed `name`; `rng` draws instrument and data.
    ///
    /// # Errors
    /// There is no such bed.
    pub fn named(name: &str, rng: &Rng, compute: &Compute) -> Result<Self> {
        let Some((name, summary, make)) = BEDS.iter().find(|(known, ..)| *known == name) else {
            let names: Vec<&str> = Self::all().map(|(name, _)| name).collect();
            return Err(Error::config("--beds", format!("no bed `{name}`; there are {}", names.join(", "))));
        };
        let (prior, problem, exact, draws) = make(&rng.stream(name, 0), compute)?;
        Ok(Self { name, summary, prior, problem, exact, draws })
    }

    /// Draws `[count, Z, Y, X]` of the exact posterior.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn draws(&self, count: usize, rng: &mut Rng) -> Result<Tensor> {
        self.exact.draws(count, rng)
    }
}
