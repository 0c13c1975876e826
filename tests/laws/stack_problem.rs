//! From recorded numbers to the posterior's problem of a microscope.

use antumbra::{
    Result,
    compute::Compute,
    instrument::microscope::{
        self, Crop, Microscope,
        description::EMBEDDED,
        problem::{NoiseModel, Prepared, Settings, problem},
    },
    prior::Scaling,
    rng::Rng,
};
use ndarray::Array3;

const CAMERA: &str = "camera: {pixel: 6.5 um, conversion_gain: 0.5, offset: 100, read_noise: 1.5}";

fn microscope(camera: &str) -> Microscope {
    let text = EMBEDDED[0].1.replace("camera: {pixel: 6.5 um}", camera);
    Microscope::parse(&text, "test").unwrap()
}

/// Numbers of a camera with gain 2 ADU/e- that sees blobs of light on 20 e-.
fn recorded(planes: usize) -> Array3<f64> {
    let mut rng = Rng::new(2);
    Array3::from_shape_fn((planes, 64, 64), |(_, y, x)| {
        let light = 20.0 + 200.0 * (-((y as f64 - 30.0).powi(2) + (x as f64 - 20.0).powi(2)) / 18.0).exp();
        100.0 + 2.0 * (light + (light + 2.25f64).sqrt() * rng.normal())
    })
}

fn prepare(planes: usize, camera: &str, settings: &Settings) -> Result<Prepared> {
    let pitch = [200e-9, 65e-9, 65e-9];
    let prior = (Scaling::IDENTITY, 8);
    problem(recorded(planes).view(), pitch, &microscope(camera), settings, prior, &Compute::cpu())
}

#[test]
fn a_described_camera_gives_photo_electrons_and_poisson_noise() {
    let prepared = prepare(1, CAMERA, &Settings::default()).unwrap();
    assert_eq!(
        (prepared.unit, prepared.problem.likelihoods[0].name()),
        ("photo-electrons", "shifted_poisson")
    );
    assert!((prepared.background[0] - 20.0).abs() < 2.0, "{}", prepared.background[0]);
    assert!(prepared.domain.object.shape[2] >= 128 && prepared.domain.object.shape[2].is_multiple_of(8));
    assert!(prepared.noise.contains("1.50 e-"), "{}", prepared.noise);
    // The middle of the field of view, all light in one voxel, comes back.
    let [_, rows, columns] = prepared.problem.forward.grid().shape;
    let mut object = vec![0f32; rows * columns];
    object[rows / 2 * columns + columns / 2] = 500.0;
    let object =
        candle_core::Tensor::from_vec(object, (1, 1, rows, columns), &candle_core::Device::Cpu).unwrap();
    let total = prepared.problem.predict(&object).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    let light = f64::from(total) - prepared.background.iter().sum::<f64>();
    assert!((light / 500.0 - 1.0).abs() < 0.01, "{light}");
}

#[test]
fn an_unknown_camera_is_measured() {
    let plain = "camera: {pixel: 6.5 um}";
    let prepared = prepare(1, plain, &Settings::default()).unwrap();
    assert_eq!(prepared.unit, "counts");
    assert!(prepared.noise.contains("cut-off"), "{}", prepared.noise);
    let poisson = Settings { noise: NoiseModel::ShiftedPoisson, ..Settings::default() };
    assert!(prepare(1, plain, &poisson).err().unwrap().to_string().contains("conversion_gain"));
    let border = Settings { border: 1.5, ..Settings::default() };
    assert!(prepare(1, plain, &border).is_err());
}

#[test]
fn stacks_extend_beyond_their_planes() {
    let prepared = prepare(3, CAMERA, &Settings { background: Some(20.0), ..Settings::default() }).unwrap();
    assert_eq!(prepared.domain.camera, [3, 64, 64]);
    assert!(prepared.domain.object.shape[0] > 3, "{:?}", prepared.domain.object.shape);
    assert_eq!(prepared.psf.grid.shape[0], 5);
}

