//! Metropolis-adjusted Hamiltonian steps, batched over chains, with the Gaussian factor of the target solved exactly.
//!
//! The target is exp(f(z)) times a reference: N(centre, width^2 I), or flat. Velocities are N(0, width^2 I). A step is a leapfrog of
//! kick tan(h/2), drift sin(h), kick tan(h/2), which turns directions that f does not see by the angle h without error (the Strang
//! splitting of Shahbaba et al. 2014, "Split Hamiltonian Monte Carlo", with the reference's rotation written as kicks and
//! drift). The acceptance does therefore not fall with their number.

use candle_core::{DType, Device, Tensor};

use super::step_sizes::StepSizes;
use crate::{
    Result,
    rng::Rng,
    tensor::{compute_of, to_host},
    transfer::Transfer,
};

/// Log density f `[B]` and its gradient at positions `[B, ..]`, detached.
pub type Target<'a> = dyn FnMut(&Tensor) -> Result<(Tensor, Tensor)> + 'a;

/// Positions of all chains and what the target says there.
#[derive(Debug, Clone)]
pub struct Point {
    /// Positions `[B, ..]`.
    pub position: Tensor,
    /// f `[B]`, nats.
    pub log_density: Tensor,
    /// Gradient of f, shape of `position`.
    pub gradient: Tensor,
}

impl Point {
    /// Evaluates the target at `position`.
    ///
    /// # Errors
    /// Those of the target.
    pub fn new(position: Tensor, target: &mut Target) -> Result<Self> {
        let (log_density, gradient) = target(&position)?;
        Ok(Self { position, log_density, gradient })
    }

    /// The chains `index` `[K]`, in this order.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn index_select(&self, index: &Tensor) -> Result<Self> {
        Ok(Self {
            position: self.position.index_select(index, 0)?,
            log_density: self.log_density.index_select(index, 0)?,
            gradient: self.gradient.index_select(index, 0)?,
        })
    }

    /// The rows of `self` where `mask` is 1, those of `other` where it is 0.
    fn select(&self, mask: &Tensor, other: &Self) -> Result<Self> {
        Ok(Self {
            position: select(mask, &self.position, &other.position)?,
            log_density: select(mask, &self.log_density, &other.log_density)?,
            gradient: select(mask, &self.gradient, &other.gradient)?,
        })
    }
}

/// The factor of the target that is known beforehand.
#[derive(Debug, Clone)]
pub enum Reference {
    /// N(centre, width^2 I); a full turn takes 2 pi.
    Gaussian {
        /// Mean, shape of the positions.
        centre: Tensor,
        /// Standard deviation.
        width: f64,
    },
    /// No further factor; velocities are N(0, I).
    Flat,
}

impl Reference {
    /// Velocities `[B, ..]` for positions of the shape of `like`.
    fn velocity(&self, like: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        match self {
            Self::Gaussian { width, .. } => Ok((rng.normals(like.dims(), &compute_of(like))? * *width)?),
            Self::Flat => rng.normals(like.dims(), &compute_of(like)),
        }
    }

    /// The covariance of the velocities times `force`.
    fn raised(&self, force: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gaussian { width, .. } => Ok((force * (width * width))?),
            Self::Flat => Ok(force.clone()),
        }
    }

    /// Gradient of the target's logarithm.
    fn force(&self, point: &Point) -> Result<Tensor> {
        match self {
            Self::Gaussian { centre, width, .. } => {
                Ok((&point.gradient - ((&point.position - centre)? / (width * width))?)?)
            }
            Self::Flat => Ok(point.gradient.clone()),
        }
    }

    /// The target's logarithm `[B]`, in double precision.
    fn log_density(&self, point: &Point) -> Result<Vec<f64>> {
        let mut values = to_host(&point.log_density)?;
        if let Self::Gaussian { centre, width, .. } = self {
            let squares = squared_norm(&(&point.position - centre)?)?;
            values
                .iter_mut()
                .zip(squares)
                .for_each(|(value, square)| *value -= 0.5 * square / (width * width));
        }
        Ok(values)
    }

    /// How long to drift and how long to kick for half a step of `time`.
    fn pace(&self, time: f64) -> [f64; 2] {
        match self {
            Self::Gaussian { .. } => [time.sin(), (0.5 * time).tan()],
            Self::Flat => [time, 0.5 * time],
        }
    }
}

/// What one Metropolis-adjusted trajectory did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Where the chains are now.
    pub point: Point,
    /// Velocities: those of the trajectory's end, reversed where it was rejected.
    pub velocity: Tensor,
    /// Acceptance probability of each chain's trajectory.
    pub acceptance: Vec<f64>,
    /// What each chain's trajectory gained in energy, nats: 0 if it had been followed without error.
    pub error: Vec<f64>,
}

