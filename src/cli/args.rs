//! The arguments of each command.
#![expect(clippy::doc_markdown, reason = "these comments are printed as help: backticks would show")]

use crate::config::{CONFIG_ENV, FlagValue, LogFormat, Section};
use crate::exit::ExitCode;
use crate::text::exit;
use clap::{Args, Parser, Subcommand, ValueEnum};
use medic_core::model::Span;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Finds GitHub Actions runner scale sets that are stuck after a session conflict, and heals them safely.
#[derive(Debug, Parser)]
#[command(name = "scaleset-medic", version, max_term_width = 100, after_long_help = afterword())]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch GARM until stopped, and heal stuck scale sets if the mode is heal
    Run(ModeArgs),
    /// Reconcile once; the exit code is the result
    Once(OnceArgs),
    /// Show a crash and its healing on built-in simulators of GARM and GitHub
    #[cfg(feature = "lab")]
    Lab(LabArgs),
    /// Show all scale sets: ask the running instance, or check directly if none is running
    Status(StatusArgs),
    /// Show why a scale set has its diagnosis, and what is done about it
    Explain(ExplainArgs),
    /// Check data sources, permissions and settings, and suggest fixes
    Doctor {
        /// Output format
        #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Heal one scale set now, without the limits; asks for confirmation
    Heal(HealArgs),
    /// Pause healing: of everything, one GARM or one scale set
    Pause(PauseArgs),
    /// End a pause, or reset the circuit breaker
    Resume(ResumeArgs),
    /// Show recorded diagnoses, decisions and actions
    History(HistoryArgs),
    /// Evaluate recorded snapshots with this release and configuration, and show differences
    Replay(ReplayArgs),
    /// Check that the instance on this machine is alive; exit code 1 if not
    Healthcheck,
    /// Check, show or describe the configuration
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// A command, for its own page (`man config check`)
        #[arg(value_name = "COMMAND")]
        path: Vec<String>,
    },
}

/// Flags that every command takes.
#[derive(Debug, Clone, Default, Args)]
pub struct GlobalArgs {
    /// Configuration file [env: SCALESET_MEDIC_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Format of log lines on stderr
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"], global = true)]
    pub log_format: Option<String>,
    /// Log level: error, warn, info, debug, trace or off; also by target
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log_level: Option<String>,
    /// When to use colour
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Color::Auto, global = true)]
    pub color: Color,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How results are written to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// One JSON document
    Json,
}

