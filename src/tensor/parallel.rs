//! Loops over fixed parts of slices and batches, so that results do not depend on the number of threads.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::{Result, ensemble};

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

/// The same part of each of several matrices of `size` numbers, part by part of `length` numbers.
pub(crate) fn parts<T>(matrices: &mut [T], size: usize, length: usize) -> Vec<Vec<&mut [T]>> {
    let mut parts: Vec<Vec<&mut [T]>> = (0..size.div_ceil(length)).map(|_| Vec::new()).collect();
    for matrix in matrices.chunks_mut(size.max(1)) {
        parts.iter_mut().zip(matrix.chunks_mut(length)).for_each(|(part, piece)| part.push(piece));
    }
    parts
}

/// What `work` makes of a batch `[B, ..]`, each result again `[B, ..]`; on a CPU of parts of at most `numbers` numbers
/// (but at least one element), on all threads of all processes.
///
/// # Errors
/// Those of `work`.
pub(crate) fn by_parts<const N: usize>(
    batch: &Tensor,
    numbers: usize,
    work: impl Fn(&Tensor) -> Result<[Tensor; N]> + Sync,
) -> Result<[Tensor; N]> {
    ensemble::by_processes(batch, |own| by_threads(own, numbers, &work))
}

fn by_threads<const N: usize>(
    batch: &Tensor,
    numbers: usize,
    work: impl Fn(&Tensor) -> Result<[Tensor; N]> + Sync,
) -> Result<[Tensor; N]> {
    let size = batch.dim(0)?;
    let most = (numbers * size / batch.elem_count().max(1)).max(1);
    if size <= most || !batch.device().is_cpu() {
        return work(batch);
    }
    // Parts of one size keep all threads busy to the end.
    let part = size.div_ceil(size.div_ceil(most));
    let starts: Vec<usize> = (0..size).step_by(part).collect();
    let parts = starts.into_par_iter().map(|start| work(&batch.narrow(0, start, part.min(size - start))?));
    let parts = parts.collect::<Result<Vec<_>>>()?;
    let joined: Vec<Tensor> = (0..N)
        .map(|i| Tensor::cat(&parts.iter().map(|part| &part[i]).collect::<Vec<_>>(), 0))
        .collect::<candle_core::Result<_>>()?;
    joined.try_into().map_err(|_| crate::Error::config("batch", "parts of different numbers of results"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{compute::Compute, rng::Rng};

    #[test]
    fn parts_of_a_batch_give_what_the_whole_gives() {
        let batch = Rng::new(1).normals(&[7, 3], &Compute::cpu_f64()).unwrap();
        let work = |part: &Tensor| Ok([part.sum(1)?, (part * 2.0)?]);
        let whole = work(&batch).unwrap();
        for numbers in [0, 3, 7, 100] {
            let found = by_parts(&batch, numbers, work).unwrap();
            assert_eq!(found[0].to_vec1::<f64>().unwrap(), whole[0].to_vec1::<f64>().unwrap());
            assert_eq!(found[1].to_vec2::<f64>().unwrap(), whole[1].to_vec2::<f64>().unwrap());
        }
    }
}
