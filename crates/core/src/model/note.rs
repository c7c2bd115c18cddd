//! What happened in a treatment, as facts. `text::treatment` of the program words them.

use super::failure::RequestFailure;
use super::ids::Owner;
use super::time::Span;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Why a treatment goes on, waits or ends, where its step and outcome do not say so. `sent` says whether a request that
/// changes something had been sent; `Text` is what version 3 of the store held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    SetRemoved,
    ChangedByOthers,
    ManagerAway,
    RestartedSinceDecision,
    RestartedUnverified,
    ListensAgain { sent: bool },
    Paused { sent: bool },
    MedicEnded { sent: bool },
    MedicEnds,
    DisableMaybeSent,
    DisableShownEnabled,
    EnableShownDisabled,
    DisableTookEffect,
    DisableLost,
    WorkerDue,
    DisabledTooLong,
    MissingInList,
    FoundEnabled,
    StaleSessionGone,
    StaleSessionReplaced,
    NoLongerStale,
    SetChanged,
    NotAtGithub,
    HeldBy { owner: Option<Owner> },
    GrantLost,
    CheckOpened,
    HeldByNobody,
    WorkerRestarted,
    Recovered { after: Span },
    NoWorker { within: Span },
    NoListener { within: Span },
    Failed { what: Failed, failure: RequestFailure },
    GivenUp { attempts: u32, last: Failed, failure: RequestFailure },
    Text { text: String },
}

/// A note of a row, which may be another release's. It is only shown: one that is not known must not make an open
/// treatment unreadable, which may have a set to enable.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Known(Note),
    Unknown(Value),
}

impl From<Stored> for Note {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Known(note) => note,
            Stored::Unknown(Value::String(text)) => Self::Text { text },
            Stored::Unknown(json) => Self::Text { text: json.to_string() },
        }
    }
}

/// Reads a note that this release may not know, as its text.
pub(crate) fn lenient<'de, D: Deserializer<'de>>(from: D) -> Result<Note, D::Error> {
    Stored::deserialize(from).map(Note::from)
}

/// As [`lenient`], where there may be none.
pub(crate) fn lenient_option<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Note>, D::Error> {
    Ok(Option::<Stored>::deserialize(from)?.map(Note::from))
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
    pub const fn failure(&self) -> Option<&RequestFailure> {
        if let Self::Failed { failure, .. } | Self::GivenUp { failure, .. } = self { Some(failure) } else { None }
    }
}
