//! The manager's log file as a source of evidence, and as what feeds the ledger.
//!
//! The rule: **what was read, what it said, and what it changed in the ledger are kept as one**: [`LogFile::batch`]
//! gives all three, the caller applies the ledger's part first, then keeps place and evidence together
//! (`ManagerStore::save_log_position`). A death in between reads some lines twice, and the ledger takes a session
//! twice as once. And **a file system that hangs makes nobody wait**: what was read is published under a lock of its
//! own, which is never held while a file is touched. Edge cases: while a backlog is being read, there is no evidence
//! yet (half a story misleads); facts that nobody takes stop the reading before they fill the memory; a reading that
//! hangs is a failed source until it ends, and no second one is begun beside it.

use super::parse::Parser;
use super::tail::{Notice, Reached, Step, Tail};
use medic_core::clock::Clock;
use medic_core::model::log_fact::{LogEvent, LogEvidence, LogFact, LogPosition, ParserState};
use medic_core::model::{FailureKind, Operation, RequestFailure, Span, Target};
use medic_core::ports::read::LogSource;
use medic_http::file::{FileReader, NotRead, Reading};
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

/// A followed log file. Cheap to share.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    facts: Facts,
    files: FileReader,
    /// Held while files are touched: only for threads that may block.
    reader: Mutex<Reader>,
    /// Never held for long.
    shown: Mutex<Shown>,
}

#[derive(Debug)]
struct Reader {
    tail: Tail,
    parser: Parser,
    evidence: LogEvidence,
}

/// What reading gave, after its last whole step.
#[derive(Debug)]
struct Shown {
    evidence: LogEvidence,
    position: Option<LogPosition>,
    held: Vec<LogFact>,
    notices: Vec<Notice>,
    state: State,
    /// Something was read that a pass should know of at once.
    news: bool,
    steps: u64,
}

/// What one step read.
#[derive(Default)]
struct Fresh {
    facts: Vec<LogFact>,
    news: bool,
    lines: bool,
}

#[derive(Debug)]
enum State {
    /// Not read to its end yet.
    Behind,
    /// Read to its end.
    Current,
    /// Not there, not readable, or not answering.
    Failed(RequestFailure),
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
        let shown = Shown {
            evidence: evidence.clone(),
            position,
            held: Vec::new(),
            notices: Vec::new(),
            state: State::Behind,
            news: false,
            steps: 0,
        };
        Self {
            path,
            facts,
            files: FileReader::new(Reading::default()),
            reader: Mutex::new(Reader { tail, parser, evidence }),
            shown: Mutex::new(shown),
        }
    }

    /// Read in another way than on threads.
    #[must_use]
    pub fn read(mut self, reading: Reading) -> Self {
        self.files = FileReader::new(reading);
        self
    }

    /// Reads some of what is new; blocks for the time of reading a few megabytes. Whether there is more.
    pub fn step(&self) -> bool {
        if self.shown().held.len() >= FACTS_MAX {
            return false;
        }
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let Reader { tail, parser, evidence } = &mut *reader;
        let mut fresh = Fresh::default();
        let outcome = tail.step(&mut |line| {
            fresh.lines = true;
            let Some(fact) = parser.line(line) else { return };
            evidence.absorb(&fact);
            fresh.news |= is_news(&fact.what);
            if self.facts == Facts::Taken && is_for_ledger(&fact.what) {
                fresh.facts.push(fact);
            }
        });
        evidence.debug |= parser.debug();
        evidence.newest = evidence.newest.max(parser.state().last_dated);
        self.show(&reader, fresh, outcome)
    }

    /// Reads to the log's end on a thread that may block; after [`CATCH_UP_STEPS`] steps the rest waits. Returns after
    /// `within` at the latest: a reading that is not done then goes on by itself, and until it has ended a step it is a
    /// failure of the source that nobody waits for again.
    pub async fn catch_up(self: &Arc<Self>, within: Span) {
        let before = self.shown().steps;
        let log = Arc::clone(self);
        match self.files.read_within(within, move || (0..CATCH_UP_STEPS).find(|_| !log.step())).await {
            Ok(_) | Err(NotRead::Busy) => {}
            // The evidence stays as it was.
            Err(NotRead::Broken) => {
                tracing::error!(path = %self.path.display(), "reading the manager's log was aborted");
            }
            Err(NotRead::Late(_)) => self.note_overdue(before, within),
        }
    }

    /// Reads what is new `every` so often, as [`Self::catch_up`] does, and asks for a pass when it is news. Never
    /// returns.
    pub async fn watch(self: Arc<Self>, every: Span, within: Span, clock: Arc<dyn Clock>, wake: Arc<Notify>) {
        loop {
            clock.sleep(every).await;
            self.catch_up(within).await;
            if std::mem::take(&mut self.shown().news) {
                wake.notify_one();
            }
        }
    }

    /// Takes what was read. Apply `facts` to the ledger before `position` and `evidence` are kept.
    pub fn batch(&self) -> Batch {
        let mut shown = self.shown();
        Batch {
            facts: std::mem::take(&mut shown.held),
            position: shown.position,
            evidence: shown.evidence.clone(),
            notices: std::mem::take(&mut shown.notices),
        }
    }

    /// Publishes what a step read, all of it at once.
    fn show(&self, reader: &Reader, fresh: Fresh, outcome: io::Result<Step>) -> bool {
        let mut shown = self.shown();
        if fresh.lines {
            shown.evidence.clone_from(&reader.evidence);
        }
        shown.held.extend(fresh.facts);
        shown.news |= fresh.news;
        shown.position = reader.tail.position(reader.parser.state());
        shown.steps = shown.steps.wrapping_add(1);
        self.files.progressed();
        let step = match outcome {
            Ok(step) => step,
            Err(error) => {
                shown.state = State::Failed(self.failure(&error));
                return false;
            }
        };
        for notice in step.notices {
            if !shown.notices.contains(&notice) {
                shown.notices.push(notice);
            }
        }
        shown.state = match step.reached {
            Reached::End => State::Current,
            Reached::Within => State::Behind,
            Reached::Missing => State::Failed(self.failure(&io::ErrorKind::NotFound.into())),
        };
        step.reached == Reached::Within
    }

    /// No step has ended `within` the caller's patience, unless one has ended since `before` were done.
    fn note_overdue(&self, before: u64, within: Span) {
        let mut shown = self.shown();
        if shown.steps == before {
            let path = self.path.display();
            let detail = format!("{path}: reading did not end within {within}; does the file system it is on hang?");
            shown.state = State::Failed(failed(FailureKind::Timeout, detail));
        } else {
            self.files.progressed();
        }
    }

    fn failure(&self, error: &io::Error) -> RequestFailure {
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

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSource for LogFile {
    fn evidence(&self) -> Result<LogEvidence, RequestFailure> {
        let shown = self.shown();
        match &shown.state {
            State::Current => Ok(shown.evidence.clone()),
            State::Failed(failure) => Err(failure.clone()),
            State::Behind => {
                let detail = format!("{} is still being read; its evidence comes with its end", self.path.display());
                Err(failed(FailureKind::HeldBack, detail))
            }
        }
    }
}

fn failed(kind: FailureKind, detail: String) -> RequestFailure {
    RequestFailure { target: Target::Manager, operation: Operation::LogFile, kind, detail, retry_at: None }
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
