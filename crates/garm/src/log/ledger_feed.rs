//! Turns the log's facts into the ledger's rows (`docs/reference/design.md` §5: a session can only be proven stale if it
//! was seen alive).
//!
//! - **A session is attributed to an incarnation of the manager only by evidence of it**: the log's start line before it,
//!   refined by a scrape of the process's start time where one fits; without a start line, scrapes that show one process
//!   before and after the session's date. Otherwise it waits, and is "of an unknown incarnation" once its run is over.
//!   Dates may be off by a second or two; `decide::stale` keeps its own margin.
//! - **A session ends only when that is certain**. "closing" announces a close; it has happened when the listener's loop
//!   ends or the worker goes on. A session left open by mistake costs one deletion that answers 404; one ended by mistake
//!   costs a wait for its expiry. A new session of a set ends the one before: GitHub keeps one per set.

use medic_core::model::log_fact::{ListenerErrorKind, LogEvent, LogEvidence, LogFact, LogSet};
use medic_core::model::session::{LedgerChange, LedgerSession, OpenedBy, SessionEnd};
use medic_core::model::{GithubPlace, Incarnation, Owner, ScaleSetId, SessionId, Span, Wall};
use std::collections::{BTreeMap, VecDeque};

/// The largest difference between the two dates of one process start: the kernel's and the log's.
const START_ERROR: Span = Span::secs(2);
/// The longest a manager takes from its process's start to its first log line (it migrates its database first).
const START_DELAY: Span = Span::mins(5);
const INCARNATIONS_MAX: usize = 64;
/// Sessions that wait for their set, owner or run to become known.
const WAITING_MAX: usize = 4096;

/// The manager's incarnations, by scrapes of its process start time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timeline {
    /// Each with the date of the last scrape that showed it; oldest first.
    incarnations: VecDeque<(Incarnation, Wall)>,
}

impl Timeline {
    /// Notes what a scrape at `at` showed.
    pub fn observe(&mut self, incarnation: Incarnation, at: Wall) {
        match self.incarnations.iter_mut().find(|(known, _)| *known == incarnation) {
            Some((_, last)) => *last = (*last).max(at),
            None => self.incarnations.push_back((incarnation, at)),
        }
        while self.incarnations.len() > INCARNATIONS_MAX {
            self.incarnations.pop_front();
        }
    }

    /// The incarnation whose first log line is dated `started`.
    fn of_start(&self, started: Wall) -> Option<Incarnation> {
        let fits = |run: &Incarnation| run.0 <= started.plus(START_ERROR) && started.since(run.0) <= START_DELAY;
        self.incarnations.iter().map(|(run, _)| *run).filter(fits).max()
    }

    /// The incarnation that was seen before and after `at`.
    fn around(&self, at: Wall) -> Option<Incarnation> {
        let fits = |(run, last): &&(Incarnation, Wall)| run.0.plus(START_ERROR) <= at && at.plus(START_ERROR) <= *last;
        self.incarnations.iter().filter(fits).map(|(run, _)| *run).max()
    }
}

/// What the feed needs besides the log.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub timeline: &'a Timeline,
    /// Where each set is on GitHub.
    pub places: &'a BTreeMap<ScaleSetId, GithubPlace>,
    /// The owner name of the manager's sessions, once known.
    pub owner: Option<&'a Owner>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Feed {
    run_started: Option<Wall>,
    latest: BTreeMap<ScaleSetId, Latest>,
    /// Not in the ledger yet.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Latest {
    session: SessionId,
    /// The previous one, whose last lines may come late.
    before: Option<SessionId>,
    /// When it was opened or first seen.
    since: Wall,
    /// When its close began, if it has not ended.
    closing: Option<Wall>,
    ended: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    set: ScaleSetId,
    session: SessionId,
    first_seen: Wall,
    last_seen: Wall,
    run_started: Option<Wall>,
    run_over: bool,
    ended: Option<(Wall, SessionEnd)>,
}

