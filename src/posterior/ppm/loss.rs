//! The divergence between particles and prior as a difference of two denoising losses, and its gradient.
//!
//! With x_s = x + s n, D_p the prior's denoiser and D_a one trained on draws of q,
//! l(x, s, n) = (|x - D_p(x_s, s)|^2 - |x - D_a(x_s, s)|^2) / s^2 and
//! KL(q || p) = max over D_a of E int l d ln s. For any D_a the integral is a lower bound.

use candle_core::{DType, Tensor, Var, backprop::GradStore};

use crate::{
    Error, Result,
    compute::Compute,
    ensemble,
    prior::{Denoiser, Trainable, draw::batch_size},
    rng::Rng,
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
        let compute = Compute { device: images.device().clone(), dtype: images.dtype() };
        let column =
            |of: fn(&(f64, f64)) -> f64| compute.tensor(levels.iter().map(of).collect(), &[levels.len()]);
        let (level, importance) = (column(|pair| pair.0)?, column(|pair| pair.1)?);
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

/// One Monte-Carlo estimate of the divergence of a set of particles from the prior.
pub struct Matching {
    /// Lower bound on KL(q || p) in nats, averaged over particles.
    pub bound: f64,
    /// Gradient of each particle's own term `[K, Z, Y, X]`: K times that of the mean.
    pub gradient: Tensor,
    /// Training loss of the auxiliary denoiser per pixel.
    pub auxiliary_loss: f64,
    /// Gradient of that loss in the auxiliary denoiser's weights.
    pub auxiliary: GradStore,
}

/// Compares both denoisers on `particles` `[K, Z, Y, X]`, each diffused to `count` noise levels.
///
/// # Errors
/// Those of the denoisers.
pub fn matching(
    particles: &Tensor,
    prior: &dyn Denoiser,
    auxiliary: &dyn Trainable,
    levels: &NoiseLevels,
    count: usize,
    rng: &mut Rng,
) -> Result<Matching> {
    let total = particles.dim(0)?;
    let mut sum = Sum::default();
    let mut gradient = particles.zeros_like()?;
    for _ in 0..count {
        let drawn = levels.draw(total, rng);
        let mut parts = Vec::new();
        each_batch(particles, &drawn, rng, |batch| {
            parts.push(sum.compare(batch, prior, auxiliary, 2 * total * count)?);
            Ok(())
        })?;
        gradient = (gradient + (ensemble::gather(&Tensor::cat(&parts, 0)?)? / count as f64)?)?;
    }
    let (bound, auxiliary_loss, weights) = sum.of_all_processes(auxiliary)?;
    Ok(Matching {
        bound: bound / (2 * total * count) as f64,
        gradient: gradient.detach(),
        auxiliary_loss,
        auxiliary: weights,
    })
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
    each_batch(particles, &drawn, rng, |batch| sum.train(batch, auxiliary, 2 * total).map(|_| ()))?;
    let (_, loss, weights) = sum.of_all_processes(auxiliary)?;
    Ok((loss, weights))
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
    bound: f64,
    auxiliary_loss: f64,
    auxiliary: Option<GradStore>,
}

impl Sum {
    /// Bound, loss and gradient summed over all processes.
    fn of_all_processes(self, auxiliary: &dyn Trainable) -> Result<(f64, f64, GradStore)> {
        let mut weights = self.auxiliary.ok_or_else(|| Error::config("particles", "0 particles"))?;
        let mut sums = [self.bound, self.auxiliary_loss];
        ensemble::sum(&mut sums)?;
        ensemble::sum_gradients(&mut weights, &auxiliary.variables())?;
        Ok((sums[0], sums[1], weights))
    }

    /// Adds a batch of pairs; returns the weighted gradient of l, averaged over each pair, `[B / 2, Z, Y, X]`.
    fn compare(
        &mut self,
        batch: &Diffused,
        prior: &dyn Denoiser,
        auxiliary: &dyn Trainable,
        total: usize,
    ) -> Result<Tensor> {
        let own = self.train(batch, auxiliary, total)?;
        let (prior, _) = denoising(prior, batch, &batch.level.ones_like()?)?;
        let precision = (&batch.importance / batch.level.sqr()?)?;
        self.bound += scalar(&((prior.loss - own.loss)? * &precision)?.sum_all()?)?;
        let gradient = (prior.gradient - own.gradient)?.broadcast_mul(&per_image(&precision)?)?;
        let pairs = gradient.dim(0)? / 2;
        Ok(((gradient.narrow(0, 0, pairs)? + gradient.narrow(0, pairs, pairs)?)? * 0.5)?)
    }

    /// Adds a batch to the training loss and its gradient, averaged over `total` images and their pixels.
    fn train(&mut self, batch: &Diffused, auxiliary: &dyn Trainable, total: usize) -> Result<Denoising> {
        let values = total * batch.clean.elem_count() / batch.clean.dim(0)?;
        let weight = (training_weight(&batch.level, auxiliary.data_std())? / values as f64)?;
        let (own, weights) = denoising(auxiliary, batch, &weight)?;
        self.auxiliary_loss += scalar(&(&own.loss * weight)?.sum_all()?)?;
        match &mut self.auxiliary {
            Some(sum) => sum.extend(weights)?,
            empty => *empty = Some(weights),
        }
        Ok(own)
    }
}

fn scalar(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.to_dtype(DType::F64)?.to_scalar()?)
}
