//! One channel of a stack at one time: what part of the object is shown, its total light, its figures.

use std::{collections::BTreeMap, sync::Arc};

use candle_core::{DType, Tensor};
use ndarray::{Array3, Array4, ArrayView2, ArrayView3, Axis, s};

use crate::{
    Error, Result,
    calibration::{Functional, Kind},
    features::{
        Interval,
        blurred::{Blurred, PLACES},
        filament::{Crossing, LINES, crossing, profile},
        rings::{Rings, resolved},
    },
    grid::Grid,
    instrument::{
        Likelihood, Problem,
        held_out::Foretold,
        microscope::{Domain, Optics, Psf, held_out::LeftOut},
    },
    io::{
        cube::{Cube, Frame, MicroscopeFrame},
        cube_tiff,
        stack::{Container, Stack},
    },
    plot::StackFigures,
    posterior::truth::Alignment,
    reconstruction::{
        Directory, Drawn, Findings, Subject, TrueImage,
        subject::{not_foretold, pixels},
    },
    rng::Rng,
    transfer::Transfer,
};

/// Deviation of the posterior's total light from the data's from which a warning is due.
const LIGHT_LIMIT: f64 = 0.01;

/// Pairs of samples whose ring correlations are averaged.
const PAIRS: usize = 16;

/// Through what a channel was seen, and on which grid.
pub(super) struct View {
    pub(super) domain: Domain,
    pub(super) unit: &'static str,
    pub(super) psf: Psf,
    pub(super) optics: Optics,
}

/// A channel at one time with its data.
pub(super) struct Channel {
    frame: MicroscopeFrame,
    view: View,
    /// Light above the background on each camera pixel `[Z, Y, X]`, the mean of raw frames.
    light: Array3<f32>,
    /// Richardson-Lucy deconvolution of the data in the field of view `[Z, Y, X]`.
    classical: Array3<f32>,
    /// Data that the image is not fitted to.
    left_out: Option<LeftOut>,
}

impl Channel {
    /// `values` are the data on camera pixels as they are fitted, one raw frame after the other, `classical` an image of
    /// the whole object.
    pub(super) fn new(
        frame: MicroscopeFrame,
        view: View,
        values: Vec<f64>,
        background: Vec<f64>,
        classical: Array3<f32>,
        left_out: Option<LeftOut>,
    ) -> Result<Self> {
        let values = match &left_out {
            Some(left_out) => left_out.restored(values),
            None => values,
        };
        let domain = &view.domain;
        let (count, background) = (domain.count(), background.iter().cycle());
        let frames = (values.len() / count) as f64;
        let mean = |pixel: usize| values[pixel..].iter().step_by(count).sum::<f64>() / frames;
        let light = (0..count).zip(background).map(|(pixel, dark)| (mean(pixel) - dark) as f32).collect();
        let light = Array3::from_shape_vec(domain.camera, light)
            .map_err(|error| Error::config("stack", error.to_string()))?;
        let [z, y, x] = range(domain);
        let classical = classical.slice(s![z, y, x]).to_owned();
        Ok(Self { frame, view, light, classical, left_out })
    }

    /// Light of each sample in the field of view, and what the camera gets of it against the data.
    fn totals(&self, drawn: &Drawn) -> Result<(BTreeMap<String, Interval>, Vec<String>)> {
        let measured: f64 = self.light.iter().map(|&value| f64::from(value)).sum();
        let samples = drawn.cube.samples.outer_iter();
        let totals: Vec<f64> = samples.map(|sample| sample.iter().map(|&v| f64::from(v)).sum()).collect();
        let on_camera = self.on_camera(drawn)?;
        let ratios: Vec<f64> = on_camera.iter().map(|light| light / measured).collect();
        let mut features = BTreeMap::new();
        let named = [
            ("light_total", totals),
            ("light_on_camera", on_camera),
            ("light_of_data", vec![measured]),
            ("light_over_data", ratios.clone()),
        ];
        for (name, values) in named {
            features.extend(Interval::of(&values).map(|interval| (name.to_string(), interval)));
        }
        let mean = ratios.iter().sum::<f64>() / ratios.len().max(1) as f64;
        let warning = ((mean - 1.0).abs() > LIGHT_LIMIT).then(|| {
            format!(
                "the mean gives the camera {:.1} % of the light that the data hold above the background; check background and point-spread function",
                100.0 * mean
            )
        });
        Ok((features, warning.into_iter().collect()))
    }

