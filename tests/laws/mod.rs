//! Laws that every implementation of a trait must obey.

mod crossings;
mod device;
mod ensemble;
mod exact_priors;
mod images;
mod imports;
mod microscope;
mod resumption;
mod reverse_diffusion;
mod run_loop;
mod stack_problem;
mod structured_illumination;
mod uvfits;
pub mod vlbi;
