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
        gibbs::{Gibbs, GibbsSettings},
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

/// A small untrained network for images of a problem.
fn network(problem: &Problem, compute: &Compute) -> UNet {
    let small = Architecture {
        pixels: problem.forward.grid().shape[2],
        widths: vec![8, 16],
        blocks: vec![1, 1],
        embedding: 8,
        groups: 4,
        ..Architecture::default()
    };
    UNet::new(small, &Rng::new(1), compute).unwrap()
}

/// What crosses in the second step of matching; the first one also draws the particles.
fn of_a_step(problem: &Problem, particles: usize, compute: &Compute) -> Crossings {
    let (prior, rng) = (network(problem, compute), Rng::new(1));
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

/// Tensors that cross in each round of split Gibbs sampling but the first, which looks at the problem and
/// moves without the prior.
fn of_rounds(problem: &Problem, chains: usize, settings: &GibbsSettings, compute: &Compute) -> Vec<u64> {
    let (prior, rng) = (network(problem, compute), Rng::new(1));
    let [z, y, x] = problem.forward.grid().shape;
    let start = rng.stream("start", 0).normals(&[chains, z, y, x], compute).unwrap();
    let mut gibbs = Gibbs::new(settings.clone(), start).unwrap();
    let mut round = |index| {
        let before = crossings().tensors;
        gibbs.step(problem, &prior, &mut rng.stream("step", index)).unwrap();
        crossings().tensors - before
    };
    let rounds = (settings.anneal + settings.rounds) as u64;
    (0..rounds).map(&mut round).skip(1).collect()
}

/// Each half of a Langevin step takes as many leapfrog steps as the median chain needs, from 1 to 16, and
/// each of these needs the likelihood of noise models on the host: predictions down, log likelihoods up, and
/// the gradients of both the other way. Besides, a Langevin step sends the lengths of both kicks and how, how
/// far and with which noise it damps velocities; either half sends how far to drift, how hard to kick and
/// which chains accept, and reads work and energies, before and after, of all chains at once. Then the step
/// reads how hot the chains are. A round sends velocities, asks for the likelihood where it begins and reads
/// that where it ends. In some rounds hot chains get new velocities, chains are given up or copied, and kept
/// draws are drawn once more. None of these numbers depends on chains or pixels, as long as the chains pass
/// in one batch.
#[test]
fn a_round_of_gibbs_sampling_crosses_a_bounded_number_of_times_whatever_its_size() {
    const LIKELIHOOD: u64 = 4;
    const LEAPS: u64 = 16;
    /// Kicks, damping, temperature; then what either half sends and reads.
    const STEP: u64 = 2 + 3 + 1 + 2 * (3 + 3);
    /// Which chains are hot, and new velocities.
    const HOT: u64 = 2;
    let settings =
        GibbsSettings { cycles: 1, anneal: 10, rounds: 4, denoise: 2, leaps: 16, ..GibbsSettings::default() };
    let steps = settings.denoise as u64;
    let round = |step: u64| 1 + LIKELIHOOD + steps * step + 1;
    let least = round(STEP + 2 * LIKELIHOOD);
    // Which chains go on; the noise of a draw, for each of its denoiser evaluations but the last.
    let most = round(STEP + 2 * LEAPS * LIKELIHOOD + HOT) + 1 + (steps - 1);
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for compute in devices::single() {
        for (chains, pixels) in [(2, 16), (4, 16), (4, 32)] {
            let rounds =
                one_thread.install(|| of_rounds(&sky(pixels, &compute), chains, &settings, &compute));
            assert!(
                rounds.iter().all(|round| (least..=most).contains(round)),
                "{chains} {pixels}: {rounds:?}"
            );
        }
    }
}
