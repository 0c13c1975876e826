//! A FITS file opened for reading by cfitsio, after its structure was checked.

use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::MutexGuard;

use fitsio_sys::fitsfile;

use super::{Hdu, layout};
use crate::io::cfitsio;
use crate::{Error, Result};

/// An open FITS file. Other threads wait to open theirs until it is dropped.
pub struct FitsReader {
    path: PathBuf,
    units: Vec<Hdu>,
    pointer: *mut fitsfile,
    _lock: MutexGuard<'static, ()>,
}

impl FitsReader {
    /// Checks the structure of a file and opens it.
    ///
    /// # Errors
    /// See [`layout`]; or cfitsio refuses the file.
    pub fn open(path: &Path) -> Result<Self> {
        let units = layout(path)?;
        let name = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| Error::format(path, "file name", "contains a zero byte; rename the file"))?;
        let lock = cfitsio::lock();
        let (mut pointer, mut status) = (ptr::null_mut(), 0);
        // SAFETY: the name is a C string, pointer and status are valid for writing.
        unsafe { fitsio_sys::ffdkopn(&mut pointer, name.as_ptr(), 0, &mut status) };
        check(path, "opening", status)?;
        Ok(Self { path: path.to_path_buf(), units, pointer, _lock: lock })
    }

    /// The file's header-data units.
    pub fn units(&self) -> &[Hdu] {
        &self.units
    }

    /// The file's name, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Parameters of group `group` (from 0), as stored: neither PSCAL nor PZERO is applied.
    ///
    /// # Errors
    /// cfitsio cannot read the group.
    pub fn group_parameters(&mut self, group: usize, parameters: &mut [f64]) -> Result<()> {
        let mut status = self.select(1)?;
        let (row, count) = (group as c_long + 1, parameters.len() as c_long);
        // SAFETY: the pointer is an open file and `parameters` has room for `count` values.
        unsafe { fitsio_sys::ffggpd(self.pointer, row, 1, count, parameters.as_mut_ptr(), &mut status) };
        check(&self.path, &format!("parameters of group {row}"), status)
    }

    /// Array of group `group` (from 0), BSCALE and BZERO applied; undefined and infinite values become NaN.
    ///
    /// # Errors
    /// cfitsio cannot read the group.
    pub fn group_array(&mut self, group: usize, array: &mut [f64]) -> Result<()> {
        let mut status = self.select(1)?;
        let (row, count, mut undefined) = (group as c_long + 1, array.len() as i64, 0);
        // SAFETY: the pointer is an open file and `array` has room for `count` values.
        unsafe {
            let (into, any) = (array.as_mut_ptr(), &mut undefined);
            fitsio_sys::ffgpvd(self.pointer, row, 1, count, f64::NAN, into, any, &mut status);
        }
        check(&self.path, &format!("data of group {row}"), status)
    }

    /// All rows of a table as stored, `bytes` of them in all.
    ///
    /// # Errors
    /// cfitsio cannot read the table.
    pub(super) fn table_bytes(&mut self, unit: usize, bytes: usize) -> Result<Vec<u8>> {
        let mut rows = vec![0; bytes];
        if bytes > 0 {
            let mut status = self.select(unit)?;
            // SAFETY: the pointer is an open file and `rows` has room for `bytes` bytes.
            unsafe { fitsio_sys::ffgtbb(self.pointer, 1, 1, bytes as i64, rows.as_mut_ptr(), &mut status) };
            check(&self.path, &format!("table in HDU {unit}"), status)?;
        }
        Ok(rows)
    }

    /// Pixels of the image in unit `unit`, BSCALE and BZERO applied; undefined pixels become NaN.
    ///
    /// # Errors
    /// cfitsio cannot read the image.
    pub fn image(&mut self, unit: usize, pixels: &mut [f64]) -> Result<()> {
        let mut status = self.select(unit)?;
        let (count, mut undefined) = (pixels.len() as i64, 0);
        // SAFETY: the pointer is an open file and `pixels` has room for `count` values.
        unsafe {
            let (into, any) = (pixels.as_mut_ptr(), &mut undefined);
            fitsio_sys::ffgpvd(self.pointer, 1, 1, count, f64::NAN, into, any, &mut status);
        }
        check(&self.path, &format!("image in HDU {unit}"), status)
    }

    /// Moves to a unit (the primary one being 1) and returns a fresh status.
    fn select(&mut self, unit: usize) -> Result<c_int> {
        let (mut kind, mut status) = (0, 0);
        // SAFETY: the pointer is an open file, kind and status are valid for writing.
        unsafe { fitsio_sys::ffmahd(self.pointer, unit as c_int, &mut kind, &mut status) };
        check(&self.path, &format!("HDU {unit}"), status)?;
        Ok(status)
    }
}

impl Drop for FitsReader {
    fn drop(&mut self) {
        let mut status = 0;
        // SAFETY: the pointer came from ffdkopn and is closed once. A failure to close a file that was only
        // read loses nothing; its messages are removed.
        unsafe {
            fitsio_sys::ffclos(self.pointer, &mut status);
            fitsio_sys::ffcmsg();
        }
    }
}

/// Turns a status of cfitsio and its stack of messages into an error.
pub(super) fn check(path: &Path, place: &str, status: c_int) -> Result<()> {
    if status <= 0 {
        return Ok(());
    }
    let mut lines = Vec::new();
    // cfitsio writes at most 80 characters and a zero into these buffers.
    let mut buffer = [0 as c_char; 128];
    // SAFETY: the buffer is larger than the longest message and zero-terminated.
    unsafe {
        fitsio_sys::ffgerr(status, buffer.as_mut_ptr());
        lines.push(CStr::from_ptr(buffer.as_ptr()).to_string_lossy().into_owned());
        while fitsio_sys::ffgmsg(buffer.as_mut_ptr()) != 0 {
            lines.push(CStr::from_ptr(buffer.as_ptr()).to_string_lossy().into_owned());
        }
    }
    let problem =
        format!("cfitsio: {} (status {status}); the file is damaged or of another kind", lines.join("; "));
    Err(Error::format(path, place, problem))
}
