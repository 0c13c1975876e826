//! Instruments: how an image becomes data ([`Forward`]) and how probable the measured data are ([`Likelihood`]).

pub mod blind;
mod coarse;
pub mod density;
pub mod exact;
pub mod file;
pub mod held_out;
mod information;
mod linear;
pub mod microscope;
mod position;
pub mod richardson_lucy;
mod seen;
mod subspace;
pub mod vlbi;

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};

pub use blind::Blind;
pub use information::Information;
pub use linear::{Linear, Linearity, Measured, hartley};
pub use position::Position;
pub use seen::Seen;

use richardson_lucy::{ITERATIONS, richardson_lucy};

use crate::{
    Error, Result,
    compute::Compute,
    grid::Grid,
    prior::Scaling,
    rng::Rng,
    tensor::{by_parts, compute_of, value_and_gradient},
    transfer::Transfer,
};

/// A differentiable instrument model, y = A(x).
pub trait Forward: Send + Sync {
    /// The pixel grid of the images that [`Forward::apply`] takes.
    fn grid(&self) -> &Grid;

    /// Predicted data `[B, M]` (or `[B, M, 2]`, real and imaginary) of images `[B, Z, Y, X]` in the instrument's unit.
    ///
    /// # Errors
    /// An image of another shape.
    fn apply(&self, image: &Tensor) -> Result<Tensor>;

    /// How the prediction depends on the image, for solvers that need a linear instrument.
    fn linearity(&self) -> Linearity {
        Linearity::None
    }

    /// The same instrument with what nobody knows exactly of it as parameters, if it has such.
    fn blind(&self) -> Option<&dyn Blind> {
        None
    }

    /// Standard deviation of a predicted number if each pixel has independent noise of unit standard deviation, where that is about
    /// the same for all.
    fn noise_gain(&self) -> Option<f64> {
        None
    }

    /// True if light anywhere adds to each predicted number or leaves it as it is, as in a camera.
    fn is_positive(&self) -> bool {
        false
    }
}

/// The noise model of one data product. `predicted` is what the problem's [`Forward`] returns.
pub trait Likelihood: Send + Sync {
    /// Name of the data product, as in `diagnostics.json`.
    fn name(&self) -> &'static str;

    /// Number of real data; what is left out of the fit does not count.
    fn count(&self) -> usize;

    /// True if it is computed in host memory, in double precision, wherever the prediction lies.
    fn is_on_host(&self) -> bool {
        false
    }

    /// Log probability `[B]` of the measured data, nats, differentiable; constants may be left out.
    ///
    /// # Errors
    /// A prediction of another shape.
    fn log_prob(&self, predicted: &Tensor) -> Result<Tensor>;

    /// [`Likelihood::log_prob`] and its gradient by the prediction, both detached.
    ///
    /// # Errors
    /// A prediction of another shape.
    fn log_prob_and_gradient(&self, predicted: &Tensor) -> Result<(Tensor, Tensor)> {
        value_and_gradient(predicted, |predicted| self.log_prob(predicted))
    }

    /// Whitened residuals `[B, count]`: independent with unit variance if the model is right. Of a camera `[B, M]`, 0
    /// where a pixel is left out of the fit.
    ///
    /// # Errors
    /// A prediction of another shape.
    fn residuals(&self, predicted: &Tensor) -> Result<Tensor>;

    /// Chi-square per datum `[B]` by the field's usual definition for this product.
    ///
    /// # Errors
    /// A prediction of another shape.
    fn chi2(&self, predicted: &Tensor) -> Result<Tensor> {
        Ok(self.residuals(predicted)?.sqr()?.mean(D::Minus1)?)
    }

    /// New data of this product, drawn from the noise model around `predicted`, `[B, count]`.
    ///
    /// # Errors
    /// A prediction of another shape.
    fn draw(&self, predicted: &Tensor, rng: &mut Rng) -> Result<Tensor>;

