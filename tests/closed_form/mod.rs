//! Samplers against posteriors that are known exactly.

pub mod bed;
mod random_field;
