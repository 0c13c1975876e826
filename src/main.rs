//! The `antumbra` program.

fn main() -> std::process::ExitCode {
    antumbra::cli::main()
}