    /// The same product of data drawn around `predicted` of one image; none where data are not drawn one by one but
    /// formed from others.
    ///
    /// # Errors
    /// A prediction of another shape, or of several images.
    fn redrawn(&self, _predicted: &Tensor, _rng: &mut Rng) -> Result<Option<Arc<dyn Likelihood>>> {
        Ok(None)
    }

    /// The same data for predictions that noise of standard deviation `noise` blurs, in the predictions' unit, with the balance that
    /// their density lacks then; none where it does not depend on the prediction, as for Gaussian noise of fixed variance.
    ///
    /// Data that are ratios or phases of predicted numbers scatter less under the same blur the larger the numbers are. Data that do not
    /// have the blur's noise, only their own, seem all the more probable then: blurred densities draw predictions to larger numbers,
    /// whatever the data are. The balance is the cross entropy by which the mean log density of such data falls short: with it, no
    /// size of the prediction is more probable than another as far as the noise goes, if there are many more data than an image is
    /// free to fit.
    fn balanced(&self, _noise: f64) -> Option<Arc<dyn Likelihood>> {
        None
    }

    /// True where the gradient of [`Likelihood::log_prob`] is unbounded (phases near a
    /// visibility of zero), so that only a sampler with an accept step can be trusted.
    fn is_singular(&self) -> bool {
        false
    }

    /// Where the image is put, if that is all this product says.
    fn position(&self) -> Option<Position> {
        None
    }

