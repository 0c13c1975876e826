//! The processes that share a run: each makes its part of every batch, as threads do, and all get the whole.
//!
//! All of them run the same program on the same random numbers, so each holds the whole state of the run at every step.
//! Only what is costly is shared: passes through networks and likelihoods.

#[cfg(feature = "mpi")]
mod mpi;

use std::{cell::RefCell, ops::Range, sync::Arc};

use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};

use crate::{Result, transfer::Transfer};

/// How processes talk. All of them make the same calls in the same order.
pub trait Ensemble: Send + Sync {
    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn size(&self) -> usize;

    /// Replaces `values` by their sums over all processes, the same bits in each.
    ///
    /// # Errors
    /// A process is lost.
    fn sum(&self, values: &mut [f64]) -> Result<()>;

    /// The values of all processes, one after the other by rank.
    ///
    /// # Errors
    /// A process is lost.
    fn gather(&self, own: &[f64]) -> Result<Vec<f64>>;

    /// Ends all processes with this exit status: the others wait for one that failed.
    fn abandon(&self, status: u8);
}

/// The processes that `mpirun` or `srun` started together with this one; none if it is alone.
///
/// # Errors
/// MPI cannot be started.
pub fn world() -> Result<Option<Arc<dyn Ensemble>>> {
    #[cfg(feature = "mpi")]
    let world = mpi::world()?;
    #[cfg(not(feature = "mpi"))]
    let world = None;
    Ok(world)
}

type Current = Option<Arc<dyn Ensemble>>;

thread_local! {
    static CURRENT: RefCell<Current> = const { RefCell::new(None) };
}

/// Puts the ensemble of before back, also after a panic.
struct Before(Current);

impl Drop for Before {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// Runs `work` on this thread with the processes of `ensemble`, or alone.
pub fn with<R>(ensemble: Current, work: impl FnOnce() -> R) -> R {
    let _before = Before(CURRENT.replace(ensemble));
    work()
}

fn current() -> Current {
    CURRENT.with_borrow(Clone::clone)
}

/// Number of processes that share the work of this thread.
pub(crate) fn size() -> usize {
    current().map_or(1, |ensemble| ensemble.size())
}

/// Which of `count` things are this process's.
pub(crate) fn share(count: usize) -> Range<usize> {
    match current() {
        Some(ensemble) => {
            let start = |rank: usize| rank * count / ensemble.size();
            start(ensemble.rank())..start(ensemble.rank() + 1)
        }
        None => 0..count,
    }
}

/// What `work` makes of a batch `[B, ..]`, each result again `[B, ..]`, every process making its share of it. A batch
/// with fewer elements than there are processes is made by each of them.
///
/// # Errors
/// Those of `work`, or a lost process.
pub(crate) fn by_processes<const N: usize>(
    batch: &Tensor,
    work: impl Fn(&Tensor) -> Result<[Tensor; N]>,
) -> Result<[Tensor; N]> {
    let (count, ensemble) = (batch.dim(0)?, current());
    if ensemble.is_none() || count < size() {
        return with(None, || work(batch));
    }
    let own = share(count);
    let mut results = with(None, || work(&batch.narrow(0, own.start, own.len())?))?;
    for result in &mut results {
        *result = gather(result)?;
    }
    Ok(results)
}

/// The tensors `[B_r, ..]` of all processes as one `[B, ..]`, detached.
///
/// # Errors
/// A lost process.
pub(crate) fn gather(own: &Tensor) -> Result<Tensor> {
    let Some(ensemble) = current() else { return Ok(own.detach()) };
    let mut shape = own.dims().to_vec();
    let values = host(own)?;
    let each = values.len() / shape[0];
    let all = ensemble.gather(&values)?;
    shape[0] = all.len() / each;
    Ok(Tensor::from_vec(all, shape, &Device::Cpu)?.to_dtype(own.dtype())?.transfer(own.device())?)
}

/// Replaces `values` by their sums over all processes.
///
/// # Errors
/// A lost process.
pub(crate) fn sum(values: &mut [f64]) -> Result<()> {
    current().map_or(Ok(()), |ensemble| ensemble.sum(values))
}

/// Replaces the gradients of `variables` by their sums over all processes.
///
/// # Errors
/// A lost process.
pub(crate) fn sum_gradients(gradients: &mut GradStore, variables: &[(String, Var)]) -> Result<()> {
    let Some(ensemble) = current() else { return Ok(()) };
    let mut all = Vec::new();
    for (_, variable) in variables {
        match gradients.get(variable.as_tensor()) {
            Some(gradient) => all.extend(host(gradient)?),
            None => all.resize(all.len() + variable.elem_count(), 0.0),
        }
    }
    ensemble.sum(&mut all)?;
    let mut rest = all.as_slice();
    for (_, variable) in variables {
        let (own, others) = rest.split_at(variable.elem_count());
        let gradient = Tensor::from_slice(own, variable.shape(), &Device::Cpu)?;
        let gradient = gradient.to_dtype(variable.dtype())?.transfer(variable.device())?;
        gradients.insert(variable.as_tensor(), gradient);
        rest = others;
    }
    Ok(())
}

fn host(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.read_list()?)
}
