//! Facts extracted from the manager's log, folded per set. Nothing else of a log is kept.
//!
//! A line names its set in one of two ways (`docs/reference/garm-api.md` §12): `worker` or `consumer_id` =
//! `scaleset-worker-NAME-ID` carries the manager's id; the controller's lines of pre-fix builds carry
//! only the entity and, inside the error's URL, GitHub's id.

use super::closed::closed_enum;
use super::ids::{GithubId, Owner, ScaleSetId, SessionId};
use super::time::{Span, Wall};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a log line names a scale set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogSet {
    Manager(ScaleSetId),
    /// By entity name and GitHub's id.
    Github {
        /// `owner/name` or the plain name, as in the line's `entity`. Builds that do not log it (v0.2.0-alpha): the
        /// manager's UUID of the entity.
        entity: String,
        github_id: GithubId,
    },
}

closed_enum! {
    /// Why a listener failed, as far as the log shows.
    pub enum ListenerErrorKind {
        /// 401 or 403.
        Unauthorized = "unauthorized",
        /// 404: set or session gone.
        NotFound = "not_found",
        /// 400 with a session-expired text.
        SessionExpired = "session_expired",
        /// No connection, time-out, broken transport.
        Network = "network",
        /// 5xx.
        Server = "server",
        /// GitHub knows the set under another id.
        Mismatch = "mismatch",
        Other = "other",
    }
}

/// One fact of one log line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFact {
    pub at: Wall,
    pub what: LogEvent,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogEvent {
    /// The first line of an incarnation.
    ManagerStarted,
    /// The manager shuts down cleanly.
    ManagerStopping,
    /// A Go panic or fatal error.
    Panic,
    /// The manager was refused a session: another one is active.
    Conflict {
        set: LogSet,
        /// The owner, where GitHub's wording names one.
        owner: Option<Owner>,
        /// Whether the worker gave up (the controller's line of a pre-fix build) or will retry.
        gave_up: bool,
    },
    /// The worker did not start for a reason other than a conflict, and gave up.
    StartFailed {
        set: LogSet,
        /// The class of reason.
        kind: ListenerErrorKind,
        /// Whether no further attempt follows.
        gave_up: bool,
    },
    /// A session opened (debug level only).
    SessionOpened { set: LogSet, session: SessionId },
    /// A session is still held: its minutely check of the token, or its refresh (debug level only).
    SessionHeld { set: LogSet, session: SessionId },
    /// The manager closes its session (debug level only). The request is on its way, not answered.
    SessionClosing { set: LogSet },
    /// Closing the session failed: GitHub may still have it.
    SessionCloseFailed { set: LogSet, kind: ListenerErrorKind },
    /// The listener's loop ended (debug level only).
    ListenerStopped { set: LogSet },
    /// A poll was issued (debug level only).
    Poll {
        set: LogSet,
        /// `last_message_id`, the cursor.
        cursor: u64,
    },
    /// A job message was handled: the listener works (info level).
    JobSeen { set: LogSet },
    /// A poll or refresh failed.
    ListenerFailed {
        set: LogSet,
        kind: ListenerErrorKind,
        /// Whether it was the session's refresh, not a poll.
        refresh: bool,
    },
    /// The worker exists and, the set being disabled, runs no listener.
    WorkerIdle { set: LogSet },
    /// The worker was started.
    WorkerStarted { set: LogSet },
    /// Handling a message failed (a poison message repeats this).
    MessageFailed { set: LogSet },
}

/// How far a log file has been read, so that a restart of ours continues exactly there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogPosition {
    pub device: u64,
    pub inode: u64,
    /// Everything before this byte has been read; always the start of a line.
    pub offset: u64,
    /// Hash of the last bytes before `offset`: differs if the file was truncated and refilled, or if another file got
    /// its inode.
    pub tail_hash: u64,
    /// At `offset`.
    pub parser: ParserState,
}

/// What the log's parser carries from line to line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ParserState {
    /// The time stamp of the last dated line: dates a panic, whose lines have none.
    pub last_dated: Option<Wall>,
    /// Within the lines of a panic that has been reported.
    pub in_trace: bool,
    /// Within the opening lines of an incarnation whose start has been reported.
    pub in_opening: bool,
}

