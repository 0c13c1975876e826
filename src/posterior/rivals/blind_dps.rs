//! Blind diffusion posterior sampling: image and unknown parameters of the instrument diffuse side by side and are guided by one
//! fit.
//!
//! Source: Chung, Kim, Kim and Ye 2023, "Parallel diffusion models of operator and image for blind inverse problems", algorithm 1:
//! two independent reverse diffusions, coupled by the gradient of log p(y | x^, theta^) at the denoised image x^ = D(x_s, s) and
//! the denoised operator theta^ (their eq. 9 and 10). Their operator is a blur kernel with a diffusion model of its own; here it is
//! a few numbers of a known prior N(0, 1), whose denoiser is theta_s / (1 + s^2), at s in units of their own deviation. Steps are
//! as in [`super::dps`]: the weight of the reverse diffusion, and no step past the fit, instead of tuned constants and the norms of
//! kernels that the paper penalises. As in `dps` the uncertainty of x^ and theta^ is left out: too narrow.

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{
    Given, Rival,
    diffusion::{Diffusion, Ensemble, Levels, Schedule, Transition},
    guidance::{PART, denoised},
};
use crate::{
    Result,
    instrument::Problem,
    posterior::{
        Entry, Solver,
        hmc::{per_chain, squared_norm},
        solver::{TensorMap, take},
    },
    prior::Denoiser,
    rng::Rng,
    tensor::{by_parts, compute_of, to_host},
};

/// Settings of blind diffusion posterior sampling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlindDps {
    /// Number of chains.
    pub chains: usize,
    /// Noise levels of the image; those of the parameters are as many standard deviations of theirs.
    pub schedule: Schedule,
    /// Weight of the data; 1 is the likelihood's own.
    pub scale: f64,
}

impl Default for BlindDps {
    fn default() -> Self {
        Self { chains: 32, schedule: Schedule::default(), scale: 1.0 }
    }
}

/// The rule, with the parameters of each image's instrument.
pub struct Blind {
    scale: f64,
    /// Diffused parameters `[K, P]`.
    parameters: Tensor,
}

/// Images and parameters without their noise, and the fit of both.
struct Fit {
    clean: Tensor,
    /// `[K, P]`.
    parameters: Tensor,
    /// Squared whitened residuals of each image.
    misfit: Vec<f64>,
    /// Gradients of log p(y | x^, theta^) in the noisy image and in the diffused parameters.
    slopes: [Tensor; 2],
}

impl Fit {
    fn new(
        problem: &Problem,
        prior: &dyn Denoiser,
        x: &Tensor,
        parameters: &Tensor,
        level: f64,
    ) -> Result<Self> {
        let (instrument, numbers) = (problem.blind()?, parameters.dim(1)?);
        let pixels = x.elem_count() / x.dim(0)?;
        let joint = Tensor::cat(&[&x.flatten_from(1)?, parameters], 1)?;
        let [_, z, rows, columns] = <[usize; 4]>::from(x.dims4()?);
        let shrink = (1.0 + (level / prior.data_std()).powi(2)).recip();
        let [clean, found, misfit, slope, tilt] = by_parts(&joint, PART, |part| {
            let image = part.narrow(1, 0, pixels)?.reshape(((), z, rows, columns))?;
            let (image, clean) = denoised(prior, &image, level)?;
            let diffused = Var::from_tensor(&part.narrow(1, pixels, numbers)?.contiguous()?)?;
            let found = (diffused.as_tensor() * shrink)?;
            let predicted = instrument.apply_with(&problem.scaling.to_image(&clean)?, &found)?;
            let mut value = Tensor::zeros(part.dim(0)?, part.dtype(), part.device())?;
            let mut misfit = value.clone();
            for likelihood in &problem.likelihoods {
                value = (value + likelihood.log_prob(&predicted)?)?;
                misfit = (misfit + likelihood.residuals(&predicted.detach())?.sqr()?.sum(1)?)?;
            }
            let mut gradients = value.sum_all()?.backward()?;
            let mut of = |variable: &Var| match gradients.remove(variable.as_tensor()) {
                Some(gradient) => Ok(gradient.detach()),
                None => variable.as_tensor().zeros_like(),
            };
            let slopes = [of(&image)?, of(&diffused)?];
            let [slope, tilt] = slopes;
            Ok([clean.detach(), found.detach(), misfit, slope, tilt])
        })?;
        Ok(Self { clean, parameters: found, misfit: to_host(&misfit)?, slopes: [slope, tilt] })
    }

