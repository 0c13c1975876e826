//! A FITS file being written by cfitsio: random groups and binary tables.

use std::ffi::{CString, c_char, c_int, c_long};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::MutexGuard;

use fitsio_sys::fitsfile;

use super::file::check;
use crate::io::cfitsio;
use crate::{Error, Result};

/// Value of a keyword.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Key<'a> {
    /// Characters.
    Text(&'a str),
    /// A real number, 15 digits.
    Number(f64),
    /// A whole number.
    Integer(i64),
}

/// Values of a column, row by row.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Text of one width in bytes.
    Text(usize, Vec<String>),
    /// 32-bit integers, this many in each row.
    Integer(usize, Vec<i32>),
    /// Single precision.
    Single(usize, Vec<f32>),
    /// Double precision.
    Double(usize, Vec<f64>),
}

/// A column of a binary table: name, unit, values.
pub type Column<'a> = (&'a str, &'a str, Values);

impl Values {
    fn form(&self) -> String {
        match self {
            Self::Text(width, _) => format!("{width}A"),
            Self::Integer(repeat, _) => format!("{repeat}J"),
            Self::Single(repeat, _) => format!("{repeat}E"),
            Self::Double(repeat, _) => format!("{repeat}D"),
        }
    }

    /// Bytes of each row, big-endian; text is cut or filled with spaces.
    fn append(&self, row: usize, bytes: &mut Vec<u8>) {
        let range = |repeat: &usize| row * repeat..(row + 1) * repeat;
        match self {
            Self::Text(width, texts) => {
                let text = texts[row].bytes().chain(std::iter::repeat(b' '));
                bytes.extend(text.take(*width));
            }
            Self::Integer(repeat, values) => {
                values[range(repeat)].iter().for_each(|value| bytes.extend(value.to_be_bytes()));
            }
            Self::Single(repeat, values) => {
                values[range(repeat)].iter().for_each(|value| bytes.extend(value.to_be_bytes()));
            }
            Self::Double(repeat, values) => {
                values[range(repeat)].iter().for_each(|value| bytes.extend(value.to_be_bytes()));
            }
        }
    }
}

/// A FITS file that is being written. Other threads wait to open theirs until it is dropped.
pub struct FitsWriter {
    path: PathBuf,
    pointer: *mut fitsfile,
    _lock: MutexGuard<'static, ()>,
}

