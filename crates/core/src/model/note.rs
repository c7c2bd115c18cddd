//! What happened in a treatment, as facts. `text::treatment` of the program words them.

use super::failure::RequestFailure;
use super::ids::Owner;
use super::time::Span;
use serde::{Deserialize, Serialize};

/// Why a treatment goes on, waits or ends, where its step and outcome do not say so. `sent` says whether a request that
/// changes something had been sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    SetRemoved,
    ChangedByOthers,
    /// It stopped answering before anything was sent.
    ManagerAway,
    /// Since the decision.
    ManagerRestarted,
    /// The same, while it was verified.
    NotVerifiable,
    ListensAgain {
        sent: bool,
    },
    Paused {
        sent: bool,
    },
    /// Too long ago to go on.
    MedicEnded {
        sent: bool,
    },
    MedicEnds,
    /// A process before this one may have sent it.
    DisableMaybeSent,
    /// The answer to the disable.
    ShownEnabled,
    /// The answer to the enable.
    ShownDisabled,
    DisableTookEffect,
    /// It may still be the cause if the set turns up disabled.
    DisableLost,
    WorkerDue,
    /// For as long as the policy allows.
    DisabledTooLong,
    MissingInList,
    FoundEnabled,
    StaleSessionGone,
    /// An earlier deletion may have worked.
    StaleSessionReplaced,
    NoLongerStale,
    /// Before a session check was sent.
    SetChanged,
    NotAtGithub,
    /// The owner is known where GitHub names it.
    HeldBy {
        owner: Option<Owner>,
    },
    /// Whether the check opened a session is not known.
    GrantLost,
    CheckOpened,
    HeldByNobody,
    WorkerRestarted,
    Recovered {
        after: Span,
    },
    NoWorker {
        within: Span,
    },
    NoListener {
        within: Span,
    },
    Failed {
        what: Failed,
        failure: RequestFailure,
    },
    GivenUp {
        attempts: u32,
        last: Failed,
        failure: RequestFailure,
    },
    /// What an earlier release wrote.
    #[serde(untagged)]
    Text(String),
}

/// What a failed request leaves undone or unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failed {
    ReadBeforeDisable,
    DisableRefused,
    DisableUnanswered,
    /// The disable was not answered, and its effect cannot be read.
    ReadAfterDisable,
    ReadBeforeEnable,
    Enable,
    ReadIncarnation,
    DeleteStaleSession,
    /// It is not deleted, and the set is toggled all the same.
    DeleteBeforeToggle,
    CheckRefused,
    DeleteOwnSession,
    /// An answer that may not be GitHub's own says that it is gone.
    FindOwnSession,
}

impl Note {
    /// The request that failed, if one did.
    #[must_use]
    pub const fn failure(&self) -> Option<&RequestFailure> {
        if let Self::Failed { failure, .. } | Self::GivenUp { failure, .. } = self { Some(failure) } else { None }
    }
}
