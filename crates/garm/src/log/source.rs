//! GARM's log file as a source of evidence and of facts for the ledger.
//!
//! - [`LogFile::batch`] returns position, evidence and ledger facts together. The caller applies the facts first, then
//!   saves position and evidence in one step (`ManagerStore::save_log_position`). A crash in between reads some lines
//!   twice; the ledger tolerates that.
//! - A file system that hangs blocks nobody: results are published under a lock that is never held during file access.
//!
//! Edge cases: until a backlog is read to its end there is no evidence (half of it misleads); facts that nobody takes
//! stop the reading before they fill the memory; a read that hangs is a failed source until it ends, and no second read
//! is started.

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

/// Facts for the ledger that may wait to be taken.
const FACTS_MAX: usize = 20_000;
/// Steps of one [`LogFile::catch_up`]: 2 GB.
const CATCH_UP_STEPS: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facts {
    /// [`LogFile::batch`] is called regularly.
    Taken,
    /// No ledger is kept.
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
    /// Never locked for long.
    published: Mutex<Published>,
}

#[derive(Debug)]
struct Reader {
    tail: Tail,
    parser: Parser,
    evidence: LogEvidence,
}

#[derive(Debug)]
struct Published {
    evidence: LogEvidence,
    position: Option<LogPosition>,
    facts: Vec<LogFact>,
    notices: Vec<Notice>,
    state: State,
    /// Something was read that should wake the reconcile loop.
    news: bool,
    steps: u64,
}

#[derive(Default)]
struct Fresh {
    facts: Vec<LogFact>,
    news: bool,
    lines: bool,
}

#[derive(Debug)]
enum State {
    Behind,
    Current,
    /// Not there, not readable, or not answering.
    Failed(RequestFailure),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// For the ledger, in the log's order.
    pub facts: Vec<LogFact>,
    /// Up to where the log was read, once any of it was.
    pub position: Option<LogPosition>,
    pub evidence: LogEvidence,
    pub notices: Vec<Notice>,
}

impl LogFile {
    /// Follows the log at `path`; `kept` is from the last saved [`Batch`].
    pub fn new(path: impl Into<PathBuf>, kept: Option<(LogPosition, LogEvidence)>, facts: Facts) -> Self {
        let path = path.into();
        let (position, evidence) = kept.map_or((None, LogEvidence::default()), |(at, said)| (Some(at), said));
        let parser = Parser::new(position.map_or_else(ParserState::default, |at| at.parser));
        let tail = Tail::new(path.clone(), position);
        let published = Published {
            evidence: evidence.clone(),
            position,
            facts: Vec::new(),
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
            published: Mutex::new(published),
        }
    }

    #[must_use]
    pub fn read(mut self, reading: Reading) -> Self {
        self.files = FileReader::new(reading);
        self
    }

    /// Reads some of the new lines; blocks while reading a few megabytes. Returns whether there is more.
    pub fn step(&self) -> bool {
        if self.published().facts.len() >= FACTS_MAX {
            return false;
        }
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let Reader { tail, parser, evidence } = &mut *reader;
        let mut fresh = Fresh::default();
        let outcome = tail.step(&mut |line| {
            fresh.lines = true;
            let Some(fact) = parser.line(line) else { return };
            evidence.absorb(&fact);
            let used = Use::of(&fact.what);
            fresh.news |= used.news;
            if self.facts == Facts::Taken && used.ledger {
                fresh.facts.push(fact);
            }
        });
        evidence.debug |= parser.debug();
        evidence.newest = evidence.newest.max(parser.state().last_dated);
        self.publish(&reader, fresh, outcome)
    }

    /// Reads to the log's end on a thread that may block, at most [`CATCH_UP_STEPS`] steps. Returns after `within` at the
    /// latest: a longer read goes on in the background. Until it ends a step, the source is failed and later calls return
    /// at once.
    pub async fn catch_up(self: &Arc<Self>, within: Span) {
        let before = self.published().steps;
        let log = Arc::clone(self);
        match self.files.read_within(within, move || (0..CATCH_UP_STEPS).find(|_| !log.step())).await {
            Ok(_) | Err(NotRead::Busy) => {}
            // The evidence stays as it was.
            Err(NotRead::Broken) => {
                tracing::error!(path = %self.path.display(), "reading GARM's log was aborted");
            }
            Err(NotRead::Late(_)) => self.note_overdue(before, within),
        }
    }

