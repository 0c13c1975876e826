//! The one error type of the crate: what went wrong, in which file and place, and what to do about it.

use std::path::{Path, PathBuf};

/// Anything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting or argument is wrong. `place` is its dotted path or flag.
    #[error("{place}: {problem}")]
    Config {
        /// Dotted path or flag.
        place: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
    /// The operating system refused to read or write a file.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what it should be. `place` says where in the file, `problem` what and the remedy.
    #[error("{}: {place}: {problem}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// Where in the file: HDU, keyword, group, line.
        place: String,
        /// What is wrong and the remedy.
        problem: String,
    },
    /// Two arrays do not fit together.
    #[error("{what}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The array.
        what: &'static str,
        /// Shape that fits.
        expected: Vec<usize>,
        /// Shape that was given.
        found: Vec<usize>,
    },
    /// A computation produced a value that is not finite.
    #[error("{what} is not finite at step {step}: lower the step size or check the data's noise")]
    Diverged {
        /// The quantity.
        what: String,
        /// Step at which it was noticed.
        step: usize,
    },
    /// The user interrupted the run; a checkpoint was written.
    #[error("interrupted; continue with --resume")]
    Interrupted,
    /// A figure could not be drawn or converted.
    #[error("cannot draw a figure: {0}; run with --no-plots to do without")]
    Figure(String),
    /// The tensor library failed.
    #[error("tensor computation failed: {}", first_line(.0))]
    Tensor(#[from] candle_core::Error),
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A wrong setting at `place` (dotted path or flag).
    pub fn config(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Config { place: place.into(), problem: problem.into() }
    }

    /// The same error with the section `place` before the place of a wrong setting.
    pub fn within(self, section: &str) -> Self {
        match self {
            Self::Config { place, problem } => Self::Config { place: format!("{section}.{place}"), problem },
            other => other,
        }
    }

    /// A file that is not what it should be.
    pub fn format(file: &Path, place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Format { file: file.to_path_buf(), place: place.into(), problem: problem.into() }
    }

    /// A failed read or write of `file`.
    pub fn io(file: &Path, source: std::io::Error) -> Self {
        Self::Io { file: file.to_path_buf(), source }
    }

    /// Exit status of the program: 2 wrong input, 3 failed computation, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. } | Self::Io { .. } | Self::Format { .. } => 2,
            Self::Shape { .. } | Self::Figure(_) | Self::Diverged { .. } | Self::Tensor(_) => 3,
            Self::Interrupted => 130,
        }
    }
}

/// The tensor library appends a backtrace to its messages; users need the first line only.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}
