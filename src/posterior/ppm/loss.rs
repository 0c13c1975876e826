//! The divergence between particles and prior as a difference of two denoising losses, and its gradient.
//!
//! With x_s = x + s n, D_p the prior's denoiser and D_a one trained on draws of q,
//! l(x, s, n) = (|x - D_p(x_s, s)|^2 - |x - D_a(x_s, s)|^2) / s^2 and
//! KL(q || p) = max over D_a of E int l d ln s. For any D_a the integral is a lower bound.

use candle_core::{DType, Tensor, Var, backprop::GradStore};

use crate::{
    Error, Result, ensemble,
    posterior::ppm::settings::Distance,
    prior::{Denoiser, Trainable, draw::batch_size},
    rng::Rng,
    tensor::{compute_of, to_host},
    transfer::Transfer,
};

/// Share of the noise levels that are drawn log-uniformly; the others follow a logistic density of ln s.
const UNIFORM: f64 = 0.3;
/// Centre and scale of that density, ln(s / c) with c the prior's standard deviation: near the levels with which such
/// denoisers are trained (Karras et al. 2022, table 1), where most of the integral comes from.
const LOGISTIC: (f64, f64) = (-0.5, 0.7);

/// The range of noise levels over which the integral runs, network unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseLevels {
    /// Below this level the particles are taken to have no structure of their own.
    pub smallest: f64,
    /// Above this level all images look alike.
    pub largest: f64,
    /// Standard deviation of the prior.
    pub data_std: f64,
}

impl NoiseLevels {
    /// The ends of the range of ln(s / c).
    fn ends(&self) -> (f64, f64) {
        ((self.smallest / self.data_std).ln(), (self.largest / self.data_std).ln())
    }

    /// Logistic probability of the levels below either end.
    fn below(&self) -> (f64, f64) {
        let (first, last) = self.ends();
        (logistic(first), logistic(last))
    }

    /// ln(s / c) below which the share `probability` of the drawn levels lies within each of their two parts.
    fn quantile(&self, probability: f64) -> f64 {
        let (first, last) = self.ends();
        if probability < UNIFORM {
            return first + (last - first) * probability / UNIFORM;
        }
        let (low, high) = self.below();
        let share = low + (high - low) * (probability - UNIFORM) / (1.0 - UNIFORM);
        (LOGISTIC.0 + LOGISTIC.1 * (share / (1.0 - share)).ln()).clamp(first, last)
    }

    /// Density of ln(s / c) of the drawn levels.
    fn density(&self, log_level: f64) -> f64 {
        let ((first, last), (low, high)) = (self.ends(), self.below());
        let share = logistic(log_level);
        let peaked = share * (1.0 - share) / LOGISTIC.1 / (high - low);
        UNIFORM / (last - first) + (1.0 - UNIFORM) * peaked
    }

    /// `count` levels, one from each of `count` equal parts of their distribution, in random order, each with the
    /// weight that makes their sum an integral over ln s.
    fn draw(&self, count: usize, rng: &mut Rng) -> Vec<(f64, f64)> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, rng.below(last + 1));
        }
        let part = |i| self.quantile((i as f64 + rng.uniform()) / count as f64);
        let level = |u: f64| (self.data_std * u.exp(), 1.0 / self.density(u));
        order.into_iter().map(part).map(level).collect()
    }
}

/// Probability of the logistic distribution below ln(s / c).
fn logistic(log_level: f64) -> f64 {
    1.0 / (1.0 + ((LOGISTIC.0 - log_level) / LOGISTIC.1).exp())
}

/// Clean images with the noise that is added to them.
struct Diffused {
    /// Clean images x `[B, Z, Y, X]`.
    clean: Tensor,
    /// Noisy images x + s n `[B, Z, Y, X]`.
    noisy: Tensor,
    /// Noise levels s `[B]`.
    level: Tensor,
    /// Weights `[B]` that make a mean over levels an integral over ln s.
    importance: Tensor,
}

