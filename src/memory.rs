//! How much memory this process takes, where the system says so.

use std::fs;

/// Largest resident memory so far, or since [`forget_peak`], bytes.
pub fn peak() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// Memory that can still be taken without swapping, bytes.
pub fn available() -> Option<u64> {
    field("/proc/meminfo", "MemAvailable:")
}

/// Starts [`peak`] anew. From here on freed blocks go back to the system at once, until
/// [`crate::compute::keep_freed_memory`]: a peak must not be hidden by memory that was kept.
pub fn forget_peak() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the calls set limits of the allocator and return its unused pages.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 17);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 17);
        libc::malloc_trim(0);
    }
    // Where the system does not allow it, the peak stays that of the whole process.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// A number of kilobytes that Linux writes behind `name`.
fn field(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn a_large_block_shows_in_the_peak() {
        let block = vec![1u8; 64 << 20];
        assert!(super::peak().unwrap() >= block.len() as u64);
        assert!(super::available().unwrap() > 0);
    }
}
