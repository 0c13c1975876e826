//! Vector registers: AVX-512 or AVX2 where the processor has them, plain arrays elsewhere and for f64.

use candle_core::{CpuStorage, Layout, WithDType, bail};

use super::scratch::Scratch;

/// Numbers in the widest register.
pub(crate) const WIDEST: usize = 16;

/// One vector register.
pub(crate) trait Vector: Copy {
    /// Number type of a lane.
    type Lane: Real;
    /// Numbers per register.
    const LANES: usize;
    /// Whether the processor has 32 registers of this kind (16 otherwise).
    const MANY: bool;

    /// All lanes equal.
    fn splat(value: Self::Lane) -> Self;

    /// Reads [`Vector::LANES`] numbers.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load(source: *const Self::Lane) -> Self;

    /// Writes [`Vector::LANES`] numbers.
    ///
    /// # Safety
    /// They must be writable.
    unsafe fn store(self, target: *mut Self::Lane);

    /// Reads the first `count` numbers, at most [`Vector::LANES`]; the other lanes are zero.
    ///
    /// # Safety
    /// They must be readable.
    #[inline(always)]
    unsafe fn load_first(source: *const Self::Lane, count: usize) -> Self {
        if count >= Self::LANES {
            // SAFETY: all lanes are readable.
            return unsafe { Self::load(source) };
        }
        let mut lanes = [Self::Lane::default(); WIDEST];
        // SAFETY: `count` numbers are readable, and `lanes` holds a register.
        unsafe {
            std::ptr::copy_nonoverlapping(source, lanes.as_mut_ptr(), count);
            Self::load(lanes.as_ptr())
        }
    }

    /// Writes the first `count` lanes, at most [`Vector::LANES`].
    ///
    /// # Safety
    /// They must be writable.
    #[inline(always)]
    unsafe fn store_first(self, target: *mut Self::Lane, count: usize) {
        if count >= Self::LANES {
            // SAFETY: all lanes are writable.
            return unsafe { self.store(target) };
        }
        let mut lanes = [Self::Lane::default(); WIDEST];
        // SAFETY: `lanes` holds a register, and `count` numbers are writable.
        unsafe {
            self.store(lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), target, count);
        }
    }

    /// self + other.
    fn plus(self, other: Self) -> Self;

    /// self - other.
    fn minus(self, other: Self) -> Self;

    /// self * factor.
    fn times(self, factor: Self) -> Self;

    /// self * factor + addend.
    fn mul_add(self, factor: Self, addend: Self) -> Self;

    /// e^self, quick enough for activations: see [`Real::quick_exp`].
    fn exp(self) -> Self;

    /// 1 / self of numbers from 1 on, relative error below 3e-7 in f32.
    fn reciprocal(self) -> Self;
}

/// A loop to be compiled for each kind of register. Implementations mark `run` as `#[inline(always)]`, since only
/// what is inlined is compiled with the features of the processor.
pub(crate) trait Kernel<T> {
    fn run<V: Vector<Lane = T>>(self);
}

/// f32 or f64.
pub(crate) trait Real: WithDType + Scratch + std::ops::Neg<Output = Self> {
    /// Runs a kernel on the widest registers of this processor.
    fn vectorize(kernel: impl Kernel<Self>);

    /// e^x, quick enough for activations: relative error below 2e-7 in f32.
    fn quick_exp(self) -> Self;
}

#[cfg(test)]
thread_local! {
    /// Numbers in the widest register that this thread may use: tests try narrower ones than the processor has.
    pub(crate) static ALLOWED: std::cell::Cell<usize> = const { std::cell::Cell::new(WIDEST) };
}

#[cfg(target_arch = "x86_64")]
fn may_use(_lanes: usize) -> bool {
    #[cfg(test)]
    return _lanes <= ALLOWED.get();
    #[cfg(not(test))]
    true
}

/// Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;
/// ln(2) in two parts, the first with few digits, so that the subtraction is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Coefficients of e^r.
const TAYLOR: [f32; 8] = [1.0, 1.0, 0.5, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];

impl Real for f64 {
    fn vectorize(kernel: impl Kernel<Self>) {
        kernel.run::<Plain<f64>>();
    }

    #[inline(always)]
    fn quick_exp(self) -> Self {
        self.exp()
    }
}

