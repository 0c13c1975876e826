//! The microscope under stripes as a forward model: object to expected photo-electrons in all raw frames.

use candle_core::Tensor;

use super::Pattern;
use crate::{
    Error, Result,
    compute::Compute,
    grid::Grid,
    instrument::{
        Forward, Linearity,
        microscope::{Domain, Field, Psf, Widefield},
    },
};

/// lambda_f = M R (h * (I_f . x)) + b for all raw frames f: objects `[B, 1, Y, X]` to `[B, F M]`, frame after frame.
///
/// I_f are the patterns' illuminations. All frames of an angle are mixtures of the same three images, lit evenly, by the
/// cosine and by the sine of the stripes, so that 1 + 2 x angles convolutions serve any number of phases.
pub struct Structured {
    widefield: Widefield,
    /// Even light, then cosine and sine of each angle, `[1, 1 + 2 A, Y, X]`.
    waves: Tensor,
    /// Share of each wave's image in each frame, `[F, 1 + 2 A]`.
    mixture: Tensor,
    /// Photo-electrons, `[1, 1, M]` or `[1, 1, 1]`.
    background: Tensor,
}

impl Structured {
    /// The forward model of a microscope whose point-spread function lies on the object's pitch. `background` is that of
    /// each camera pixel, `[M]`, or one value for all.
    ///
    /// # Errors
    /// A domain of several planes, a point-spread function of another pitch, or a background of another size.
    pub fn new(
        psf: &Psf,
        domain: &Domain,
        background: &[f64],
        patterns: &[Pattern],
        compute: &Compute,
    ) -> Result<Self> {
        if domain.object.shape[0] != 1 {
            return Err(Error::config("microscope.sim", "structured illumination of one plane is modelled"));
        }
        if background.len() != 1 && background.len() != domain.count() {
            let expected = vec![domain.count()];
            return Err(Error::Shape { what: "background", expected, found: vec![background.len()] });
        }
        let [_, rows, columns] = domain.object.shape;
        let count = 1 + 2 * patterns.len();
        let mut waves = vec![1.0; rows * columns];
        let (mut mixture, mut frames) = (Vec::new(), 0);
        for (angle, pattern) in patterns.iter().enumerate() {
            let turns = |index: usize| {
                let [y, x] = place(domain, [index / columns, index % columns]);
                std::f64::consts::TAU * (pattern.frequency[0] * y + pattern.frequency[1] * x)
            };
            waves.extend((0..rows * columns).map(|index| turns(index).cos()));
            waves.extend((0..rows * columns).map(|index| turns(index).sin()));
            for (phase, intensity) in pattern.phases.iter().zip(&pattern.intensities) {
                let mut shares = vec![0.0; count];
                shares[0] = *intensity;
                shares[1 + 2 * angle] = intensity * pattern.contrast * phase.cos();
                shares[2 + 2 * angle] = -intensity * pattern.contrast * phase.sin();
                mixture.extend(shares);
                frames += 1;
            }
        }
        Ok(Self {
            widefield: Widefield::new(psf, domain, &Field::default(), compute)?,
            waves: compute.tensor(waves, &[1, count, rows, columns])?,
            mixture: compute.tensor(mixture, &[frames, count])?,
            background: compute.tensor(background.to_vec(), &[1, 1, background.len()])?,
        })
    }
}

impl Forward for Structured {
    fn grid(&self) -> &Grid {
        self.widefield.grid()
    }

    fn apply(&self, image: &Tensor) -> Result<Tensor> {
        let [_, rows, columns] = self.grid().shape;
        let batch = image.dims().first().copied().unwrap_or_default();
        if image.dims() != [batch, 1, rows, columns] {
            let expected = vec![batch, 1, rows, columns];
            return Err(Error::Shape { what: "object", expected, found: image.dims().to_vec() });
        }
        let count = self.waves.dim(1)?;
        let lit = image.broadcast_mul(&self.waves)?.reshape((batch * count, 1, rows, columns))?;
        let seen = self.widefield.light(&lit, None)?.reshape((batch, count, ()))?;
        let frames = self.mixture.broadcast_matmul(&seen)?;
        Ok(frames.broadcast_add(&self.background)?.flatten_from(1)?)
    }

    fn linearity(&self) -> Linearity {
        Linearity::Affine
    }

    fn is_positive(&self) -> bool {
        true
    }
}

/// Metres along Y and X of an object voxel from the centre of the first camera pixel.
fn place(domain: &Domain, voxel: [usize; 2]) -> [f64; 2] {
    [0, 1].map(|axis| {
        let before = domain.before[axis + 1] as f64;
        let middle = 0.5 * (domain.factor as f64 - 1.0);
        (voxel[axis] as f64 - before - middle) * domain.object.pitch[axis + 1]
    })
}
