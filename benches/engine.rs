//! Times of the parts that a reconstruction spends its time in: `cargo bench`.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use antumbra::{compute::Compute, instrument::vlbi, io::uvfits, prior::Scaling, rng::Rng};
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
