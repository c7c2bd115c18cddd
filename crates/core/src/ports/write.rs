//! What a treatment needs from the world: the only traits that change anything.

use crate::decide::warrant::DeletionWarrant;
use crate::model::failure::WriteError;
use crate::model::{
    Enablement, GithubPlace, Incarnation, OpenAnswer, Owner, RequestFailure, ScaleSet, ScaleSetId, Treatment, Wall,
};
use async_trait::async_trait;

/// The manager's write side, with the reads that show a write's effect.
#[async_trait]
pub trait ManagerWriter: Send + Sync {
    /// Enables or disables a set and returns it as the manager then shows it. Never retried inside.
    async fn set_enabled(&self, set: ScaleSetId, to: Enablement) -> Result<ScaleSet, WriteError>;
    /// `None` when the manager does not know the set.
    async fn read_set(&self, set: ScaleSetId) -> Result<Option<ScaleSet>, RequestFailure>;
    /// Read again at the last moment before a deletion.
    async fn incarnation(&self) -> Result<Incarnation, RequestFailure>;
}

#[async_trait]
pub trait SessionWriter: Send + Sync {
    /// Asks for a session. Never retried inside: a lost answer may hide a success.
    async fn open_session(&self, place: &GithubPlace, owner: &Owner) -> Result<OpenAnswer, WriteError>;
    /// Deletes the session of the warrant. `Ok` means it is gone: 204, 404, or 400 `RunnerScaleSetSessionExpiredException`.
    async fn delete_session(&self, place: &GithubPlace, warrant: &DeletionWarrant) -> Result<(), WriteError>;
}

/// Why the journal could not keep something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal at {path} could not {what}: {detail}")]
pub struct JournalError {
    pub path: String,
    pub what: &'static str,
    pub detail: String,
    pub cause: JournalFault,
}

/// After a storage failure, requests that undo may still be sent; after a lost lease, none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalFault {
    Storage,
    /// Another instance has taken over.
    LeaseLost,
}

/// The journal: when a call returns `Ok`, what it was given survives a power cut.
pub trait Journal: Send + Sync {
    /// Adds a treatment and assigns its id (`treatment.id` is ignored).
    fn open(&self, treatment: Treatment) -> Result<Treatment, JournalError>;
    fn record(&self, treatment: &Treatment) -> Result<(), JournalError>;
    /// Treatments that are not closed.
    fn unfinished(&self) -> Result<Vec<Treatment>, JournalError>;
    /// Treatments opened since `since`, closed or not, oldest first, for the budgets. The newest ones are always included,
    /// for the breaker.
    fn since(&self, since: Wall) -> Result<Vec<Treatment>, JournalError>;
}
