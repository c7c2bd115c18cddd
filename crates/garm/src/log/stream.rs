//! The manager's log over its websocket, where no file can be read.
//!
//! The weaker of the two: what is written while nobody is connected is lost, the first second after a restart above all
//! (`docs/reference/design.md` §1). So it shows refusals that go on, session ids as they open, and closes; it never
//! shows a whole story. After a gap nothing read before it is taken for the present: the evidence begins anew.

use super::parse::Parser;
use crate::ws::{Feed, Health};
use medic_core::model::log_fact::{LogEvidence, LogFact, ParserState};
use medic_core::model::{FailureKind, Operation, RequestFailure, Target};
use medic_core::ports::read::LogSource;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Facts for the ledger that are held until they are taken; beyond them the oldest are forgotten.
const FACTS_MAX: usize = 20_000;

/// A followed log stream.
#[derive(Debug)]
pub struct LogStream {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    parser: Parser,
    evidence: LogEvidence,
    held: Vec<LogFact>,
    health: Health,
}

impl Default for LogStream {
    fn default() -> Self {
        let inner = Inner {
            parser: Parser::new(ParserState::default()),
            evidence: LogEvidence::default(),
            held: Vec::new(),
            health: Health::default(),
        };
        Self { inner: Mutex::new(inner) }
    }
}

impl LogStream {
    /// Reads until the connection's end is gone; asks for a pass when there is news.
    pub async fn follow(&self, mut feed: Feed, wake: &Notify) {
        while let Some(line) = feed.next().await {
            if self.take(&line, feed.health()) {
                wake.notify_one();
            }
        }
    }

    /// Facts that may change the ledger, since the last call.
    pub fn facts(&self) -> Vec<LogFact> {
        std::mem::take(&mut self.lock().held)
    }

    /// Whether the line is news.
    fn take(&self, line: &str, health: Health) -> bool {
        let mut inner = self.lock();
        if health.connections != inner.health.connections {
            inner.parser = Parser::new(ParserState::default());
            inner.evidence = LogEvidence::default();
        }
        inner.health = health;
        let Inner { parser, evidence, held, .. } = &mut *inner;
        let fact = parser.line(line.as_bytes());
        evidence.debug |= parser.debug();
        evidence.newest = evidence.newest.max(parser.state().last_dated);
        let Some(fact) = fact else { return false };
        evidence.absorb(&fact);
        let news = super::source::is_news(&fact.what);
        if super::source::is_for_ledger(&fact.what) {
            if held.len() >= FACTS_MAX {
                held.remove(0);
            }
            held.push(fact);
        }
        news
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSource for LogStream {
    fn evidence(&self) -> Result<LogEvidence, RequestFailure> {
        let inner = self.lock();
        if inner.evidence.newest.is_some() {
            return Ok(inner.evidence.clone());
        }
        Err(inner.health.failure.clone().unwrap_or_else(|| RequestFailure {
            target: Target::Manager,
            operation: Operation::Websocket,
            kind: FailureKind::HeldBack,
            detail: "nothing was read from the log websocket yet".to_owned(),
            retry_at: None,
        }))
    }
}
