//! An operator's request to heal one set now. It lifts the limits on what we do automatically, and none that protects
//! a running listener or a session that may be in use.

use super::diagnosis::Diagnosis;
use super::guard::BlockedBy;
use super::ids::{ScaleSetId, SessionId, TreatmentId};
use super::session::NotStale;
use super::time::{Span, Wall};
use serde::{Deserialize, Serialize};

/// How long a request waits for an instance that carries it out.
pub const MANUAL_HEAL_LIFETIME: Span = Span::mins(2);

/// Unique in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ManualHealId(pub u64);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum ManualAction {
    Heal,
    /// Delete this session, which the operator knows to be stale.
    DeleteSession {
        session: SessionId,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManualHeal {
    pub id: ManualHealId,
    pub set: ScaleSetId,
    pub what: ManualAction,
    pub author: String,
    pub created: Wall,
}

/// The answer of the instance that holds the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum ManualHealAnswer {
    Treating { treatment: TreatmentId },
    Refused { why: Refusal },
    Waiting { why: ManualWait },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManualWait {
    Begins,
    BlockedBy(Vec<BlockedBy>),
    Unclear(Diagnosis),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    SetNotShown,
    SetDisabled,
    ListenerRuns,
    Listens,
    NothingToDo,
    /// A toggle does not help a set with this diagnosis.
    ToggleUseless(Diagnosis),
    NoCredential,
    /// Without the current incarnation, nothing separates its sessions from older ones.
    IncarnationUnknown,
    ManagerDown,
    NotStale {
        session: SessionId,
        against: Vec<NotStale>,
    },
    /// Nothing shows that the manager was refused a session: it may hold this one.
    NoConflictSeen(Diagnosis),
    Withdrawn,
}
