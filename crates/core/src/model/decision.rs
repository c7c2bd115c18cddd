//! What may be done about a finding (`docs/reference/design.md` §5, §6).

use super::closed::closed_enum;
use super::guard::BlockedBy;
use super::ids::{Owner, ScaleSetId, SessionId, TreatmentId};
use super::time::{OptionalRfc3339, Span, Wall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

closed_enum! {
    /// The kinds of remedy, as labels.
    pub enum RemedyKind {
        /// Disable, wait for the worker, enable.
        Toggle = "toggle",
        DeleteSession = "delete_session",
        DeleteThenToggle = "delete_then_toggle",
        /// Ask for a session to learn whether anybody holds one, and end it at once.
        SessionCheck = "session_check",
    }
}

impl RemedyKind {
    pub const fn disables(self) -> bool {
        match self {
            Self::Toggle | Self::DeleteThenToggle => true,
            Self::DeleteSession | Self::SessionCheck => false,
        }
    }

    /// Whether it heals; a session check only asks.
    pub const fn heals(self) -> bool {
        match self {
            Self::Toggle | Self::DeleteSession | Self::DeleteThenToggle => true,
            Self::SessionCheck => false,
        }
    }
}

/// A remedy for one set. A session is named, not permitted to be deleted: that takes a
/// [`DeletionWarrant`](crate::decide::warrant::DeletionWarrant).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Remedy {
    Toggle,
    DeleteSession { session: SessionId },
    DeleteThenToggle { session: SessionId },
    SessionCheck,
}

impl Remedy {
    pub const fn kind(&self) -> RemedyKind {
        match self {
            Self::Toggle => RemedyKind::Toggle,
            Self::DeleteSession { .. } => RemedyKind::DeleteSession,
            Self::DeleteThenToggle { .. } => RemedyKind::DeleteThenToggle,
            Self::SessionCheck => RemedyKind::SessionCheck,
        }
    }
}

closed_enum! {
    /// What is waited for, when waiting is the remedy.
    pub enum Waiting {
        Settling = "settling",
        /// GitHub ends a stale session within about 90 s; the manager retries.
        StaleSession = "stale_session",
        /// The same, for longer than usual.
        StaleSessionOdd = "stale_session_odd",
        Evidence = "evidence",
        Treatment = "treatment",
    }
}

/// What only an operator can repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Escalation {
    /// Another owner holds the set's session.
    HeldElsewhere {
        /// Its name, where GitHub names it.
        owner: Option<Owner>,
        run: Span,
    },
    /// Conflicts at several entities at once.
    EndpointFault,
    /// The set is gone at GitHub.
    Missing,
    /// The set has another id at GitHub.
    Mismatched,
    Unauthorized,
    /// Assigned jobs do not turn into runners.
    Starved,
    /// The listener stalled, and toggling it is not allowed.
    Deaf,
    Flapping,
    /// GitHub forgot the session under a running listener.
    Evicted,
    Unknown,
}

impl Escalation {
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::HeldElsewhere { .. } => "held_elsewhere",
            Self::EndpointFault => "endpoint_fault",
            Self::Missing => "missing",
            Self::Mismatched => "mismatched",
            Self::Unauthorized => "unauthorized",
            Self::Starved => "starved",
            Self::Deaf => "deaf",
            Self::Flapping => "flapping",
            Self::Evicted => "evicted",
            Self::Unknown => "unknown",
        }
    }
}

/// The decision about one set in one sweep; `B` is how its guards are shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "decision", rename_all = "snake_case")]
#[schemars(rename = "Decision")]
pub enum Decision<B = BlockedBy> {
    /// Nothing is wrong, or nothing is ours to repair.
    Leave,
    /// Waiting is the remedy.
    Watch {
        waiting: Waiting,
        /// Until when, if time alone decides.
        #[serde(default, with = "OptionalRfc3339")]
        until: Option<Wall>,
    },
    /// An operator is needed.
    Escalate { escalation: Escalation },
    Blocked {
        remedy: Remedy,
        /// All that block, not just the first.
        guards: Vec<B>,
    },
    Treat {
        remedy: Remedy,
        /// Whether it is the incident's first, alone in flight.
        canary: bool,
    },
    /// A treatment is open.
    Treating { treatment: TreatmentId },
}

impl<B> Decision<B> {
    /// The guards that block; none where nothing is blocked.
    pub fn guards(&self) -> &[B] {
        match self {
            Self::Blocked { guards, .. } => guards,
            Self::Leave | Self::Watch { .. } | Self::Escalate { .. } | Self::Treat { .. } | Self::Treating { .. } => {
                &[]
            }
        }
    }

    /// The same decision with its guards shown otherwise.
    pub fn map_guards<C>(self, show: impl FnMut(B) -> C) -> Decision<C> {
        match self {
            Self::Leave => Decision::Leave,
            Self::Watch { waiting, until } => Decision::Watch { waiting, until },
            Self::Escalate { escalation } => Decision::Escalate { escalation },
            Self::Blocked { remedy, guards } => {
                Decision::Blocked { remedy, guards: guards.into_iter().map(show).collect() }
            }
            Self::Treat { remedy, canary } => Decision::Treat { remedy, canary },
            Self::Treating { treatment } => Decision::Treating { treatment },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetDecision {
    pub set: ScaleSetId,
    #[serde(flatten)]
    pub decision: Decision,
}
