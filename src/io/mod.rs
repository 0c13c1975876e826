//! File formats to plain structs of f64 and f32 and back; no tensors.

pub mod atomic;
pub mod cfitsio;
pub mod cube;
pub mod cube_fits;
pub mod cube_hdf5;
pub mod cube_tiff;
pub mod fits;
pub mod image;
pub mod radial_otf;
pub mod stack;
pub mod uvfits;
pub mod volume;
