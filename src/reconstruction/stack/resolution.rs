//! How far the coupling of split Gibbs sampling falls: until it hides nothing that the data of a stack tell.

use crate::{
    Result,
    compute::Compute,
    instrument::{Problem, Seen},
    posterior::SolverSettings,
    prior::Denoiser,
};

/// Lets the coupling r fall to the standard deviation that the data leave in the best seen direction of a dark image, with as
/// many more rounds as keep the pace of the fall. Under a wider one dark voxels hold light, the more the more voxels a
/// point-spread function covers. Settings whose coupling falls so far stay as they are.
///
/// # Errors
/// Those of the forward model.
pub(in crate::reconstruction) fn resolve(
    solver: &mut SolverSettings,
    problem: &Problem,
    prior: &dyn Denoiser,
    compute: &Compute,
) -> Result<()> {
    let SolverSettings::Gibbs { sampling, .. } = solver else { return Ok(()) };
    let [z, y, x] = problem.forward.grid().shape;
    let dark = compute.tensor(vec![0.0; z * y * x], &[1, z, y, x])?;
    let Seen::Informed(information) = problem.seen(&problem.scaling.to_network(&dark)?)? else {
        return Ok(());
    };
    let finest = information.finest() / prior.data_std();
    let fall = |last: f64| (sampling.start_level / last).ln();
    // A coupling that does not fall has no pace to keep.
    if finest < sampling.final_level && fall(sampling.final_level) > 0.0 {
        let longer = fall(finest) / fall(sampling.final_level);
        sampling.anneal = (sampling.anneal as f64 * longer).ceil() as usize;
        sampling.final_level = finest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::{
        instrument::microscope::{Domain, example::microscope, likelihood::FixedGaussian},
        posterior::gibbs::GibbsSettings,
        prior::{Scaling, gaussian::Gaussian},
    };

    /// A camera that sees every voxel by itself with this noise, a unit of 2 and a prior of standard deviation 0.5.
    fn resolved(sigma: f64, sampling: GibbsSettings) -> GibbsSettings {
        let compute = Compute::cpu_f64();
        let domain = Domain::new([1, 16, 16], [1e-7; 3], 1, [0; 3], 1).unwrap();
        let noise = FixedGaussian { data: vec![0.0; 256], sigma: vec![sigma] };
        let scaling = Scaling { unit: 2.0, dark: -0.1 };
        let problem = microscope(Array3::ones((1, 1, 1)), &domain, 0.0, noise, scaling);
        let prior = Gaussian::diagonal(vec![0.0; 256], vec![0.25; 256], [1, 16, 16], &compute).unwrap();
        let mut solver = SolverSettings::Gibbs { start: Default::default(), sampling };
        resolve(&mut solver, &problem, &prior, &compute).unwrap();
        let SolverSettings::Gibbs { sampling, .. } = solver else { panic!() };
        sampling
    }

    #[test]
    fn the_coupling_falls_to_the_noise_at_its_pace_and_no_farther() {
        let before = GibbsSettings { start_level: 3.0, final_level: 0.3, anneal: 10, ..Default::default() };
        let found = resolved(0.03, before.clone());
        assert!((found.final_level - 0.03 / 2.0 / 0.5).abs() < 1e-9, "{}", found.final_level);
        assert!((20..=21).contains(&found.anneal), "{}", found.anneal);
        assert_eq!(resolved(0.03, found.clone()), found);
        assert_eq!(resolved(1.0, before.clone()), before);
        let level = GibbsSettings { start_level: 0.3, ..before };
        assert_eq!(resolved(0.03, level.clone()), level);
    }
}