impl FitsWriter {
    /// Creates a file that must not exist yet.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        let name = text(path, &path.to_string_lossy())?;
        let lock = cfitsio::lock();
        let (mut pointer, mut status) = (ptr::null_mut(), 0);
        // SAFETY: the name is a C string, pointer and status are valid for writing.
        unsafe { fitsio_sys::ffdkinit(&mut pointer, name.as_ptr(), &mut status) };
        check(path, "creating the file", status)?;
        Ok(Self { path: path.to_path_buf(), pointer, _lock: lock })
    }

    /// Begins a primary unit of random groups in single precision; `axes` leaves out the first, empty axis.
    ///
    /// # Errors
    /// cfitsio cannot write the header.
    pub fn groups(&mut self, axes: &[usize], parameters: usize, groups: usize) -> Result<()> {
        let mut lengths: Vec<c_long> = vec![0];
        lengths.extend(axes.iter().map(|length| *length as c_long));
        let (count, parameters, groups) = (lengths.len() as c_int, parameters as i64, groups as i64);
        let mut status = 0;
        // SAFETY: the pointer is an open file and `lengths` holds `count` values.
        unsafe {
            let lengths = lengths.as_mut_ptr();
            fitsio_sys::ffphpr(self.pointer, 1, -32, count, lengths, parameters, groups, 1, &mut status);
        }
        check(&self.path, "header of the groups", status)
    }

    /// Writes one keyword into the unit begun last.
    ///
    /// # Errors
    /// cfitsio cannot write the keyword.
    pub fn key(&mut self, name: &str, value: Key<'_>) -> Result<()> {
        let (key, mut status) = (text(&self.path, name)?, 0);
        let comment = ptr::null();
        // SAFETY: the pointer is an open file; all texts are C strings that live until the end of the call.
        unsafe {
            match value {
                Key::Text(value) => {
                    let value = text(&self.path, value)?;
                    fitsio_sys::ffpkys(self.pointer, key.as_ptr(), value.as_ptr(), comment, &mut status)
                }
                Key::Number(value) => {
                    fitsio_sys::ffpkyd(self.pointer, key.as_ptr(), value, -15, comment, &mut status)
                }
                Key::Integer(value) => {
                    fitsio_sys::ffpkyj(self.pointer, key.as_ptr(), value, comment, &mut status)
                }
            }
        };
        check(&self.path, &format!("keyword {name}"), status)
    }

    /// Appends a HISTORY card.
    ///
    /// # Errors
    /// cfitsio cannot write the card.
    pub fn history(&mut self, line: &str) -> Result<()> {
        let (line, mut status) = (text(&self.path, line)?, 0);
        // SAFETY: the pointer is an open file, the line a C string.
        unsafe { fitsio_sys::ffphis(self.pointer, line.as_ptr(), &mut status) };
        check(&self.path, "HISTORY", status)
    }

    /// Writes group `group` (from 0): its parameters and its array, both as stored.
    ///
    /// # Errors
    /// cfitsio cannot write the group.
    pub fn group(&mut self, group: usize, parameters: &mut [f32], array: &mut [f32]) -> Result<()> {
        let (row, mut status) = (group as c_long + 1, 0);
        let (first, second) = (parameters.len() as c_long, array.len() as i64);
        // SAFETY: the pointer is an open file and both slices hold as many values as announced.
        unsafe {
            fitsio_sys::ffpgpe(self.pointer, row, 1, first, parameters.as_mut_ptr(), &mut status);
            fitsio_sys::ffppre(self.pointer, row, 1, second, array.as_mut_ptr(), &mut status);
        }
        check(&self.path, &format!("group {row}"), status)
    }

    /// Appends a binary table of `rows` rows.
    ///
    /// # Errors
    /// cfitsio cannot write the table.
    pub fn table(&mut self, name: &str, rows: usize, columns: &[Column<'_>]) -> Result<()> {
        let path = self.path.clone();
        let strings = |part: &dyn Fn(&Column<'_>) -> String| {
            columns.iter().map(|column| text(&path, &part(column))).collect::<Result<Vec<_>>>()
        };
        let names = strings(&|column| column.0.to_string())?;
        let forms = strings(&|column| column.2.form())?;
        let units = strings(&|column| column.1.to_string())?;
        let pointers = |strings: &[CString]| -> Vec<*mut c_char> {
            strings.iter().map(|string| string.as_ptr().cast_mut()).collect()
        };
        let (mut names, mut forms, mut units) = (pointers(&names), pointers(&forms), pointers(&units));
        let (title, count, mut status) = (text(&path, name)?, columns.len() as c_int, 0);
        let mut bytes = Vec::new();
        (0..rows).for_each(|row| columns.iter().for_each(|column| column.2.append(row, &mut bytes)));
        // SAFETY: the pointer is an open file; the arrays hold `count` C strings, which cfitsio does not change, and
        // `bytes` holds all rows of the table.
        unsafe {
            let (names, forms, units) = (names.as_mut_ptr(), forms.as_mut_ptr(), units.as_mut_ptr());
            let (kind, rows, title) = (fitsio_sys::BINARY_TBL as c_int, rows as i64, title.as_ptr());
            fitsio_sys::ffcrtb(self.pointer, kind, rows, count, names, forms, units, title, &mut status);
            if !bytes.is_empty() {
                let length = bytes.len() as i64;
                fitsio_sys::ffptbb(self.pointer, 1, 1, length, bytes.as_mut_ptr(), &mut status);
            }
        }
        check(&path, name, status)
    }

    /// Closes the file.
    ///
    /// # Errors
    /// The last bytes cannot be written.
    pub fn close(mut self) -> Result<()> {
        let (pointer, mut status) = (std::mem::replace(&mut self.pointer, ptr::null_mut()), 0);
        // SAFETY: the pointer came from ffdkinit and is closed once.
        unsafe { fitsio_sys::ffclos(pointer, &mut status) };
        check(&self.path, "closing the file", status)
    }
}

impl Drop for FitsWriter {
    fn drop(&mut self) {
        if !self.pointer.is_null() {
            let mut status = 0;
            // SAFETY: the pointer came from ffdkinit and was not closed. An error came first and is reported.
            unsafe {
                fitsio_sys::ffclos(self.pointer, &mut status);
                fitsio_sys::ffcmsg();
            }
        }
    }
}

fn text(path: &Path, text: &str) -> Result<CString> {
    CString::new(text)
        .map_err(|_| Error::format(path, format!("{text:?}"), "contains a zero byte; remove it"))
}
