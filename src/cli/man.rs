//! `man [COMMAND]...`: manual pages in roff.

use super::Failure;
use super::args::Cli;
use super::output::data;
use crate::exit::ExitCode;
use anyhow::Context as _;
use clap::CommandFactory as _;

pub(super) fn run(path: &[String]) -> Result<ExitCode, Failure> {
    let mut command = Cli::command();
    command.build();
    for name in path {
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
