//! How the auxiliary image z is drawn given its neighbour x.

use candle_core::Tensor;

use crate::{
    Result,
    compute::Compute,
    instrument::{Problem, Quadratic, Seen},
    posterior::{conditional::Conditional, hmc::Reference},
    rng::Rng,
};

/// What Hamiltonian steps move, and about what.
#[derive(Debug)]
pub(super) enum Split {
    /// Whole images about the mode of a parabola, where the data are one or nearly so; exact for Gaussian noise.
    Curved(Quadratic),
    /// The coordinates that the data see, about x; the others are a plain Gaussian draw.
    Seen(Seen),
}

impl Split {
    pub(super) fn of(problem: &Problem, compute: &Compute) -> Result<Self> {
        Ok(match problem.quadratic(compute)? {
            Some(parabola) => Self::Curved(parabola),
            None => Self::Seen(problem.seen(compute)?),
        })
    }

    pub(super) fn is_curved(&self) -> bool {
        matches!(self, Self::Curved(_))
    }

    /// Log likelihood `[K]` and its gradient at positions.
    pub(super) fn log_likelihood_and_gradient(
        &self,
        problem: &Problem,
        z: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        match self {
            Self::Curved(_) => problem.log_likelihood_and_gradient(z),
            Self::Seen(seen) => seen.log_likelihood_and_gradient(problem, z),
        }
    }

    /// The reference for neighbours `x` `[K, Z, Y, X]` with coupling `level`, and positions to begin at.
    pub(super) fn reference<'a>(
        &'a self,
        problem: &'a Problem,
        x: &Tensor,
        level: f64,
    ) -> Result<(Reference<'a>, Tensor)> {
        Ok(match self {
            Self::Curved(parabola) => {
                let conditional = Conditional::new(problem, parabola, x.clone(), level)?;
                let mode = conditional.mode().clone();
                (Reference::Curved(conditional), mode)
            }
            Self::Seen(seen) => {
                let centre = seen.coordinates(x)?;
                (Reference::Gaussian { centre: centre.clone(), width: level }, centre)
            }
        })
    }

    /// z `[K, Z, Y, X]` of positions.
    pub(super) fn image(&self, positions: &Tensor, x: &Tensor, level: f64, rng: &mut Rng) -> Result<Tensor> {
        match self {
            Self::Curved(_) => Ok(positions.clone()),
            Self::Seen(seen) => seen.completed(positions, x, level, rng),
        }
    }
}
