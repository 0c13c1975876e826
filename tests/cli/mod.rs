//! The real binary in a fresh directory: exit codes, messages, files.

mod inspect;
mod plot;
mod reconstruct;
mod training;
mod vlbi;
