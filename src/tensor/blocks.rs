//! Blocks of 2 x 2 pixels.

use candle_core::Tensor;

use crate::Result;

/// Images `[B, Z, 2 Y, 2 X]`, each pixel of `[B, Z, Y, X]` four times.
///
/// # Errors
/// A tensor of another rank.
pub fn doubled(image: &Tensor) -> Result<Tensor> {
    let (b, z, y, x) = image.dims4()?;
    let blocks = image.reshape((b, z, y, 1, x, 1))?.broadcast_as((b, z, y, 2, x, 2))?;
    Ok(blocks.reshape((b, z, 2 * y, 2 * x))?)
}

/// Means `[B, Z, Y / 2, X / 2]` of blocks of 2 x 2 pixels of `[B, Z, Y, X]`.
///
/// # Errors
/// An odd number of pixels.
pub fn halved(image: &Tensor) -> Result<Tensor> {
    let (b, z, y, x) = image.dims4()?;
    Ok(image.reshape((b, z, y / 2, 2, x / 2, 2))?.mean((3, 5))?)
}