/// What the log showed about one set in the current incarnation; its start clears this.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SetLog {
    /// First and latest conflict of the unbroken series.
    pub conflicts: Option<(Wall, Wall)>,
    pub conflict_count: u32,
    pub conflict_owner: Option<Owner>,
    /// When the worker gave up, if it was not restarted since.
    pub gave_up: Option<Wall>,
    /// What it gave up on, if that was no conflict.
    pub gave_up_on: Option<ListenerErrorKind>,
    /// The session open now, as far as the log shows.
    pub session: Option<(Wall, SessionId)>,
    /// The latest session opened, open or not.
    pub last_opened: Option<Wall>,
    /// How many sessions opened in this incarnation.
    pub opened_count: u32,
    pub last_closed: Option<Wall>,
    /// The latest end of the listener's loop.
    pub last_stopped: Option<Wall>,
    pub last_poll: Option<Wall>,
    /// Cursor of the latest poll, and since when it has not moved.
    pub cursor: Option<(u64, Wall)>,
    pub last_job: Option<Wall>,
    pub last_failure: Option<(Wall, ListenerErrorKind)>,
    pub last_refresh_failure: Option<Wall>,
    /// Message failures since the cursor moved.
    pub message_failures: u32,
    /// When the worker logged that it runs without a listener.
    pub idle: Option<Wall>,
    pub started: Option<Wall>,
}

/// The manager panicked over a session that GitHub had forgotten: it crashes when it closes such a session
/// (`docs/reference/design.md` §1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vanished {
    pub at: Wall,
    /// Whose session, where the log shows it.
    pub set: Option<ScaleSetId>,
}

/// The longest time between the logged loss of a session and the panic: the close follows at once.
const VANISHED_WITHIN: Span = Span::secs(5);

/// Beyond this many sets, the lowest ids are dropped.
const LOG_SETS_MAX: usize = 50_000;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogEvidence {
    /// Start of the current incarnation, when the log showed it.
    pub run_started: Option<Wall>,
    /// The latest panic, which may belong to the incarnation before.
    pub last_panic: Option<Wall>,
    /// The latest panic over a session that GitHub had forgotten.
    #[serde(default)]
    pub vanished: Option<Vanished>,
    /// The latest clean stop, of the incarnation before if a start followed.
    pub last_stop: Option<Wall>,
    /// Whether debug lines are seen, and with them polls and session ids.
    pub debug: bool,
    pub newest: Option<Wall>,
    pub by_id: BTreeMap<ScaleSetId, SetLog>,
    /// Facts by entity name and GitHub's id.
    pub by_github: BTreeMap<String, BTreeMap<GithubId, SetLog>>,
}

impl LogEvidence {
    /// The set whose session was lost or being closed just before `at`, with nothing logged by its listener since.
    fn closing_at(&self, at: Wall) -> Option<Vanished> {
        let lost = |log: &SetLog| {
            let failed = log.last_failure.filter(|(_, kind)| matches!(kind, ListenerErrorKind::NotFound));
            let dates = [log.last_closed, log.last_refresh_failure, failed.map(|(date, _)| date)];
            let latest = dates.into_iter().flatten().max().filter(|date| date.plus(VANISHED_WITHIN) >= at)?;
            log.last_stopped.is_none_or(|stopped| stopped <= latest).then_some(latest)
        };
        let by_id = self.by_id.iter().filter_map(|(id, log)| Some((lost(log)?, Some(*id))));
        let by_github = self.by_github.values().flat_map(BTreeMap::values).filter_map(|log| Some((lost(log)?, None)));
        by_id.chain(by_github).max().map(|(_, set)| Vanished { at, set })
    }