    /// Ring correlation of samples of different chains in the brightest plane.
    fn agreement(&self, cube: &Cube) -> Vec<[f64; 2]> {
        let count = cube.samples.len_of(Axis(0));
        let [_, rows, columns] = cube.grid.shape;
        let light = |plane: &ArrayView2<f32>| f64::from(plane.sum());
        let first = cube.samples.index_axis(Axis(0), 0);
        let planes = first.outer_iter().map(|plane| light(&plane)).enumerate();
        let plane = planes.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(plane, _)| plane);
        let image = |sample: usize| cube.samples.slice(s![sample, plane, .., ..]);
        let other =
            |sample: usize| (sample + 1..count).find(|&other| cube.chains[other] != cube.chains[sample]);
        let pairs = (0..count).filter_map(|sample| Some([sample, other(sample)?])).take(PAIRS);
        let rings = Rings::new([rows, columns], [cube.grid.pitch[1], cube.grid.pitch[2]]);
        rings.correlation(pairs.map(|[a, b]| [image(a), image(b)]))
    }

    /// Residuals of the first sample over their standard deviations, planes or raw frames `[F, Y, X]`; 0 for what is
    /// left out of the fit.
    fn residuals(&self, drawn: &Drawn) -> Result<Array3<f32>> {
        let predicted = drawn.problem.predict(&drawn.draws.images.narrow(0, 0, 1)?)?;
        let mut residuals = Vec::new();
        for likelihood in &drawn.problem.likelihoods {
            let found = likelihood.residuals(&predicted)?.to_dtype(DType::F32)?;
            residuals.extend(found.flatten_all()?.read_list::<f32>()?);
        }
        let [_, rows, columns] = self.view.domain.camera;
        Array3::from_shape_vec((residuals.len() / (rows * columns), rows, columns), residuals)
            .map_err(|error| Error::config("stack", error.to_string()))
    }

    /// How well the samples foretell what was left out of the fit, if anything was.
    fn foretold(&self, drawn: &Drawn) -> Result<Option<BTreeMap<String, Foretold>>> {
        let Some(left_out) = &self.left_out else { return Ok(None) };
        let images = &drawn.draws.images;
        let samples = 0..images.dim(0)?;
        let predicted = samples.map(|sample| drawn.problem.predict(&images.narrow(0, sample, 1)?));
        let foretold = left_out.foretold(predicted)?;
        Ok(Some(foretold.into_iter().map(|foretold| (left_out.name().to_string(), foretold)).collect()))
    }

    /// Light above the background that each sample gives the camera, in the mean of raw frames.
    fn on_camera(&self, drawn: &Drawn) -> Result<Vec<f64>> {
        let images = &drawn.draws.images;
        let dark = drawn.problem.scaling.to_network(&images.narrow(0, 0, 1)?.zeros_like()?)?;
        let sum = |image: &Tensor| -> Result<f64> {
            let predicted = drawn.problem.predict(image)?.to_dtype(DType::F64)?;
            let predicted = predicted.flatten_all()?.read_list::<f64>()?;
            Ok(predicted.iter().sum::<f64>() * self.view.domain.count() as f64 / predicted.len() as f64)
        };
        let background = sum(&dark)?;
        (0..images.dim(0)?).map(|sample| Ok(sum(&images.narrow(0, sample, 1)?)? - background)).collect()
    }
}

/// Voxels of the object that the camera sees.
fn range(domain: &Domain) -> [std::ops::Range<usize>; 3] {
    let view = domain.view();
    [0, 1, 2].map(|axis| domain.before[axis]..domain.before[axis] + view[axis])
}

impl Subject for Channel {
    fn frame(&self) -> Frame {
        Frame::Microscope(self.frame.clone())
    }

    fn unit(&self) -> String {
        format!("{} per voxel", self.view.unit)
    }

    fn shown(&self, samples: Array4<f32>) -> (Array4<f32>, Grid) {
        let [z, y, x] = range(&self.view.domain);
        let shown = samples.slice(s![.., z, y, x]).to_owned();
        (shown, Grid { shape: self.view.domain.view(), pitch: self.view.domain.object.pitch })
    }

