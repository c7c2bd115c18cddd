//! `config check`, `config print`, `config defaults`, `config schema`.

use super::Failure;
use super::args::ConfigAction;
use super::output::{data, diagnostic};
use crate::config::{Depth, Sources, check, describe, schema};
use crate::exit::ExitCode;
use crate::text::guards;
use medic_core::decide::bounds;

/// Runs the command; `sources` is asked for only where a configuration is needed.
pub(super) fn run(
    action: ConfigAction,
    sources: impl FnOnce() -> Result<Sources, Failure>,
) -> Result<ExitCode, Failure> {
    match action {
        ConfigAction::Check => {
            let checked = check(&sources()?, Depth::Machine)?;
            for warning in &checked.warnings {
                diagnostic(&format!("warning: {warning}\n"));
            }
            for note in describe::notes(&checked) {
                diagnostic(&format!("note: {note}\n"));
            }
            data(&format!(
                "{}\n{}\n",
                describe::summary(&checked.config),
                guards::bounds(&bounds(&checked.config.policy))
            ))?;
        }
        ConfigAction::Print => {
            let checked = check(&sources()?, Depth::Values)?;
            data(&describe::print(&checked))?;
        }
        ConfigAction::Defaults => data(&describe::defaults())?,
        ConfigAction::Schema => data(&format!("{:#}\n", schema::schema()))?,
    }
    Ok(ExitCode::Well)
}
