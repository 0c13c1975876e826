//! Memory that is not cleared: what threads keep from one call to the next, and results.

use std::cell::RefCell;

use super::simd::Real;

/// A type that threads keep scratch memory of.
pub(crate) trait Scratch: Copy + Default + 'static {
    /// Runs `work` on `length` numbers of any value, aligned to a cache line.
    fn scratch<R>(length: usize, work: impl FnOnce(&mut [Self]) -> R) -> R;
}

/// Bytes of a cache line.
const LINE: usize = 64;

macro_rules! kept_per_thread {
    ($real:ty) => {
        impl Scratch for $real {
            fn scratch<R>(length: usize, work: impl FnOnce(&mut [Self]) -> R) -> R {
                thread_local! {
                    static KEPT: RefCell<Vec<$real>> = const { RefCell::new(Vec::new()) };
                }
                let mut memory = KEPT.take();
                let slack = LINE / size_of::<$real>();
                if memory.len() < length + slack {
                    memory.resize(length + slack, Default::default());
                }
                let start = memory.as_ptr().align_offset(LINE).min(slack);
                let result = work(&mut memory[start..start + length]);
                KEPT.set(memory);
                result
            }
        }
    };
}

kept_per_thread!(f32);
kept_per_thread!(f64);

/// `length` numbers of any value, for results: every number is to be written before it is read. Clearing such memory takes
/// a sixth of a pass through a network.
#[allow(clippy::uninit_vec)]
pub(crate) fn unwritten<T: Real>(length: usize) -> Vec<T> {
    let mut values = Vec::with_capacity(length);
    // SAFETY: the capacity is `length`; all patterns of bits are numbers, and nobody reads them before they are written.
    unsafe { values.set_len(length) };
    // In tests a number that nobody wrote is seen.
    #[cfg(test)]
    values.fill(T::from_f64(f64::NAN));
    values
}
