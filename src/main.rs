//! The `antumbra` program.

fn main() -> std::process::ExitCode {
    rest_between_loops();
    keep_memory();
    antumbra::cli::main()
}

/// The tensor library's own threads spin while they wait for work; this crate's loops run on rayon's instead.
fn rest_between_loops() {
    const THREADS: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(THREADS).is_none() {
        // SAFETY: the process has no other thread yet.
        unsafe { std::env::set_var(THREADS, "1") };
    }
}

/// Each step of a run asks for the same large blocks again. glibc returns such blocks to the system at once, which
/// costs a fifth of the time in page faults; kept in the heap they are used again.
fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the process has no other thread yet; both calls only set limits of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}
