//! How exactly a GPU multiplies matrices.

use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};

/// What a GPU multiplies with in networks of single precision; sums are always kept in single precision. On CPUs, and in
/// double precision, every value is [`Precision::Full`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// All 24 bits.
    #[default]
    Full,
    /// 11 bits and the range of single precision (TF32).
    Tf32,
    /// 8 bits and the range of single precision (bfloat16), at half the memory traffic of convolutions.
    Bf16,
}

static CURRENT: AtomicU8 = AtomicU8::new(0);

impl Precision {
    /// Makes this the precision of all networks of the process from now on.
    pub fn apply(self) {
        CURRENT.store(self as u8, Ordering::Relaxed);
        candle_core::cuda::set_gemm_reduced_precision_f32(self != Self::Full);
    }

    /// The precision in force.
    pub fn current() -> Self {
        [Self::Full, Self::Tf32, Self::Bf16][usize::from(CURRENT.load(Ordering::Relaxed)).min(2)]
    }
}