#[derive(Debug, Clone, Default, Args)]
pub struct ModeArgs {
    /// Heal, or only show what would be done; overrides run.mode
    #[arg(long, value_name = "MODE", value_parser = ["observe", "heal"])]
    pub mode: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
pub struct OnceArgs {
    /// How long to watch before the result: seconds, or a duration such as 2m
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub observe: Option<Span>,
    /// Output format
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Output for Nagios: one line, and exit code 0 (healthy), 1 (under treatment), 2 (a scale set receives no
    /// jobs) or 3 (unknown)
    #[arg(long, conflicts_with_all = ["output"])]
    pub nagios: bool,
    #[command(flatten)]
    pub mode: ModeArgs,
}

/// GARM builds that differ in how they handle a session conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LabBuild {
    /// Gives up at the first conflict
    #[default]
    Prefix,
    /// Retries automatically
    Postfix,
    /// Retries automatically and exports metrics per set
    ListenerMetrics,
}

#[derive(Debug, Clone, Default, Args)]
pub struct LabArgs {
    /// GARM build to simulate
    #[arg(long, value_name = "BUILD", value_enum, default_value_t = LabBuild::Prefix)]
    pub build: LabBuild,
    /// Number of scale sets
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub sets: u32,
    /// Number of GARMs; all but the first accept requests and never answer
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub managers: u16,
    /// How long GitHub keeps a stale session: simulated seconds, or a duration such as 2m
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub stale_session: Option<Span>,
    /// The scenario to run, see --list [default: crash-no-ledger, or crash-soon with --serve]
    #[arg(long, value_name = "NAME")]
    pub scenario: Option<String>,
    /// List the scenarios and exit
    #[arg(long)]
    pub list: bool,
    /// Simulated seconds per real second [default: 10, or 1 with --serve]
    #[arg(long, value_name = "X", value_parser = speed)]
    pub speed: Option<f64>,
    /// Keep everything running after the scenario until stopped, and inject the faults you type, for example `crash`
    #[arg(long)]
    pub serve: bool,
    /// Let the medic read GARM's log in every scenario
    #[arg(long)]
    pub ledger: bool,
    /// Where the medic serves its status page and metrics [default: 127.0.0.1:9810 if free]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Whether the medic heals or only observes
    #[arg(long, value_name = "MODE", value_parser = ["observe", "heal"], default_value = "heal")]
    pub mode: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum ConfigAction {
    /// Report every mistake with its line and fix; exit code 2 if there is one
    Check,
    /// Show every value in effect and where it comes from, without secrets
    Print,
    /// Print a commented file to start from: every key with its meaning and default
    Defaults,
    /// Print the JSON Schema of the configuration file
    Schema,
}

#[derive(Debug, Clone, Default, Args)]
pub struct StatusArgs {
    /// Only this GARM
    #[arg(long, value_name = "NAME")]
    pub manager: Option<String>,
    /// Repeat every two seconds, until stopped
    #[arg(long)]
    pub watch: bool,
    /// Output format
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Output for Nagios: one line, and exit code 0 (healthy), 1 (under treatment), 2 (a scale set receives no
    /// jobs) or 3 (unknown)
    #[arg(long, conflicts_with_all = ["output", "watch"])]
    pub nagios: bool,
}

#[derive(Debug, Clone, Args)]
pub struct SetArgs {
    /// Id or name of the scale set
    #[arg(value_name = "SET")]
    pub set: String,
    /// Its GARM, if several are configured
    #[arg(long, value_name = "NAME")]
    pub manager: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    pub set: SetArgs,
    /// Output format
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Debug, Clone, Args)]
pub struct HealArgs {
    #[command(flatten)]
    pub set: SetArgs,
    /// Delete this session, which you know to be stale; refused for sessions of this run of GARM
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// Do not ask for confirmation
    #[arg(long)]
    pub yes: bool,
    /// Name to record [default: the current user]
    #[arg(long, value_name = "NAME")]
    pub author: Option<String>,
}

/// What a pause covers: everything, unless narrowed.
#[derive(Debug, Clone, Default, Args)]
pub struct ScopeArgs {
    /// Only this GARM
    #[arg(long, value_name = "NAME")]
    pub manager: Option<String>,
    /// Only this scale set of it, by id or name
    #[arg(long, value_name = "SET", requires = "manager")]
    pub set: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
pub struct PauseArgs {
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Reason to record
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Name to record [default: the current user]
    #[arg(long, value_name = "NAME")]
    pub author: Option<String>,
    /// How long: seconds, or a duration such as 2h [default: until resumed]
    #[arg(long = "for", value_name = "TIME", value_parser = some_seconds)]
    pub for_time: Option<Span>,
}

#[derive(Debug, Clone, Default, Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Reset the circuit breaker of one GARM or all, and keep the pauses
    #[arg(long, conflicts_with = "set")]
    pub breaker: bool,
}

#[derive(Debug, Clone, Default, Args)]
pub struct HistoryArgs {
    /// Only this GARM
    #[arg(long, value_name = "NAME")]
    pub manager: Option<String>,
    /// Only this scale set, by id or name
    #[arg(long, value_name = "SET")]
    pub set: Option<String>,
    /// How far back: seconds, or a duration such as 2d [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub since: Option<Span>,
    /// Export the snapshots for `replay`: one JSON document per line
    #[arg(long, alias = "scenes", conflicts_with = "set")]
    pub snapshots: bool,
    /// Output format
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Debug, Clone, Default, Args)]
pub struct ReplayArgs {
    /// The output of `history --snapshots`, or a copy of medic.db; - for stdin
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Use the recorded policy and mode; no configuration is read
    #[arg(long, conflicts_with = "mode")]
    pub recorded_policy: bool,
    #[command(flatten)]
    pub mode: ModeArgs,
    /// Output format
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

impl Cli {
    /// The flags that set a configuration key.
    pub fn flag_values(&self) -> Vec<FlagValue> {
        let mode = match &self.command {
            Command::Run(args) => args.mode.as_ref(),
            Command::Once(args) => args.mode.mode.as_ref(),
            Command::Replay(args) => args.mode.mode.as_ref(),
            #[cfg(feature = "lab")]
            Command::Lab(_) => None,
            Command::Status(_)
            | Command::Explain(_)
            | Command::Doctor { .. }
            | Command::Heal(_)
            | Command::Pause(_)
            | Command::Resume(_)
            | Command::History(_)
            | Command::Healthcheck
            | Command::Config { .. }
            | Command::Completions { .. }
            | Command::Man { .. } => None,
        };
        let flags = [
            (Section::Log, "format", "--log-format", self.global.log_format.as_ref()),
            (Section::Log, "level", "--log-level", self.global.log_level.as_ref()),
            (Section::Run, "mode", "--mode", mode),
        ];
        let given = flags.into_iter();
        given
            .filter_map(|(section, key, flag, value)| Some(FlagValue { section, key, flag, value: value?.clone() }))
            .collect()
    }
}

impl GlobalArgs {
    /// The log format asked for by flag.
    pub fn log_format(&self) -> Option<LogFormat> {
        self.log_format.as_deref().and_then(|format| format.parse().ok())
    }
}

impl Color {
    /// Whether to use colour on a stream; `no_color` and `term` are the variables of these names.
    pub fn applies(self, is_terminal: bool, no_color: Option<&str>, term: Option<&str>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => is_terminal && no_color.is_none_or(str::is_empty) && term != Some("dumb"),
        }
    }
}

/// Seconds as a plain number, or a duration with its unit.
pub(super) fn seconds(text: &str) -> Result<Span, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Span::secs(seconds));
    }
    humantime::parse_duration(text).map(Span::from).map_err(|error| format!("{error}; write 90, or 90s, or 2m"))
}