    /// The steps of images and of parameters along their slopes with these weights, both shortened where together they would
    /// pass the fit of data that fall linearly (see [`super::guidance::Guidance::step`]).
    fn steps(&self, weights: [f64; 2]) -> Result<[Tensor; 2]> {
        let [slope, tilt] = &self.slopes;
        let falls = squared_norm(slope)?.into_iter().zip(squared_norm(tilt)?);
        let falls = falls.map(|(image, numbers)| weights[0] * image + weights[1] * numbers);
        let share = |(misfit, fall): (&f64, f64)| if fall > 0.0 { (misfit / fall).min(1.0) } else { 1.0 };
        let shares: Vec<f64> = self.misfit.iter().zip(falls).map(share).collect();
        let numbers = per_chain(shares.clone(), tilt)?.reshape(((), 1))?;
        let images = slope.broadcast_mul(&per_chain(shares, slope)?)?;
        Ok([(images * weights[0])?, (tilt.broadcast_mul(&numbers)? * weights[1])?])
    }
}

impl Transition for Blind {
    const NAME: &'static str = "blind_dps";

    fn step(
        &mut self,
        ensemble: &mut Ensemble,
        levels: Levels,
        problem: &Problem,
        prior: &dyn Denoiser,
        rng: &mut Rng,
    ) -> Result<()> {
        let std = prior.data_std();
        let own = Levels { from: levels.from / std, to: levels.to / std, ..levels };
        if levels.index == 0 {
            let shape = self.parameters.dims();
            self.parameters = (rng.normals(shape, &compute_of(&self.parameters))? * own.from)?;
        }
        let fit = Fit::new(problem, prior, &ensemble.x, &self.parameters, levels.from)?;
        let weights = [levels.variance(), own.variance()].map(|variance| self.scale * variance);
        let [image, numbers] = fit.steps(weights)?;
        ensemble.x = (levels.renoise(&ensemble.x, &fit.clean, 1.0, rng)? + image)?;
        self.parameters = (own.renoise(&self.parameters, &fit.parameters, 1.0, rng)? + numbers)?;
        Ok(())
    }

    fn metrics(&self) -> Result<Vec<(&'static str, f64)>> {
        let mean = to_host(&self.parameters.flatten_all()?.mean_all()?)?;
        Ok(mean.into_iter().map(|mean| ("parameters", mean)).collect())
    }

    fn memory(&self) -> Result<TensorMap> {
        Ok([("parameters".to_string(), self.parameters.clone())].into())
    }

    fn recall(&mut self, mut memory: TensorMap) -> Result<()> {
        self.parameters = take(&mut memory, "parameters", self.parameters.dims())?;
        Ok(())
    }
}

impl BlindDps {
    fn diffusion(&self, given: &Given) -> Result<Diffusion<Blind>> {
        let shape = (self.chains, given.problem.blind()?.parameters());
        let parameters = Tensor::zeros(shape, given.compute.dtype, &given.compute.device)?;
        Diffusion::new(Blind { scale: self.scale, parameters }, self.chains, &self.schedule, given)
    }
}

impl Rival for BlindDps {
    fn entry(&self) -> Entry {
        Entry {
            name: "blind_dps",
            summary: "dps that finds the width of the blur or the gains of the stations too: biased, too narrow",
            needs: &["denoiser gradient", "likelihood gradient", "an instrument with unknown parameters"],
        }
    }

