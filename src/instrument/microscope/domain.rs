//! The grid on which the object lives: finer than the camera's and larger than the field of view.

use ndarray::Axis;

use super::Psf;
use crate::{Error, Result, grid::Grid};

/// Largest object that is modelled, voxels.
const LARGEST_OBJECT: usize = 1 << 30;

/// Object voxels against camera pixels.
///
/// Light from outside the field of view reaches the camera, so the object extends beyond it; what lies there is known
/// through that light and the prior alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Domain {
    /// Pixels of the data, Z, Y, X.
    pub camera: [usize; 3],
    /// Object voxels per camera pixel along Y and X; planes are the camera's.
    pub factor: usize,
    /// Object voxels before the first camera pixel.
    pub before: [usize; 3],
    /// The object's grid.
    pub object: Grid,
}

impl Domain {
    /// The domain of data with `camera` pixels of size `pitch`, with at least `margin` object voxels on either side and
    /// sizes along Y and X that are multiples of `multiple`, as networks need.
    ///
    /// # Errors
    /// No pixels, no factor, or more voxels than can be modelled.
    pub fn new(
        camera: [usize; 3],
        pitch: [f64; 3],
        factor: usize,
        margin: [usize; 3],
        multiple: usize,
    ) -> Result<Self> {
        if camera.contains(&0) || factor == 0 || multiple == 0 {
            let problem = format!("{camera:?} pixels, {factor} object voxels per pixel; none may be 0");
            return Err(Error::config("microscope.domain", problem));
        }
        let size = |axis: usize| -> Option<usize> {
            let (scale, multiple) = if axis == 0 { (1, 1) } else { (factor, multiple) };
            let least = camera[axis].checked_mul(scale)?.checked_add(margin[axis].checked_mul(2)?)?;
            least.checked_next_multiple_of(multiple)
        };
        let sizes = [size(0), size(1), size(2)];
        let count = sizes.iter().try_fold(1usize, |product, size| product.checked_mul((*size)?));
        let (&[Some(z), Some(y), Some(x)], Some(count)) = (&sizes, count) else {
            return Err(Error::config("microscope.domain", "more voxels than can be counted"));
        };
        if count > LARGEST_OBJECT {
            let problem = format!("{z} x {y} x {x} object voxels; reduce the factor or cut the data");
            return Err(Error::config("microscope.domain", problem));
        }
        let object =
            Grid { shape: [z, y, x], pitch: [pitch[0], pitch[1] / factor as f64, pitch[2] / factor as f64] };
        let before = [0, 1, 2].map(|axis| (object.shape[axis] - camera[axis] * scale(axis, factor)) / 2);
        Ok(Self { camera, factor, before, object })
    }

    /// Object voxels per camera pixel along an axis.
    pub fn scale(&self, axis: usize) -> usize {
        scale(axis, self.factor)
    }

    /// Object voxels that the camera sees, Z, Y, X, from [`Domain::before`] on.
    pub fn view(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.camera[axis] * self.scale(axis))
    }

    /// Number of data.
    pub fn count(&self) -> usize {
        self.camera.iter().product()
    }
}

fn scale(axis: usize, factor: usize) -> usize {
    if axis == 0 { 1 } else { factor }
}

/// Voxels around the centre, per axis and side, that hold a fraction of a point-spread function's light.
///
/// Across, the smallest square that holds it; along the axis, the planes needed beside it.
pub fn reach(psf: &Psf, fraction: f64) -> [usize; 3] {
    let total = psf.values.sum();
    [0, 1, 2].map(|axis| {
        let others: Vec<usize> = (0..3).rev().filter(|&other| other != axis).collect();
        let mut profile = psf.values.clone().into_dyn();
        for other in others {
            profile = profile.sum_axis(Axis(other));
        }
        let centre = psf.grid.shape[axis] / 2;
        let mut inside = 0.0;
        let mut radius = 0;
        for distance in 0..=centre {
            let sides = [centre.checked_sub(distance), Some(centre + distance)];
            let sides = if distance == 0 { &sides[..1] } else { &sides[..] };
            inside += sides.iter().flatten().filter_map(|&i| profile.get([i])).sum::<f64>();
            radius = distance;
            if inside >= fraction * total {
                break;
            }
        }
        radius
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_view_lies_in_the_middle_of_the_object() {
        let domain = Domain::new([1, 50, 64], [1e-7, 65e-9, 65e-9], 2, [0, 9, 10], 16).unwrap();
        assert_eq!(domain.object.shape, [1, 128, 160]);
        assert_eq!((domain.before, domain.view()), ([0, 14, 16], [1, 100, 128]));
        assert_eq!(domain.object.pitch[1], 32.5e-9);
    }

    #[test]
    fn absurd_domains_are_refused() {
        assert!(Domain::new([1, 0, 4], [1.0; 3], 2, [0; 3], 1).is_err());
        assert!(Domain::new([1, 4, 4], [1.0; 3], 0, [0; 3], 1).is_err());
        assert!(Domain::new([1, 1 << 40, 1 << 40], [1.0; 3], 2, [0; 3], 1).is_err());
        assert!(Domain::new([1, 1 << 20, 1 << 20], [1.0; 3], 2, [0; 3], 1).is_err());
    }
}
