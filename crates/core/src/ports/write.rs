//! What a treatment needs from the world: the only traits that change anything anywhere.

use crate::model::failure::WriteError;
use crate::model::{
    Enablement, GithubPlace, Incarnation, Owner, RequestFailure, ScaleSet, ScaleSetId, SessionId, Treatment, Wall,
};
use async_trait::async_trait;

/// The manager's write side, with the reads that settle a write.
#[async_trait]
pub trait ManagerWriter: Send + Sync {
    /// Enables or disables a set and returns it as the manager then shows it. Never retried inside.
    async fn set_enabled(&self, set: ScaleSetId, to: Enablement) -> Result<ScaleSet, WriteError>;
    /// The set as it is now; `None` when the manager does not know it.
    async fn read_set(&self, set: ScaleSetId) -> Result<Option<ScaleSet>, RequestFailure>;
    /// The manager's present run, read again at the last moment before a deletion.
    async fn incarnation(&self) -> Result<Incarnation, RequestFailure>;
}

/// GitHub's answer to a request for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenAnswer {
    /// We hold it now and must end it.
    Opened(SessionId),
    /// 409: somebody holds one.
    Held {
        /// The owner, in GitHub's second wording.
        owner: Option<Owner>,
    },
    /// 404: no such set.
    SetGone,
}

#[async_trait]
pub trait SessionWriter: Send + Sync {
    /// Asks for a session. Never retried inside: a lost answer may hide a success.
    async fn open_session(&self, place: &GithubPlace, owner: &Owner) -> Result<OpenAnswer, WriteError>;
    /// Deletes a session. `Ok` means it is gone: 204, 404, or 400 `RunnerScaleSetSessionExpiredException`.
    async fn delete_session(&self, place: &GithubPlace, session: &SessionId) -> Result<(), WriteError>;
}

/// Why the journal could not keep something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal at {path} could not {what}: {detail}")]
pub struct JournalError {
    pub path: String,
    pub what: &'static str,
    pub detail: String,
    /// Who is at fault.
    pub cause: JournalFault,
}

/// The kinds of a journal's failure: after the one, what undoes may still be sent; after the other, nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalFault {
    /// The file or the disk.
    Storage,
    /// Another medic has taken over.
    LeaseLost,
}

/// The journal: when a call returns `Ok`, what it was given survives a power cut.
pub trait Journal: Send + Sync {
    /// Takes a new treatment in and gives it its number (the one in `treatment.id` is ignored).
    fn open(&self, treatment: Treatment) -> Result<Treatment, JournalError>;
    /// Keeps a treatment's present state.
    fn record(&self, treatment: &Treatment) -> Result<(), JournalError>;
    /// Treatments that are not closed.
    fn unfinished(&self) -> Result<Vec<Treatment>, JournalError>;
    /// Treatments opened since `since`, closed or not, oldest first: what budgets are computed from. The newest ones are
    /// among them, however old they are: the breaker's.
    fn since(&self, since: Wall) -> Result<Vec<Treatment>, JournalError>;
}