impl Diffused {
    /// Each of `images` `[K, Z, Y, X]` twice, with noise +n and -n (antithetic) at one level: `[2 K, Z, Y, X]`.
    /// `levels` are K pairs of a level and its weight.
    fn pairs(images: &Tensor, levels: &[(f64, f64)], rng: &mut Rng) -> Result<Self> {
        let compute = compute_of(images);
        let (level, importance): (Vec<f64>, Vec<f64>) = levels.iter().copied().unzip();
        let both = compute.tensor([level, importance].concat(), &[2, levels.len()])?;
        let (level, importance) = (both.get(0)?, both.get(1)?);
        let noise = rng.normals(images.dims(), &compute)?.broadcast_mul(&per_image(&level)?)?;
        Ok(Self {
            clean: Tensor::cat(&[images, images], 0)?.detach(),
            noisy: Tensor::cat(&[(images + &noise)?, (images - &noise)?], 0)?.detach(),
            level: Tensor::cat(&[&level, &level], 0)?,
            importance: Tensor::cat(&[&importance, &importance], 0)?,
        })
    }
}

/// The denoising loss of a batch and its gradient.
struct Denoising {
    /// |x - D(x + s n, s)|^2 of every image `[B]`.
    loss: Tensor,
    /// Its gradient in x, the weights of D fixed, `[B, Z, Y, X]`.
    gradient: Tensor,
}

/// Losses of a batch, and the gradient of their sum with positive weights `[B]` in the weights of D.
fn denoising(denoiser: &dyn Denoiser, batch: &Diffused, weight: &Tensor) -> Result<(Denoising, GradStore)> {
    let noisy = Var::from_tensor(&batch.noisy)?;
    let residual = (&batch.clean - denoiser.denoise(noisy.as_tensor(), &batch.level)?)?;
    let loss = residual.sqr()?.flatten_from(1)?.sum(1)?;
    let mut weights = (&loss * weight)?.sum_all()?.backward()?;
    let through_noisy = match weights.remove(noisy.as_tensor()) {
        Some(gradient) => gradient.broadcast_div(&per_image(weight)?)?,
        None => noisy.as_tensor().zeros_like()?,
    };
    let gradient = ((residual.detach() * 2.0)? + through_noisy)?.detach();
    Ok((Denoising { loss: loss.detach(), gradient }, weights))
}

/// `[B]` to `[B, 1, 1, 1]`.
fn per_image(values: &Tensor) -> Result<Tensor> {
    Ok(values.reshape(((), 1, 1, 1))?)
}

/// Weight (s^2 + c^2) / (s c)^2 of the denoising loss that trains a network (Karras et al. 2022, table 1).
fn training_weight(level: &Tensor, data_std: f64) -> Result<Tensor> {
    Ok((level.sqr()?.recip()? + data_std.powi(-2))?)
}

/// One Monte-Carlo estimate of the divergence of a set of images from the prior.
pub struct Matching {
    /// Each image's own term of [`Matching::bound`] `[K]`: on average over its noise, ln q - ln p at the image.
    pub values: Tensor,
    /// Gradient of each image's own term `[K, Z, Y, X]`: K times that of the mean.
    pub gradient: Tensor,
    /// Training loss of the denoiser of q per pixel.
    pub own_loss: f64,
    /// Gradient of that loss in its free weights.
    pub own: GradStore,
}

impl Matching {
    /// Lower bound on KL(q || p) in nats, averaged over images.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn bound(&self) -> Result<f64> {
        Ok(self.values.mean_all()?.to_dtype(DType::F64)?.read_scalar()?)
    }
}

/// What is compared, and how.
pub struct Comparison<'a> {
    /// The prior's denoiser.
    pub prior: &'a dyn Denoiser,
    /// The denoiser of q.
    pub own: &'a dyn Denoiser,
    /// Its free weights; none where it is known in closed form.
    pub variables: &'a [(String, Var)],
    /// Noise levels.
    pub levels: NoiseLevels,
    /// Levels of each image.
    pub count: usize,
    /// Distance between the denoisers.
    pub distance: Distance,
}

