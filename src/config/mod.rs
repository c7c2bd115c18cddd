//! Configuration: what was given ([`sources`]) becomes what is meant ([`check`]); all mistakes are in one report.
//!
//! Flags override the environment, which overrides the file, which overrides the defaults; each value keeps its origin.
//! A key is declared once: here, or in [`medic_core::policy`] for `[policy]`. Its [`kind`] says how it is read, written
//! and described. Secrets are files: only their paths are configuration.

mod check;
pub mod describe;
mod files;
pub mod kind;
mod report;
pub mod schema;
mod sources;

pub use check::{Checked, Depth, check};
pub(crate) use files::check_key;
pub use files::check_state_dir;
pub use report::{Mistake, Origin, Report};
pub use sources::{CONFIG_ENV, FlagValue, Sources};

use medic_core::model::closed::closed_enum;
use medic_core::model::{EndpointName, ManagerName, Span};
use medic_core::policy::{Mode, Policy};
use medic_core::settings;
use medic_core::settings::{Follows, Key, Kind, Risky, Takes};
use medic_http::SecretFile;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// A configuration without mistakes.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub run: RunConfig,
    pub log: LogConfig,
    pub http: HttpConfig,
    /// At least one, names unique.
    pub managers: Vec<ManagerConfig>,
    /// At most one for each endpoint.
    pub github: Vec<GithubConfig>,
    pub policy: Policy,
}

closed_enum! {
    /// A table of the configuration file, in the order in which it is shown.
    pub enum Section {
        Run = "run",
        Log = "log",
        Http = "http",
        Manager = "manager",
        Github = "github",
        Policy = "policy",
    }
}

impl Section {
    /// Whether the table may be repeated (`[[name]]`).
    pub const fn repeats(self) -> bool {
        matches!(self, Self::Manager | Self::Github)
    }

    /// As it is written in the file: `[run]`, `[[manager]]`.
    pub fn header(self) -> String {
        if self.repeats() { format!("[[{self}]]") } else { format!("[{self}]") }
    }

    /// Its keys, in the order in which they are shown.
    pub const fn keys(self) -> &'static [Key] {
        match self {
            Self::Run => RunConfig::KEYS,
            Self::Log => LogConfig::KEYS,
            Self::Http => HttpConfig::KEYS,
            Self::Manager => ManagerConfig::KEYS,
            Self::Github => GithubConfig::KEYS,
            Self::Policy => Policy::KEYS,
        }
    }

    /// The key of this name.
    pub fn key(self, name: &str) -> Option<&'static Key> {
        self.keys().iter().find(|key| key.name == name)
    }
}

const MINUTE: Span = Span::mins(1);
const FIVE_MINUTES: Span = Span::mins(5);
const SHORT: Span = Span::millis(100);

settings! {
    /// The loop.
    pub struct RunConfig [run] {
        /// Time between two sweeps while all is well.
        interval: Span = default(Span::secs(15)), Takes::span(Span::secs(1), Span::hours(1))
            .risky(Risky::Above(MINUTE), "a crash is detected that late");
        /// Time between two sweeps while a set is unhealthy or under treatment. If nothing changes for long, it grows
        /// to one minute, or to `interval` if that is shorter.
        urgent_interval: Span = default(Span::secs(2)), Takes::span(Span::millis(500), MINUTE)
            .at_most("interval")
            .follows(Follows::Capped("interval"));
        /// Directory of the journal, the session ledger and the history. It must survive a restart.
        state_dir: PathBuf = default(PathBuf::from("/var/lib/scaleset-medic")), Takes::a(Kind::StateDir);
        /// `heal` heals. `observe` changes nothing and reports what it would have done.
        mode: Mode = default(Mode::Observe), Takes::a(Kind::Choice(&["observe", "heal"]));
        /// Longest time from a signal to the end of the process. Open treatments are finished within it.
        shutdown_limit: Span = default(Span::secs(10)), Takes::span(Span::secs(1), FIVE_MINUTES);
    }
}