/// Follows the Hamiltonian flow for `leaps` steps of `times` (one per chain) and accepts or rejects each chain's end
/// point (Neal 2011, "MCMC using Hamiltonian dynamics", section 5.3.2). Leaves the target invariant for any step.
///
/// # Errors
/// Those of the target.
pub fn trajectory(
    target: &mut Target,
    reference: &Reference,
    start: &Point,
    velocity: &Tensor,
    times: &[f64],
    leaps: usize,
    rng: &mut Rng,
) -> Result<Outcome> {
    let [drift, half] = [0, 1].map(|which| {
        per_chain(times.iter().map(|&time| reference.pace(time)[which]).collect(), &start.position)
    });
    let (drift, half) = (drift?, half?);
    let whole = (&half * 2.0)?;
    let mut point = start.clone();
    // Kicks change the momentum, drifts do not: its change is their sum.
    let mut push = reference.force(start)?.broadcast_mul(&half)?;
    let mut moving = (velocity + reference.raised(&push)?)?;
    for leap in 1..=leaps {
        point = Point::new((&point.position + moving.broadcast_mul(&drift)?)?, target)?;
        let strength = if leap == leaps { &half } else { &whole };
        push = (push + reference.force(&point)?.broadcast_mul(strength)?)?;
        moving = (velocity + reference.raised(&push)?)?;
    }
    // With momentum M v and M symmetric, v.M v / 2 grows by push.(v + v') / 2.
    let motion = product(&push, &(velocity + &moving)?)?;
    let (from, to) = (reference.log_density(start)?, reference.log_density(&point)?);
    let error: Vec<f64> = (0..times.len()).map(|i| from[i] - to[i] + 0.5 * motion[i]).collect();
    let acceptance: Vec<f64> =
        error.iter().map(|error| if error.is_finite() { (-error).exp().min(1.0) } else { 0.0 }).collect();
    let accepted: Vec<u8> = acceptance.iter().map(|&a| u8::from(rng.uniform() < a)).collect();
    let accepted = Tensor::from_vec(accepted, times.len(), &Device::Cpu)?.transfer(velocity.device())?;
    Ok(Outcome {
        point: point.select(&accepted, start)?,
        velocity: select(&accepted, &moving, &velocity.neg()?)?,
        acceptance,
        error,
    })
}

/// Quarter of a turn: independent positions in all directions that f does not see.
pub const QUARTER_TURN: f64 = std::f64::consts::FRAC_PI_2;

/// One draw of every chain with fresh velocities: a quarter turn about the reference in as many leaps as the median
/// step asks for (at most `leaps`), each time shortened at random by up to a fifth so that no orbit closes.
///
/// # Errors
/// Those of the target.
pub fn draw(
    target: &mut Target,
    reference: &Reference,
    start: &Point,
    steps: &StepSizes,
    leaps: usize,
    rng: &mut Rng,
) -> Result<Outcome> {
    let leaps = ((QUARTER_TURN / steps.median()).ceil() as usize).clamp(1, leaps.max(1));
    let longest = QUARTER_TURN / leaps as f64;
    let times: Vec<f64> =
        steps.values().iter().map(|step| step.min(longest) * (0.8 + 0.2 * rng.uniform())).collect();
    let velocity = reference.velocity(&start.position, rng)?;
    trajectory(target, reference, start, &velocity, &times, leaps, rng)
}

/// One number per chain as `[B, 1, ..]`, to be broadcast over `like`.
pub(crate) fn per_chain(values: Vec<f64>, like: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; like.rank()];
    shape[0] = values.len();
    compute_of(like).tensor(values, &shape)
}

/// Inner product of each batch element of `a` with that of `b`, summed in double precision.
pub(crate) fn product(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let [a, b] = [a, b].map(|tensor| tensor.flatten_from(1)?.to_dtype(DType::F64));
    Ok((a? * b?)?.sum(1)?.read_list()?)
}

/// Squared Euclidean norm of each batch element, summed in double precision.
pub(crate) fn squared_norm(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.flatten_from(1)?.to_dtype(DType::F64)?.sqr()?.sum(1)?.read_list()?)
}

