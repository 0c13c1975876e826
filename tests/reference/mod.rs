//! Numbers from the tools that the field trusts.

mod stacks;
mod uvfits;
mod vlbi;