impl Real for f32 {
    fn vectorize(kernel: impl Kernel<Self>) {
        #[cfg(target_arch = "x86_64")]
        {
            if may_use(16) && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
                // SAFETY: the processor has these instructions.
                return unsafe { x86::on_avx512(kernel) };
            }
            if may_use(8) && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the processor has these instructions.
                return unsafe { x86::on_avx2(kernel) };
            }
        }
        kernel.run::<Plain<f32>>();
    }

    /// 2^n e^r with |r| <= ln(2)/2 and the Taylor polynomial of e^r; free of branches, so that loops vectorise.
    #[inline(always)]
    fn quick_exp(self) -> Self {
        let x = self.clamp(-87.0, 88.0);
        let rounded = x * std::f32::consts::LOG2_E + ROUND;
        let n = rounded - ROUND;
        let r = x - n * LN2_HIGH - n * LN2_LOW;
        let power = TAYLOR.iter().rev().fold(0.0, |power, factor| power * r + factor);
        power * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23)
    }
}

/// [`Real::quick_exp`] of numbers between -87 and 88; `scaled` multiplies by 2^n where the second argument is n, and the third n
/// in its low bits.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn exp_between<V: Vector<Lane = f32>>(x: V, scaled: impl Fn(V, V, V) -> V) -> V {
    let splat = V::splat;
    let rounded = x.mul_add(splat(std::f32::consts::LOG2_E), splat(ROUND));
    let n = rounded.minus(splat(ROUND));
    let r = n.mul_add(splat(-LN2_LOW), n.mul_add(splat(-LN2_HIGH), x));
    let mut power = splat(TAYLOR[TAYLOR.len() - 1]);
    for &factor in TAYLOR[..TAYLOR.len() - 1].iter().rev() {
        power = power.mul_add(r, splat(factor));
    }
    scaled(power, n, rounded)
}

/// The numbers of a contiguous tensor.
pub(crate) fn values<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => bail!("the tensor is not contiguous"),
    }
}

/// Evaluates an expression with a type name bound to the float type of a storage.
macro_rules! with_float {
    ($storage:expr, $real:ident => $body:expr) => {
        match $storage {
            candle_core::CpuStorage::F32(_) => {
                type $real = f32;
                $body
            }
            candle_core::CpuStorage::F64(_) => {
                type $real = f64;
                $body
            }
            _ => candle_core::bail!("only f32 and f64 are supported"),
        }
    };
}
pub(crate) use with_float;

/// Registers of any processor, in the compiler's hands.
#[derive(Clone, Copy)]
struct Plain<T>([T; 4]);

impl<T: Real> Vector for Plain<T> {
    type Lane = T;
    const LANES: usize = 4;
    const MANY: bool = false;

