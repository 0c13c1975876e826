//! Times of the parts that a reconstruction spends its time in: `cargo bench`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;

use antumbra::{
    compute::Compute,
    instrument::{Problem, vlbi},
    io::uvfits,
    posterior::{
        Solver,
        ppm::{Ppm, PpmSettings},
    },
    prior::{Adaptation, Denoiser, Scaling, Trainable, card::Prior},
    rng::Rng,
    tensor::value_and_gradient,
};
use candle_core::Tensor;
use divan::Bencher;

fn main() {
    divan::main();
}

/// Closures and flux of M87, day 095, scan-averaged.
fn m87() -> Problem {
    let file = "data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits";
    let data = uvfits::read_observation(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let scaling = Scaling { unit: 1e-3, dark: -0.5 };
    vlbi::problem::problem(&data, &vlbi::Vlbi::default(), scaling, &Compute::cpu()).unwrap()
}

/// Log likelihood and gradient of 32 images of 64 x 64.
#[divan::bench]
fn likelihood_gradient(bencher: Bencher) {
    let problem = m87();
    let images = Rng::new(1).normals(&[32, 1, 64, 64], &Compute::cpu()).unwrap();
    bencher.bench_local(|| problem.log_likelihood_and_gradient(&images).unwrap());
}

/// The default prior, noisy images and their noise levels.
fn default_prior(batch: usize) -> (Box<dyn Denoiser>, Tensor, Tensor) {
    let compute = Compute::cpu();
    let network = Prior::find("blackhole64").unwrap().network(&compute).unwrap();
    let noisy = Rng::new(0).normals(&[batch, 1, 64, 64], &compute).unwrap();
    (network, noisy, compute.tensor(vec![0.5; batch], &[batch]).unwrap())
}

fn loss(network: &dyn Denoiser, noisy: &Tensor, level: &Tensor) -> antumbra::Result<Tensor> {
    Ok(network.denoise(noisy, level)?.sqr()?.flatten_from(1)?.sum(1)?)
}

#[divan::bench(args = [1, 8])]
fn denoise(bencher: Bencher, batch: usize) {
    let (network, noisy, level) = default_prior(batch);
    bencher.bench(|| network.denoise(&noisy, &level).unwrap());
}

#[divan::bench(args = [1, 8])]
fn denoiser_vector_jacobian_product(bencher: Bencher, batch: usize) {
    let (network, noisy, level) = default_prior(batch);
    bencher.bench(|| value_and_gradient(&noisy, |noisy| loss(network.as_ref(), noisy, &level)).unwrap());
}

#[divan::bench(args = [1, 8])]
fn weight_gradient_of_a_copy(bencher: Bencher, batch: usize) {
    weight_gradient(bencher, batch, Adaptation::Copy);
}

#[divan::bench(args = [1, 8])]
fn weight_gradient_of_low_rank_adapters(bencher: Bencher, batch: usize) {
    weight_gradient(bencher, batch, Adaptation::LowRank(4));
}

fn weight_gradient(bencher: Bencher, batch: usize, adaptation: Adaptation) {
    let (network, noisy, level) = default_prior(batch);
    let copy: Box<dyn Trainable> = network.trainable(adaptation, &mut Rng::new(1)).unwrap();
    bencher.bench(|| loss(&*copy, &noisy, &level).unwrap().sum_all().unwrap().backward().unwrap());
}

/// One step of Principled Posterior Matching with 8 particles of 64 x 64: 16 images through both denoisers and back.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn ppm_step_of_8_particles(bencher: Bencher) {
    let (problem, (prior, ..), rng) = (m87(), default_prior(1), Rng::new(2));
    let settings = PpmSettings { particles: 8, draw_steps: 2, ..PpmSettings::default() };
    let mut ppm = Ppm::new(settings, prior.as_ref(), &rng, &Compute::cpu()).unwrap();
    ppm.step(&problem, prior.as_ref(), &mut rng.stream("step", 0)).unwrap();
    bencher.bench_local(|| ppm.step(&problem, prior.as_ref(), &mut rng.stream("step", 1)).unwrap());
}