impl Feed {
    /// Resumes after a restart, from the saved evidence and the ledger.
    pub fn resume(evidence: &LogEvidence, ledger: &[LedgerSession]) -> Self {
        let mut feed = Self { run_started: evidence.run_started, ..Self::default() };
        for row in ledger {
            let newest = feed.latest.get(&row.set).is_none_or(|latest| latest.since <= row.first_seen);
            if newest {
                let (session, since) = (row.id.clone(), row.first_seen);
                let ended = row.ended.is_some();
                feed.latest.insert(row.set, Latest { session, before: None, since, closing: None, ended });
            }
        }
        // Seen, but not in the ledger when the process ended.
        for (set, log) in &evidence.by_id {
            if let Some((at, session)) = &log.session
                && !ledger.iter().any(|row| row.id == *session)
            {
                feed.opened(*set, session, *at, &mut Vec::new());
            }
        }
        feed
    }

    /// The ledger changes of `facts` (in the log's order), and of earlier facts that have become certain.
    pub fn absorb(&mut self, facts: &[LogFact], known: Known<'_>) -> Vec<LedgerChange> {
        let mut changes = Vec::new();
        for LogFact { at, what } in facts {
            self.take(*at, what, &mut changes);
        }
        self.attribute(known, &mut changes);
        changes
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn take(&mut self, at: Wall, what: &LogEvent, changes: &mut Vec<LedgerChange>) {
        match what {
            LogEvent::ManagerStarted => {
                self.run_started = Some(at);
                for waiting in &mut self.waiting {
                    waiting.run_over = true;
                }
                for latest in self.latest.values_mut() {
                    // Whether that close happened is unknown.
                    latest.closing = None;
                }
            }
            LogEvent::SessionOpened { set: LogSet::Manager(set), session } => self.opened(*set, session, at, changes),
            LogEvent::SessionHeld { set: LogSet::Manager(set), session } => self.held(*set, session, at, changes),
            LogEvent::SessionClosing { set: LogSet::Manager(set) } => {
                if let Some(latest) = self.latest_at(*set, at) {
                    latest.closing = Some(at);
                }
            }
            LogEvent::SessionCloseFailed { set: LogSet::Manager(set), kind } => {
                if let Some(latest) = self.latest_at(*set, at) {
                    latest.closing = None;
                }
                if is_gone(*kind) {
                    self.ended(*set, at, SessionEnd::Expired, changes);
                }
            }
            LogEvent::ListenerStopped { set: LogSet::Manager(set) }
            | LogEvent::WorkerIdle { set: LogSet::Manager(set) } => {
                if let Some(closed) = self.latest.get(set).and_then(|latest| latest.closing) {
                    self.ended(*set, closed, SessionEnd::Closed, changes);
                }
            }
            LogEvent::ListenerFailed { set: LogSet::Manager(set), kind, refresh: _ } if is_gone(*kind) => {
                // The current poll ends like this when the listener's own close is faster.
                let (when, how) = match self.latest.get(set).and_then(|latest| latest.closing) {
                    Some(closing) => (closing, SessionEnd::Closed),
                    None => (at, SessionEnd::Expired),
                };
                self.ended(*set, when, how, changes);
            }
            // The lines of sessions always carry the manager's id.
            LogEvent::SessionOpened { set: LogSet::Github { .. }, .. }
            | LogEvent::SessionHeld { set: LogSet::Github { .. }, .. }
            | LogEvent::SessionClosing { set: LogSet::Github { .. } }
            | LogEvent::SessionCloseFailed { set: LogSet::Github { .. }, .. }
            | LogEvent::ListenerStopped { set: LogSet::Github { .. } }
            | LogEvent::WorkerIdle { set: LogSet::Github { .. } }
            | LogEvent::ListenerFailed { .. }
            | LogEvent::ManagerStopping
            | LogEvent::Panic
            | LogEvent::Conflict { .. }
            | LogEvent::StartFailed { .. }
            | LogEvent::Poll { .. }
            | LogEvent::JobSeen { .. }
            | LogEvent::WorkerStarted { .. }
            | LogEvent::MessageFailed { .. } => {}
        }
    }

    /// The latest session of a set, if it is older than `at`.
    fn latest_at(&mut self, set: ScaleSetId, at: Wall) -> Option<&mut Latest> {
        self.latest.get_mut(&set).filter(|latest| latest.since <= at)
    }

    fn opened(&mut self, set: ScaleSetId, session: &SessionId, at: Wall, changes: &mut Vec<LedgerChange>) {
        let before = self.latest.get(&set).map(|latest| latest.session.clone());
        if let Some(latest) = self.latest.get(&set) {
            // Lines may be read again after a crash.
            if latest.session == *session || latest.since > at {
                return;
            }
            // A session can only open once the previous one is gone.
            let (how, when) = match latest.closing {
                Some(closing) => (SessionEnd::Closed, closing),
                None if self.run_started.is_some_and(|started| latest.since < started) => (SessionEnd::Expired, at),
                None => (SessionEnd::Unknown, at),
            };
            self.ended(set, when, how, changes);
        }
        let latest = Latest { session: session.clone(), before, since: at, closing: None, ended: false };
        self.latest.insert(set, latest);
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Waiting {
            set,
            session: session.clone(),
            first_seen: at,
            last_seen: at,
            run_started: self.run_started,
            run_over: false,
            ended: None,
        });
    }

