//! `log.txt`: what happened in a run, in order, also across resumptions.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::{
    Error, Result,
    posterior::{Step, run::Observer},
};

/// Writes every step to a log file and passes it on to another observer.
pub(super) struct Log<'a> {
    file: File,
    next: &'a mut dyn Observer,
}

impl<'a> Log<'a> {
    /// Opens the log, at its end if the run is resumed, and notes what was assumed.
    pub(super) fn open(
        path: &Path,
        resume: bool,
        assumptions: &[String],
        next: &'a mut dyn Observer,
    ) -> Result<Self> {
        let file = OpenOptions::new().create(true).write(true).append(resume).truncate(!resume).open(path);
        let mut log = Self { file: file.map_err(|e| Error::io(path, e))?, next };
        log.line(if resume { "resumed" } else { concat!("antumbra ", env!("CARGO_PKG_VERSION")) });
        for assumption in assumptions {
            log.line(&format!("assumed: {assumption}"));
        }
        Ok(log)
    }

    fn line(&mut self, text: &str) {
        // A full disk will stop the run at its next checkpoint; the log alone must not.
        let _ = writeln!(self.file, "{text}");
    }
}

impl Observer for Log<'_> {
    fn on_step(&mut self, finished: usize, total: usize, step: &Step) {
        self.line(&format!("step {finished}/{total} {step}"));
        self.next.on_step(finished, total, step);
    }

    fn on_checkpoint(&mut self, finished: usize) {
        self.line(&format!("checkpoint after step {finished}"));
        self.next.on_checkpoint(finished);
    }
}
