//! The session ledger: sessions we have seen, with the incarnation that opened them.

use super::closed::closed_enum;
use super::ids::{Incarnation, Owner, ScaleSetId, SessionId};
use super::observation::GithubPlace;
use super::time::Wall;
use serde::{Deserialize, Serialize};

closed_enum! {
    pub enum SessionEnd {
        Closed = "closed",
        DeletedByUs = "deleted_by_us",
        Expired = "expired",
        Unknown = "unknown",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenedBy {
    Manager(Incarnation),
    /// The manager, in an unknown incarnation. Never deletable without an operator.
    UnknownIncarnation,
    /// A session check of ours.
    Medic,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerSession {
    pub set: ScaleSetId,
    pub place: GithubPlace,
    pub id: SessionId,
    pub owner: Owner,
    pub opened_by: OpenedBy,
    pub first_seen: Wall,
    pub last_seen: Wall,
    pub ended: Option<(Wall, SessionEnd)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerChange {
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

closed_enum! {
    /// Why a session is not provably stale.
    pub enum NotStale {
        /// The ledger has no session of the set, so its id is not known.
        NotInLedger = "not_in_ledger",
        Ended = "ended",
        /// A session check opened it, and deletes it.
        OpenedByUs = "opened_by_us",
        OpeningRunUnknown = "opening_run_unknown",
        CurrentRunUnknown = "current_run_unknown",
        /// The current incarnation opened it: it is in use.
        SameRun = "same_run",
        /// A later incarnation than the current one opened it.
        LaterRun = "later_run",
        /// The opening incarnation and the current one started so close together that they may be one.
        RunsTooClose = "runs_too_close",
        /// First seen too close to the current start, or after it: the current incarnation may have opened it.
        OpenedTooLate = "opened_too_late",
        /// Seen alive after the current start: another process holds it.
        AliveAfterStart = "alive_after_start",
        /// The manager does not answer, so nothing shows that its process is a new one.
        ManagerDown = "manager_down",
        OwnerUnknown = "owner_unknown",
        OwnerDiffers = "owner_differs",
        OtherSet = "other_set",
        /// The set was recreated or moved at GitHub, or its place is not known.
        OtherPlace = "other_place",
    }
}
