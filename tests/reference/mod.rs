//! Numbers from the tools that the field trusts.

mod stack_output;
mod stacks;
mod uvfits;
mod vlbi;
