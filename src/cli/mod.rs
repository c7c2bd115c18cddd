//! The command line: one file per command; the only place that prints. Stdout is data, stderr is diagnostics.
//!
//! Arguments and environment are read here, once. A command returns its exit code or a [`Failure`], which is printed
//! once, as a chain of causes.

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
use args::{Cli, Command};
use clap::Parser as _;
use medic_core::settings::ENV_PREFIX;
use render::uses_color;
use std::collections::BTreeMap;
use std::sync::Arc;

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

/// The end of a command with `--nagios`; a failure before its output is reported here.
fn nagios(ended: Result<ExitCode, ExitCode>) -> Nagios {
    match ended {
        Ok(code) => code.into(),
        // Help was requested.
        Err(ExitCode::Well) => Nagios::Ok,
        Err(code) => {
            // If this cannot be written, the exit code still shows it.
            drop(nagios::say(code, "the check failed; run it by hand and see its stderr"));
            Nagios::Unknown
        }
    }
}

fn dispatch(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Run(_) => {
            let given = (cli.global.config.clone(), environment(), cli.flag_values());
            let reread = move || {
                let (file, environment, flags) = given.clone();
                let sources = Sources::open(file.as_deref(), environment, flags)?;
                Ok(check(&sources, Depth::Files)?)
            };
            run::run(start(cli)?.config, &(Arc::new(reread) as _))
        }
        Command::Once(args) => once::run(args, &start(cli)?.config, cli.global.color),
        #[cfg(feature = "lab")]
        Command::Lab(args) => {
            start_without_config(&cli.global)?;
            lab::run(args)
        }
        Command::Status(args) => status::run(args, &start_quietly(cli)?.config, cli.global.color),
        Command::Explain(args) => explain::run(args, &start_quietly(cli)?.config),
        Command::Doctor { output } => {
            doctor::run(*output, &start(cli)?.config, uses_color(cli.global.color, &std::io::stdout()))
        }
        Command::Heal(args) => heal::run(args, &start(cli)?.config),
        // Pause, resume and history need only the store: no secret, no server.
        Command::Pause(args) => pause::pause(args, &start_with(cli, Depth::Values)?.config),
        Command::Resume(args) => pause::resume(args, &start_with(cli, Depth::Values)?.config),
        Command::History(args) => history::run(args, &start_with(cli, Depth::Values)?.config),
        Command::Replay(args) => replay::run(args, || Ok(check(&sources(cli)?, Depth::Values)?.config)),
        Command::Healthcheck => healthcheck::run(&check(&sources(cli)?, Depth::Values)?.config),
        Command::Config { action } => config::run(*action, || sources(cli)),
        Command::Completions { shell } => completions::run(*shell),
        Command::Man { path } => man::run(path),
    }
}

fn sources(cli: &Cli) -> Result<Sources, Failure> {
    Ok(Sources::open(cli.global.config.as_deref(), environment(), cli.flag_values())?)
}

/// The checked configuration, with logging begun as it says.
fn start(cli: &Cli) -> Result<Checked, Failure> {
    start_with(cli, Depth::Files)
}

/// As [`start`], without log lines: the command's output shows what was found.
fn start_quietly(cli: &Cli) -> Result<Checked, Failure> {
    let checked = check(&sources(cli)?, Depth::Files)?;
    let level = cli.global.log_level.clone().unwrap_or_else(|| "off".to_owned());
    let log = crate::config::LogConfig { format: checked.config.log.format, level };
    telemetry::init(&log, uses_color(cli.global.color, &std::io::stderr())).map_err(Failure::internal)?;
    Ok(checked)
}

/// As [`start`], checking as much of the machine as the command needs.
fn start_with(cli: &Cli, depth: Depth) -> Result<Checked, Failure> {
    let checked = check(&sources(cli)?, depth)?;
    telemetry::init(&checked.config.log, uses_color(cli.global.color, &std::io::stderr()))
        .map_err(Failure::internal)?;
    for warning in &checked.warnings {
        tracing::warn!(key = warning.key, "configuration: {}; fix: {}", warning.what, warning.fix);
    }
    Ok(checked)
}

/// Logging for a command that needs no configuration: errors, unless flags say otherwise.
#[cfg(feature = "lab")]
fn start_without_config(global: &args::GlobalArgs) -> Result<(), Failure> {
    use crate::config::{LogConfig, LogFormat};
    let config = LogConfig {
        format: global.log_format().unwrap_or(LogFormat::Text),
        level: global.log_level.clone().unwrap_or_else(|| "error".to_owned()),
    };
    telemetry::init(&config, uses_color(global.color, &std::io::stderr()))
        .map_err(|error| Failure::Usage(error.to_string()))
}

/// Our own variables. One that is not UTF-8 is kept with replacement characters, so that it is refused.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with(ENV_PREFIX))
        .collect()
}
