//! The command line: one file per command; the only place that prints. Stdout is data, stderr is diagnostics.
//!
//! Arguments and environment are read here, once, and handed on. A command returns its exit code or a
//! [`Failure`], which is printed once, as a chain of causes.

pub mod args;
pub mod completions;
pub mod config;
mod doctor;
mod explain;
mod heal;
mod healthcheck;
mod history;
#[cfg(feature = "lab")]
pub mod lab;
pub mod man;
mod medic;
mod nagios;
pub mod once;
pub mod output;
mod pause;
mod picture;
mod render;
mod replay;
pub mod run;
mod status;

pub use output::Failure;

use crate::config::{Checked, Depth, Sources, check};
use crate::exit::{ExitCode, Nagios};
use crate::telemetry;
use args::{Cli, Command, GlobalArgs};
use clap::Parser as _;
use medic_core::settings::ENV_PREFIX;
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::Arc;

/// Runs the command line of this process.
pub fn main() -> std::process::ExitCode {
    let ended = match Cli::try_parse() {
        Ok(cli) => dispatch(&cli).map_err(Failure::report),
        Err(stop) => Err(output::parser_stop(&stop)),
    };
    if nagios::is_asked(std::env::args_os()) {
        return nagios(ended).into();
    }
    ended.unwrap_or_else(|failed| failed).into()
}

/// The end of a command that speaks to Nagios; what failed before it could say anything is told here.
fn nagios(ended: Result<ExitCode, ExitCode>) -> Nagios {
    match ended {
        Ok(code) => code.into(),
        // Help that was asked for.
        Err(ExitCode::Well) => Nagios::Ok,
        Err(code) => {
            // If even this cannot be written, the code still tells.
            drop(nagios::say(code, "the check itself failed; run it by hand, its stderr says why"));
            Nagios::Unknown
        }
    }
}

fn dispatch(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Run(args) => {
            let given = (cli.global.config.clone(), environment(), cli.flag_values());
            let reread = move || {
                let (file, environment, flags) = given.clone();
                let sources = Sources::open(file.as_deref(), environment, flags)?;
                Ok(check(&sources, Depth::Files)?)
            };
            run::run(args, start(cli)?.config, &(Arc::new(reread) as _))
        }
        Command::Once(args) => once::run(args, &start(cli)?.config, cli.global.color),
        #[cfg(feature = "lab")]
        Command::Lab(args) => {
            start_without_config(&cli.global)?;
            lab::run(args)
        }
        Command::Status(args) => status::run(args, &start_quietly(cli)?.config, cli.global.color),
        Command::Explain(args) => explain::run(args, &start_quietly(cli)?.config),
        Command::Doctor(args) => doctor::run(args, &start(cli)?.config, color_on_stdout(&cli.global)),
        Command::Heal(args) => heal::run(args, &start(cli)?.config),
        // The emergency stop, its end and the record need the store alone: no secret, and no server that answers.
        Command::Pause(args) => pause::pause(args, &start_with(cli, Depth::Values)?.config),
        Command::Resume(args) => pause::resume(args, &start_with(cli, Depth::Values)?.config),
        Command::History(args) => history::run(args, &start_with(cli, Depth::Values)?.config),
        Command::Replay(args) => replay::run(args, || Ok(check(&sources(cli)?, Depth::Values)?.config)),
        Command::Healthcheck => healthcheck::run(&check(&sources(cli)?, Depth::Values)?.config),
        Command::Config(args) => config::run(args, || sources(cli)),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    }
}

/// Everything that was given to this process.
fn sources(cli: &Cli) -> Result<Sources, Failure> {
    Ok(Sources::open(cli.global.config.as_deref(), environment(), cli.flag_values())?)
}

/// The checked configuration, with logging begun as it says.
fn start(cli: &Cli) -> Result<Checked, Failure> {
    start_with(cli, Depth::Files)
}

/// As [`start`], for a command whose result is the picture: what its look finds is there, not in log lines beside it.
fn start_quietly(cli: &Cli) -> Result<Checked, Failure> {
    let checked = check(&sources(cli)?, Depth::Files)?;
    let level = cli.global.log_level.clone().unwrap_or_else(|| "off".to_owned());
    let log = crate::config::LogConfig { format: checked.config.log.format, level };
    telemetry::init(&log, color_on_stderr(&cli.global)).map_err(Failure::internal)?;
    Ok(checked)
}

/// As [`start`], with as much of the machine looked at as the command needs.
fn start_with(cli: &Cli, depth: Depth) -> Result<Checked, Failure> {
    let checked = check(&sources(cli)?, depth)?;
    telemetry::init(&checked.config.log, color_on_stderr(&cli.global)).map_err(Failure::internal)?;
    for warning in &checked.warnings {
        tracing::warn!(key = warning.key, "configuration: {}; fix: {}", warning.what, warning.fix);
    }
    Ok(checked)
}

/// Logging for a command that needs no configuration: errors, unless flags say otherwise.
#[cfg(feature = "lab")]
fn start_without_config(global: &GlobalArgs) -> Result<(), Failure> {
    use crate::config::{LogConfig, LogFormat};
    let config = LogConfig {
        format: global.log_format().unwrap_or(LogFormat::Text),
        level: global.log_level.clone().unwrap_or_else(|| "error".to_owned()),
    };
    telemetry::init(&config, color_on_stderr(global)).map_err(|error| Failure::Usage(error.to_string()))
}

/// Whether diagnostics are coloured.
fn color_on_stderr(global: &GlobalArgs) -> bool {
    let variable = |name| std::env::var(name).ok();
    global.color.applies(std::io::stderr().is_terminal(), variable("NO_COLOR").as_deref(), variable("TERM").as_deref())
}

/// Whether data is coloured.
fn color_on_stdout(global: &GlobalArgs) -> bool {
    let variable = |name| std::env::var(name).ok();
    global.color.applies(std::io::stdout().is_terminal(), variable("NO_COLOR").as_deref(), variable("TERM").as_deref())
}

/// Our own variables. One that is not UTF-8 is kept, altered, so that it is refused rather than overlooked.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with(ENV_PREFIX))
        .collect()
}
