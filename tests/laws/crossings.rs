//! How often a step waits for numbers to cross between host and device.

use std::path::Path;
use std::sync::Arc;

use antumbra::{
    compute::Compute,
    grid::Grid,
    instrument::{
        Problem,
        density::Data,
        microscope::{
            Domain, Field, Psf, Widefield,
            likelihood::{Pixels, ShiftedPoisson},
        },
        vlbi::{Vlbi, problem::problem},
    },
    io::uvfits,
    posterior::{
        Solver,
        ppm::{Ppm, PpmSettings},
    },
    prior::{
        Scaling,
        unet::{Architecture, UNet},
    },
    rng::Rng,
    transfer::{Crossings, crossings},
};
use ndarray::Array3;

use crate::devices;

/// Closures, flux and centroid of M87.
fn sky(pixels: usize, compute: &Compute) -> Problem {
    let file = "data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits";
    let data = uvfits::read_observation(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let scaling = Scaling { unit: 1e-3, dark: -0.5 };
    problem(&data, &Vlbi { pixels, ..Vlbi::default() }, scaling, compute).unwrap()
}

/// A plane of a widefield microscope.
fn plane(pixels: usize, compute: &Compute) -> Problem {
    let camera = [1, pixels / 2 - 2, pixels / 2 - 2];
    let domain = Domain::new(camera, [1e-7; 3], 2, [0, 2, 2], 1).unwrap();
    let grid = Grid { shape: [1, 5, 5], pitch: domain.object.pitch };
    let psf = Psf { grid, values: Array3::from_elem((1, 5, 5), 1.0) };
    let noise = ShiftedPoisson { data: vec![3.0; domain.count()], read_variance: vec![1.0] };
    Problem {
        forward: Arc::new(Widefield::new(&psf, &domain, &Field::default(), compute).unwrap()),
        likelihoods: vec![Arc::new(Data::new(Pixels::new(noise, &[]).unwrap()))],
        scaling: Scaling { unit: 1.0, dark: -0.5 },
    }
}

/// What crosses in the second step of matching; the first one also draws the particles.
fn of_a_step(problem: &Problem, particles: usize, compute: &Compute) -> Crossings {
    let small = Architecture {
        pixels: problem.forward.grid().shape[2],
        widths: vec![8, 16],
        blocks: vec![1, 1],
        embedding: 8,
        groups: 4,
        ..Architecture::default()
    };
    let rng = Rng::new(1);
    let prior = UNet::new(small, &rng, compute).unwrap();
    let settings = PpmSettings { particles, draw_steps: 2, ..PpmSettings::default() };
    let mut ppm = Ppm::new(settings, &prior, &rng, compute).unwrap();
    let mut step = |index| ppm.step(problem, &prior, &mut rng.stream("step", index)).unwrap();
    step(0);
    let before = crossings();
    step(1);
    let after = crossings();
    Crossings { tensors: after.tensors - before.tensors, numbers: after.numbers - before.numbers }
}

/// Up: the noise, and the noise levels with their weights. Down: the training loss, the norms of two gradients, and the
/// averages that are logged. The noise models of the data are on the host: predictions down, log likelihoods up, and the
/// gradients of both the other way.
#[test]
fn a_step_of_matching_crosses_as_often_whatever_its_size_and_only_noise_by_pixels() {
    // Crossings are counted by thread.
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for compute in devices::single() {
        let step =
            |particles, pixels| one_thread.install(|| of_a_step(&sky(pixels, &compute), particles, &compute));
        let sizes = [(2, 16), (4, 16), (4, 32)];
        let [small, more, larger] = sizes.map(|(particles, pixels)| step(particles, pixels));
        assert_eq!([small, more, larger].map(|step| step.tensors), [2 + 4 + 4; 3]);
        assert_eq!(larger.numbers - more.numbers, 4 * (32 * 32 - 16 * 16));
    }
}

/// On a GPU convolutions and the noise models of cameras are where the images are; on a CPU both work in host memory.
#[test]
fn nothing_crosses_for_the_data_of_a_camera() {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for compute in devices::single() {
        let step = one_thread.install(|| of_a_step(&plane(16, &compute), 2, &compute));
        assert_eq!(step.tensors, 2 + 4 + if compute.device.is_cpu() { 4 + 4 } else { 0 });
    }
}
