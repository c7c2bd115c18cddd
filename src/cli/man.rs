//! `man [COMMAND]...`: manual pages in roff.

use super::Failure;
use super::args::{Cli, ManArgs};
use super::output::data;
use crate::exit::ExitCode;
use anyhow::Context as _;
use clap::CommandFactory as _;

/// Prints the page of the whole program, or of one command.
pub(super) fn run(args: &ManArgs) -> Result<ExitCode, Failure> {
    let mut command = Cli::command();
    command.build();
    for name in &args.path {
        let found = command.find_subcommand(name).cloned();
        command = found.ok_or_else(|| {
            let known = command.get_subcommands().map(|one| one.get_name().to_owned()).collect::<Vec<_>>().join(", ");
            Failure::Usage(format!("no command `{name}`; there are {known}"))
        })?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).context("cannot write the manual page")?;
    data(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::Well)
}
