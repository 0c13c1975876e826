//! Samplers against posteriors that are known exactly.

pub mod bed;
mod divergence;
mod mixture_2d;
mod random_field;