impl Comparison<'_> {
    /// Compares both denoisers on draws of q `[K, Z, Y, X]`, each diffused to [`Comparison::count`] noise levels.
    ///
    /// # Errors
    /// Those of the denoisers.
    pub fn of(&self, images: &Tensor, rng: &mut Rng) -> Result<Matching> {
        let (total, count) = (images.dim(0)?, self.count);
        let mut sum = Sum::default();
        let mut gradient = images.zeros_like()?;
        let mut values = Tensor::zeros(total, images.dtype(), images.device())?;
        for _ in 0..count {
            let drawn = self.levels.draw(total, rng);
            let (mut slopes, mut terms) = (Vec::new(), Vec::new());
            each_batch(images, &drawn, rng, |batch| {
                let (term, slope) = sum.compare(batch, self, 2 * total * count)?;
                terms.push(term);
                slopes.push(slope);
                Ok(())
            })?;
            gradient = (gradient + (ensemble::gather(&Tensor::cat(&slopes, 0)?)? / count as f64)?)?;
            values = (values + (ensemble::gather(&Tensor::cat(&terms, 0)?)? / count as f64)?)?;
        }
        let (own_loss, own) = sum.of_all_processes(self.variables)?;
        Ok(Matching { values: values.detach(), gradient: gradient.detach(), own_loss, own })
    }
}

/// Training loss per pixel of the auxiliary denoiser on `particles`, and its gradient in the weights.
///
/// # Errors
/// Those of the denoiser.
pub fn auxiliary_loss(
    particles: &Tensor,
    auxiliary: &dyn Trainable,
    levels: &NoiseLevels,
    rng: &mut Rng,
) -> Result<(f64, GradStore)> {
    let total = particles.dim(0)?;
    let drawn = levels.draw(total, rng);
    let mut sum = Sum::default();
    each_batch(particles, &drawn, rng, |batch| {
        sum.train(batch, auxiliary, levels.data_std, 2 * total).map(|_| ())
    })?;
    sum.of_all_processes(&auxiliary.variables())
}

/// Diffuses `particles` batch by batch to the levels `drawn`, and gives this process's share of the batches to `work`.
/// The noise is drawn for all of them, so that it does not depend on the number of processes.
fn each_batch(
    particles: &Tensor,
    drawn: &[(f64, f64)],
    rng: &mut Rng,
    mut work: impl FnMut(&Diffused) -> Result<()>,
) -> Result<()> {
    let batches = batches(particles)?;
    let own = ensemble::share(batches.len());
    for (index, (start, length)) in batches.into_iter().enumerate() {
        let images = particles.narrow(0, start, length)?;
        let batch = Diffused::pairs(&images, &drawn[start..start + length], rng)?;
        if own.contains(&index) {
            work(&batch)?;
        }
    }
    Ok(())
}

/// First particle and number of particles of each batch, of which there is at least one for every process; a particle
/// is evaluated twice.
fn batches(particles: &Tensor) -> Result<Vec<(usize, usize)>> {
    let (total, z, y, x) = particles.dims4()?;
    let size = batch_size([z, y, x], particles.device()) / 2;
    let size = size.max(1).min(total / ensemble::size());
    if size == 0 {
        let problem = format!("{total} particles for {} processes; use as many or more", ensemble::size());
        return Err(Error::config("solver.matching.particles", problem));
    }
    Ok((0..total).step_by(size).map(|start| (start, size.min(total - start))).collect())
}

/// Running sums over batches.
#[derive(Default)]
struct Sum {
    /// Terms of the training loss, on the device: to read each of them would stop it once a batch.
    own_losses: Vec<Tensor>,
    own: Option<GradStore>,
}

impl Sum {
    /// Loss and gradient summed over all processes.
    fn of_all_processes(self, variables: &[(String, Var)]) -> Result<(f64, GradStore)> {
        let mut weights = self.own.ok_or_else(|| Error::config("particles", "0 particles"))?;
        let mut sums: [f64; 1] = [to_host(&Tensor::stack(&self.own_losses, 0)?)?.iter().sum()];
        ensemble::sum(&mut sums)?;
        ensemble::sum_gradients(&mut weights, variables)?;
        Ok((sums[0], weights))
    }