    fn held(&mut self, set: ScaleSetId, session: &SessionId, at: Wall, changes: &mut Vec<LedgerChange>) {
        if self.latest.get(&set).is_some_and(|latest| latest.before.as_ref() == Some(session)) {
            return;
        }
        // Without its opening, a session is dated too late, which makes it harder to prove stale.
        self.opened(set, session, at, changes);
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.session == *session) {
            waiting.last_seen = waiting.last_seen.max(at);
        } else {
            changes.push(LedgerChange::Alive { session: session.clone(), at });
        }
    }

    fn ended(&mut self, set: ScaleSetId, at: Wall, how: SessionEnd, changes: &mut Vec<LedgerChange>) {
        let Some(latest) = self.latest_at(set, at).filter(|latest| !latest.ended) else { return };
        latest.ended = true;
        latest.closing = None;
        let session = latest.session.clone();
        match self.waiting.iter_mut().find(|waiting| waiting.session == session) {
            Some(waiting) => waiting.ended = Some((at, how)),
            None => changes.push(LedgerChange::End { session, at, how }),
        }
    }

    fn attribute(&mut self, known: Known<'_>, changes: &mut Vec<LedgerChange>) {
        self.waiting.retain(|waiting| match waiting.row(known) {
            Some(row) => {
                changes.push(LedgerChange::See(row));
                false
            }
            None => true,
        });
    }
}

impl Waiting {
    /// Its row, once everything about it is known.
    fn row(&self, known: Known<'_>) -> Option<LedgerSession> {
        let place = known.places.get(&self.set)?;
        let owner = known.owner?;
        let opened_by = match self.run_started {
            // Both dates are of one clock, the manager's.
            Some(started) => OpenedBy::Manager(known.timeline.of_start(started).unwrap_or(Incarnation(started))),
            None => match known.timeline.around(self.first_seen) {
                Some(run) => OpenedBy::Manager(run),
                None if self.run_over => OpenedBy::UnknownIncarnation,
                None => return None,
            },
        };
        Some(LedgerSession {
            set: self.set,
            place: place.clone(),
            id: self.session.clone(),
            owner: owner.clone(),
            opened_by,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            ended: self.ended,
        })
    }
}

const fn is_gone(kind: ListenerErrorKind) -> bool {
    match kind {
        ListenerErrorKind::NotFound | ListenerErrorKind::SessionExpired => true,
        ListenerErrorKind::Mismatch
        | ListenerErrorKind::Network
        | ListenerErrorKind::Server
        | ListenerErrorKind::Unauthorized
        | ListenerErrorKind::Other => false,
    }
}

#[cfg(test)]
mod tests;
