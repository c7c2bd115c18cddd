//! `once`.

use super::Failure;
use super::args::OnceArgs;
use crate::config::Config;
use crate::exit::ExitCode;

/// Runs the command.
pub(super) fn run(_args: &OnceArgs, _config: &Config) -> Result<ExitCode, Failure> {
    Err(Failure::internal(anyhow::anyhow!("`once` is not wired to the engine in this build")))
}