    /// Calls [`Self::catch_up`] in an interval, and wakes the reconcile loop on news. Never returns.
    pub async fn watch(self: Arc<Self>, every: Span, within: Span, clock: Arc<dyn Clock>, wake: Arc<Notify>) {
        loop {
            clock.sleep(every).await;
            self.catch_up(within).await;
            if std::mem::take(&mut self.published().news) {
                wake.notify_one();
            }
        }
    }

    /// Apply `facts` to the ledger before `position` and `evidence` are saved.
    pub fn batch(&self) -> Batch {
        let mut published = self.published();
        Batch {
            facts: std::mem::take(&mut published.facts),
            position: published.position,
            evidence: published.evidence.clone(),
            notices: std::mem::take(&mut published.notices),
        }
    }

    fn publish(&self, reader: &Reader, fresh: Fresh, outcome: io::Result<Step>) -> bool {
        let mut published = self.published();
        if fresh.lines {
            published.evidence.clone_from(&reader.evidence);
        }
        published.facts.extend(fresh.facts);
        published.news |= fresh.news;
        published.position = reader.tail.position(reader.parser.state());
        published.steps = published.steps.wrapping_add(1);
        self.files.progressed();
        let step = match outcome {
            Ok(step) => step,
            Err(error) => {
                published.state = State::Failed(self.failure(&error));
                return false;
            }
        };
        for notice in step.notices {
            if !published.notices.contains(&notice) {
                published.notices.push(notice);
            }
        }
        published.state = match step.reached {
            Reached::End => State::Current,
            Reached::Within => State::Behind,
            Reached::Missing => State::Failed(self.failure(&io::ErrorKind::NotFound.into())),
        };
        step.reached == Reached::Within
    }

    /// No step has ended `within` the caller's limit, unless there are more than `before` by now.
    fn note_overdue(&self, before: u64, within: Span) {
        let mut published = self.published();
        if published.steps == before {
            let path = self.path.display();
            let detail = format!("{path}: reading did not end within {within}; does the file system it is on hang?");
            published.state = State::Failed(failed(FailureKind::Timeout, detail));
        } else {
            self.files.progressed();
        }
    }

    fn failure(&self, error: &io::Error) -> RequestFailure {
        let (kind, advice) = match error.kind() {
            io::ErrorKind::NotFound => (
                FailureKind::NotFound,
                "set `log_file` in the [logging] section of GARM's configuration and share its folder with this process",
            ),
            io::ErrorKind::PermissionDenied => {
                (FailureKind::Forbidden, "give the user of this process the right to read it and its folder")
            }
            _ => (FailureKind::Broken, "see the error"),
        };
        failed(kind, format!("{}: {error}; {advice}", self.path.display()))
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSource for LogFile {
    fn evidence(&self) -> Result<LogEvidence, RequestFailure> {
        let published = self.published();
        match &published.state {
            State::Current => Ok(published.evidence.clone()),
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

/// What a fact is used for.
pub(super) struct Use {
    /// [`super::ledger_feed::Feed`] takes it. Polls, the most frequent facts, are not among them.
    pub(super) ledger: bool,
    /// It wakes the reconcile loop: a run of GARM begins or ends, a set stops or gives a sign of life. Repeated
    /// refusals, polls and jobs wait for the next reconcile.
    pub(super) news: bool,
}

impl Use {
    pub(super) const fn of(event: &LogEvent) -> Self {
        let (ledger, news) = match event {
            LogEvent::ManagerStarted | LogEvent::SessionOpened { .. } | LogEvent::WorkerIdle { .. } => (true, true),
            LogEvent::SessionHeld { .. }
            | LogEvent::SessionClosing { .. }
            | LogEvent::SessionCloseFailed { .. }
            | LogEvent::ListenerStopped { .. }
            | LogEvent::ListenerFailed { .. } => (true, false),
            LogEvent::ManagerStopping
            | LogEvent::Panic
            | LogEvent::StartFailed { .. }
            | LogEvent::Conflict { gave_up: true, .. } => (false, true),
            LogEvent::Conflict { gave_up: false, .. }
            | LogEvent::Poll { .. }
            | LogEvent::JobSeen { .. }
            | LogEvent::WorkerStarted { .. }
            | LogEvent::MessageFailed { .. } => (false, false),
        };
        Self { ledger, news }
    }
}

#[cfg(test)]
mod tests;
