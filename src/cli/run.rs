//! `run`.

use super::Failure;
use super::args::RunArgs;
use crate::config::Config;
use crate::exit::ExitCode;

/// Runs the command.
pub(super) fn run(_args: &RunArgs, _config: &Config) -> Result<ExitCode, Failure> {
    Err(Failure::internal(anyhow::anyhow!("`run` is not wired to the engine in this build")))
}
