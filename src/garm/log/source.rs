//! The manager's log file as a source of evidence, and as what feeds the ledger.
//!
//! The rule: **what was read, what it said, and what it changed in the ledger are kept as one**: [`LogFile::batch`]
//! gives all three, the caller applies the ledger's part first, then keeps place and evidence together
//! (`ManagerStore::save_log_position`). A death in between reads some lines twice, and the ledger takes a session
//! twice as once. Edge cases: while a backlog is being read, there is no evidence yet (half a story misleads); facts
//! that nobody takes stop the reading before they fill the memory.

use super::parse::Parser;
use super::tail::{Notice, Reached, Step, Tail};
use crate::clock::Clock;
use crate::model::log_fact::{LogEvent, LogEvidence, LogFact, LogPosition, ParserState};
use crate::model::{FailureKind, Operation, ProbeFailure, Span, Target};
use crate::probe::ports::LogSource;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Facts for the ledger that are held until they are taken.
const FACTS_MAX: usize = 20_000;
/// Steps of one [`LogFile::catch_up`]: 2 GB.
const CATCH_UP_STEPS: usize = 256;

/// Whether somebody takes the facts that change the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facts {
    /// [`LogFile::batch`] is called regularly.
    Taken,
    /// Nobody asks for them.
    Dropped,
}

/// Where the file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// On threads that may block: a share that hangs hangs nothing else.
    #[default]
    OnThreads,
    /// At once, where virtual time must not wait for threads.
    AtOnce,
}

/// A followed log file. Cheap to share.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    facts: Facts,
    reading: Reading,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    tail: Tail,
    parser: Parser,
    evidence: LogEvidence,
    held: Vec<LogFact>,
    notices: Vec<Notice>,
    state: State,
    /// Something was read that a pass should know of at once.
    news: bool,
}

#[derive(Debug)]
enum State {
    /// Not read to its end yet.
    Behind,
    /// Read to its end.
    Current,
    /// Not there, or not readable.
    Failed(ProbeFailure),
}

/// What was read since the last batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Facts that may change the ledger, in the log's order.
    pub facts: Vec<LogFact>,
    /// Up to where the log was read, once anything of it was.
    pub position: Option<LogPosition>,
    /// What it said up to there.
    pub evidence: LogEvidence,
    /// What happened to the log file.
    pub notices: Vec<Notice>,
}

