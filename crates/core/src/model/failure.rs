//! How a request can fail, and whether it may still have had an effect. Only a request that certainly had none is
//! forgotten; the effect of any other is read.

use super::observation::{FailureKind, Operation, Target};
use super::time::Wall;
use serde::{Deserialize, Serialize};

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
