//! Numbers from the tools that the field trusts.

mod microscope;
mod psf;
mod stack_output;
mod stacks;
mod uvfits;
mod vlbi;