impl LogFile {
    /// Follows the log at `path`; `kept` is what an earlier run kept of [`Batch`].
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, kept: Option<(LogPosition, LogEvidence)>, facts: Facts) -> Self {
        let path = path.into();
        let (position, evidence) = kept.map_or((None, LogEvidence::default()), |(at, said)| (Some(at), said));
        let parser = Parser::new(position.map_or_else(ParserState::default, |at| at.parser));
        let tail = Tail::new(path.clone(), position);
        let inner =
            Inner { tail, parser, evidence, held: Vec::new(), notices: Vec::new(), state: State::Behind, news: false };
        Self { path, facts, reading: Reading::default(), inner: Mutex::new(inner) }
    }

    /// Read in another way than on threads.
    #[must_use]
    pub fn read(mut self, reading: Reading) -> Self {
        self.reading = reading;
        self
    }

    /// Reads some of what is new; blocks for the time of reading a few megabytes. Whether there is more.
    pub fn step(&self) -> bool {
        let mut inner = self.lock();
        if inner.held.len() >= FACTS_MAX {
            return false;
        }
        let Inner { tail, parser, evidence, held, news, .. } = &mut *inner;
        let outcome = tail.step(&mut |line| {
            let Some(fact) = parser.line(line) else { return };
            evidence.absorb(&fact);
            *news |= is_news(&fact.what);
            if self.facts == Facts::Taken && is_for_ledger(&fact.what) {
                held.push(fact);
            }
        });
        evidence.debug |= parser.debug();
        evidence.newest = evidence.newest.max(parser.state().last_dated);
        self.note(&mut inner, outcome)
    }

    /// Reads to the log's end on a thread that may block; after [`CATCH_UP_STEPS`] steps the rest waits.
    pub async fn catch_up(self: &Arc<Self>) {
        if self.reading == Reading::AtOnce {
            let _ = (0..CATCH_UP_STEPS).find(|_| !self.step());
            return;
        }
        let log = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || (0..CATCH_UP_STEPS).find(|_| !log.step()));
        if reading.await.is_err() {
            // Only a panic or the runtime's end gets here; the evidence stays as it was.
            tracing::error!(path = %self.path.display(), "reading the manager's log was broken off");
        }
    }

    /// Reads what is new `every` so often, and asks for a pass when it is news. Never returns.
    pub async fn watch(self: Arc<Self>, every: Span, clock: Arc<dyn Clock>, wake: Arc<Notify>) {
        loop {
            clock.sleep(every).await;
            self.catch_up().await;
            if std::mem::take(&mut self.lock().news) {
                wake.notify_one();
            }
        }
    }

    /// Takes what was read. Apply `facts` to the ledger before `position` and `evidence` are kept.
    pub fn batch(&self) -> Batch {
        let mut inner = self.lock();
        Batch {
            facts: std::mem::take(&mut inner.held),
            position: inner.tail.position(inner.parser.state()),
            evidence: inner.evidence.clone(),
            notices: std::mem::take(&mut inner.notices),
        }
    }

    fn note(&self, inner: &mut Inner, outcome: io::Result<Step>) -> bool {
        let step = match outcome {
            Ok(step) => step,
            Err(error) => {
                inner.state = State::Failed(self.failure(&error));
                return false;
            }
        };
        for notice in step.notices {
            if !inner.notices.contains(&notice) {
                inner.notices.push(notice);
            }
        }
        inner.state = match step.reached {
            Reached::End => State::Current,
            Reached::Within => State::Behind,
            Reached::Missing => State::Failed(self.failure(&io::ErrorKind::NotFound.into())),
        };
        step.reached == Reached::Within
    }

    fn failure(&self, error: &io::Error) -> ProbeFailure {
        let (kind, advice) = match error.kind() {
            io::ErrorKind::NotFound => (
                FailureKind::NotFound,
                "set `log_file` in the manager's [logging] section and share its folder with this process",
            ),
            io::ErrorKind::PermissionDenied => {
                (FailureKind::Forbidden, "give the user of this process the right to read it and its folder")
            }
            _ => (FailureKind::Broken, "see what came back"),
        };
        failed(kind, format!("{}: {error}; {advice}", self.path.display()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSource for LogFile {
    fn evidence(&self) -> Result<LogEvidence, ProbeFailure> {
        let inner = self.lock();
        match &inner.state {
            State::Current => Ok(inner.evidence.clone()),
            State::Failed(failure) => Err(failure.clone()),
            State::Behind => {
                let detail = format!("{} is still being read; its evidence comes with its end", self.path.display());
                Err(failed(FailureKind::HeldBack, detail))
            }
        }
    }
}

fn failed(kind: FailureKind, detail: String) -> ProbeFailure {
    ProbeFailure { target: Target::Manager, operation: Operation::LogFile, kind, detail, retry_at: None }
}

/// Facts that [`super::ledger_feed::Feed`] makes something of. Polls, the most frequent, are not.
pub(super) const fn is_for_ledger(event: &LogEvent) -> bool {
    match event {
        LogEvent::ManagerStarted
        | LogEvent::SessionOpened { .. }
        | LogEvent::SessionHeld { .. }
        | LogEvent::SessionClosing { .. }
        | LogEvent::SessionCloseFailed { .. }
        | LogEvent::ListenerStopped { .. }
        | LogEvent::WorkerIdle { .. }
        | LogEvent::ListenerFailed { .. } => true,
        LogEvent::ManagerStopping
        | LogEvent::Panic
        | LogEvent::Conflict { .. }
        | LogEvent::StartFailed { .. }
        | LogEvent::Poll { .. }
        | LogEvent::JobSeen { .. }
        | LogEvent::WorkerStarted { .. }
        | LogEvent::MessageFailed { .. } => false,
    }
}

/// What a pass should know of at once: a run of the manager begins or ends, a set falls silent or gives a sign of life.
/// Refusals that repeat, polls and jobs wait for the next pass.
pub(super) const fn is_news(event: &LogEvent) -> bool {
    match event {
        LogEvent::ManagerStarted
        | LogEvent::ManagerStopping
        | LogEvent::Panic
        | LogEvent::StartFailed { .. }
        | LogEvent::WorkerIdle { .. }
        | LogEvent::SessionOpened { .. } => true,
        LogEvent::Conflict { gave_up, .. } => *gave_up,
        LogEvent::Poll { .. }
        | LogEvent::JobSeen { .. }
        | LogEvent::WorkerStarted { .. }
        | LogEvent::MessageFailed { .. }
        | LogEvent::SessionHeld { .. }
        | LogEvent::SessionClosing { .. }
        | LogEvent::SessionCloseFailed { .. }
        | LogEvent::ListenerStopped { .. }
        | LogEvent::ListenerFailed { .. } => false,
    }
}

#[cfg(test)]
mod tests;
