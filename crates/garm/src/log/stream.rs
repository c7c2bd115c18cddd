//! The manager's log over its websocket, where no file can be read.
//!
//! The weaker source: lines written while nobody is connected are lost, above all the first second after a restart
//! (`docs/reference/design.md` §1). It shows repeated refusals, session ids as they open, and closes. After a gap the
//! evidence starts again from nothing.

use super::parse::Parser;
use super::source::Use;
use crate::ws::{Feed, Health};
use medic_core::model::log_fact::{LogEvidence, LogFact};
use medic_core::model::{FailureKind, Operation, RequestFailure, Target};
use medic_core::ports::read::LogSource;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Facts for the ledger that may wait to be taken; beyond them the oldest are dropped.
const FACTS_MAX: usize = 20_000;

#[derive(Debug, Default)]
pub struct LogStream {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    parser: Parser,
    evidence: LogEvidence,
    facts: Vec<LogFact>,
    health: Health,
}

impl LogStream {
    /// Reads until the feed ends; wakes the reconcile loop on news.
    pub async fn follow(&self, mut feed: Feed, wake: &Notify) {
        while let Some(line) = feed.next().await {
            if self.take(&line, feed.health()) {
                wake.notify_one();
            }
        }
    }

    /// Facts that may change the ledger, since the last call.
    pub fn facts(&self) -> Vec<LogFact> {
        std::mem::take(&mut self.lock().facts)
    }

    fn take(&self, line: &str, health: Health) -> bool {
        let mut inner = self.lock();
        if health.connections != inner.health.connections {
            inner.parser = Parser::default();
            inner.evidence = LogEvidence::default();
        }
        inner.health = health;
        let Inner { parser, evidence, facts, .. } = &mut *inner;
        let fact = parser.line(line.as_bytes());
        evidence.debug |= parser.debug();
        evidence.newest = evidence.newest.max(parser.state().last_dated);
        let Some(fact) = fact else { return false };
        evidence.absorb(&fact);
        let used = Use::of(&fact.what);
        if used.ledger {
            if facts.len() >= FACTS_MAX {
                facts.remove(0);
            }
            facts.push(fact);
        }
        used.news
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
