//! The configuration of a simulated GARM: build, settings and timings (`docs/reference/garm-api.md` §1, §13).

use medic_core::model::Span;

/// Builds that differ in what they do after a session conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Before the fix of GARM's issue 700: any error of a worker's first start drops it.
    PreFix,
    /// After it: the worker retries every 2 s.
    PostFix,
    /// As [`Self::PostFix`], with a metric series per listener.
    ListenerMetrics,
}

impl Build {
    /// Whether a worker lives on when its first start fails.
    #[must_use]
    pub const fn retries(self) -> bool {
        match self {
            Self::PreFix => false,
            Self::PostFix | Self::ListenerMetrics => true,
        }
    }

    /// What `controller-info` says.
    pub(super) const fn version(self) -> &'static str {
        match self {
            Self::PreFix => "v0.2.0-beta1+pre53ec618c",
            Self::PostFix | Self::ListenerMetrics => "v0.0.0-unknown",
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
    Info,
    Warn,
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
    Text,
}

/// `[logging]`: `enable_log_streamer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStreamer {
    /// The log websocket answers 400.
    Off,
    On,
}

#[derive(Debug, Clone)]
pub struct GarmConfig {
    pub build: Build,
    pub controller_id: String,
    /// The name of its GitHub endpoint.
    pub endpoint: String,
    /// Where its GitHub is, without a trailing slash; REST is below `/api/v3`.
    pub github_origin: String,
    /// The personal access token that it uses there.
    pub github_token: String,
    pub username: String,
    pub password: String,
    /// Whether the first run was done; if not, everything answers 409.
    pub initialised: bool,
    /// How `/metrics` is served.
    pub metrics: Metrics,
    /// How often its gauges are brought up to date; counters are live.
    pub metrics_period: Span,
    /// Whether `/debug/pprof` is served.
    pub debug_server: bool,
    /// The least level logged.
    pub log_level: LogLevel,
    /// How lines are written.
    pub log_format: LogFormat,
    /// Whether the log websocket exists.
    pub log_streamer: LogStreamer,
    /// How often the quota of its credential is asked for.
    pub quota_period: Span,
    /// From issue to `exp` of a login.
    pub token_lifetime: Span,
    /// From the start of the process until its API listens and its first workers start.
    pub boot: Span,
    /// What the start of a worker takes before it asks GitHub anything.
    pub worker_start: Span,
    /// GARM's own part of the time that a request to GitHub takes; at least a millisecond, so that an endless loop
    /// takes time.
    pub request: Span,
    /// From a write to the database until its event is delivered.
    pub event: Span,
    /// How often a worker checks whether it should listen, and tries again.
    pub retry: Span,
    /// With this, the wait doubles after each refusal up to this limit. The bug report proposes it, no build does it.
    pub retry_doubles_to: Option<Span>,
    /// From the end of a listener whose poll failed to its next attempt. GARM makes no pause. This time bounds the
    /// endless loop of polls that fail at once: four rounds a second were measured.
    pub restart: Span,
    /// How often workers scale their runners, and controllers retry workers that did not start.
    pub tick: Span,
    /// How long its provider needs for a runner.
    pub provider: Span,
}

impl GarmConfig {
    /// With the timings that were measured, and a GitHub at `github_origin`.
    #[must_use]
    pub fn new(build: Build, github_origin: &str, github_token: &str) -> Self {
        Self {
            build,
            controller_id: "60b611f2-331d-40a3-a002-f780c6e8f523".to_owned(),
            endpoint: "github.com".to_owned(),
            github_origin: github_origin.trim_end_matches('/').to_owned(),
            github_token: github_token.to_owned(),
            username: "admin".to_owned(),
            password: "correct horse battery staple".to_owned(),
            initialised: true,
            metrics: Metrics::Token,
            metrics_period: Span::secs(60),
            debug_server: false,
            log_level: LogLevel::Debug,
            log_format: LogFormat::Json,
            log_streamer: LogStreamer::On,
            quota_period: Span::secs(30),
            token_lifetime: Span::hours(24),
            boot: Span::millis(100),
            worker_start: Span::millis(5),
            request: Span::millis(1),
            event: Span::millis(1),
            retry: Span::secs(2),
            retry_doubles_to: None,
            restart: Span::millis(240),
            tick: Span::secs(5),
            provider: Span::secs(5),
        }
    }

    /// The REST base of the endpoint.
    pub(super) fn api_base(&self) -> String {
        format!("{}/api/v3", self.github_origin)
    }
}
