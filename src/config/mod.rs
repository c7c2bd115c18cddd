//! Configuration: what was typed ([`raw`]) → what is meant ([`check`]), all mistakes in one report.
//!
//! Flags over environment over file over default; each value keeps its origin, which `config print` shows. Every
//! key is declared once, in [`keys`]. [`DEFAULTS`] is the shipped, commented file; a test proves that it equals the
//! code. Secrets are files: only their paths are configuration ([`secret`]).

pub mod check;
pub mod describe;
mod files;
pub mod keys;
pub mod raw;
pub mod reader;
pub mod report;
pub mod schema;
pub mod secret;
pub mod source;

pub use check::{Checked, Depth, check};
pub(crate) use files::check_key;
pub use files::check_state_dir;
pub use report::{Mistake, Origin, Report};
pub use secret::{Secret, SecretError, SecretFile};
pub use source::{FlagValue, Sources};

use medic_core::model::closed::closed_enum;
use medic_core::model::{EndpointName, ManagerName, Span};
use medic_core::policy::{Mode, Policy};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The shipped configuration: every key with its default and its meaning.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// A configuration without mistakes.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The loop.
    pub run: RunConfig,
    /// Log lines.
    pub log: LogConfig,
    /// Our own HTTP server.
    pub http: HttpConfig,
    /// The managers watched; at least one, names unique.
    pub managers: Vec<ManagerConfig>,
    /// How to ask GitHub, per endpoint; at most one of each name.
    pub github: Vec<GithubConfig>,
    /// Rules and limits.
    pub policy: Policy,
}

/// `[run]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunConfig {
    /// Time between two sweeps while all is well.
    pub interval: Span,
    /// Time between two sweeps while anything is ill or under treatment; at most `interval`.
    pub urgent_interval: Span,
    /// Where the store is kept.
    pub state_dir: PathBuf,
    /// Whether writes are allowed.
    pub mode: Mode,
    /// Longest time from a signal to the end of the process.
    pub shutdown_limit: Span,
}

closed_enum! {
    /// How log lines are written.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines are written.
    pub format: LogFormat,
    /// A level (`info`), or levels by target (`info,scaleset_medic::treat=debug`); known to parse.
    pub level: String,
}

/// `[http]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where to listen.
    pub listen: SocketAddr,
}

/// How long one exchange with a server may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Span,
    /// From sending to the end of the answer.
    pub request: Span,
}

/// `[[manager]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerConfig {
    /// Our name for it.
    pub name: ManagerName,
    /// Its root address, without `/api/v1`; http or https, no credentials in it.
    pub url: url::Url,
    /// An administrator of it.
    pub username: String,
    /// The administrator's password; read at each login, so that a rotated one is picked up.
    pub password_file: SecretFile,
    /// Certificates (PEM) to trust in place of the usual ones.
    pub ca_file: Option<PathBuf>,
    /// Its log file, where that can be read.
    pub log_file: Option<PathBuf>,
    /// Whether to follow its log over the websocket.
    pub log_stream: bool,
    /// Whether its goroutines may be counted.
    pub debug_server: bool,
    /// Whether to read its `/metrics`.
    pub metrics: bool,
    /// Whether `/metrics` wants a token.
    pub metrics_auth: bool,
    /// Bounds of one exchange.
    pub timeouts: Timeouts,
    /// Most requests a second; at least 1.
    pub requests_per_second: u32,
}

/// `[[github]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GithubConfig {
    /// The manager's name for the endpoint.
    pub endpoint: EndpointName,
    /// Names of entities to ask about; empty means all of the endpoint.
    pub entities: Vec<String>,
    /// The credential.
    pub auth: GithubAuth,
    /// Certificates (PEM) to trust in place of the usual ones.
    pub ca_file: Option<PathBuf>,
    /// Bounds of one exchange.
    pub timeouts: Timeouts,
    /// Most requests a second; at least 1.
    pub requests_per_second: u32,
}

/// How we prove to GitHub who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GithubAuth {
    /// A personal access token.
    Pat {
        /// Where it is.
        token_file: SecretFile,
    },
    /// A GitHub App.
    App {
        /// Its id.
        app_id: u64,
        /// The id of its installation.
        installation_id: u64,
        /// Where its private key is.
        private_key_file: SecretFile,
    },
}
