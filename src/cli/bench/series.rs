//! The parts of a step that grow with a problem, each at sizes from small to large.

use std::{f64::consts::TAU, sync::Arc};

use candle_core::Tensor;

use crate::{
    Error, Result,
    compute::Compute,
    grid::Grid,
    instrument::{
        Forward, Likelihood, Problem,
        microscope::{
            Domain, Optics,
            convolve::Convolution,
            psf::{Model, Recipe},
        },
        vlbi::fourier::{Fourier, Pulse},
    },
    posterior::{
        Solver,
        ppm::{Ppm, PpmSettings},
    },
    prior::{
        Denoiser, Scaling,
        card::Prior,
        network::Network,
        unet::{Architecture, UNet},
    },
    rng::Rng,
    tensor::{compute_of, value_and_gradient},
};

/// One step, ready to be repeated.
pub(super) type Repeat = Box<dyn FnMut() -> Result<()>>;

/// A part of a step at growing sizes.
pub(super) struct Series {
    /// What is timed.
    pub(super) name: &'static str,
    /// What grows.
    pub(super) axis: &'static str,
    /// The sizes.
    pub(super) sizes: Vec<usize>,
    /// Prepares the step of a size.
    pub(super) prepare: fn(usize) -> Result<Repeat>,
}

/// All series.
pub(super) fn all() -> Vec<Series> {
    let doubled = |first: usize, count: u32| (0..count).map(|i| first << i).collect::<Vec<_>>();
    let tenfold = |first: u32, last: u32| (first..=last).map(|power| 10usize.pow(power)).collect();
    let (sides, particles) = (doubled(32, 5), doubled(8, 6));
    let series = |name, axis, sizes, prepare| Series { name, axis, sizes, prepare };
    vec![
        series("denoiser, one image", "pixels per side", sides.clone(), denoiser),
        series("denoiser, vector-Jacobian product, one image", "pixels per side", sides.clone(), jacobian),
        series("likelihood gradient, 1000 visibilities", "pixels per side", sides, |side| {
            visibilities(side, 1000)
        }),
        series("likelihood gradient, 64 x 64 pixels", "visibilities", tenfold(2, 6), |count| {
            visibilities(64, count)
        }),
        series("likelihood gradient, widefield stack", "voxels", tenfold(4, 8), stack),
        series("step of Principled Posterior Matching, 64 x 64 pixels", "particles", particles, matching),
    ]
}

/// A network of the default prior's shape for images of another size, untrained: its weights are fixed like
/// those of a file, so that costs the same.
fn network(side: usize) -> Result<UNet> {
    let Network::UNet(architecture) = Prior::find("blackhole64")?.card.architecture else {
        return Err(Error::config("prior", "blackhole64 is not a network of this program"));
    };
    let (architecture, compute) = (Architecture { pixels: side, ..architecture }, Compute::cpu());
    let untrained = UNet::new(architecture.clone(), &Rng::new(1), &compute)?;
    UNet::fixed(architecture, untrained.tensors()?, &compute)
}

fn noise(shape: &[usize]) -> Result<Tensor> {
    Rng::new(2).normals(shape, &Compute::cpu())
}

fn denoiser(side: usize) -> Result<Repeat> {
    let (network, noisy, level) = (network(side)?, noise(&[1, 1, side, side])?, level()?);
    Ok(Box::new(move || network.denoise(&noisy, &level).map(|_| ())))
}

fn jacobian(side: usize) -> Result<Repeat> {
    let (network, noisy, level) = (network(side)?, noise(&[1, 1, side, side])?, level()?);
    Ok(Box::new(move || {
        value_and_gradient(&noisy, |x| Ok(network.denoise(x, &level)?.sqr()?.flatten_from(1)?.sum(1)?))
            .map(|_| ())
    }))
}

/// The noise level of one image.
fn level() -> Result<Tensor> {
    Compute::cpu().tensor(vec![0.5], &[1])
}

