//! Posterior cubes of a microscope as stacks that Fiji and napari open: pixelwise summaries, and samples as a film.

use std::path::Path;

use super::cube::{Cube, Summary};
use super::stack::{Channel, Container, Metadata, SampleType, Shape, Title, write};
use crate::{Error, Result};

/// The summaries that are written, with their names, each a channel.
const SUMMARIES: [&str; 4] = ["mean", "sd", "q05", "q95"];

/// Writes mean, standard deviation and the 5 % and 95 % quantiles of every cube as channels.
///
/// `cubes` are those of all channels at the first time, then at the second, ... of `times`. The channels are named
/// `mean`, `sd`, `q05` and `q95` behind the name of the channel in the data, if it has one.
///
/// # Errors
/// Cubes without samples, of unequal grids or of the sky, or a file that cannot be written.
pub fn write_summaries(cubes: &[Cube], times: usize, container: Container, file: &Path) -> Result<()> {
    let count = cubes.len() / times.max(1);
    let Some(first) = cubes.first().filter(|_| count * times == cubes.len()) else {
        return Err(Error::config("cubes", format!("{} cubes are not those of {times} times", cubes.len())));
    };
    let mut metadata = metadata(first, times, count * SUMMARIES.len())?;
    metadata.channels.clear();
    for (index, cube) in cubes[..count].iter().enumerate() {
        let channel = &cube.microscope()?.channel;
        let prefix = match &channel.name {
            Some(name) => format!("{name} "),
            None if count > 1 => format!("channel {} ", index + 1),
            None => String::new(),
        };
        metadata.channels.extend(
            SUMMARIES.map(|summary| Channel { name: Some(format!("{prefix}{summary}")), ..channel.clone() }),
        );
    }
    if let Some(other) = cubes.iter().find(|cube| cube.grid != first.grid) {
        let (expected, found) = (first.grid.shape.to_vec(), other.grid.shape.to_vec());
        return Err(Error::Shape { what: "cubes", expected, found });
    }
    let summaries = cubes.iter().map(Cube::summary).collect::<Result<Vec<Summary>>>()?;
    let plane = |time: usize, channel: usize, z: usize| {
        let Summary { mean, std, q05, q95 } = &summaries[time * count + channel / SUMMARIES.len()];
        [mean, std, q05, q95][channel % SUMMARIES.len()].index_axis(ndarray::Axis(0), z)
    };
    write(
        &metadata,
        container,
        &Title::of(first, "posterior mean, standard deviation and quantiles"),
        plane,
        file,
    )
}

/// Writes the samples of one cube as time points.
///
/// # Errors
/// A cube without samples or of the sky, or a file that cannot be written.
pub fn write_samples(cube: &Cube, container: Container, file: &Path) -> Result<()> {
    let count = cube.samples.shape()[0];
    if count == 0 {
        return Err(Error::config("samples", "the cube holds no samples"));
    }
    let metadata = metadata(cube, count, 1)?;
    let plane = |sample: usize, _: usize, z: usize| cube.samples.slice(ndarray::s![sample, z, .., ..]);
    write(&metadata, container, &Title::of(cube, "posterior samples"), plane, file)
}

impl Title {
    fn of(cube: &Cube, what: &str) -> Self {
        let made = &cube.provenance;
        let made = format!("seed {}, prior {}, configuration {}", made.seed, made.prior, made.config_sha256);
        let words = format!("{what} in {}; {made}", cube.unit);
        Self { name: cube.frame.source().into(), words }
    }
}

/// Scale and optics of a cube; all channels are the cube's.
fn metadata(cube: &Cube, time: usize, channels: usize) -> Result<Metadata> {
    let frame = cube.microscope()?;
    let [z, y, x] = cube.grid.shape;
    let mut metadata = Metadata::new("OME-TIFF", Shape { time, channels, z, y, x }, SampleType::F32);
    metadata.voxel = cube.grid.pitch.map(Some);
    metadata.channels.fill(frame.channel.clone());
    metadata.numerical_aperture = frame.numerical_aperture;
    metadata.refractive_index = frame.refractive_index;
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::cube::tests::{example, microscope};
    use crate::io::stack::Stack;

    /// Two times of two channels; the second channel is nameless.
    fn cubes() -> Vec<Cube> {
        let mut nameless = microscope();
        if let crate::io::cube::Frame::Microscope(frame) = &mut nameless.frame {
            frame.channel = Channel { name: None, emission: Some(600e-9) };
        }
        nameless.samples.mapv_inplace(|value| 2.0 * value);
        vec![microscope(), nameless.clone(), nameless, microscope()]
    }

    #[test]
    fn summaries_are_channels_with_the_names_of_the_data() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("posterior.ome.tif");
        write_summaries(&cubes(), 2, Container::Ome, &file).unwrap();
        let mut stack = Stack::open(&file).unwrap();
        assert_eq!(stack.metadata.shape.sizes(), [2, 8, 1, 4, 6]);
        let names: Vec<_> = stack.metadata.channels.iter().map(|c| c.name.clone().unwrap()).collect();
        assert_eq!(names[..4], ["MT-488 mean", "MT-488 sd", "MT-488 q05", "MT-488 q95"]);
        assert_eq!(names[5], "channel 2 sd");
        assert_eq!(stack.metadata.channels[3].emission, Some(525e-9));
        assert_eq!(stack.metadata.channels[4].emission, Some(600e-9));
        for (found, expected) in stack.metadata.voxel.iter().zip(microscope().grid.pitch) {
            assert!((found.unwrap() / expected - 1.0).abs() < 1e-12, "{found:?}");
        }
        assert_eq!(stack.metadata.numerical_aperture, Some(1.3));
        let summary = microscope().summary().unwrap();
        assert_eq!(stack.plane(0, 1, 0).unwrap(), summary.std.index_axis(ndarray::Axis(0), 0));
        assert_eq!(stack.plane(1, 7, 0).unwrap(), summary.q95.index_axis(ndarray::Axis(0), 0));
        assert_eq!(stack.plane(1, 0, 0).unwrap(), 2.0 * &summary.mean.index_axis(ndarray::Axis(0), 0));
    }

    #[test]
    fn samples_are_time_points() {
        let folder = tempfile::tempdir().unwrap();
        for container in [Container::Ome, Container::ImageJ] {
            let file = folder.path().join("samples.tif");
            write_samples(&microscope(), container, &file).unwrap();
            let mut stack = Stack::open(&file).unwrap();
            assert_eq!(stack.metadata.shape.sizes(), [5, 1, 1, 4, 6]);
            assert_eq!(stack.plane(3, 0, 0).unwrap()[[2, 5]], microscope().samples[[3, 0, 2, 5]]);
        }
    }

    #[test]
    fn other_cubes_are_refused() {
        let file = Path::new("never-written.tif");
        assert!(write_samples(&example(), Container::Ome, file).is_err());
        assert!(write_summaries(&cubes()[..3], 2, Container::Ome, file).is_err());
        assert!(write_summaries(&[], 1, Container::Ome, file).is_err());
        assert!(!file.exists());
    }
}
