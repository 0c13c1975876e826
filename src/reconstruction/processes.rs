//! A run that several processes share: they stop at the same step, and notice if they no longer agree.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    Error, Result,
    ensemble::Ensemble,
    posterior::{Step, run::Observer},
};

/// Passes steps on to another observer, and what one process is asked to do on to all.
pub(super) struct InStep<'a> {
    ensemble: Option<Arc<dyn Ensemble>>,
    /// Set when this process is asked to stop.
    asked: &'a AtomicBool,
    /// Set when all processes stop.
    stop: &'a AtomicBool,
    next: &'a mut dyn Observer,
    apart: Result<()>,
}

impl<'a> InStep<'a> {
    pub(super) fn new(
        ensemble: Option<Arc<dyn Ensemble>>,
        asked: &'a AtomicBool,
        stop: &'a AtomicBool,
        next: &'a mut dyn Observer,
    ) -> Self {
        Self { ensemble, asked, stop, next, apart: Ok(()) }
    }

    /// Why the processes stopped, if not because one was asked to.
    pub(super) fn verdict(self) -> Result<()> {
        self.apart
    }

    /// Whether any process is asked to stop.
    ///
    /// # Errors
    /// Processes that did not compute the same: their processors or libraries differ.
    fn agree(&self, finished: usize, step: &Step) -> Result<bool> {
        let asked = self.asked.load(Ordering::Relaxed);
        let Some(ensemble) = &self.ensemble else { return Ok(asked) };
        let own: Vec<f64> =
            step.metrics.iter().map(|(_, value)| *value).chain([f64::from(u8::from(asked))]).collect();
        let all = ensemble.gather(&own)?;
        let mut others = all.chunks(own.len());
        let same =
            others.all(|other| other.len() == own.len() && other[..own.len() - 1] == all[..own.len() - 1]);
        if !same {
            let problem = format!(
                "processes differ after step {finished}; run all of them on processors of one kind, then --resume"
            );
            return Err(Error::config("mpirun", problem));
        }
        Ok(all.chunks(own.len()).any(|other| other[own.len() - 1] > 0.0))
    }
}

impl Observer for InStep<'_> {
    fn on_step(&mut self, finished: usize, total: usize, step: &Step) {
        self.next.on_step(finished, total, step);
        match self.agree(finished, step) {
            Ok(asked) => self.stop.store(asked, Ordering::Relaxed),
            Err(error) => {
                self.apart = Err(error);
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn on_checkpoint(&mut self, finished: usize) {
        self.next.on_checkpoint(finished);
    }
}
