//! Samplers against posteriors that are known exactly.

mod divergence;
mod mixture_2d;
mod random_field;
mod rivals;
mod tiles;
