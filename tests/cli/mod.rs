//! The real binary in a fresh directory: exit codes, messages, files.

mod calibrate;
mod foreign;
mod inspect;
mod merge;
mod plot;
mod psf;
mod reconstruct;
mod stack;
mod training;
mod vlbi;