    /// Folds one fact in. A start of the manager clears all facts about sets.
    pub fn absorb(&mut self, fact: &LogFact) {
        self.newest = self.newest.max(Some(fact.at));
        let at = fact.at;
        match &fact.what {
            LogEvent::ManagerStarted => {
                self.run_started = Some(at);
                self.debug = false;
                self.by_id.clear();
                self.by_github.clear();
            }
            LogEvent::ManagerStopping => self.last_stop = Some(at),
            LogEvent::Panic => {
                self.last_panic = Some(at);
                self.vanished = self.closing_at(at).or_else(|| self.vanished.clone());
            }
            LogEvent::Conflict { set, owner, gave_up } => {
                let log = self.set(set);
                let first = log.conflicts.map_or(at, |(first, _)| first);
                log.conflicts = Some((first, at));
                log.conflict_count = log.conflict_count.saturating_add(1);
                log.conflict_owner.clone_from(owner);
                log.session = None;
                log.gave_up = gave_up.then_some(at);
                log.gave_up_on = None;
            }
            LogEvent::StartFailed { set, kind, gave_up } => {
                let log = self.set(set);
                log.end_conflicts();
                log.last_failure = Some((at, *kind));
                log.gave_up = gave_up.then_some(at);
                log.gave_up_on = gave_up.then_some(*kind);
            }
            LogEvent::SessionOpened { set, session } => {
                let log = self.at_debug(set);
                log.end_conflicts();
                log.worker_restarted();
                log.session = Some((at, session.clone()));
                log.last_opened = Some(at);
                log.opened_count = log.opened_count.saturating_add(1);
            }
            LogEvent::SessionClosing { set } => {
                let log = self.at_debug(set);
                log.session = None;
                log.last_closed = Some(at);
            }
            LogEvent::SessionHeld { set, session } => {
                let log = self.at_debug(set);
                if log.session.as_ref().is_none_or(|(_, known)| known != session) {
                    log.session = Some((at, session.clone()));
                }
            }
            LogEvent::SessionCloseFailed { set, kind } => self.set(set).last_failure = Some((at, *kind)),
            LogEvent::ListenerStopped { set } => self.at_debug(set).last_stopped = Some(at),
            LogEvent::Poll { set, cursor } => {
                let log = self.at_debug(set);
                log.end_conflicts();
                log.worker_restarted();
                log.last_poll = Some(at);
                if log.cursor.is_none_or(|(old, _)| old != *cursor) {
                    log.cursor = Some((*cursor, at));
                    log.message_failures = 0;
                }
            }
            LogEvent::JobSeen { set } => {
                let log = self.set(set);
                log.end_conflicts();
                log.worker_restarted();
                log.last_job = Some(at);
            }
            LogEvent::ListenerFailed { set, kind, refresh } => {
                let log = self.set(set);
                if *refresh {
                    log.last_refresh_failure = Some(at);
                } else {
                    log.end_conflicts();
                    log.last_failure = Some((at, *kind));
                }
            }
            LogEvent::WorkerIdle { set } => {
                let log = self.set(set);
                log.worker_restarted();
                log.idle = Some(at);
                log.session = None;
            }
            LogEvent::WorkerStarted { set } => {
                let log = self.set(set);
                log.worker_restarted();
                log.started = Some(at);
            }
            LogEvent::MessageFailed { set } => {
                let log = self.set(set);
                log.message_failures = log.message_failures.saturating_add(1);
            }
        }
    }

    /// What the log showed about a set by either of its ids, merged.
    pub fn about(&self, id: ScaleSetId, entity: Option<&str>, github_id: Option<GithubId>) -> Option<SetLog> {
        let by_id = self.by_id.get(&id);
        let by_github = entity.zip(github_id).and_then(|(entity, id)| self.by_github.get(entity)?.get(&id));
        match (by_id, by_github) {
            (Some(a), Some(b)) => Some(a.clone().merged(b)),
            (one, other) => one.or(other).cloned(),
        }
    }

    /// The set of a line that is logged at debug level only.
    fn at_debug(&mut self, set: &LogSet) -> &mut SetLog {
        self.debug = true;
        self.set(set)
    }

    fn set(&mut self, set: &LogSet) -> &mut SetLog {
        match set {
            LogSet::Manager(id) => {
                if self.by_id.len() >= LOG_SETS_MAX && !self.by_id.contains_key(id) {
                    self.by_id.pop_first();
                }
                self.by_id.entry(*id).or_default()
            }
            LogSet::Github { entity, github_id } => {
                let known = self.by_github.get(entity).is_some_and(|sets| sets.contains_key(github_id));
                if !known && self.by_github.values().map(BTreeMap::len).sum::<usize>() >= LOG_SETS_MAX {
                    self.by_github.pop_first();
                }
                self.by_github.entry(entity.clone()).or_default().entry(*github_id).or_default()
            }
        }
    }
}

impl SetLog {
    fn end_conflicts(&mut self) {
        self.conflicts = None;
        self.conflict_count = 0;
        self.conflict_owner = None;
    }

    fn worker_restarted(&mut self) {
        self.gave_up = None;
        self.gave_up_on = None;
    }

    /// The latest sign that the worker exists and tries or listens.
    pub fn last_sign_of_life(&self) -> Option<Wall> {
        [self.last_opened, self.last_poll, self.last_job, self.idle, self.started].into_iter().flatten().max()
    }

    /// `self` (by the manager's id) completed by the controller's lines (by GitHub's id). Those report only refusals,
    /// which later signs of life cancel.
    fn merged(mut self, other: &Self) -> Self {
        let alive = self.last_sign_of_life();
        if let Some((first, last)) = other.conflicts
            && alive.is_none_or(|sign| sign < last)
        {
            self.conflicts = Some(self.conflicts.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
            self.conflict_count = self.conflict_count.saturating_add(other.conflict_count);
            if self.conflict_owner.is_none() {
                self.conflict_owner.clone_from(&other.conflict_owner);
            }
        }
        if let Some(gave_up) = other.gave_up
            && alive.is_none_or(|sign| sign < gave_up)
        {
            self.gave_up = Some(gave_up);
            self.gave_up_on = other.gave_up_on;
        }
        self.last_failure = self.last_failure.max(other.last_failure);
        self
    }
}
