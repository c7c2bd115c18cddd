//! What happened: every call, and every session from opening to end. No client sees these records. They are bounded,
//! oldest dropped first.

use super::route::Route;
use medic_core::model::{Owner, SessionId, Wall};
use std::collections::{BTreeMap, VecDeque};

/// Calls, and likewise sessions, that are kept.
const KEPT: usize = 50_000;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Actor {
    /// The credential's name, as far as the call shows one; else empty.
    pub credential: String,
    /// Its `User-Agent`; else empty.
    pub user_agent: String,
}

/// One call. A long poll is one call, however often it was asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub at: Wall,
    pub route: Route,
    /// The GitHub id of its set, if the call names one.
    pub set: Option<u64>,
    pub actor: Actor,
    /// The status of its (first) answer.
    pub status: u16,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Deleted {
        by: Actor,
    },
    /// Nobody polled for the stale lifetime.
    Expired,
    Evicted,
    /// Its set was removed.
    SetRemoved,
    /// Another owner of a scenario took its place.
    Replaced,
    /// The other owner of a scenario left.
    OwnerLeft,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The GitHub id of its set.
    pub set: u64,
    pub session: SessionId,
    pub owner: Owner,
    /// When it was opened.
    pub opened: Wall,
    /// By whom; a scenario's other owner has an empty actor.
    pub opened_by: Actor,
    /// When and how it ended, if it has.
    pub ended: Option<(Wall, Ended)>,
}

#[derive(Debug, Default)]
pub(super) struct Records {
    calls: VecDeque<Call>,
    /// By their numbers.
    sessions: BTreeMap<u64, SessionRecord>,
}

impl Records {
    pub(super) fn call(&mut self, call: Call) {
        if self.calls.len() >= KEPT {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    /// Keeps a new session and gives its number.
    pub(super) fn opened(&mut self, record: SessionRecord) -> u64 {
        if self.sessions.len() >= KEPT {
            self.sessions.pop_first();
        }
        let number = self.sessions.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        self.sessions.insert(number, record);
        number
    }

    pub(super) fn ended(&mut self, number: u64, at: Wall, how: Ended) {
        if let Some(record) = self.sessions.get_mut(&number) {
            record.ended = Some((at, how));
        }
    }

    pub(super) fn calls(&self) -> impl DoubleEndedIterator<Item = &Call> {
        self.calls.iter()
    }

    pub(super) fn sessions(&self) -> impl DoubleEndedIterator<Item = &SessionRecord> {
        self.sessions.values()
    }
}
