//! How a request can fail, and whether it may have had an effect all the same: only a request that certainly had none
//! may be forgotten, any other is settled by reading.

use super::observation::{FailureKind, Operation, Target};
use super::time::Wall;
use serde::{Deserialize, Serialize};

/// A failure to see, ready for a person: what was tried, on which target, what came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFailure {
    pub target: Target,
    pub operation: Operation,
    /// The class of failure.
    pub kind: FailureKind,
    /// What came back and what to do; never a secret.
    pub detail: String,
    /// When the server said it may be asked again, if it did.
    pub retry_at: Option<Wall>,
}

impl std::fmt::Display for RequestFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {} ({})", self.target, self.operation, self.kind, self.detail)
    }
}

/// Why a write has no answer. The difference is the whole point: only a request that certainly had no effect
/// may be forgotten; the other kind is settled by reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteError {
    /// Not sent, or refused by the server: no effect.
    NotApplied(RequestFailure),
    /// Sent, and no usable answer came: the effect is unknown.
    Unknown(RequestFailure),
}

/// What was tried, on which target, what came back, and whether it may have had an effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{target} {operation}: {kind}: {detail}")]
pub struct ApiError {
    pub target: Target,
    pub operation: Operation,
    /// The class of failure: metric label and retry decision.
    pub kind: FailureKind,
    /// What came back and what to do; never a secret.
    pub detail: String,
    /// Whether the request may have reached the server without a usable answer.
    pub effect: Effect,
    /// When the server said it may be asked again.
    pub retry_at: Option<Wall>,
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
