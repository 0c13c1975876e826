//! What a user sees of a run: a bar on a terminal, plain lines elsewhere, both on stderr.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    calibration::Record,
    posterior::{Step, run::Observer},
};

/// Shortest time between two plain lines of the same stage.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows the steps of a run on stderr.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    stage: &'static str,
    last_line: Instant,
}

impl Progress {
    /// A bar if stderr is a terminal, plain lines otherwise.
    pub(super) fn new() -> Self {
        Self { bar: bar(), stage: "", last_line: Instant::now() }
    }
}

/// A bar if stderr is a terminal.
fn bar() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = "{bar:30} {pos}/{len} [{elapsed} < {eta}] {msg}";
        bar.with_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        )
    })
}

/// Shows the replicates of a calibration on stderr.
pub(super) struct Replicates {
    bar: Option<ProgressBar>,
}

impl Replicates {
    /// A bar if stderr is a terminal, a line a replicate otherwise.
    pub(super) fn new() -> Self {
        Self { bar: bar() }
    }

    /// Replicate `record` is the `done`-th of `total`.
    pub(super) fn show(&mut self, done: usize, total: usize, record: &Record) {
        let failed = record.error.as_ref().map_or(String::new(), |error| format!(", failed: {error}"));
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(format!("replicate {}{failed}", record.replicate));
        } else {
            super::note(&format!("replicate {done}/{total} {:.1} s{failed}", record.seconds));
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for Progress {
    fn on_step(&mut self, finished: usize, total: usize, step: &Step) {
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(finished as u64);
            bar.set_message(step.to_string());
            if finished == total {
                bar.finish();
            }
        } else if self.stage != step.stage || finished == total || self.last_line.elapsed() >= LINE_INTERVAL {
            super::note(&format!("step {finished}/{total} {step}"));
            self.last_line = Instant::now();
        }
        self.stage = step.stage;
    }

    fn on_checkpoint(&mut self, _finished: usize) {}
}
