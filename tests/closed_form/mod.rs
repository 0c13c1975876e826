//! Samplers against posteriors that are known exactly.

mod amortized;
mod balance;
mod blind_gains;
mod depth;
mod divergence;
mod families;
mod mixture_2d;
mod random_field;
mod refusals;
mod rival_moments;
mod rivals;
mod tiles;