/// A part of the field of view is fitted with the noise and background of the whole.
#[test]
fn a_part_is_cut_out_after_everything_is_measured() {
    let plain = "camera: {pixel: 6.5 um}";
    let whole = prepare(1, plain, &Settings::default()).unwrap();
    let crop = Crop { top: 20, left: 8, height: 24, width: 32 };
    let part = prepare(1, plain, &Settings { crop: Some(crop), ..Settings::default() }).unwrap();
    assert_eq!((part.domain.camera, part.values.len()), ([1, 24, 32], 24 * 32));
    assert_eq!((&part.noise, part.background[0]), (&whole.noise, whole.background[0]));
    assert_eq!(part.values[33], whole.values[21 * 64 + 9]);
    assert_eq!(part.problem.likelihoods[0].count(), 24 * 32);
}

/// The deconvolution fits as data do, the dark does not.
#[test]
fn the_guess_explains_the_data_roughly() {
    let prepared = prepare(1, CAMERA, &Settings::default()).unwrap();
    let problem = &prepared.problem;
    let guess = problem.guess(&Compute::cpu()).unwrap().unwrap();
    let [_, rows, columns] = problem.forward.grid().shape;
    assert_eq!(guess.dims(), [1, 1, rows, columns]);
    let fit = |x: &candle_core::Tensor| {
        problem.likelihoods[0].chi2(&problem.predict(x).unwrap()).unwrap().to_vec1::<f32>().unwrap()[0]
    };
    let (near, dark) = (fit(&guess), fit(&guess.zeros_like().unwrap()));
    assert!(near < 1.3 && dark > 10.0, "{near} {dark}");
}

/// What is left out is kept aside, nothing of it is in the problem, and all of it is foretold.
#[test]
fn a_fit_does_not_see_what_is_left_out() {
    let settings = Settings { background: Some(20.0), ..Settings::default() };
    for camera in [CAMERA, "camera: {pixel: 6.5 um}"] {
        let whole = prepare(1, camera, &settings).unwrap();
        let mut part = prepare(1, camera, &settings).unwrap();
        let left_out = part.leave_out(0.1, &mut Rng::new(1)).unwrap();
        let likelihood = &part.problem.likelihoods[0];
        assert_eq!(likelihood.name(), left_out.name());
        assert_eq!(likelihood.count() + left_out.count(), whole.values.len());
        assert_eq!(likelihood.values().unwrap(), part.values);
        let differ = part.values.iter().zip(&whole.values).filter(|(part, whole)| part != whole);
        assert_eq!(differ.count(), left_out.count());
        assert_eq!(left_out.restored(part.values.clone()), whole.values);
        let guess = part.problem.guess(&Compute::cpu()).unwrap().unwrap();
        let found = left_out.foretold(std::iter::once(part.problem.predict(&guess))).unwrap().unwrap();
        assert_eq!((found.count, found.per_sample.len()), (left_out.count(), 1));
    }
}

/// The prediction by which memory and the number of chains are chosen is never below what is modelled.
#[test]
fn the_object_is_no_larger_than_predicted() {
    let layout = microscope::sim::Layout { angles: 3, phases: 3 };
    let small = Some(Crop { top: 8, left: 16, height: 32, width: 24 });
    for (planes, settings) in [
        (1, Settings::default()),
        (9, Settings::default()),
        (1, Settings { factor: 3, border: 0.999, ..Settings::default() }),
        (3, Settings { crop: small, ..Settings::default() }),
    ] {
        let found = prepare(planes, CAMERA, &settings).unwrap().domain.object;
        let pitch = [Some(200e-9), Some(65e-9), Some(65e-9)];
        let most = settings.most_voxels([planes, 64, 64], pitch);
        // Sizes are rounded up to multiples of 8 here.
        let rounded: usize = found.shape[0] * (found.shape[1] - 7) * (found.shape[2] - 7);
        assert!(rounded <= most, "{:?} against {most}", found.shape);
        assert!(found.len() > most / 4, "{:?} against {most}", found.shape);
    }
    let frames = Settings { sim: Some(layout), ..Settings::default() };
    let pitch = [None, Some(65e-9), Some(65e-9)];
    let plane = Settings::default().most_voxels([1, 64, 64], pitch);
    assert_eq!(frames.most_voxels([9, 64, 64], pitch), plane);
    assert!(Settings::default().most_voxels([usize::MAX; 3], [None; 3]) == usize::MAX);
}
