//! The family of a generator: x = g(z) with white z of the size of the image.
//!
//! g starts as the prior's denoiser at one noise level, g(z) = D(s z, s), and all its weights are free. The auxiliary denoiser
//! learns from as many draws as it likes.

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use super::family::{Drawn, Family};
use crate::{
    Error, Result,
    compute::Compute,
    prior::{Adaptation, Denoiser, Trainable},
    rng::Rng,
};

/// Settings of the generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeneratorSettings {
    /// Noise level s at which the prior's denoiser becomes the generator, standard deviations of the prior.
    pub level: f64,
    /// Learning rate of its weights.
    pub learning_rate: f64,
}

impl Default for GeneratorSettings {
    fn default() -> Self {
        Self { level: 1.0, learning_rate: 1e-4 }
    }
}

impl GeneratorSettings {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// A number that is not positive.
    pub fn validate(&self) -> Result<()> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if positive(self.level) && positive(self.learning_rate) {
            return Ok(());
        }
        let problem = "level and learning_rate must be positive; use 1 and 1e-4";
        Err(Error::config("solver.matching.family", problem))
    }
}

/// `count` images of `network` at noise level `level`, differentiable in its weights.
///
/// # Errors
/// Those of the network.
pub(super) fn images(
    network: &dyn Trainable,
    level: f64,
    count: usize,
    rng: &mut Rng,
    compute: &Compute,
) -> Result<Tensor> {
    let [z, y, x] = network.shape();
    let white = rng.normals(&[count, z, y, x], compute)?;
    let levels = compute.tensor(vec![level; count], &[count])?;
    network.denoise(&(white * level)?, &levels)
}

/// A network that makes images of noise.
pub(super) struct Generator {
    network: Box<dyn Trainable>,
    /// Noise level s, network unit.
    level: f64,
    count: usize,
    compute: Compute,
}

impl Generator {
    /// A generator of which `count` images are drawn in each step.
    pub(super) fn new(
        settings: &GeneratorSettings,
        count: usize,
        prior: &dyn Denoiser,
        rng: &mut Rng,
        compute: &Compute,
    ) -> Result<Self> {
        let network = prior.trainable(Adaptation::Copy, rng)?;
        let level = settings.level * prior.data_std();
        Ok(Self { network, level, count, compute: compute.clone() })
    }

    fn images(&self, count: usize, rng: &mut Rng) -> Result<Tensor> {
        images(self.network.as_ref(), self.level, count, rng, &self.compute)
    }
}

impl Family for Generator {
    /// The weights stay: what they give at the start is known for any noise.
    fn start(&mut self, _: &Tensor) -> Result<()> {
        Ok(())
    }

    fn draw(&self, rng: &mut Rng) -> Result<Drawn> {
        Ok(Drawn { images: self.images(self.count, rng)?, weights: None })
    }

    fn sample(&self, count: usize, rng: &mut Rng) -> Result<Tensor> {
        Ok(self.images(count, rng)?.detach())
    }

    fn variables(&self) -> Vec<(String, Var)> {
        self.network.variables()
    }
}
