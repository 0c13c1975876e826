//! Processes that talk through the Message Passing Interface.

use std::sync::Arc;

use mpi::{
    Count, Threading,
    collective::SystemOperation,
    datatype::PartitionMut,
    environment::Universe,
    topology::SimpleCommunicator,
    traits::{Communicator, CommunicatorCollectives},
};

use super::Ensemble;
use crate::{Error, Result};

/// All processes of one `mpirun`. Dropping it ends MPI, which waits for the others.
struct World {
    _universe: Universe,
}

/// Starts MPI; none if there is only one process.
pub(super) fn world() -> Result<Option<Arc<dyn Ensemble>>> {
    let refused = |problem: &str| Error::config("mpirun", problem);
    // One thread talks, but it need not be the main one.
    let (universe, threading) = ::mpi::initialize_with_threading(Threading::Serialized)
        .ok_or_else(|| refused("MPI is running already"))?;
    if threading < Threading::Serialized {
        return Err(refused("this MPI library cannot be used from threads; use another one"));
    }
    let world = World { _universe: universe };
    Ok((world.size() > 1).then(|| Arc::new(world) as Arc<dyn Ensemble>))
}

fn all() -> SimpleCommunicator {
    SimpleCommunicator::world()
}

/// As many values as MPI can count.
fn count(values: usize) -> Result<Count> {
    Count::try_from(values)
        .map_err(|_| Error::config("mpirun", format!("{values} values in one message; use smaller batches")))
}

impl Ensemble for World {
    fn rank(&self) -> usize {
        all().rank().unsigned_abs() as usize
    }

    fn size(&self) -> usize {
        all().size().unsigned_abs() as usize
    }

    fn sum(&self, values: &mut [f64]) -> Result<()> {
        count(values.len())?;
        let own = values.to_vec();
        all().all_reduce_into(&own[..], values, SystemOperation::sum());
        Ok(())
    }

    fn gather(&self, own: &[f64]) -> Result<Vec<f64>> {
        let mut counts = vec![0; self.size()];
        all().all_gather_into(&count(own.len())?, &mut counts[..]);
        let starts = counts.iter().scan(0, |next: &mut Count, &length| {
            let start = *next;
            *next = start.checked_add(length)?;
            Some(start)
        });
        let starts: Vec<Count> = starts.collect();
        let total: usize = counts.iter().map(|length| length.unsigned_abs() as usize).sum();
        count(total)?;
        let mut values = vec![0.0; total];
        all().all_gather_varcount_into(own, &mut PartitionMut::new(&mut values[..], counts, starts));
        Ok(values)
    }

    fn abandon(&self, status: u8) {
        all().abort(status.into())
    }
}
