//! Noise added and taken away again leaves the default prior as it is.

use antumbra::{
    compute::Compute,
    prior::{card::Prior, reverse::draw_given_noisy, simulate::SimulatorSettings},
    rng::Rng,
};

use crate::devices;

const SIDE: usize = 64;
/// Width of the frame whose light is compared, pixels.
const FRAME: usize = 6;

/// Mean over images of the flux, and of the brightness in a frame along the edges times the number of all pixels.
fn light(images: &[Vec<f64>]) -> [f64; 2] {
    let inner = FRAME..SIDE - FRAME;
    let is_frame = |i: usize| !(inner.contains(&(i / SIDE)) && inner.contains(&(i % SIDE)));
    let frame: Vec<usize> = (0..SIDE * SIDE).filter(|&i| is_frame(i)).collect();
    let each = 1.0 / images.len() as f64;
    let flux = images.iter().flatten().sum::<f64>() * each;
    let edge = images.iter().flat_map(|image| frame.iter().map(|&i| image[i])).sum::<f64>() * each;
    [flux, edge * (SIDE * SIDE) as f64 / frame.len() as f64]
}

/// What a fall of the noise level as in split Gibbs sampling, but without data, leaves of images of the
/// prior.
fn fallen(compute: &Compute) -> Vec<Vec<f64>> {
    let (images, rounds, levels) = (48, 36, [12.0, 0.02f64]);
    let (prior, mut rng) = (Prior::find("blackhole64").unwrap(), Rng::new(5));
    let (network, scaling) = (prior.network(compute).unwrap(), prior.scaling());
    let mut x = (rng.normals(&[images, 1, SIDE, SIDE], compute).unwrap() * levels[0]).unwrap();
    for round in 0..rounds {
        let level = levels[0] * (levels[1] / levels[0]).powf(round as f64 / (rounds - 1) as f64);
        let noise = (rng.normals(x.dims(), compute).unwrap() * level).unwrap();
        x = draw_given_noisy(&*network, &(x + noise).unwrap(), level, 5, &mut rng).unwrap();
    }
    let drawn = scaling.to_image(&x).unwrap().flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
    drawn.iter().map(|image| image.iter().map(|&v| f64::from(v)).collect()).collect()
}

/// Steps that leave more noise than the denoiser is told (Euler-Maruyama) end with three times the light at
/// the edges and 40 % more flux.
#[test]
fn a_fall_without_data_leaves_the_prior() {
    let simulator = SimulatorSettings::default().build(SIDE, 11).unwrap();
    let simulated: Vec<Vec<f64>> = (0..400).map(|index| simulator.image(index)).collect();
    let [true_flux, true_edge] = light(&simulated);
    for compute in devices::single() {
        let [flux, edge] = light(&fallen(&compute));
        println!("flux {flux:.3}, of training images {true_flux:.3}; edge {edge:.3}, {true_edge:.3}");
        assert!((flux - true_flux).abs() < 0.06, "flux {flux}, of training images {true_flux}");
        assert!((edge - true_edge).abs() < 0.12, "edge {edge}, of training images {true_edge}");
    }
}
