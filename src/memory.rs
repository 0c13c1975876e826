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

/// Gives freed memory back to the system and starts [`peak`] anew. Where that is not possible, peaks stay too high.
pub fn forget_peak() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call only returns unused pages of the allocator.
    unsafe {
        libc::malloc_trim(0);
    }
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
        super::forget_peak();
        let before = super::peak().unwrap();
        let block = vec![1u8; 64 << 20];
        assert!(super::peak().unwrap() >= before + (block.len() / 2) as u64);
        assert!(super::available().unwrap() > 0);
    }
}
