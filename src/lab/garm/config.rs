#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! What a simulated GARM is like: its generation, its configuration and its timings (`reference/garm-api.md` §1, §13).

use crate::model::Span;

/// Builds that differ in how they meet a session conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Before the fix of GARM's issue 700: any error of a worker's first start leaves it dead.
    PreFix,
    /// After it: the worker retries every 2 s.
    PostFix,
    /// As [`Self::PostFix`], with a metric series per listener.
    ListenerMetrics,
}

impl Generation {
    /// Whether a worker lives on when its first start fails.
    #[must_use]
    pub const fn retries(self) -> bool {
        match self {
            Self::PreFix => false,
            Self::PostFix | Self::ListenerMetrics => true,
        }
    }
}

/// `[metrics]` of GARM's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metrics {
    /// `enable = false`: 404.
    Off,
    /// `disable_auth = true`.
    Open,
    /// With a metrics token.
    Token,
}

/// `[logging]`: level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything, session ids included.
    Debug,
    /// The default.
    Info,
    /// Warnings.
    Warn,
    /// Errors.
    Error,
}

impl LogLevel {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// `[logging]`: format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// slog's text.
    Text,
}

/// A simulated GARM.
#[derive(Debug, Clone)]
pub struct GarmConfig {
    /// The build.
    pub generation: Generation,
    /// The controller's UUID.
    pub controller_id: String,
    /// Where its GitHub is, without a trailing slash; REST is below `/api/v3`.
    pub github_origin: String,
    /// The personal access token that it uses there.
    pub github_token: String,
    /// Its administrator.
    pub username: String,
    /// That administrator's password.
    pub password: String,
    /// Whether the first run was done; if not, everything answers 409.
    pub initialised: bool,
    /// How `/metrics` is served.
    pub metrics: Metrics,
    /// Whether `/debug/pprof` is served.
    pub debug_server: bool,
    /// The least level logged.
    pub log_level: LogLevel,
    /// How lines are written.
    pub log_format: LogFormat,
    /// The path of a reverse proxy in front, without a trailing slash.
    pub base_path: String,
    /// From issue to `exp` of a login.
    pub token_lifetime: Span,
    /// From the start of the process until it starts its workers.
    pub boot: Span,
    /// How long the start of one worker takes; an enable that comes meanwhile is missed by it.
    pub worker_start: Span,
    /// How often a worker looks whether it should listen, and tries again.
    pub retry: Span,
    /// How long its provider needs for a runner.
    pub provider: Span,
}

impl GarmConfig {
    /// A GARM as measured, whose GitHub is at `github_origin`.
    #[must_use]
    pub fn new(generation: Generation, github_origin: &str, github_token: &str) -> Self {
        Self {
            generation,
            controller_id: "60b611f2-331d-40a3-a002-f780c6e8f523".to_owned(),
            github_origin: github_origin.trim_end_matches('/').to_owned(),
            github_token: github_token.to_owned(),
            username: "admin".to_owned(),
            password: "correct horse battery staple".to_owned(),
            initialised: true,
            metrics: Metrics::Token,
            debug_server: false,
            log_level: LogLevel::Debug,
            log_format: LogFormat::Json,
            base_path: String::new(),
            token_lifetime: Span::hours(24),
            boot: Span::millis(500),
            worker_start: Span::millis(300),
            retry: Span::secs(2),
            provider: Span::secs(5),
        }
    }
}
