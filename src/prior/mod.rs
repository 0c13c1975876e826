//! Priors: what images look like, known through a denoiser.

pub mod card;
pub mod checkpoint;
pub mod counted;
pub mod draw;
pub mod factored;
pub mod gaussian;
pub mod images;
pub mod low_rank;
pub mod mixture;
pub mod network;
pub mod positive;
pub mod pyramid;
pub mod residual;
pub mod reverse;
pub mod simulate;
pub mod song;
pub mod tiled;
pub mod told;
pub mod train;
pub mod unet;
pub mod weights;

use candle_core::{Tensor, Var};

pub use pyramid::{Coarser, Pyramid};

use crate::{Error, Result, rng::Rng};

/// Linear map between the unit a prior works in and the unit an instrument sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// Instrument units per network unit.
    pub unit: f64,
    /// Network value of a dark pixel.
    pub dark: f64,
}

impl Scaling {
    /// No change of unit.
    pub const IDENTITY: Self = Self { unit: 1.0, dark: 0.0 };

    /// Instrument unit from network unit: unit (x - dark).
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn to_image(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.affine(self.unit, -self.unit * self.dark)?)
    }

    /// Network unit from instrument unit: x / unit + dark.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn to_network(&self, image: &Tensor) -> Result<Tensor> {
        Ok(image.affine(1.0 / self.unit, self.dark)?)
    }

    /// From instrument unit to network unit.
    pub fn inverse(self) -> Self {
        Self { unit: self.unit.recip(), dark: -self.unit * self.dark }
    }

    /// This map and then `next`, which takes what this one calls the instrument unit for its network unit.
    pub fn then(self, next: Self) -> Self {
        Self { unit: next.unit * self.unit, dark: self.dark + next.dark / self.unit }
    }
}

/// A prior p(x), known through D(x_s, s) = E[x | x + s n = x_s] with n ~ N(0, I) (Karras et al. 2022, the EDM
/// convention). The score of the diffused prior is (D(x_s, s) - x_s) / s^2.
pub trait Denoiser: Send + Sync {
    /// Denoised images `[B, Z, Y, X]` of `noisy` `[B, Z, Y, X]` at noise levels `[B]`, differentiable in `noisy`.
    ///
    /// # Errors
    /// An image of another shape.
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor>;

    /// Image shape Z, Y, X.
    fn shape(&self) -> [usize; 3];

    /// Smallest and largest noise level at which the denoiser can be trusted, network unit.
    fn noise_range(&self) -> (f64, f64);

    /// Standard deviation of the prior's images per pixel, network unit.
    fn data_std(&self) -> f64;

    /// The prior of the tiles, if larger images are cut into some.
    fn tile(&self) -> Option<Box<dyn Denoiser + '_>> {
        None
    }

    /// A prior of the same images on half as many pixels along each side, if there is one: it costs a quarter, and where noise
    /// hides what it leaves out it says the same.
    fn coarser(&self) -> Option<Coarser<'_>> {
        None
    }

    /// Log density `[B]` of the diffused prior at `noisy` `[B, Z, Y, X]` and noise levels `[B]`, nats,
    /// differentiable in `noisy`; none where only the denoiser is known.
    ///
    /// # Errors
    /// An image of another shape.
    fn log_density(&self, _noisy: &Tensor, _noise_level: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// A denoiser that starts equal to this one and can be trained; `rng` draws the initial adapters.
    ///
    /// # Errors
    /// A prior without trainable weights refuses.
    fn trainable(&self, _adaptation: Adaptation, _rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        Err(Error::config("solver", "this prior has no weights to train; choose a solver that only denoises"))
    }

    /// A trainable denoiser that also sees `images` images of what is known of the clean one, and starts as one that pays
    /// no regard to them; `rng` draws its first weights.
    ///
    /// # Errors
    /// A prior without trainable weights refuses.
    fn conditional(&self, _images: usize, _rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        let problem = "this prior's network cannot be told about data; choose a solver without amortisation";
        Err(Error::config("solver", problem))
    }
}

impl<D: Denoiser + ?Sized> Denoiser for &D {
    fn denoise(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Tensor> {
        (**self).denoise(noisy, noise_level)
    }

    fn shape(&self) -> [usize; 3] {
        (**self).shape()
    }

    fn noise_range(&self) -> (f64, f64) {
        (**self).noise_range()
    }

    fn data_std(&self) -> f64 {
        (**self).data_std()
    }

    fn tile(&self) -> Option<Box<dyn Denoiser + '_>> {
        (**self).tile()
    }

    fn coarser(&self) -> Option<Coarser<'_>> {
        (**self).coarser()
    }

    fn log_density(&self, noisy: &Tensor, noise_level: &Tensor) -> Result<Option<Tensor>> {
        (**self).log_density(noisy, noise_level)
    }

    fn trainable(&self, adaptation: Adaptation, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        (**self).trainable(adaptation, rng)
    }

    fn conditional(&self, images: usize, rng: &mut Rng) -> Result<Box<dyn Trainable>> {
        (**self).conditional(images, rng)
    }
}

/// A denoiser whose weights can be trained: the auxiliary network of Principled Posterior Matching.
pub trait Trainable: Denoiser {
    /// [`Denoiser::denoise`] for a network of [`Denoiser::conditional`], told `known` `[B, C, Y, X]`.
    ///
    /// # Errors
    /// A network that was not made for so many images.
    fn denoise_given(&self, _noisy: &Tensor, _noise_level: &Tensor, known: &Tensor) -> Result<Tensor> {
        let found = known.dims().to_vec();
        Err(Error::Shape { what: "images that a network is told", expected: vec![0], found })
    }

    /// The trained weights by name; setting them changes what the denoiser returns.
    fn variables(&self) -> Vec<(String, Var)>;
}

/// Which weights of a trainable copy are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adaptation {
    /// All of them.
    Copy,
    /// A low-rank change of this rank to every layer (Hu et al. 2022); the original weights stay fixed.
    LowRank(usize),
}
