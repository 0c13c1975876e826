//! A volume seen by a widefield microscope: the standard deviation of samples is large where its light is not told apart, along the
//! axis and beyond the field of view.

use std::{f64::consts::TAU, sync::Arc};

use antumbra::{
    compute::Compute,
    grid::Grid,
    instrument::{
        Problem,
        density::Data,
        microscope::{
            Domain, Field, Optics, Widefield,
            likelihood::{FixedGaussian, Pixels},
            psf::Recipe,
        },
    },
    posterior::{
        Solver,
        gibbs::{Gibbs, GibbsSettings},
    },
    prior::{Scaling, draw, gaussian::Gaussian},
    rng::Rng,
};
use candle_core::{DType, Tensor};

/// Planes, rows and columns that the camera records, and object voxels beyond them on either side.
const CAMERA: [usize; 3] = [8, 24, 24];
const MARGIN: [usize; 3] = [2, 8, 8];
const PITCH: [f64; 3] = [200e-9, 65e-9, 65e-9];
/// Mean and standard deviation of the prior's independent voxels, and that of the camera's noise, photo-electrons.
const PRIOR: (f64, f64) = (20.0, 5.0);
const NOISE: f64 = 0.3;
/// Period of the waves whose spread is compared, m: 4 planes or 12 pixels.
const PERIOD: f64 = 0.79e-6;

/// Root mean square over draws of a weighted sum of each one's voxels, over that of the prior.
fn spread(
    deviations: &[Vec<f64>],
    weight: impl Fn([usize; 3]) -> f64,
    [_, rows, columns]: [usize; 3],
) -> f64 {
    let weights: Vec<f64> = (0..deviations[0].len())
        .map(|i| weight([i / (rows * columns), i / columns % rows, i % columns]))
        .collect();
    let norm = weights.iter().map(|w| w * w).sum::<f64>();
    let sum = |draw: &Vec<f64>| draw.iter().zip(&weights).map(|(value, w)| value * w).sum::<f64>().powi(2);
    (deviations.iter().map(sum).sum::<f64>() / deviations.len() as f64 / norm).sqrt() / PRIOR.1
}

#[test]
fn samples_spread_along_the_axis_and_beyond_the_field_of_view() {
    let compute = Compute::cpu();
    let mut rng = Rng::new(1);
    let domain = Domain::new(CAMERA, PITCH, 1, MARGIN, 8).unwrap();
    let shape = domain.object.shape;
    let optics = Optics::matched(1.3, 1.515, 525e-9);
    let psf = Recipe::new(optics).psf(&Grid { shape: [2 * CAMERA[0] - 1, 41, 41], pitch: PITCH }).unwrap();
    let forward = Widefield::new(&psf, &domain, &Field::default(), &compute).unwrap();
    let voxels = shape.iter().product::<usize>();
    let prior =
        Gaussian::diagonal(vec![PRIOR.0; voxels], vec![PRIOR.1.powi(2); voxels], shape, &compute).unwrap();
    let truth: Vec<f64> = (0..voxels).map(|_| PRIOR.0 + PRIOR.1 * rng.normal()).collect();
    let data =
        forward.predict(&truth).unwrap().into_iter().map(|light| light + NOISE * rng.normal()).collect();
    let noise = Data::new(Pixels::new(FixedGaussian { data, sigma: vec![NOISE] }, &[]).unwrap());
    let problem = Problem {
        forward: Arc::new(forward),
        likelihoods: vec![Arc::new(noise)],
        scaling: Scaling::IDENTITY,
    };

    let start = draw::draws(&prior, 32, 12, &mut rng, &compute).unwrap();
    let settings = GibbsSettings {
        cycles: 1,
        anneal: 12,
        rounds: 24,
        draws: 6,
        start_level: 3.0,
        final_level: 0.2,
        kinetic: false,
        ..GibbsSettings::default()
    };
    let mut solver = Gibbs::new(settings, start).unwrap();
    for step in 0..solver.steps() {
        solver.step(&problem, &prior, &mut rng.stream("step", step as u64)).unwrap();
    }
    let images = solver.draws().unwrap().images;
    let deviations = images.broadcast_sub(&images.mean_keepdim(0).unwrap()).unwrap();
    let deviations: Vec<Vec<f64>> =
        deviations.to_dtype(DType::F64).and_then(|x: Tensor| x.flatten_from(1)?.to_vec2()).unwrap();

    let first = domain.before;
    let seen =
        |at: [usize; 3]| (0..3).all(|axis| (first[axis]..first[axis] + CAMERA[axis]).contains(&at[axis]));
    let wave = |axis: usize| {
        move |at: [usize; 3]| {
            let phase = TAU * at[axis] as f64 * PITCH[axis] / PERIOD;
            if seen(at) { phase.cos() } else { 0.0 }
        }
    };
    let (along, across) = (spread(&deviations, wave(0), shape), spread(&deviations, wave(2), shape));
    // Light of one plane in a square of the same size in the middle, and at the corner of what is modelled.
    let square = |corner: usize| {
        move |[z, y, x]: [usize; 3]| {
            let side = corner..corner + 6;
            if z == shape[0] / 2 && side.contains(&y) && side.contains(&x) { 1.0 } else { 0.0 }
        }
    };
    let [inside, outside] = [shape[1] / 2 - 3, 0].map(|corner| spread(&deviations, square(corner), shape));
    println!(
        "waves: {along:.2} of the prior's along the axis, {across:.2} across; light: {inside:.2} inside, {outside:.2} outside"
    );
    assert!(along > 2.0 * across, "{along} {across}");
    assert!(outside > 1.3 * inside, "{outside} {inside}");
}
