//! Operations on whole images that work in host memory, as Fourier transforms do.

use candle_core::{Device, Layout, Tensor, bail};
use rayon::prelude::*;

use crate::{Result, transfer::Transfer};

/// Values of an image from which on images of a batch take turns: each is then shared out among the threads by itself, and
/// memory holds the intermediate results of one.
const LARGE: usize = 1 << 19;

/// What `operation` makes of `x`: images of another device travel, those with gaps are copied.
pub(crate) fn on_host(
    x: &Tensor,
    operation: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    Ok(operation(&x.transfer(&Device::Cpu)?.contiguous()?)?.transfer(x.device())?)
}

/// Joins what `each(index, image)` makes of the images of a contiguous batch.
pub(crate) fn each_image<T: Copy + Send + Sync>(
    values: &[T],
    layout: &Layout,
    each: impl Fn(usize, &[T]) -> Vec<T> + Sync,
) -> candle_core::Result<Vec<T>> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("images must be contiguous") };
    let size = layout.dims().iter().skip(1).product::<usize>().max(1);
    let images = &values[start..end];
    let mut made: Vec<Vec<T>> = match size < LARGE {
        true => images.par_chunks(size).enumerate().map(|(index, image)| each(index, image)).collect(),
        false => images.chunks(size).enumerate().map(|(index, image)| each(index, image)).collect(),
    };
    // A large image that is alone is not copied.
    Ok(if made.len() == 1 { made.swap_remove(0) } else { made.concat() })
}
