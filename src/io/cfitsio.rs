//! One thread at a time in cfitsio, whose error stack and file table are global.

use std::sync::{Mutex, MutexGuard, PoisonError};

static CFITSIO: Mutex<()> = Mutex::new(());

/// Waits until no other thread uses cfitsio; hold the guard while a file is open.
pub fn lock() -> MutexGuard<'static, ()> {
    // A panic elsewhere leaves no half-changed data behind this lock: it guards no data of ours.
    CFITSIO.lock().unwrap_or_else(PoisonError::into_inner)
}
