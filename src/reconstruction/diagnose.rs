//! The checks of a finished run, made again from its files, and against a known image if there is one.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::{Directory, Reconstruction, outcome::checks};
use crate::{
    Error, Result,
    features::{RingPosterior, ring::Search},
    io::{cube::Cube, cube_hdf5, image},
    plot::Traces,
    posterior::{
        diagnostics::Diagnostics,
        truth::{self, Alignment},
    },
};

/// Recomputes all checks of the run in `root`; `truth` is an image that was simulated from.
///
/// Closures leave the position of the image free, so samples are shifted onto the truth before pixels are compared.
///
/// # Errors
/// A directory without a finished run, or an image that cannot be read.
pub fn diagnose(root: &Path, truth: Option<&Path>) -> Result<Diagnostics> {
    let (directory, settings) = Directory::read(root)?;
    let run = Reconstruction::prepare(settings)?;
    let cube = cube_hdf5::read(&directory.file("posterior.h5"))?;
    let samples = samples(&cube)?;
    let length = chain_length(&cube.chains).ok_or_else(|| {
        Error::format(&directory.file("posterior.h5"), "/chain", "chains of unequal length; run again")
    })?;
    let [count, z, y, x] = *cube.samples.shape() else { return Err(Error::config("samples", "not a cube")) };
    let draws = run.problem.scaling.to_network(&samples)?.reshape((count / length, length, z, y, x))?;
    let ring = RingPosterior::measure(&cube, &Search::default());
    let mut diagnostics = checks(&run, &draws, &ring, &Traces::read(&directory.metrics())?)?;
    if let Some(file) = truth {
        let pixels = image::read(file)?.onto(&cube.grid);
        let truth = Tensor::from_iter(pixels.iter().map(|&v| v as f32), &Device::Cpu)?.reshape((1, y, x))?;
        diagnostics.truth = truth::compare(&samples, &truth, Alignment::Shift)?;
    }
    crate::manifest::write_json(&diagnostics, &directory.diagnostics())?;
    Ok(diagnostics)
}

fn samples(cube: &Cube) -> Result<Tensor> {
    let values: Vec<f32> = cube.samples.iter().copied().collect();
    Ok(Tensor::from_vec(values, cube.samples.shape(), &Device::Cpu)?)
}

/// Number of samples of each chain, if all have the same.
fn chain_length(chains: &[u32]) -> Option<usize> {
    let length = chains.iter().take_while(|chain| Some(*chain) == chains.first()).count();
    let equal = length > 0
        && chains.chunks(length).all(|block| block.len() == length && block.iter().all(|c| *c == block[0]));
    equal.then_some(length)
}

#[cfg(test)]
mod tests {
    use super::chain_length;

    #[test]
    fn chains_must_have_equal_lengths() {
        assert_eq!(chain_length(&[0, 0, 1, 1, 2, 2]), Some(2));
        assert_eq!(chain_length(&[0, 0, 1]), None);
        assert_eq!(chain_length(&[]), None);
    }
}
