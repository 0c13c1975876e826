//! The `antumbra` program.

fn main() -> std::process::ExitCode {
    rest_between_loops();
    antumbra::compute::keep_freed_memory();
    antumbra::cli::main()
}

/// The tensor library's own threads spin while they wait for work, and without RAYON_NUM_THREADS it looks the number of
/// cores up for every product; this crate's loops run on a pool of its own instead.
fn rest_between_loops() {
    for threads in ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"] {
        if std::env::var_os(threads).is_none() {
            // SAFETY: the process has no other thread yet.
            unsafe { std::env::set_var(threads, "1") };
        }
    }
}
