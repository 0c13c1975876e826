//! The microscope under stripes as a forward model: object to expected photo-electrons in all raw frames.

use std::f64::consts::TAU;

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
/// I_f are the patterns' illuminations. All frames of an angle are mixtures of the same three images, lit by its profile alone
/// and times the cosine and the sine of the stripes, so that 3 x angles convolutions serve any number of phases.
pub struct Structured {
    widefield: Widefield,
    /// Profile of each angle, alone and times cosine and sine of its stripes, `[1, 3 A, Y, X]`.
    waves: Tensor,
    /// Share of each wave's image in each frame, `[F, 3 A]`.
    mixture: Tensor,
    /// Photo-electrons, `[1, F, M]`, or 1 in place of F or M.
    background: Tensor,
}

impl Structured {
    /// The forward model of a microscope whose point-spread function lies on the object's pitch. `background` is that of
    /// each camera pixel of each frame, `[F, M]`, of each frame, `[F]`, of each camera pixel, `[M]`, or one value for all.
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
        let [_, rows, columns] = domain.object.shape;
        let count = 3 * patterns.len();
        let (mut waves, mut mixture, mut frames) = (Vec::new(), Vec::new(), 0);
        for (angle, pattern) in patterns.iter().enumerate() {
            let places = (0..rows * columns).map(|index| place(domain, [index / columns, index % columns]));
            let profile: Vec<f64> = places.clone().map(|place| pattern.profile.at(place)).collect();
            let turns = places.map(|[y, x]| TAU * (pattern.frequency[0] * y + pattern.frequency[1] * x));
            let (sines, cosines): (Vec<f64>, Vec<f64>) =
                turns.zip(&profile).map(|(turn, light)| (light * turn.sin(), light * turn.cos())).unzip();
            waves.extend(profile.into_iter().chain(cosines).chain(sines));
            for (phase, intensity) in pattern.phases.iter().zip(&pattern.intensities) {
                let mut shares = vec![0.0; count];
                shares[3 * angle] = *intensity;
                shares[3 * angle + 1] = intensity * pattern.contrast * phase.cos();
                shares[3 * angle + 2] = -intensity * pattern.contrast * phase.sin();
                mixture.extend(shares);
                frames += 1;
            }
        }
        let (pixels, values) = (domain.count(), background.len());
        let layout = [[1, pixels], [1, 1], [frames, 1], [frames, pixels]];
        let Some([apart, across]) = layout.into_iter().find(|[apart, across]| apart * across == values)
        else {
            let expected = vec![frames, pixels];
            return Err(Error::Shape { what: "background", expected, found: vec![values] });
        };
        Ok(Self {
            widefield: Widefield::new(psf, domain, &Field::default(), compute)?,
            waves: compute.tensor(waves, &[1, count, rows, columns])?,
            mixture: compute.tensor(mixture, &[frames, count])?,
            background: compute.tensor(background.to_vec(), &[1, apart, across])?,
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
