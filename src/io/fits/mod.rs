//! FITS: a checked reading of the file's structure, then cfitsio for the data; and writing through cfitsio.

mod file;
mod header;
mod layout;
mod table;
mod writer;

pub use file::FitsReader;
pub use header::Header;
pub use layout::{Hdu, layout};
pub use table::Table;
pub use writer::{Column, FitsWriter, Key, Values};