    fn chains(&mut self) -> &mut usize {
        &mut self.chains
    }

    fn build(&self, given: &Given) -> Result<Box<dyn Solver>> {
        Ok(Box::new(self.diffusion(given)?))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        compute::Compute,
        grid::Grid,
        instrument::{
            exact::{Blur, Filter, Normal},
            hartley,
        },
        posterior::rivals::dps::Dps,
        prior::{Scaling, gaussian::Gaussian},
        tensor::fft::circular_convolve,
    };

    const SIDE: usize = 32;
    const SIGMA: f64 = 0.3;
    /// Median a priori and spread; the truth is 1 pixel.
    const WIDTH: (f64, f64) = (1.6, 0.4);

    fn frequency(i: usize) -> f64 {
        let part = |k: usize| k.min(SIDE - k) as f64 / SIDE as f64;
        part(i / SIDE).hypot(part(i % SIDE))
    }

    fn gain(i: usize, width: f64) -> f64 {
        (-2.0 * (std::f64::consts::PI * frequency(i) * width).powi(2)).exp()
    }

    /// A field of unit correlation length seen through a blur of 1 pixel, by an instrument whose known width is `known`.
    fn scene(prior: &Gaussian, known: f64, compute: &Compute) -> (Problem, Tensor, Tensor) {
        let mut rng = Rng::new(4);
        let roots: Vec<f64> = prior.variances().iter().map(|variance| variance.sqrt()).collect();
        let white = rng.normals(&[1, 1, SIDE, SIDE], compute).unwrap();
        let truth = circular_convolve(&white, &roots).unwrap();
        let gains = |width: f64| (0..SIDE * SIDE).map(|i| gain(i, width)).collect::<Vec<f64>>();
        let noise = (rng.normals(&[1, 1, SIDE, SIDE], compute).unwrap() * SIGMA).unwrap();
        let seen = (circular_convolve(&truth, &gains(1.0)).unwrap() + noise).unwrap();
        let filter = Filter { grid: Grid::sky(SIDE, 1e-9).unwrap(), gains: gains(known) };
        let data = seen.flatten_from(1).unwrap();
        let problem = Problem {
            forward: Arc::new(Blur { known: filter, width: WIDTH.0, spread: WIDTH.1 }),
            likelihoods: vec![Arc::new(Normal { data, sigma: SIGMA })],
            scaling: Scaling::IDENTITY,
        };
        (problem, truth, seen)
    }

