//! How often a step waits for numbers to cross between host and device.

use std::path::Path;

use antumbra::{
    compute::Compute,
    instrument::vlbi::{Vlbi, problem::problem},
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

use crate::devices;

/// What crosses in the second step of matching closures, flux and centroid of M87; the first one also draws the particles.
fn of_a_step(particles: usize, pixels: usize, compute: &Compute) -> Crossings {
    let file = "data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits";
    let data = uvfits::read_observation(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let scaling = Scaling { unit: 1e-3, dark: -0.5 };
    let problem = problem(&data, &Vlbi { pixels, ..Vlbi::default() }, scaling, compute).unwrap();
    let small = Architecture {
        pixels,
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
    let mut step = |index| ppm.step(&problem, &prior, &mut rng.stream("step", index)).unwrap();
    step(0);
    let before = crossings();
    step(1);
    let after = crossings();
    Crossings { tensors: after.tensors - before.tensors, numbers: after.numbers - before.numbers }
}

/// Up: the noise, and the noise levels with their weights. Down: the training loss, the norms of two gradients, and the
/// averages that are logged. Each of the four products of the data has its noise model on the host: predictions down,
/// values up, and the gradients of both the other way.
#[test]
fn a_step_of_matching_crosses_as_often_whatever_its_size_and_only_noise_by_pixels() {
    // Crossings are counted by thread.
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for compute in devices::single() {
        let step = |particles, pixels| one_thread.install(|| of_a_step(particles, pixels, &compute));
        let sizes = [(2, 16), (4, 16), (4, 32)];
        let [small, more, larger] = sizes.map(|(particles, pixels)| step(particles, pixels));
        assert_eq!([small, more, larger].map(|step| step.tensors), [2 + 4 + 4 * 4; 3]);
        assert_eq!(larger.numbers - more.numbers, 4 * (32 * 32 - 16 * 16));
    }
}
