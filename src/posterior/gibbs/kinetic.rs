//! Kinetic Langevin steps of z in place of the draws of z given x and of x given z.
//!
//! Both leave p_r(z) p(y|z) as it is, the density of z under a coupling r. Draws move z by about r in a direction of its own each
//! round; Langevin steps go on in theirs, and so let an image follow a falling r with fewer evaluations of the prior.

use candle_core::Tensor;

use super::cycle::{Cycle, Moved, Round, Tuning};
use crate::{
    Result,
    posterior::kinetic::{Dynamics, Pace},
    rng::Rng,
};

/// Length of a step, units of r: about the longest that is stable with a curvature of 1 / r^2.
const STEP: f64 = 0.7;
/// Exponent with which a step damps. With 0.25 the errors of a learned score pump energy into the velocities.
const DAMPING: f64 = 0.5;
/// Largest number of leapfrog steps of half a step's flow.
const LEAPS: usize = 16;

/// `count` steps of all chains from `z` on, with new velocities. As r has fallen, z starts so much nearer to x.
pub(super) fn moved(
    dynamics: &Dynamics,
    cycle: &mut Cycle,
    z: Tensor,
    round: Round,
    count: usize,
    rng: &mut Rng,
) -> Result<Moved> {
    let Round { level, fall, tuning, settled } = round;
    let position = (&cycle.x + ((z - &cycle.x)? * fall)?)?;
    // D stays about the same along such a way, that of the flow of the smoothed prior.
    let (mut motion, mut clean) = match settled {
        true => dynamics.start_with(position, cycle.x.clone(), level, rng)?,
        false => dynamics.start(position, level, rng)?,
    };
    let mut acceptance = 1.0;
    for _ in 0..count {
        let steps = Pace::of_flows(STEP * level, &cycle.steps, level, LEAPS, [0.0, DAMPING]);
        let leaps = (tuning != Tuning::Kept).then_some(&mut cycle.steps);
        (acceptance, clean) = dynamics.step(&mut motion, &steps, level, leaps, rng)?;
        motion.cool(&mut cycle.steps, rng)?;
    }
    let metrics = vec![("acceptance", acceptance), ("step_size", cycle.steps.median())];
    Ok(Moved { z: motion.point.position, clean: Some(clean), log_density: motion.point.log_density, metrics })
}

#[cfg(test)]
mod tests {
    use nalgebra::DMatrix;

    use super::*;
    use crate::{
        compute::Compute,
        instrument::microscope::example::{assert_gaussian, gradient_and_precision, unlike_noise},
        posterior::{gibbs::GibbsSettings, kinetic::Way},
        prior::gaussian::Gaussian,
        tensor::to_host,
    };

    /// With a Gaussian prior z is Gaussian, and chains that start at 0 arrive there, as long as data know no direction much better
    /// than r: for such a one kicks are too rare, and its mean is off by a share of what the data leave.
    #[test]
    fn steps_lead_to_the_gaussian() {
        let (problem, compute, count, level, variance) =
            (unlike_noise(10.0), Compute::cpu_f64(), 1000, 0.7, 0.8);
        let shape = problem.forward.grid().shape;
        let voxels = shape.iter().product();
        let prior = Gaussian::diagonal(vec![0.0; voxels], vec![variance; voxels], shape, &compute).unwrap();
        let (dark, bent) = gradient_and_precision(&problem);
        let precision = bent + DMatrix::identity(voxels, voxels) / (variance + level * level);
        let exact = precision.try_inverse().unwrap();
        let mean = &exact * dark;

        let start =
            Tensor::zeros((count, shape[0], shape[1], shape[2]), compute.dtype, &compute.device).unwrap();
        let dynamics = Dynamics { problem: &problem, prior: &prior, way: Way::Flows };
        let mut cycle = Cycle::new(start.clone(), (0..count).collect(), &GibbsSettings::default());
        let (mut z, mut settled, mut rng) = (start, false, Rng::new(4));
        for _ in 0..16 {
            let round = Round { level, fall: 1.0, tuning: Tuning::Adapted, settled };
            let Moved { z: moved, clean, .. } = moved(&dynamics, &mut cycle, z, round, 5, &mut rng).unwrap();
            (z, cycle.x, settled) = (moved, clean.unwrap(), true);
        }
        let draws = DMatrix::from_vec(voxels, count, to_host(&z).unwrap());
        assert_gaussian(&draws, &mean, &exact, 0.2);
    }
}
