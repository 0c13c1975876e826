//! What a user sees of a run: a bar on a terminal, plain lines elsewhere, both on stderr.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::posterior::{Step, run::Observer};

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
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = "{bar:30} {pos}/{len} [{elapsed} < {eta}] {msg}";
            bar.with_style(
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        });
        Self { bar, stage: "", last_line: Instant::now() }
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
