//! Headers, help texts and malformed files.

mod figures;
mod raw_uvfits;
mod stack_damage;
mod stacks;
mod uvfits_damage;
mod uvfits_traps;