/// Visibilities along the arcs of turning baselines, with noise of unit variance.
fn interferometer(side: usize, count: usize) -> Result<Problem> {
    const LONGEST: f64 = 8e9;
    let pitch = 160.0 / 64.0 * 1e-6 / 3600.0 * TAU / 360.0;
    let grid = Grid { shape: [1, side, side], pitch: [pitch; 3] };
    let mut rng = Rng::new(3);
    let uv: Vec<[f64; 2]> = (0..count)
        .map(|_| {
            let (angle, length) = (TAU * rng.uniform(), LONGEST * rng.uniform());
            [length * angle.cos(), length * angle.sin()]
        })
        .collect();
    let forward = Arc::new(Fourier::new(&grid, &uv, Pulse::default(), &Compute::cpu())?);
    let likelihoods: Vec<Arc<dyn Likelihood>> = vec![Arc::new(UnitNoise(2 * count))];
    Ok(Problem { forward, likelihoods, scaling: Scaling::IDENTITY })
}

fn visibilities(side: usize, count: usize) -> Result<Repeat> {
    let (problem, image) = (interferometer(side, count)?, noise(&[1, 1, side, side])?);
    Ok(Box::new(move || problem.log_likelihood_and_gradient(&image).map(|_| ())))
}

/// A stack of 16 planes (fewer if it is small) under an oil objective.
fn stack(voxels: usize) -> Result<Repeat> {
    const PITCH: [f64; 3] = [200e-9, 65e-9, 65e-9];
    let side = ((voxels as f64 / 16.0).sqrt().round() as usize).max(2);
    let recipe = Recipe { model: Model::Gaussian, ..Recipe::new(Optics::matched(1.4, 1.515, 520e-9)) };
    let psf = recipe.psf(&Grid { shape: [9, 33, 33], pitch: PITCH })?;
    let domain = Domain::new([16, side, side], PITCH, 1, [4, 16, 16], 2)?;
    let [z, y, x] = domain.object.shape;
    let forward = Widefield { convolution: Convolution::new(&psf, &domain, &Compute::cpu())?, domain };
    let likelihoods: Vec<Arc<dyn Likelihood>> = vec![Arc::new(UnitNoise(domain.count()))];
    let problem = Problem { forward: Arc::new(forward), likelihoods, scaling: Scaling::IDENTITY };
    let image = noise(&[1, z, y, x])?;
    Ok(Box::new(move || problem.log_likelihood_and_gradient(&image).map(|_| ())))
}

fn matching(particles: usize) -> Result<Repeat> {
    let (prior, problem, rng) = (network(64)?, interferometer(64, 1000)?, Rng::new(4));
    let settings = PpmSettings { particles, draw_steps: 2, ..PpmSettings::default() };
    let mut ppm = Ppm::new(settings, &prior, &rng, &Compute::cpu())?;
    ppm.step(&problem, &prior, &mut rng.stream("step", 0))?;
    let mut index = 0;
    Ok(Box::new(move || {
        index += 1;
        ppm.step(&problem, &prior, &mut rng.stream("step", index)).map(|_| ())
    }))
}

/// A microscope without background.
struct Widefield {
    convolution: Convolution,
    domain: Domain,
}

impl Forward for Widefield {
    fn grid(&self) -> &Grid {
        &self.domain.object
    }

    fn apply(&self, image: &Tensor) -> Result<Tensor> {
        Ok(self.convolution.apply(image)?.flatten_from(1)?)
    }
}

/// Data of zero with Gaussian noise of unit variance: the likelihood that costs least beside its forward model.
struct UnitNoise(usize);

impl Likelihood for UnitNoise {
    fn name(&self) -> &'static str {
        "unit_noise"
    }

    fn count(&self) -> usize {
        self.0
    }

    fn log_prob(&self, predicted: &Tensor) -> Result<Tensor> {
        Ok((predicted.sqr()?.flatten_from(1)?.sum(1)? * -0.5)?)
    }

    fn residuals(&self, predicted: &Tensor) -> Result<Tensor> {
        Ok(predicted.flatten_from(1)?.neg()?)
    }

    fn draw(&self, predicted: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let compute = compute_of(predicted);
        let mean = predicted.flatten_from(1)?;
        Ok((&mean + rng.normals(mean.dims(), &compute)?)?)
    }
}
