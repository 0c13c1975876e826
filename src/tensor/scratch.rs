//! Working memory that each thread keeps from one call to the next.

use std::cell::RefCell;

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
