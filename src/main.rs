//! Parse, dispatch, exit code; nothing else.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    scaleset_medic::cli::main()
}