/// As [`seconds`], and not zero.
fn some_seconds(text: &str) -> Result<Span, String> {
    match seconds(text)? {
        Span::ZERO => Err("a pause needs a length; write 90, or 90s, or 2h".into()),
        span => Ok(span),
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (0.1..=1000.0).contains(&factor) => Ok(factor),
        Ok(_) | Err(_) => Err("write a number from 0.1 to 1000".into()),
    }
}

fn afterword() -> String {
    let codes = ExitCode::ALL.map(|code| format!("  {:>3}  {}", code.code(), exit::meaning(code))).join("\n");
    format!(
        "Exit codes:\n{codes}\n\nEnvironment:\n  \
         {CONFIG_ENV}        the configuration file, if --config is not given\n  \
         SCALESET_MEDIC_TABLE_KEY     any configuration key, for example SCALESET_MEDIC_RUN_MODE\n  \
         NO_COLOR                     no colour"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn argument_parser_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn pause_of_a_set_needs_its_manager() {
        assert!(Cli::try_parse_from(["medic", "pause", "--reason", "x", "--set", "7"]).is_err());
    }

    #[test]
    fn times_are_seconds_or_durations() {
        assert_eq!(seconds("90"), Ok(Span::secs(90)));
        assert_eq!(seconds("2m"), Ok(Span::mins(2)));
        assert!(seconds("soon").is_err() && seconds("-1").is_err());
    }

    #[test]
    fn colour_needs_a_terminal_that_supports_it() {
        for (color, terminal, no_color, term, expected) in [
            (Color::Auto, true, None, Some("xterm"), true),
            (Color::Auto, true, Some(""), Some("xterm"), true),
            (Color::Auto, true, Some("1"), Some("xterm"), false),
            (Color::Auto, true, None, Some("dumb"), false),
            (Color::Auto, false, None, Some("xterm"), false),
            (Color::Always, false, Some("1"), None, true),
            (Color::Never, true, None, None, false),
        ] {
            assert_eq!(color.applies(terminal, no_color, term), expected, "{color:?} {terminal} {no_color:?} {term:?}");
        }
    }
}
