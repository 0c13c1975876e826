//! Times of the parts that a reconstruction spends its time in: `cargo bench`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;

use antumbra::{
    compute::Compute,
    instrument::vlbi,
    io::uvfits,
    prior::{Adaptation, Denoiser, Scaling, Trainable, card::Prior, unet::UNet},
    rng::Rng,
    tensor::value_and_gradient,
};
use candle_core::Tensor;
use divan::Bencher;

fn main() {
    divan::main();
}

/// Log likelihood and gradient of 32 images of 64 x 64: closures and flux of M87, day 095, scan-averaged.
#[divan::bench]
fn likelihood_gradient(bencher: Bencher) {
    let file = "data/SR1_M87_2017_095_lo_hops_netcal_StokesI.uvfits";
    let data = uvfits::read_observation(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let compute = Compute::cpu();
    let scaling = Scaling { unit: 1e-3, dark: -0.5 };
    let problem = vlbi::problem::problem(&data, &vlbi::Vlbi::default(), scaling, &compute).unwrap();
    let images = Rng::new(1).normals(&[32, 1, 64, 64], &compute).unwrap();
    bencher.bench_local(|| problem.log_likelihood_and_gradient(&images).unwrap());
}

/// The default prior, noisy images and their noise levels.
fn default_prior(batch: usize) -> (UNet, Tensor, Tensor) {
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
    bencher.bench(|| value_and_gradient(&noisy, |noisy| loss(&network, noisy, &level)).unwrap());
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
