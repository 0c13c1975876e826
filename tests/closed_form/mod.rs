//! Samplers against posteriors that are known exactly.

mod amortized;
mod balance;
mod divergence;
mod families;
mod mixture_2d;
mod random_field;
mod rivals;
mod tiles;
