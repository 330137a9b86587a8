//! The `ringlog` binary: hands its arguments to `cli` and ends with its exit code.

fn main() -> std::process::ExitCode {
    ringlog::cli::run(std::env::args_os()).code().into()
}
