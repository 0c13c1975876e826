//! Tiles of images: gathered and transformed, transformed back and written.

use super::{
    POINTS, SIDE,
    transform::{Output, Transform, splat},
};
use crate::tensor::{
    conv_kernel::Geometry,
    simd::{Vector, WIDEST},
};

/// Tiles that cover all images, one image after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiles {
    height: usize,
    width: usize,
    /// Tiles per row, and rows of tiles per image.
    pub(super) across: usize,
    pub(super) down: usize,
}

impl Tiles {
    pub(super) fn new(g: &Geometry) -> Self {
        let (across, down) = (g.width.div_ceil(SIDE), g.height.div_ceil(SIDE));
        Self { height: g.height, width: g.width, across, down }
    }

    pub(super) fn per_image(&self) -> usize {
        self.across * self.down
    }

    /// First pixel of a tile: its index among all pixels of its image's first row, its row and its column.
    pub(super) fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (image, within) = (tile / self.per_image(), tile % self.per_image());
        (image * self.height * self.width, within / self.across * SIDE, within % self.across * SIDE)
    }

    /// Transforms the I x I pixels around each of `count` tiles from `first` on, `border` of them on the upper left,
    /// of images `[B, Y, X, C]` to `fields`: [`POINTS`] times `[count, C]`, each with room for more tiles.
    #[inline(always)]
    pub(super) fn transform<V: Vector, const I: usize, F: Transform<I, 6>>(
        &self,
        images: &[V::Lane],
        channels: usize,
        [first, count]: [usize; 2],
        fields: &mut [V::Lane],
    ) {
        let border = (I - SIDE) / 2;
        let stride = fields.len() / POINTS;
        assert!(stride >= count * channels);
        for slot in 0..count {
            let (image, top, left) = self.place(first + slot);
            let image = &images[image * channels..][..self.height * self.width * channels];
            for channel in (0..channels).step_by(V::LANES) {
                let lanes = (channels - channel).min(V::LANES);
                let pixel = |i: usize, j: usize| {
                    let (y, x) = ((top + i).wrapping_sub(border), (left + j).wrapping_sub(border));
                    if y >= self.height || x >= self.width {
                        return splat(0.0);
                    }
                    let at = (y * self.width + x) * channels + channel;
                    // SAFETY: the pixel lies inside the image, and `lanes` of its channels are left.
                    unsafe { V::load_first(image.as_ptr().add(at), lanes) }
                };
                F::both(pixel, |i, j, value: V| {
                    let at = (i * 6 + j) * stride + slot * channels + channel;
                    // SAFETY: the assertion above bounds the largest offset.
                    unsafe { value.store_first(fields.as_mut_ptr().add(at), lanes) };
                });
            }
        }
    }

    /// Transforms sums `[POINTS, tiles, padded O]` back to images `[B, Y, X, O]`, which begin with the range's first row.
    #[inline(always)]
    pub(super) fn write<V: Vector>(
        &self,
        sums: &[V::Lane],
        [outputs, padded]: [usize; 2],
        bias: &[V::Lane],
        [first, count]: [usize; 2],
        images: &mut [V::Lane],
    ) {
        let stride = sums.len() / POINTS;
        assert!(stride >= count * padded);
        let (image, top, _) = self.place(first);
        let start = image + top * self.width;
        for slot in 0..count {
            let (image, top, left) = self.place(first + slot);
            for channel in (0..outputs).step_by(V::LANES) {
                let lanes = (outputs - channel).min(V::LANES);
                let mut offset = splat::<V>(0.0);
                if let Some(bias) = bias.get(channel..channel + lanes) {
                    // SAFETY: `bias` holds so many numbers.
                    offset = unsafe { V::load_first(bias.as_ptr(), lanes) };
                }
                // SAFETY: the assertion above bounds the largest offset.
                let point = |i: usize, j: usize| unsafe {
                    V::load(sums.as_ptr().add((6 * i + j) * stride + slot * padded + channel))
                };
                Output::both(point, |i, j, value: V| {
                    if i < self.height - top && j < self.width - left {
                        let at = (image + (top + i) * self.width + left + j - start) * outputs + channel;
                        let target = &mut images[at..at + lanes];
                        // SAFETY: `target` holds so many numbers.
                        unsafe { value.plus(offset).store_first(target.as_mut_ptr(), lanes) };
                    }
                });
            }
        }
    }
}

/// Distance between the points of `count` tiles: a cache line more than their numbers, so that points do not compete
/// for the same lines of the cache.
pub(super) fn point_stride(count: usize, channels: usize) -> usize {
    (count * channels).next_multiple_of(WIDEST) + WIDEST
}
