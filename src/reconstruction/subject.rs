//! What a reconstruction shows: the parts of a run that differ between the sky and a microscope.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::Tensor;
use ndarray::{Array2, Array3, Array4};

use super::{Directory, TrueImage};
use crate::{
    Result,
    calibration::{Functional, Kind},
    features::{Interval, blurred::Blurred},
    grid::Grid,
    instrument::{Likelihood, Problem, held_out::Foretold},
    io::cube::{Cube, Frame},
    plot::{Figure, Traces},
    posterior::{Draws, truth::Alignment},
    rng::Rng,
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
    /// A file that cannot be read, an image of another size, or a flux where images have none.
    fn truth(&self, truth: &TrueImage, grid: &Grid) -> Result<(Array3<f32>, Alignment)>;

    /// How probable it is that a draw of the prior is taken for a truth: 1 for most, less where the run assumes more of
    /// an image than the prior does. `image` `[1, Z, Y, X]` is in network unit.
    ///
    /// # Errors
    /// Those of the forward model.
    fn acceptance(&self, _problem: &Problem, _image: &Tensor) -> Result<f64> {
        Ok(1.0)
    }

    /// The likelihoods of data that the model of the run would give of `truth` `[1, Z, Y, X]`, network unit.
    ///
    /// # Errors
    /// Data that cannot be drawn, or that a product cannot be formed from.
    fn simulate(&self, problem: &Problem, truth: &Tensor, rng: &Rng) -> Result<Vec<Arc<dyn Likelihood>>>;

    /// Functionals of samples as they are shown `[S, Z, Y, X]`, for each S values; nothing where a sample does not have one.
    fn functionals(&self, samples: &Array4<f32>) -> Vec<(Functional, Vec<Option<f64>>)>;

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
    /// Fraction of the samples that show a feature, by its name.
    pub occupancy: BTreeMap<String, f64>,
    /// How well the samples foretell data that were left out of the fit.
    pub held_out: Option<BTreeMap<String, Foretold>>,
    /// Checks that failed.
    pub warnings: Vec<String>,
    /// The drawings.
    pub figures: Vec<Figure>,
}

/// Mean square of data minus prediction over noise and spread above which samples do not foretell the data.
const WRONG: f64 = 2.5;

/// Warnings of the data products left out of the fit that the samples do not foretell.
pub(super) fn not_foretold(held_out: Option<&BTreeMap<String, Foretold>>) -> Vec<String> {
    let wrong = held_out.into_iter().flatten().filter(|(_, foretold)| foretold.predictive > WRONG);
    let said = wrong.map(|(product, foretold)| {
        let off = foretold.predictive.sqrt();
        format!(
            "data left out of the fit are not foretold: {product} is off by {off:.1} times noise and spread"
        )
    });
    said.collect()
}

/// Adds the blurred pixels of images `[Y, X]` to their functionals.
pub(super) fn pixels(
    functionals: &mut Vec<(Functional, Vec<Option<f64>>)>,
    blurred: &Blurred,
    images: &[Array2<f64>],
) {
    let values: Vec<Vec<f64>> = images.iter().map(|image| blurred.measure(image.view())).collect();
    let of = |place: usize| values.iter().map(|values| Some(values[place])).collect();
    let named = Blurred::names().enumerate();
    functionals.extend(named.map(|(place, name)| (Functional::new(name, Kind::Pixel), of(place))));
}
