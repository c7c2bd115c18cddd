//! `lab`.

use super::Failure;
use super::args::LabArgs;
use crate::exit::ExitCode;

/// Runs the command.
pub(super) fn run(_args: &LabArgs) -> Result<ExitCode, Failure> {
    Err(Failure::internal(anyhow::anyhow!("`lab` is not wired to the simulators in this build")))
}