    /// Mean and standard deviation of ln width given the data, by quadrature: Fourier modes are independent.
    fn exact(prior: &Gaussian, seen: &Tensor) -> (f64, f64) {
        let modes = to_host(&hartley(seen).unwrap()).unwrap();
        let grid: Vec<f64> = (0..2000).map(|i| -1.5 + 3.0 * f64::from(i) / 2000.0).collect();
        let log = |log_width: f64| {
            let prior_part = -0.5 * ((log_width - WIDTH.0.ln()) / WIDTH.1).powi(2);
            let mode = |(i, (mode, power)): (usize, (&f64, &f64))| {
                let variance = gain(i, log_width.exp()).powi(2) * power + SIGMA * SIGMA;
                -0.5 * (mode * mode / variance + variance.ln())
            };
            prior_part + modes.iter().zip(prior.variances()).enumerate().map(mode).sum::<f64>()
        };
        let logs: Vec<f64> = grid.iter().map(|width| log(*width)).collect();
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logs.iter().map(|log| (log - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let moment = |of: &dyn Fn(f64) -> f64| {
            grid.iter().zip(&weights).map(|(width, weight)| weight * of(*width)).sum::<f64>() / total
        };
        let mean = moment(&|width| width);
        (mean, moment(&|width| (width - mean).powi(2)).sqrt())
    }

    fn finish(solver: &mut dyn Solver, problem: &Problem, prior: &Gaussian, first: usize) {
        for step in first..solver.steps() {
            solver.step(problem, prior, &mut Rng::new(2).stream("step", step as u64)).unwrap();
        }
    }

    fn error(solver: &dyn Solver, truth: &Tensor) -> f64 {
        let mean = solver.draws().unwrap().images.mean_keepdim(0).unwrap();
        let squares = to_host(&(mean - truth).unwrap().sqr().unwrap()).unwrap();
        (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
    }

    /// The width of the blur against its exact posterior, and the image against that of an instrument that takes the median for
    /// the truth.
    #[test]
    fn the_width_of_a_blur_is_found() {
        let compute = Compute::cpu_f64();
        let power = |f: f64| 16.0 / (1.0 + (f / 0.06).powi(2)).powf(1.5) + 0.01;
        let prior = Gaussian::periodic([SIDE, SIDE], power, &compute).unwrap();
        let (problem, truth, seen) = scene(&prior, WIDTH.0, &compute);
        let rng = Rng::new(1);
        let given = Given { problem: &problem, prior: &prior, rng: &rng, compute: &compute };
        let settings = BlindDps { chains: 16, ..BlindDps::default() };
        let mut blind = settings.diffusion(&given).unwrap();
        finish(&mut blind, &problem, &prior, 0);
        let found = to_host(&blind.transition().parameters).unwrap();
        let widths: Vec<f64> = found.iter().map(|number| WIDTH.0.ln() + WIDTH.1 * number).collect();
        let mean = widths.iter().sum::<f64>() / 16.0;
        let spread = (widths.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / 15.0).sqrt();
        let (right, deviation) = exact(&prior, &seen);
        let error_of_known = |known: f64| {
            let (problem, ..) = scene(&prior, known, &compute);
            let given = Given { problem: &problem, ..given };
            let mut solver = Dps { chains: 16, ..Dps::default() }.build(&given).unwrap();
            finish(solver.as_mut(), &problem, &prior, 0);
            error(solver.as_ref(), &truth)
        };
        let [own, wrong, known] = [error(&blind, &truth), error_of_known(WIDTH.0), error_of_known(1.0)];
        println!("ln width {mean:.3} +- {spread:.3}, exact {right:.3} +- {deviation:.3}, truth 0");
        println!(
            "rms error of the mean image {own:.3}, of dps by the median width {wrong:.3}, by the truth {known:.3}"
        );
        assert!((mean - right).abs() < 0.2 && WIDTH.0.ln() > 0.45, "{mean} {right}");
        assert!(own < 0.5 * (wrong + known), "{own} {wrong} {known}");
    }

    #[test]
    fn it_resumes_with_its_parameters() {
        let compute = Compute::cpu_f64();
        let prior = Gaussian::periodic([SIDE, SIDE], |_| 1.0, &compute).unwrap();
        let (problem, ..) = scene(&prior, 1.0, &compute);
        let rng = Rng::new(1);
        let given = Given { problem: &problem, prior: &prior, rng: &rng, compute: &compute };
        let settings =
            BlindDps { chains: 2, schedule: Schedule { steps: 5, ..Schedule::default() }, scale: 1.0 };
        let mut whole = settings.diffusion(&given).unwrap();
        for step in 0..2 {
            whole.step(&problem, &prior, &mut Rng::new(2).stream("step", step)).unwrap();
        }
        let mut resumed = settings.diffusion(&given).unwrap();
        resumed.restore(whole.state().unwrap()).unwrap();
        finish(&mut whole, &problem, &prior, 2);
        finish(&mut resumed, &problem, &prior, 2);
        let numbers = |solver: &Diffusion<Blind>| {
            let images = to_host(&solver.draws().unwrap().images).unwrap();
            [images, to_host(&solver.transition().parameters).unwrap()]
        };
        assert_eq!(numbers(&whole), numbers(&resumed));
    }
}
