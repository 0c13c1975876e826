//! Numbers from the tools that the field trusts.

mod uvfits;
mod vlbi;
