//! What a reconstruction shows: the parts of a run that differ between the sky and a microscope.

use std::{collections::BTreeMap, path::Path};

use ndarray::{Array3, Array4};

use super::Directory;
use crate::{
    Result,
    features::Interval,
    grid::Grid,
    instrument::Problem,
    io::cube::{Cube, Frame},
    plot::{Figure, Traces},
    posterior::{Draws, truth::Alignment},
};

/// The data of one reconstruction and what their images mean.
pub trait Subject {
    /// Where the image lies.
    fn frame(&self) -> Frame;

    /// Unit of the images.
    fn unit(&self) -> String;

    /// The part of samples `[S, Z, Y, X]` that is shown, and its grid.
    fn shown(&self, samples: Array4<f32>) -> (Array4<f32>, Grid);

    /// Writes the cube in the formats of its field.
    ///
    /// # Errors
    /// A file that cannot be written.
    fn write(&self, cube: &Cube, directory: &Directory) -> Result<()>;

    /// A known image on the grid of the samples, and how samples are laid over it.
    ///
    /// # Errors
    /// A file that cannot be read, or an image of another size.
    fn truth(&self, file: &Path, grid: &Grid) -> Result<(Array3<f32>, Alignment)>;

    /// What is read off the samples, and figures if they are wanted.
    ///
    /// # Errors
    /// Those of the forward model, or a figure that cannot be drawn.
    fn findings(&self, drawn: &Drawn, figures: bool) -> Result<Findings>;
}

/// The draws of a finished run.
pub struct Drawn<'a> {
    /// Samples as they are shown.
    pub cube: &'a Cube,
    /// All of each image, network unit.
    pub draws: &'a Draws,
    /// What they were drawn from.
    pub problem: &'a Problem,
    /// Records of the sampler.
    pub traces: &'a Traces,
}

/// What is read off a cube.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Numbers by the name they have in `diagnostics.json`.
    pub features: BTreeMap<String, Interval>,
    /// Checks that failed.
    pub warnings: Vec<String>,
    /// The drawings.
    pub figures: Vec<Figure>,
}
