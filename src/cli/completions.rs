//! `completions SHELL`.

use super::Failure;
use super::args::Cli;
use super::output::data;
use crate::exit::ExitCode;
use clap::CommandFactory as _;

pub(super) fn run(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    data(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::Well)
}
