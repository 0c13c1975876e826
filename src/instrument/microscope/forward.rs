//! The widefield microscope as a forward model: object to expected photo-electrons per camera pixel.

use candle_core::{DType, Device, Tensor};

use super::{Convolution, Domain, Psf};
use crate::{
    Error, Result,
    compute::Compute,
    grid::Grid,
    instrument::{Blind, Forward, Linearity, blind::blurred},
    transfer::Transfer,
};

/// lambda = q M R (h * x) + b: objects `[B, Z, Y, X]` to expected photo-electrons `[B, M]`.
///
/// x is the light of each object voxel in photo-electrons that the camera would count of it, q the flat field and b the
/// background in photo-electrons.
#[derive(Debug, Clone)]
pub struct Widefield {
    domain: Domain,
    convolution: Convolution,
    flat_field: Option<Tensor>,
    background: Tensor,
}

/// Standard deviation of the blur by which a point-spread function is wider than described: its median, object voxels, and the
/// standard deviation of its logarithm.
const EXCESS: (f64, f64) = (0.5, 0.7);

/// What a camera pixel sees besides the object.
#[derive(Debug, Clone, Default)]
pub struct Field {
    /// Sensitivity of each camera pixel relative to the mean, `[M]`; 1 where empty.
    pub flat_field: Vec<f64>,
    /// Background of each camera pixel, photo-electrons, `[M]`; one value stands for all, 0 where empty.
    pub background: Vec<f64>,
}

impl Widefield {
    /// The forward model of a microscope whose point-spread function lies on the object's pitch.
    ///
    /// # Errors
    /// A point-spread function of another pitch, or maps of another size or with values that cannot be.
    pub fn new(psf: &Psf, domain: &Domain, field: &Field, compute: &Compute) -> Result<Self> {
        let count = domain.count();
        let flat_field = match field.flat_field.len() {
            0 => None,
            length if length == count => {
                if !field.flat_field.iter().all(|q| q.is_finite() && *q > 0.0) {
                    return Err(Error::config("microscope.flat_field", "must be positive everywhere"));
                }
                Some(compute.tensor(field.flat_field.clone(), &[1, count])?)
            }
            length => return Err(size("flat field", count, length)),
        };
        if !field.background.iter().all(|b| b.is_finite()) {
            return Err(Error::config("microscope.background", "holds values that are no numbers"));
        }
        let background = match field.background[..] {
            [] => compute.tensor(vec![0.0], &[1, 1])?,
            [constant] => compute.tensor(vec![constant], &[1, 1])?,
            ref map if map.len() == count => compute.tensor(map.to_vec(), &[1, count])?,
            ref map => return Err(size("background", count, map.len())),
        };
        let convolution = Convolution::new(psf, domain, compute)?;
        Ok(Self { domain: *domain, convolution, flat_field, background })
    }

    /// Object voxels against camera pixels.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Light of object voxels `[B, Z, Y, X]` on each camera pixel `[B, M]`, without background; `illumination` of the
    /// object's shape multiplies the object first.
    ///
    /// # Errors
    /// An object of another shape.
    pub fn light(&self, object: &Tensor, illumination: Option<&Tensor>) -> Result<Tensor> {
        let counts = match illumination {
            Some(pattern) => self.convolution.apply(&object.broadcast_mul(pattern)?)?,
            None => self.convolution.apply(object)?,
        };
        let counts = counts.flatten_from(1)?;
        Ok(match &self.flat_field {
            Some(flat_field) => counts.broadcast_mul(flat_field)?,
            None => counts,
        })
    }

    /// Exact predictions in double precision on the host, `[M]`, of an object `[Z, Y, X]`, for tests and simulation.
    ///
    /// # Errors
    /// An object of another shape.
    pub fn predict(&self, object: &[f64]) -> Result<Vec<f64>> {
        let [z, y, x] = self.domain.object.shape;
        let object = Tensor::from_slice(object, (1, z, y, x), &Device::Cpu)?;
        let dtype = self.background.dtype();
        let predicted = self.apply(&object.to_dtype(dtype)?.transfer(self.background.device())?)?;
        Ok(predicted.to_dtype(DType::F64)?.flatten_all()?.read_list()?)
    }
}

impl Forward for Widefield {
    fn grid(&self) -> &Grid {
        &self.domain.object
    }

    fn apply(&self, image: &Tensor) -> Result<Tensor> {
        Ok(self.light(image, None)?.broadcast_add(&self.background)?)
    }

    fn linearity(&self) -> Linearity {
        Linearity::Affine
    }

    fn is_positive(&self) -> bool {
        true
    }

    fn blind(&self) -> Option<&dyn Blind> {
        Some(self)
    }
}

/// The point-spread function is wider than described by a Gaussian of unknown width: aberrations that nobody measured.
impl Blind for Widefield {
    fn parameters(&self) -> usize {
        1
    }

    fn apply_with(&self, image: &Tensor, parameters: &Tensor) -> Result<Tensor> {
        let widths = ((parameters.squeeze(1)? * EXCESS.1)?.exp()? * EXCESS.0)?;
        self.apply(&blurred(image, &widths)?)
    }
}

fn size(what: &'static str, expected: usize, found: usize) -> Error {
    Error::Shape { what, expected: vec![expected], found: vec![found] }
}