    /// Samples; the summaries of all channels and times go into one file once they are done.
    fn write(&self, cube: &Cube, directory: &Directory) -> Result<()> {
        cube_tiff::write_samples(cube, Container::Ome, &directory.file("samples.ome.tif"))
    }

    fn truth(&self, truth: &TrueImage, grid: &Grid) -> Result<(Array3<f32>, Alignment)> {
        let TrueImage { file, flux } = *truth;
        if flux.is_some() {
            return Err(Error::config("--flux", "a stack has no flux density; leave it out"));
        }
        let image = Stack::open(file)?.volume(0, 0)?;
        if image.shape() != grid.shape {
            let problem = format!("{:?} voxels; those of the posterior are {:?}", image.shape(), grid.shape);
            return Err(Error::format(file, "sizes", problem));
        }
        Ok((image, Alignment::None))
    }

    fn simulate(&self, problem: &Problem, truth: &Tensor, rng: &Rng) -> Result<Vec<Arc<dyn Likelihood>>> {
        let predicted = problem.predict(truth)?;
        let numbered = problem.likelihoods.iter().enumerate();
        let redrawn = numbered.map(|(index, likelihood)| {
            let drawn = likelihood.redrawn(&predicted, &mut rng.stream("photons", index as u64))?;
            drawn.ok_or_else(|| Error::config(likelihood.name(), "data of this kind cannot be drawn"))
        });
        redrawn.collect()
    }

    /// Pixels of the central plane, blurred to the optical resolution, 0.51 wavelength / NA.
    fn functionals(&self, samples: &Array4<f32>) -> Vec<(Functional, Vec<Option<f64>>)> {
        let total = |sample: ArrayView3<f32>| Some(sample.iter().map(|&value| f64::from(value)).sum());
        let totals = samples.outer_iter().map(total).collect();
        let mut all = vec![(Functional::new("light_total", Kind::Scalar), totals)];
        let plane = |sample: ArrayView3<f32>| sample.index_axis(Axis(0), sample.dim().0 / 2).mapv(f64::from);
        let planes: Vec<_> = samples.outer_iter().map(plane).collect();
        let [_, rows, columns] = self.view.domain.view();
        let resolution = self.frame.channel.emission.zip(self.frame.numerical_aperture);
        let fwhm = resolution
            .map_or(self.view.domain.object.pitch[2], |(wavelength, aperture)| 0.51 * wavelength / aperture);
        let spacing = [rows, columns].map(|size| size as f64 / PLACES as f64);
        let pitch = self.view.domain.object.pitch[2];
        for (name, axis) in LINES {
            let breadth = (fwhm / pitch).round() as usize;
            let crossings: Vec<_> =
                planes.iter().map(|plane| crossing(&profile(plane.view(), axis, breadth))).collect();
            let of = |value: fn(Crossing) -> f64, unit: f64| {
                crossings.iter().map(|found| found.map(|found| unit * value(found))).collect()
            };
            let scalar = |what: &str| Functional::new(format!("line_{name}_{what}"), Kind::Scalar);
            all.push((scalar("width_nm"), of(|found| found.width, 1e9 * pitch)));
            all.push((scalar("contrast"), of(|found| found.contrast, 1.0)));
        }
        let blurred = Blurred::new([rows, columns], fwhm / pitch, spacing);
        pixels(&mut all, &blurred, &planes);
        all
    }

    fn findings(&self, drawn: &Drawn, figures: bool) -> Result<Findings> {
        let (mut features, mut warnings) = self.totals(drawn)?;
        let held_out = self.foretold(drawn)?;
        warnings.extend(not_foretold(held_out.as_ref()));
        let Drawn { cube, traces, .. } = *drawn;
        let agreement = self.agreement(cube);
        let finest = resolved(&agreement).map(|frequency| 1e9 / frequency);
        features.extend(finest.and_then(|finest| Some(("resolution_nm".into(), Interval::of(&[finest])?))));
        if !figures {
            return Ok(Findings { features, warnings, held_out, ..Findings::default() });
        }
        let residuals = self.residuals(drawn)?;
        let View { psf, optics, .. } = &self.view;
        let shown = StackFigures {
            cube,
            light: self.light.view(),
            classical: self.classical.view(),
            residuals: residuals.view(),
            agreement: &agreement,
            psf,
            optics,
            traces,
        };
        Ok(Findings { features, warnings, held_out, figures: shown.draw()?, ..Findings::default() })
    }
}
