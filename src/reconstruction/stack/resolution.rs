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
    if finest < sampling.final_level {
        let fall = |last: f64| (sampling.start_level / last).ln();
        let longer = fall(finest) / fall(sampling.final_level);
        sampling.anneal = (sampling.anneal as f64 * longer).ceil() as usize;
        sampling.final_level = finest;
    }
    Ok(())
}