    #[inline(always)]
    fn splat(value: T) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(source: *const T) -> Self {
        // SAFETY: the caller vouches for the four numbers; reads may be unaligned.
        Self(unsafe { source.cast::<[T; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut T) {
        // SAFETY: the caller vouches for the four numbers; writes may be unaligned.
        unsafe { target.cast::<[T; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] - other.0[lane]))
    }

    #[inline(always)]
    fn times(self, factor: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] * factor.0[lane]))
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] * factor.0[lane] + addend.0[lane]))
    }

    #[inline(always)]
    fn exp(self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane].quick_exp()))
    }

    #[inline(always)]
    fn reciprocal(self) -> Self {
        Self(std::array::from_fn(|lane| T::from_f64(1.0) / self.0[lane]))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Kernel, Vector, exp_between};

    /// Compiles and runs a kernel with AVX-512.
    #[target_feature(enable = "avx512f,avx2,fma")]
    pub(super) fn on_avx512(kernel: impl Kernel<f32>) {
        kernel.run::<Avx512>();
    }

    /// Compiles and runs a kernel with AVX2.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn on_avx2(kernel: impl Kernel<f32>) {
        kernel.run::<Avx2>();
    }

    /// Mask of the first `count` of 16 lanes.
    #[inline(always)]
    fn first_lanes(count: usize) -> __mmask16 {
        ((1_u32 << count.min(16)) - 1) as __mmask16
    }

    /// Only made inside [`on_avx512`], hence only where the processor has the instructions.
    #[derive(Clone, Copy)]
    struct Avx512(__m512);

    impl Vector for Avx512 {
        type Lane = f32;
        const LANES: usize = 16;
        const MANY: bool = true;

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: see the type.
            Self(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(source: *const f32) -> Self {
            // SAFETY: see the type; the caller vouches for the memory.
            Self(unsafe { _mm512_loadu_ps(source) })
        }

        #[inline(always)]
        unsafe fn store(self, target: *mut f32) {
            // SAFETY: see the type; the caller vouches for the memory.
            unsafe { _mm512_storeu_ps(target, self.0) }
        }

        #[inline(always)]
        unsafe fn load_first(source: *const f32, count: usize) -> Self {
            if count >= Self::LANES {
                // SAFETY: all lanes are readable.
                return unsafe { Self::load(source) };
            }
            // SAFETY: see the type; lanes that the mask leaves out are not read.
            Self(unsafe { _mm512_maskz_loadu_ps(first_lanes(count), source) })
        }

        #[inline(always)]
        unsafe fn store_first(self, target: *mut f32, count: usize) {
            if count >= Self::LANES {
                // SAFETY: all lanes are writable.
                return unsafe { self.store(target) };
            }
            // SAFETY: see the type; lanes that the mask leaves out are not written.
            unsafe { _mm512_mask_storeu_ps(target, first_lanes(count), self.0) }
        }

        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: see the type.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            // SAFETY: see the type.
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn times(self, other: Self) -> Self {
            // SAFETY: see the type.
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, addend: Self) -> Self {
            // SAFETY: see the type.
            Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
        }

        #[inline(always)]
        fn exp(self) -> Self {
            // SAFETY: see the type.
            unsafe {
                let x = _mm512_min_ps(_mm512_max_ps(self.0, _mm512_set1_ps(-87.0)), _mm512_set1_ps(88.0));
                exp_between(Self(x), |power, n, _| Self(_mm512_scalef_ps(power.0, n.0)))
            }
        }

        #[inline(always)]
        fn reciprocal(self) -> Self {
            // SAFETY: see the type.
            unsafe {
                let rough = _mm512_rcp14_ps(self.0);
                let error = _mm512_fnmadd_ps(self.0, rough, _mm512_set1_ps(1.0));
                Self(_mm512_fmadd_ps(rough, error, rough))
            }
        }
    }

    /// Only made inside [`on_avx2`], hence only where the processor has the instructions.
    #[derive(Clone, Copy)]
    struct Avx2(__m256);

    impl Vector for Avx2 {
        type Lane = f32;
        const LANES: usize = 8;
        const MANY: bool = false;

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: see the type.
            Self(unsafe { _mm256_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(source: *const f32) -> Self {
            // SAFETY: see the type; the caller vouches for the memory.
            Self(unsafe { _mm256_loadu_ps(source) })
        }

        #[inline(always)]
        unsafe fn store(self, target: *mut f32) {
            // SAFETY: see the type; the caller vouches for the memory.
            unsafe { _mm256_storeu_ps(target, self.0) }
        }

        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: see the type.
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            // SAFETY: see the type.
            Self(unsafe { _mm256_sub_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn times(self, other: Self) -> Self {
            // SAFETY: see the type.
            Self(unsafe { _mm256_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, addend: Self) -> Self {
            // SAFETY: see the type.
            Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
        }

        #[inline(always)]
        fn exp(self) -> Self {
            // SAFETY: see the type.
            unsafe {
                let x = _mm256_min_ps(_mm256_max_ps(self.0, _mm256_set1_ps(-87.0)), _mm256_set1_ps(88.0));
                exp_between(Self(x), |power, _, bits| {
                    let exponent = _mm256_add_epi32(_mm256_castps_si256(bits.0), _mm256_set1_epi32(127));
                    Self(_mm256_mul_ps(power.0, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))))
                })
            }
        }

        #[inline(always)]
        fn reciprocal(self) -> Self {
            // SAFETY: see the type.
            unsafe {
                let rough = _mm256_rcp_ps(self.0);
                let error = _mm256_fnmadd_ps(self.0, rough, _mm256_set1_ps(1.0));
                Self(_mm256_fmadd_ps(rough, error, rough))
            }
        }
    }
}
