//! The `antumbra` program.

fn main() -> std::process::ExitCode {
    rest_between_loops();
    antumbra::compute::keep_freed_memory();
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
