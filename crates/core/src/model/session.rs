//! Sessions we have seen, by the incarnation that opened them: the rows of the ledger.

use super::closed::closed_enum;
use super::ids::{Incarnation, Owner, ScaleSetId, SessionId};
use super::observation::GithubPlace;
use super::time::Wall;
use serde::{Deserialize, Serialize};

closed_enum! {
    /// How a session ended.
    pub enum SessionEnd {
        /// Its holder closed it.
        Closed = "closed",
        DeletedByUs = "deleted_by_us",
        Expired = "expired",
        /// It is gone, and nobody saw how.
        Unknown = "unknown",
    }
}

/// Who opened a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenedBy {
    /// The manager, in this run of its process.
    Manager(Incarnation),
    /// The manager, in a run nobody could name. Never deletable.
    UnknownIncarnation,
    /// We ourselves, by a session probe.
    Medic,
}

/// One session in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerSession {
    /// The manager's id of its set.
    pub set: ScaleSetId,
    /// Where its set is on the forge.
    pub place: GithubPlace,
    pub id: SessionId,
    pub owner: Owner,
    /// Who opened it, and in which run.
    pub opened_by: OpenedBy,
    /// When it was first seen alive.
    pub first_seen: Wall,
    /// When it was last seen alive.
    pub last_seen: Wall,
    /// How and when it ended, if it has.
    pub ended: Option<(Wall, SessionEnd)>,
}

/// One change of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerChange {
    /// A session was seen.
    See(LedgerSession),
    /// A session of the ledger was seen alive again.
    Alive {
        session: SessionId,
        at: Wall,
    },
    End {
        session: SessionId,
        at: Wall,
        how: SessionEnd,
    },
}
