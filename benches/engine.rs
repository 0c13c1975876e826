//! Times of the parts that a reconstruction spends its time in: `cargo bench`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;

use antumbra::{
    compute::Compute,
    grid::Grid,
    instrument::{
        Forward, Problem,
        microscope::{Convolution, Domain, Psf},
        vlbi::{
            self,
            fourier::{Fourier, Pulse},
        },
    },
    io::uvfits,
    posterior::{
        Solver,
        gibbs::{Gibbs, GibbsSettings},
        ppm::{Ppm, PpmSettings},
    },
    prior::{Adaptation, Denoiser, Scaling, Trainable, card::Prior},
    rng::Rng,
    tensor::{
        conv::conv2d,
        norm::modulated_silu,
        resample::{average2, repeat2_and_join},
        value_and_gradient,
    },
};
use candle_core::{Tensor, Var};
use divan::Bencher;
use ndarray::Array3;

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

/// One round of split Gibbs sampling with 16 chains of 64 x 64, after ten that find the step sizes.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn gibbs_round_of_16_chains(bencher: Bencher) {
    let (problem, (prior, start, _), rng) = (m87(), default_prior(16), Rng::new(3));
    let mut gibbs = Gibbs::new(GibbsSettings::default(), start).unwrap();
    let mut rounds = 0..;
    let mut round = || {
        let index = rounds.next().unwrap();
        gibbs.step(&problem, prior.as_ref(), &mut rng.stream("step", index)).unwrap()
    };
    (0..10).for_each(|_| drop(round()));
    bencher.bench_local(round);
}

/// Images of the single operations.
const BATCH: usize = 8;

fn normals(shape: &[usize]) -> Tensor {
    Rng::new(5).normals(shape, &Compute::cpu()).unwrap()
}

/// Features of 64 x 64 pixels and a 3 x 3 kernel.
fn features_and_kernel(channels: usize) -> [Tensor; 2] {
    [normals(&[BATCH, 64, 64, channels]), normals(&[channels, channels, 3, 3])]
}

#[divan::bench(args = [32, 64])]
fn convolution(bencher: Bencher, channels: usize) {
    let [x, kernel] = features_and_kernel(channels);
    bencher.bench(|| conv2d(&x, &kernel, None).unwrap());
}

/// With the zeros to which the tensor library adds each gradient.
#[divan::bench(args = [32, 64])]
fn convolution_input_gradient(bencher: Bencher, channels: usize) {
    let [x, kernel] = features_and_kernel(channels);
    let y = conv2d(&Var::from_tensor(&x).unwrap(), &kernel, None).unwrap();
    bencher.bench(|| y.backward().unwrap());
}

#[divan::bench(args = [32, 64])]
fn convolution_weight_gradient(bencher: Bencher, channels: usize) {
    let [x, kernel] = features_and_kernel(channels);
    let y = conv2d(&x, &Var::from_tensor(&kernel).unwrap(), None).unwrap();
    bencher.bench(|| y.backward().unwrap());
}

/// Group normalisation, modulation and SiLU.
#[divan::bench(args = [32, 64])]
fn modulated_activation(bencher: Bencher, channels: usize) {
    let (x, [scale, shift]) =
        (normals(&[BATCH, 64, 64, channels]), [0; 2].map(|_| normals(&[BATCH, channels])));
    bencher.bench(|| modulated_silu(&x, &scale, &shift, 8).unwrap());
}

/// To 32 x 32 pixels.
#[divan::bench(args = [32, 64])]
fn down(bencher: Bencher, channels: usize) {
    let x = normals(&[BATCH, 64, 64, channels]);
    bencher.bench(|| average2(&x).unwrap());
}

/// From 32 x 32 pixels, joined with as many channels of the finer level.
#[divan::bench(args = [32, 64])]
fn up_and_join(bencher: Bencher, channels: usize) {
    let [coarse, fine] = [32, 64].map(|side| normals(&[BATCH, side, side, channels]));
    bencher.bench(|| repeat2_and_join(&coarse, &fine).unwrap());
}

/// Light of a volume of 16 x 128 x 128 voxels on the camera, by fast Fourier transforms.
#[divan::bench]
fn convolution_of_a_volume(bencher: Bencher) {
    let domain = Domain::new([16, 96, 96], [200e-9, 65e-9, 65e-9], 1, [0, 16, 16], 2).unwrap();
    let grid = Grid { shape: [9, 33, 33], pitch: domain.object.pitch };
    let psf = Psf { grid, values: Array3::from_elem(grid.shape, 1.0) };
    let convolution = Convolution::new(&psf, &domain, &Compute::cpu()).unwrap();
    let [z, y, x] = domain.object.shape;
    let object = normals(&[1, z, y, x]);
    bencher.bench(|| convolution.apply(&object).unwrap());
}

/// 1000 visibilities of one image: one matrix for 64 pixels a side, matrices of rows and columns for 256.
#[divan::bench(args = [64, 256])]
fn visibilities(bencher: Bencher, side: usize) {
    const LONGEST: f64 = 8e9;
    let grid = Grid::sky(side, 7.8e-10).unwrap();
    let mut rng = Rng::new(6);
    let uv: Vec<[f64; 2]> =
        (0..1000).map(|_| [0; 2].map(|_| LONGEST * (2.0 * rng.uniform() - 1.0))).collect();
    let fourier = Fourier::new(&grid, &uv, Pulse::default(), &Compute::cpu()).unwrap();
    let image = normals(&[1, 1, side, side]);
    bencher.bench(|| fourier.apply(&image).unwrap());
}