/// Batch elements of `yes` where `mask` `[B]` is 1, of `no` where it is 0; values not taken may be infinite.
pub(crate) fn select(mask: &Tensor, yes: &Tensor, no: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; yes.rank()];
    shape[0] = mask.elem_count();
    Ok(mask.reshape(shape)?.broadcast_as(yes.shape())?.where_cond(yes, no)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compute::Compute, tensor::value_and_gradient};

    /// Moments of many draws: mean and covariance of two coordinates `[B, 2]`.
    fn moments(draws: &[Vec<f64>]) -> ([f64; 2], [f64; 3]) {
        let count = draws.len() as f64;
        let mean = [0, 1].map(|i| draws.iter().map(|d| d[i]).sum::<f64>() / count);
        let covariance = [(0, 0), (0, 1), (1, 1)]
            .map(|(i, j)| draws.iter().map(|d| (d[i] - mean[i]) * (d[j] - mean[j])).sum::<f64>() / count);
        (mean, covariance)
    }

    fn run(
        target: &mut Target,
        reference: &Reference,
        chains: usize,
        rounds: usize,
        step: f64,
    ) -> (Vec<Vec<f64>>, f64) {
        let compute = Compute::cpu_f64();
        let mut rng = Rng::new(11);
        let mut point = Point::new(rng.normals(&[chains, 2], &compute).unwrap(), target).unwrap();
        let steps = StepSizes::new(chains, step, step, 0.8);
        let (mut draws, mut accepted) = (Vec::new(), 0.0);
        for round in 0..rounds {
            let outcome = draw(target, reference, &point, &steps, 20, &mut rng).unwrap();
            accepted += outcome.acceptance.iter().sum::<f64>() / (chains * rounds) as f64;
            point = outcome.point;
            if round >= rounds / 10 {
                draws.extend(point.position.to_vec2::<f64>().unwrap());
            }
        }
        (draws, accepted)
    }

    /// exp(-(a.z - 1)^2 / 2) N(z; c, 4 I) is a Gaussian with precision I/4 + a a'.
    #[test]
    fn a_correlated_gaussian_is_left_invariant() {
        let compute = Compute::cpu_f64();
        let a = compute.tensor(vec![2.0, -1.0], &[1, 2]).unwrap();
        let chains = 512;
        let centre = compute.tensor(vec![0.5, 1.5], &[1, 2]).unwrap().repeat((chains, 1)).unwrap();
        let f = |z: &Tensor| Ok(((z.broadcast_mul(&a)?.sum(1)? - 1.0)?.sqr()? * -0.5)?);
        let mut target = |z: &Tensor| value_and_gradient(z, f);
        let reference = Reference::Gaussian { centre, width: 2.0 };
        let (draws, accepted) = run(&mut target, &reference, chains, 200, 0.4);
        let (mean, covariance) = moments(&draws);
        // Precision [[4.25, -2], [-2, 1.25]], determinant 1.3125; mean = covariance (c/4 + a).
        let expected = [1.25, 2.0, 4.25].map(|v| v / 1.3125);
        let pull = [0.125 + 2.0, 0.375 - 1.0];
        let centre =
            [expected[0] * pull[0] + expected[1] * pull[1], expected[1] * pull[0] + expected[2] * pull[1]];
        assert!((0.6..0.99).contains(&accepted), "acceptance {accepted}");
        for i in 0..2 {
            assert!((mean[i] - centre[i]).abs() < 0.03, "mean {mean:?}, exact {centre:?}");
        }
        for i in 0..3 {
            assert!(
                (covariance[i] / expected[i] - 1.0).abs() < 0.03,
                "covariance {covariance:?}, exact {expected:?}"
            );
        }
    }

    /// A banana: z0 ~ N(0, 1), z1 | z0 ~ N(z0^2, 0.5^2), whose moments are known; no Gaussian factor.
    #[test]
    fn a_banana_is_left_invariant() {
        let mut target = |z: &Tensor| {
            value_and_gradient(z, |z| {
                let (first, second) = (z.narrow(1, 0, 1)?, z.narrow(1, 1, 1)?);
                let residual = ((second - first.sqr()?)? * 2.0)?;
                Ok(((first.sqr()? + residual.sqr()?)?.sum(1)? * -0.5)?)
            })
        };
        let (draws, accepted) = run(&mut target, &Reference::Flat, 512, 300, 0.25);
        let (mean, covariance) = moments(&draws);
        assert!((0.6..0.99).contains(&accepted), "acceptance {accepted}");
        assert!(mean[0].abs() < 0.05 && (mean[1] - 1.0).abs() < 0.08, "mean {mean:?}");
        assert!((covariance[0] - 1.0).abs() < 0.06, "variance {covariance:?}");
        assert!(covariance[1].abs() < 0.12, "covariance {covariance:?}");
        assert!((covariance[2] / 2.25 - 1.0).abs() < 0.12, "variance {covariance:?}");
    }

    /// A chain whose density is not finite at the proposal stays where it is; the others go on.
    #[test]
    fn not_a_number_is_rejected() {
        let compute = Compute::cpu_f64();
        let mut target = |z: &Tensor| value_and_gradient(z, |z| Ok(z.narrow(1, 0, 1)?.log()?.sum(1)?));
        let start = compute.tensor(vec![1e-3, 5.0, 5.0, 5.0], &[2, 2]).unwrap();
        let point = Point::new(start, &mut target).unwrap();
        let velocity = compute.tensor(vec![-2000.0, 0.0, 0.1, 0.0], &[2, 2]).unwrap();
        let times = [0.1, 0.1];
        let mut rng = Rng::new(1);
        let outcome =
            trajectory(&mut target, &Reference::Flat, &point, &velocity, &times, 1, &mut rng).unwrap();
        let position = outcome.point.position.to_vec2::<f64>().unwrap();
        assert_eq!(position[0], vec![1e-3, 5.0]);
        assert_eq!(outcome.acceptance[0], 0.0);
        assert!(position[1][0] > 5.0);
        assert!(outcome.point.gradient.to_vec2::<f64>().unwrap().iter().flatten().all(|g| g.is_finite()));
    }
}