    /// Fisher information `[B, M]` of each predicted number: 1 / variance for Gaussian noise; none where it is not known or
    /// data belong to several numbers.
    ///
    /// # Errors
    /// A prediction of another shape.
    fn information(&self, _predicted: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Variance `[B, M]` of the noise around each predicted number, if data are measured one by one and it is known.
    ///
    /// # Errors
    /// A prediction of another shape.
    fn variances(&self, _predicted: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Measured value of each predicted number, if the data are measured one by one.
    fn values(&self) -> Option<Vec<f64>> {
        self.measured().map(|measured| measured.values)
    }

    /// Measured values and noise of each predicted number if the noise is Gaussian, independent and of fixed variance.
    fn measured(&self) -> Option<Measured> {
        None
    }
}

/// Everything the data say: one forward model and the likelihoods of its data products.
///
/// Solvers work in the prior's network unit; the problem converts.
pub struct Problem {
    /// Instrument model.
    pub forward: Arc<dyn Forward>,
    /// Data products; their log probabilities add.
    pub likelihoods: Vec<Arc<dyn Likelihood>>,
    /// Network unit to instrument unit.
    pub scaling: Scaling,
}

/// Pixels whose likelihood a thread of the CPU computes at a time.
const PART: usize = 1 << 15;

impl Problem {
    /// Predicted data of network-unit images `[B, Z, Y, X]`.
    ///
    /// # Errors
    /// An image of another shape.
    pub fn predict(&self, x: &Tensor) -> Result<Tensor> {
        self.forward.apply(&self.scaling.to_image(x)?)
    }

    /// Summed log probability `[B]` of all data products, nats.
    ///
    /// # Errors
    /// An image of another shape.
    pub fn log_likelihood(&self, x: &Tensor) -> Result<Tensor> {
        log_probability(&self.likelihoods, &self.predict(x)?)
    }

    /// The instrument with its unknown parameters, for solvers that find them together with the image.
    ///
    /// # Errors
    /// It has none.
    pub fn blind(&self) -> Result<&dyn Blind> {
        self.forward.blind().ok_or_else(|| {
            let problem = "needs an instrument with unknown parameters (the width of a blur, gains of stations); choose another solver";
            Error::config("solver", problem)
        })
    }

    /// Log likelihood `[B]` and its gradient `[B, Z, Y, X]` at network-unit images, both detached.
    ///
    /// # Errors
    /// An image of another shape.
    pub fn log_likelihood_and_gradient(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        self.of_data(&self.likelihoods, x)
    }

    /// [`Problem::log_likelihood_and_gradient`] of other data of the same instrument.
    ///
    /// # Errors
    /// An image of another shape.
    pub fn of_data(&self, likelihoods: &[Arc<dyn Likelihood>], x: &Tensor) -> Result<(Tensor, Tensor)> {
        let [value, gradient] = by_parts(x, PART, |x| {
            let (value, gradient) =
                value_and_gradient(x, |x| log_probability(likelihoods, &self.predict(x)?))?;
            Ok([value, gradient])
        })?;
        Ok((value, gradient))
    }

    /// Fisher information of all data products about each predicted number, shape of `predicted`; none where one's is not known.
    ///
    /// # Errors
    /// A prediction of another shape.
    pub fn information(&self, predicted: &Tensor) -> Result<Option<Tensor>> {
        let Some(of_each) = self.information_of_each(predicted)? else { return Ok(None) };
        let add = |sum: Tensor, own: Tensor| -> Result<_> { Ok((sum + own)?) };
        of_each.into_iter().try_fold(predicted.zeros_like()?, add).map(Some)
    }

    /// Fisher information of each data product.
    fn information_of_each(&self, predicted: &Tensor) -> Result<Option<Vec<Tensor>>> {
        self.likelihoods.iter().map(|likelihood| likelihood.information(predicted)).collect()
    }

    /// [`Problem::information`] W and W (y - `predicted`), y the data; none where they are not measured one by one, or their
    /// information is not known.
    ///
    /// # Errors
    /// A prediction of another shape.
    pub fn weighted(&self, predicted: &Tensor) -> Result<Option<[Tensor; 2]>> {
        let Some(of_each) = self.information_of_each(predicted)? else { return Ok(None) };
        let (mut weights, mut misfit) = (predicted.zeros_like()?, predicted.zeros_like()?);
        for (likelihood, own) in self.likelihoods.iter().zip(of_each) {
            let Some(values) = likelihood.values() else { return Ok(None) };
            let values = compute_of(predicted).tensor(values, &predicted.dims()[1..])?.unsqueeze(0)?;
            misfit = (misfit + (values.broadcast_sub(predicted)? * &own)?)?;
            weights = (weights + own)?;
        }
        Ok(Some([weights, misfit]))
    }

    /// The adjoint of an affine forward model: gradient `[B, Z, Y, X]` of the predicted numbers times `weights` `[B, M]`, summed. It
    /// does not depend on the images `like`.
    ///
    /// # Errors
    /// Weights or images of another shape.
    pub fn adjoint(&self, weights: &Tensor, like: &Tensor) -> Result<Tensor> {
        let sum = |x: &Tensor| Ok((self.predict(x)? * weights)?.sum(D::Minus1)?);
        Ok(value_and_gradient(like, sum)?.1)
    }

    /// Data that the instrument would measure of a network-unit image `[1, Z, Y, X]`, with noise.
    ///
    /// # Errors
    /// The name of a product whose data cannot be drawn one by one.
    pub fn simulated(&self, x: &Tensor, rng: &mut Rng) -> Result<Vec<Arc<dyn Likelihood>>> {
        let predicted = self.predict(x)?;
        let drawn = self.likelihoods.iter().map(|likelihood| {
            likelihood.redrawn(&predicted, rng)?.ok_or_else(|| {
                let problem = format!(
                    "needs data that can be simulated one by one, which `{}` cannot; choose another solver",
                    likelihood.name()
                );
                Error::config("solver", problem)
            })
        });
        drawn.collect()
    }

    /// This problem where images have noise of standard deviation `level`, network unit, in each pixel, its likelihoods
    /// [balanced](Likelihood::balanced); none if no likelihood needs it.
    pub fn balanced(&self, level: f64) -> Option<Self> {
        let noise = level * self.scaling.unit * self.forward.noise_gain()?;
        let balanced: Vec<_> = self.likelihoods.iter().map(|likelihood| likelihood.balanced(noise)).collect();
        balanced.iter().any(Option::is_some).then(|| {
            let own = balanced.into_iter().zip(&self.likelihoods);
            let likelihoods =
                own.map(|(balanced, plain)| balanced.unwrap_or_else(|| plain.clone())).collect();
            Self { forward: self.forward.clone(), likelihoods, scaling: self.scaling }
        })
    }

    /// Images `[B, Z, Y, X]` each at a new position, where the data leave it free; otherwise as they are. A sampler
    /// that moves pixel by pixel hardly moves a source as a whole.
    ///
    /// # Errors
    /// An image of another shape.
    pub fn placed(&self, x: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        match self.likelihoods.iter().find_map(|likelihood| likelihood.position()) {
            Some(position) => position.draw(x, &self.scaling.to_image(x)?, rng),
            None => Ok(x.clone()),
        }
    }

    /// A rough image `[1, Z, Y, X]` that explains the data, for samplers to start near: a classical deconvolution, where the
    /// instrument only collects light.
    ///
    /// # Errors
    /// Those of the forward model.
    pub fn guess(&self, compute: &Compute) -> Result<Option<Tensor>> {
        let [likelihood] = &self.likelihoods[..] else { return Ok(None) };
        let Some(values) = likelihood.values().filter(|_| self.forward.is_positive()) else {
            return Ok(None);
        };
        let light = richardson_lucy(self.forward.as_ref(), &values, ITERATIONS, compute)?;
        let [z, y, x] = self.forward.grid().shape;
        let light = compute.tensor(light.iter().map(|&value| f64::from(value)).collect(), &[1, z, y, x])?;
        Ok(Some(self.scaling.to_network(&light)?))
    }

    /// The data as independent measurements of coordinates of the image, for solvers that need a linear instrument.
    ///
    /// # Errors
    /// The name of what the problem lacks.
    pub fn linear(&self, compute: &Compute) -> Result<Linear> {
        Linear::of(self, compute)
    }

    /// The coordinates of images near `image` `[1, Z, Y, X]` that the likelihood depends on.
    ///
    /// # Errors
    /// An image of another shape.
    pub fn seen(&self, image: &Tensor) -> Result<Seen> {
        Seen::of(self, image)
    }

    /// True if any data product is singular.
    pub fn is_singular(&self) -> bool {
        self.likelihoods.iter().any(|likelihood| likelihood.is_singular())
    }
}

/// Summed log probability `[B]` of data products given what the forward model predicts, nats.
fn log_probability(likelihoods: &[Arc<dyn Likelihood>], predicted: &Tensor) -> Result<Tensor> {
    let seen = seen(likelihoods, predicted)?;
    let nothing = Tensor::zeros(seen.dim(0)?, seen.dtype(), seen.device())?;
    let total = likelihoods
        .iter()
        .try_fold(nothing, |total, likelihood| -> Result<_> { Ok((total + likelihood.log_prob(&seen)?)?) })?;
    back(total, predicted)
}

/// [`log_probability`] and its gradient by the prediction, both detached.
fn log_probability_and_gradient(
    likelihoods: &[Arc<dyn Likelihood>],
    predicted: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let seen = seen(likelihoods, predicted)?;
    let nothing = (Tensor::zeros(seen.dim(0)?, seen.dtype(), seen.device())?, seen.zeros_like()?);
    let (value, gradient) =
        likelihoods.iter().try_fold(nothing, |(value, gradient), likelihood| -> Result<_> {
            let (more, slope) = likelihood.log_prob_and_gradient(&seen)?;
            Ok(((value + more)?, (gradient + slope)?))
        })?;
    Ok((back(value, predicted)?, back(gradient, predicted)?))
}

/// The prediction where its likelihoods are computed: products that are computed in host memory share one copy.
fn seen(likelihoods: &[Arc<dyn Likelihood>], predicted: &Tensor) -> Result<Tensor> {
    match likelihoods.iter().any(|likelihood| likelihood.is_on_host()) {
        true => Ok(predicted.transfer(&Device::Cpu)?.to_dtype(DType::F64)?),
        false => Ok(predicted.clone()),
    }
}

/// What was computed of [`seen`], where the prediction lies.
fn back(computed: Tensor, predicted: &Tensor) -> Result<Tensor> {
    match computed.device().same_device(predicted.device()) && computed.dtype() == predicted.dtype() {
        true => Ok(computed),
        false => Ok(computed.to_dtype(predicted.dtype())?.transfer(predicted.device())?),
    }
}
