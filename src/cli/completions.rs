//! `completions SHELL`.

use super::Failure;
use super::args::{Cli, CompletionsArgs};
use super::output::data;
use crate::exit::ExitCode;
use clap::CommandFactory as _;

/// Prints the completion script of a shell.
pub(super) fn run(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    data(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::Well)
}
