//! What happened: every call, and every session from opening to end. No client sees these records. They are bounded,
//! oldest dropped first.

use super::route::Route;
use medic_core::model::{Owner, SessionId, Wall};
use std::collections::VecDeque;

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

#[derive(Debug)]
pub(super) struct Records {
    kept: usize,
    calls: VecDeque<Call>,
    sessions: VecDeque<SessionRecord>,
    /// How many sessions were dropped from the front: the number of the first one kept.
    dropped: u64,
}

impl Records {
    pub(super) fn new(kept: usize) -> Self {
        Self { kept: kept.max(1), calls: VecDeque::new(), sessions: VecDeque::new(), dropped: 0 }
    }

    pub(super) fn call(&mut self, call: Call) {
        if self.calls.len() >= self.kept {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    /// Keeps a new session and gives its number.
    pub(super) fn opened(&mut self, record: SessionRecord) -> u64 {
        if self.sessions.len() >= self.kept {
            self.sessions.pop_front();
            self.dropped = self.dropped.saturating_add(1);
        }
        self.sessions.push_back(record);
        self.dropped.saturating_add(self.sessions.len() as u64).saturating_sub(1)
    }

    pub(super) fn ended(&mut self, number: u64, at: Wall, how: Ended) {
        let index = number.checked_sub(self.dropped).and_then(|index| usize::try_from(index).ok());
        if let Some(record) = index.and_then(|index| self.sessions.get_mut(index)) {
            record.ended = Some((at, how));
        }
    }

    pub(super) fn calls(&self) -> impl DoubleEndedIterator<Item = &Call> {
        self.calls.iter()
    }

    pub(super) fn sessions(&self) -> impl DoubleEndedIterator<Item = &SessionRecord> {
        self.sessions.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(set: u64) -> SessionRecord {
        SessionRecord {
            set,
            session: SessionId::new("s"),
            owner: Owner::new("o"),
            opened: Wall(0),
            opened_by: Actor::default(),
            ended: None,
        }
    }

    #[test]
    fn dropped_session_record_is_not_confused_with_another() {
        let mut records = Records::new(2);
        let numbers: Vec<u64> = (0..3).map(|set| records.opened(record(set))).collect();
        records.ended(numbers[0], Wall(1), Ended::Expired);
        records.ended(numbers[2], Wall(2), Ended::Evicted);
        let kept: Vec<_> = records.sessions().map(|r| (r.set, r.ended.clone())).collect();
        assert_eq!(kept, vec![(1, None), (2, Some((Wall(2), Ended::Evicted)))]);
    }
}
