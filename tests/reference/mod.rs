//! Numbers from the tools that the field trusts.

mod microscope;
mod microtubules;
mod psf;
mod stack_output;
mod stacks;
mod structured_illumination;
mod uvfits;
mod vlbi;
