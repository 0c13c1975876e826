//! Draws of a prior and of its conditional given a noisy image, by integrating the reverse diffusion.

use candle_core::{Device, Tensor};

use crate::{
    Result,
    compute::Compute,
    prior::{Denoiser, reverse::denoised},
    rng::Rng,
};

/// Curvature of the noise schedule (Karras et al. 2022, eq. 5).
const RHO: f64 = 7.0;
/// Pixels of all images of a batch together: small enough to bound memory, large enough to keep the cores of a CPU busy,
/// or those of a GPU.
const BATCH_PIXELS: [usize; 2] = [1 << 15, 1 << 23];

/// Number of images that pass through a denoiser together. It depends on their size and the kind of device alone, so that
/// results depend neither on the number of images nor on that of threads.
pub fn batch_size(shape: [usize; 3], device: &Device) -> usize {
    let pixels = BATCH_PIXELS[usize::from(!device.is_cpu())];
    (pixels / shape.iter().product::<usize>().max(1)).max(1)
}

/// `count` independent draws `[count, Z, Y, X]` of `prior` by `steps` steps of Heun's method on the probability-flow
/// equation dx/ds = (x - D(x, s)) / s (Karras et al. 2022, algorithm 1): 2 `steps` - 1 evaluations a draw.
///
/// # Errors
/// Those of the prior.
pub fn draws(
    prior: &dyn Denoiser,
    count: usize,
    steps: usize,
    rng: &mut Rng,
    compute: &Compute,
) -> Result<Tensor> {
    let levels = noise_levels(prior.noise_range(), steps);
    let [z, y, x] = prior.shape();
    let mut done = Vec::new();
    let size = batch_size([z, y, x], &compute.device);
    for start in (0..count).step_by(size) {
        let batch = size.min(count - start);
        let noise = rng.normals(&[batch, z, y, x], compute)?;
        let mut image = (noise * levels[0])?;
        for pair in levels.windows(2) {
            image = heun_step(prior, &image, pair[0], pair[1])?;
        }
        done.push(image);
    }
    Ok(Tensor::cat(&done, 0)?)
}

/// `steps` noise levels from the largest to the smallest, then 0 (Karras et al. 2022, eq. 5).
fn noise_levels((smallest, largest): (f64, f64), steps: usize) -> Vec<f64> {
    let (first, last) = (largest.powf(1.0 / RHO), smallest.powf(1.0 / RHO));
    let intervals = steps.saturating_sub(1).max(1) as f64;
    let level = |i: usize| (first + i as f64 / intervals * (last - first)).powf(RHO);
    (0..steps.max(1)).map(level).chain([0.0]).collect()
}

fn heun_step(prior: &dyn Denoiser, image: &Tensor, from: f64, to: f64) -> Result<Tensor> {
    let slope = |image: &Tensor, level: f64| -> Result<Tensor> {
        Ok(((image - denoised(prior, image, level)?)? / level)?)
    };
    let first = slope(image, from)?;
    let euler = (image + (&first * (to - from))?)?;
    let next =
        if to > 0.0 { (image + ((first + slope(&euler, to)?)? * (0.5 * (to - from)))?)? } else { euler };
    Ok(next.detach())
}
