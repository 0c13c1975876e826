//! Loops over fixed chunks of a slice, so that results do not depend on the number of threads.

use rayon::prelude::*;

/// Runs `work` on each chunk of `length` elements (the last may be shorter) with the chunk's number.
pub(crate) fn each_chunk<T: Send>(data: &mut [T], length: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let chunks = length.max(1);
    // Waking the pool costs more than a small loop.
    if rayon::current_num_threads() == 1 || data.len() <= chunks {
        data.chunks_mut(chunks).enumerate().for_each(|(index, chunk)| work(index, chunk));
    } else {
        data.par_chunks_mut(chunks).enumerate().for_each(|(index, chunk)| work(index, chunk));
    }
}