closed_enum! {
    /// How log lines are written.
    pub enum LogFormat {
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

settings! {
    /// Log lines.
    pub struct LogConfig [log] {
        /// Format of log lines on stderr.
        format: LogFormat = default(LogFormat::Text), Takes::a(Kind::Choice(&["text", "json"]));
        /// Lowest level that is logged; or levels by target: `info,scaleset_medic=debug,medic_garm=debug`.
        level: String = default("info".to_owned()), Takes::a(Kind::Levels);
    }
}

settings! {
    /// Our own HTTP server.
    pub struct HttpConfig [http] {
        /// Address of /metrics, /healthz, /readyz, /api/v1/status and the status page.
        listen: SocketAddr = default(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9810))), Takes::a(Kind::Listen);
    }
}

settings! {
    /// One GARM.
    pub struct ManagerConfig [[manager]] {
        /// Your name for this GARM; a label of all its metrics.
        name: ManagerName = required("garm"), Takes::a(Kind::Label);
        /// Its root address, without /api/v1.
        url: url::Url = required("http://127.0.0.1:9997"), Takes::a(Kind::Url);
        /// An administrator of it.
        username: String = required("admin"), Takes::a(Kind::Text);
        /// File that holds the administrator's password. It is read again at each login.
        password_file: SecretFile = required("/run/secrets/garm-password"), Takes::a(Kind::SecretFile);
        /// Certificates (PEM) that are trusted in place of the system's.
        ca_file: Option<PathBuf> = optional("/etc/scaleset-medic/garm-ca.pem"), Takes::a(Kind::Certificates);
        /// GARM's log file, if it can be read here: the best source.
        log_file: Option<PathBuf> = optional("/var/log/garm/garm.log"), Takes::a(Kind::Path);
        /// Whether to follow the log over GARM's websocket.
        log_stream: bool = default(false), Takes::a(Kind::Boolean);
        /// Whether GARM's `debug_server` is on and its goroutines may be counted.
        debug_server: bool = default(false), Takes::a(Kind::Boolean);
        /// Whether to read GARM's /metrics.
        metrics: bool = default(true), Takes::a(Kind::Boolean);
        /// Whether /metrics needs a token. It does unless GARM has `disable_auth = true`.
        metrics_auth: bool = default(true), Takes::a(Kind::Boolean);
        /// Longest wait for a connection.
        connect_timeout: Span = default(Span::secs(5)), Takes::span(SHORT, MINUTE).at_most("request_timeout");
        /// Longest wait for a whole answer.
        request_timeout: Span = default(Span::secs(15)), Takes::span(SHORT, FIVE_MINUTES);
        /// Most requests sent to it in a second.
        requests_per_second: u32 = default(20), Takes::count(1, 1000);
    }
}

settings! {
    /// One endpoint of GitHub, and the credential for it.
    pub struct GithubConfig [[github]] {
        /// GARM's name of the endpoint; its addresses come from GARM.
        endpoint: EndpointName = required("github.com"), Takes::a(Kind::Text);
        /// Organisations, repositories (owner/name) and enterprises to ask about. Empty means all of the endpoint.
        entities: Vec<String> = default(Vec::new()), Takes::a(Kind::Entities);
        /// File that holds a personal access token.
        token_file: Option<SecretFile> = optional("/run/secrets/github-token"), Takes::a(Kind::SecretFile);
        /// Id of a GitHub App, in place of a token.
        app_id: Option<u64> = optional("1"), Takes::count(1, u64::MAX >> 1);
        /// Id of the App's installation.
        installation_id: Option<u64> = optional("2"), Takes::count(1, u64::MAX >> 1);
        /// File that holds the App's private key (PEM).
        private_key_file: Option<SecretFile> = optional("/run/secrets/github-app.pem"), Takes::a(Kind::KeyFile);
        /// Certificates (PEM) that are trusted in place of the system's.
        ca_file: Option<PathBuf> = optional("/etc/scaleset-medic/github-ca.pem"), Takes::a(Kind::Certificates);
        /// Longest wait for a connection.
        connect_timeout: Span = default(Span::secs(5)), Takes::span(SHORT, MINUTE).at_most("request_timeout");
        /// Longest wait for a whole answer.
        request_timeout: Span = default(Span::secs(15)), Takes::span(SHORT, FIVE_MINUTES);
        /// Most requests sent in a second with this credential.
        requests_per_second: u32 = default(5), Takes::count(1, 1000);
    }
}
