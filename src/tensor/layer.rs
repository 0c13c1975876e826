//! Weights and bias of a convolution, and what is made of them for the kernels: once, where they never change.

use std::{
    any::Any,
    sync::{Arc, OnceLock},
};

use candle_core::{Storage, Tensor, bail};

use super::{
    conv_kernel::Arranged,
    simd::{Real, values},
    winograd::Transformed,
};

/// Weights `[O, C, k, k]` and bias `[O]` of one convolution.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Odd k.
    pub weight: Tensor,
    /// One number per output.
    pub bias: Tensor,
    /// Keeps the weights' arrangements from pass to pass; for weights that never change only.
    pub kept: Option<Arc<Kept>>,
}

/// A layer that maps inputs to outputs, or its adjoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Adjoint,
}

/// Arrangements of weights in both directions, each made at its first use.
#[derive(Debug, Default)]
pub struct Kept {
    forward: OnceLock<Arc<dyn Any + Send + Sync>>,
    adjoint: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// Weights as the kernels read them.
pub(super) struct Kernels<T> {
    pub(super) arranged: Arranged<T>,
    transformed: OnceLock<Transformed<T>>,
}

impl<T: Real> Kernels<T> {
    pub(super) fn new(arranged: Arranged<T>) -> Self {
        Self { arranged, transformed: OnceLock::new() }
    }

    /// For convolution by tiles.
    pub(super) fn transformed(&self) -> &Transformed<T> {
        self.transformed.get_or_init(|| Transformed::new(&self.arranged))
    }
}

impl Layer {
    /// The layer without gradients for its weights.
    pub(super) fn detach(&self) -> Self {
        Self { weight: self.weight.detach(), bias: self.bias.detach(), kept: self.kept.clone() }
    }

    /// The weights for the kernels.
    pub(super) fn kernels<T: Real>(&self, direction: Direction) -> candle_core::Result<Arc<Kernels<T>>> {
        let slot = self.kept.as_ref().map(|kept| match direction {
            Direction::Forward => &kept.forward,
            Direction::Adjoint => &kept.adjoint,
        });
        let known = slot.and_then(|slot| slot.get()).and_then(|known| known.clone().downcast().ok());
        if let Some(known) = known {
            return Ok(known);
        }
        let (outputs, inputs, _, _) = self.weight.dims4()?;
        let arranged = on_host(&self.weight, |weights| {
            Ok(match direction {
                Direction::Forward => Arranged::forward(weights, outputs, inputs),
                Direction::Adjoint => Arranged::adjoint(weights, outputs, inputs),
            })
        })?;
        let made = Arc::new(Kernels::new(arranged));
        if let Some(slot) = slot {
            // Another thread may have been first, with the same numbers.
            let _ = slot.set(made.clone());
        }
        Ok(made)
    }
}

/// Runs `work` on the numbers of a contiguous tensor on the CPU.
pub(super) fn on_host<T: Real, R>(
    tensor: &Tensor,
    work: impl FnOnce(&[T]) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => work(values(storage, layout)?),
        _ => bail!("the tensor is not on the CPU"),
    }
}
