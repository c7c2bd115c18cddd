//! How a request can fail, and whether it may still have had an effect. Only a request that certainly had none is
//! forgotten; the effect of any other is read.

use super::closed::closed_enum;
use super::time::Wall;
use serde::{Deserialize, Serialize};

closed_enum! {
    /// The server a request went to.
    pub enum Target {
        Manager = "manager",
        /// GitHub: its REST API or its Actions service.
        Github = "github",
    }
}

closed_enum! {
    /// What was asked of a server. Closed, because it is a metric label.
    pub enum Operation {
        Login = "login",
        Controller = "controller",
        ListScaleSets = "list_scale_sets",
        ReadScaleSet = "read_scale_set",
        SetEnabled = "set_enabled",
        ListInstances = "list_instances",
        MetricsToken = "metrics_token",
        Metrics = "metrics",
        /// `GET /debug/pprof/goroutine`.
        Goroutines = "goroutines",
        Websocket = "websocket",
        LogFile = "log_file",
        InstallationToken = "installation_token",
        RegistrationToken = "registration_token",
        /// The runner registration; its answer holds the Actions service's address and admin token.
        RunnerRegistration = "runner_registration",
        ListGithubSets = "list_github_sets",
        OpenSession = "open_session",
        DeleteSession = "delete_session",
    }
}

impl Operation {
    pub const fn target(self) -> Target {
        match self {
            Self::Login
            | Self::Controller
            | Self::ListScaleSets
            | Self::ReadScaleSet
            | Self::SetEnabled
            | Self::ListInstances
            | Self::MetricsToken
            | Self::Metrics
            | Self::Goroutines
            | Self::Websocket
            | Self::LogFile => Target::Manager,
            Self::InstallationToken
            | Self::RegistrationToken
            | Self::RunnerRegistration
            | Self::ListGithubSets
            | Self::OpenSession
            | Self::DeleteSession => Target::Github,
        }
    }
}

closed_enum! {
    /// Why a request failed: metric label, retry decision and the table in `docs/`.
    pub enum FailureKind {
        /// No connection: refused, unreachable, name not resolved. Nothing was sent.
        Connect = "connect",
        /// TLS refused: untrusted, expired, wrong name.
        Tls = "tls",
        /// No answer in time; whether the request took effect is unknown.
        Timeout = "timeout",
        /// The connection broke after the request was sent.
        Broken = "broken",
        /// 401: credentials refused.
        Unauthorized = "unauthorized",
        /// 403 without a rate limit: no right.
        Forbidden = "forbidden",
        NotFound = "not_found",
        /// 409: a session conflict at GitHub, a conflict of state at the manager.
        Conflict = "conflict",
        /// GARM was never initialised (409 `init_required` / `urls_required`).
        NotInitialised = "not_initialised",
        /// 429, or 403 with rate-limit headers.
        RateLimited = "rate_limited",
        /// Any other 4xx.
        Rejected = "rejected",
        Server = "server",
        /// A redirect, which is never followed.
        Redirect = "redirect",
        /// The answer is not what the protocol says: not JSON, missing fields, truncated.
        Malformed = "malformed",
        /// The answer is larger than the bound.
        TooLarge = "too_large",
        /// The source is switched off on the server (GARM's metrics or debug server: 404).
        NotEnabled = "not_enabled",
        /// Delayed here by our own rate limits. Nothing was sent.
        HeldBack = "held_back",
    }
}

/// A failed request: what was tried, on which target, what came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFailure {
    pub target: Target,
    pub operation: Operation,
    pub kind: FailureKind,
    /// What came back and what to do; never a secret.
    pub detail: String,
    /// When the server said it may be asked again.
    pub retry_at: Option<Wall>,
}

impl std::fmt::Display for RequestFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {} ({})", self.target, self.operation, self.kind, self.detail)
    }
}

/// Why a write has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteError {
    /// Not sent, or refused by the server: no effect.
    NotApplied(RequestFailure),
    /// Sent, and no usable answer came: the effect is unknown.
    Unknown(RequestFailure),
}

/// A [`RequestFailure`] that also shows whether the request may have had an effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{target} {operation}: {kind}: {detail}")]
pub struct ApiError {
    pub target: Target,
    pub operation: Operation,
    pub kind: FailureKind,
    /// What came back and what to do; never a secret.
    pub detail: String,
    /// Whether the request may have reached the server without a usable answer.
    pub effect: Effect,
    /// When the server said it may be asked again.
    pub retry_at: Option<Wall>,
}

impl ApiError {
    /// As the error of a later request that was not sent because of this one.
    #[must_use]
    pub fn not_sent(self) -> Self {
        Self { effect: Effect::None, ..self }
    }
}

/// Whether a failed request may have had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Certainly none: not sent, or refused.
    None,
    /// Unknown: sent, and no usable answer came.
    Unknown,
}

impl From<ApiError> for RequestFailure {
    fn from(error: ApiError) -> Self {
        Self {
            target: error.target,
            operation: error.operation,
            kind: error.kind,
            detail: error.detail,
            retry_at: error.retry_at,
        }
    }
}

impl From<ApiError> for WriteError {
    fn from(error: ApiError) -> Self {
        match error.effect {
            Effect::None => Self::NotApplied(error.into()),
            Effect::Unknown => Self::Unknown(error.into()),
        }
    }
}
