//! FITS: a checked reading of the file's structure, then cfitsio for the data.

mod file;
mod header;
mod layout;
mod table;

pub use file::FitsReader;
pub use header::Header;
pub use layout::{Hdu, layout};
pub use table::Table;