    /// Adds a batch of pairs; returns the weighted terms l and their gradients, averaged over each pair: `[B / 2]` and
    /// `[B / 2, Z, Y, X]`.
    fn compare(&mut self, batch: &Diffused, with: &Comparison, total: usize) -> Result<(Tensor, Tensor)> {
        let own = self.train(batch, with.own, with.levels.data_std, total)?;
        let (terms, gradient) = match with.distance {
            Distance::Squared => {
                let (prior, _) = denoising(with.prior, batch, &batch.level.ones_like()?)?;
                let precision = (&batch.importance / batch.level.sqr()?)?;
                let gradient = (prior.gradient - own.gradient)?.broadcast_mul(&per_image(&precision)?)?;
                (((prior.loss - own.loss)? * precision)?, gradient)
            }
            Distance::PseudoHuber { width } => huber(batch, with, width)?,
        };
        let pairs = gradient.dim(0)? / 2;
        let mean = |x: &Tensor| -> Result<Tensor> {
            Ok(((x.narrow(0, 0, pairs)? + x.narrow(0, pairs, pairs)?)? * 0.5)?)
        };
        Ok((mean(&terms)?, mean(&gradient)?))
    }

    /// Adds a batch to the training loss and its gradient, averaged over `total` images and their pixels.
    fn train(
        &mut self,
        batch: &Diffused,
        own: &dyn Denoiser,
        data_std: f64,
        total: usize,
    ) -> Result<Denoising> {
        let values = total * batch.clean.elem_count() / batch.clean.dim(0)?;
        let weight = (training_weight(&batch.level, data_std)? / values as f64)?;
        let (denoised, weights) = denoising(own, batch, &weight)?;
        self.own_losses.push((&denoised.loss * weight)?.sum_all()?);
        match &mut self.own {
            Some(sum) => sum.extend(weights)?,
            empty => *empty = Some(weights),
        }
        Ok(denoised)
    }
}

/// Weighted terms `[B]` of a batch and their gradients for a convex distance d: with u = (D_a - D_p) / s,
/// l = d(u) + d'(u) (x - D_a) / s, which for d = |u|^2 is the difference of the two denoising losses. Here
/// d = 2 c^2 (sqrt(1 + |u|^2 / c^2) - 1), c^2 = width^2 pixels, as in Luo et al. 2024 ("One-step diffusion distillation through
/// score implicit matching"); it grows linearly for large u.
fn huber(batch: &Diffused, with: &Comparison, width: f64) -> Result<(Tensor, Tensor)> {
    let noisy = Var::from_tensor(&batch.noisy)?;
    let scale = per_image(&batch.level.recip()?)?;
    let own = with.own.denoise(noisy.as_tensor(), &batch.level)?;
    let prior = with.prior.denoise(noisy.as_tensor(), &batch.level)?;
    let difference = (&own - prior)?.broadcast_mul(&scale)?;
    let residual = (&batch.clean - own)?.broadcast_mul(&scale)?;
    let square = width * width * (batch.clean.elem_count() / batch.clean.dim(0)?) as f64;
    let root = (difference.sqr()?.flatten_from(1)?.sum(1)?.affine(1.0 / square, 1.0))?.sqrt()?;
    let slope = (difference.broadcast_div(&per_image(&root)?)? * 2.0)?;
    let distance = root.affine(2.0 * square, -2.0 * square)?;
    let terms = ((distance + (&slope * residual)?.flatten_from(1)?.sum(1)?)? * &batch.importance)?;
    let through_noisy = terms.sum_all()?.backward()?.remove(noisy.as_tensor());
    let direct = slope.broadcast_mul(&scale)?.broadcast_mul(&per_image(&batch.importance)?)?.detach();
    let gradient = match through_noisy {
        Some(gradient) => (gradient + direct)?,
        None => direct,
    };
    Ok((terms.detach(), gradient.detach()))
}
