//! Headers, help texts and malformed files.

mod figures;
mod raw_uvfits;
mod uvfits_damage;
mod uvfits_traps;
