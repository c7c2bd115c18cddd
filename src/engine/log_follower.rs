//! Follows GARM's log: evidence for the diagnosis, and the session ledger.
//!
//! Each reconcile reads the log to its end, applies to the ledger what the facts change, and then saves the position. A
//! crash in between reads some lines twice, which the ledger tolerates. While the ledger cannot be written, the facts
//! are kept for the next reconcile.

use crate::metrics::Metrics;
use futures_util::future::BoxFuture;
use medic_core::clock::Clock;
use medic_core::model::log_fact::{LogEvidence, LogFact, LogPosition};
use medic_core::model::session::{LedgerChange, LedgerSession, SessionEnd};
use medic_core::model::{GithubPlace, Owner, ScaleSetId, Span, Sweep, Wall};
use medic_core::ports::read::LogSource;
use medic_garm::log::ledger_feed::{Feed, Known, Timeline};
use medic_garm::log::source::{Facts, LogFile};
use medic_garm::log::stream::LogStream;
use medic_http::file::Reading;
use medic_store::{ManagerStore, StoreError};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Notify;

enum Log {
    File(Arc<LogFile>),
    /// Cannot be read again, so it has no position.
    Stream(Arc<LogStream>),
}

pub struct LogFollower {
    log: Log,
    path: String,
    feed: Feed,
    timeline: Timeline,
    places: BTreeMap<ScaleSetId, GithubPlace>,
    owner: Option<Owner>,
    /// Facts that the ledger has not taken yet.
    pending: Vec<LogFact>,
    /// As saved last.
    position: Option<Position>,
}

type Position = (LogPosition, LogEvidence);

/// The longest wait for a file system that hangs.
const LOG_TIMEOUT: Span = Span::secs(3);

/// With the default interval, the log is checked every second. An unchanged one costs a `stat`.
const CHECKS_PER_INTERVAL: u64 = 15;

/// Beyond this the oldest facts are dropped, and with them the proof that the sessions they name are stale.
const PENDING_MAX: usize = 20_000;

impl LogFollower {
    /// Continues at the saved position.
    pub fn open(path: &Path, store: &ManagerStore, reading: Reading) -> Self {
        let name = path.display().to_string();
        let position = store.load_log_position(&name).unwrap_or_else(|error| {
            tracing::warn!(%error, log = %name, "the position in GARM's log is not known; reading it from the start");
            None
        });
        let log = Log::File(Arc::new(LogFile::new(path, position.clone(), Facts::Taken).read(reading)));
        let evidence = position.map(|(_, evidence)| evidence).unwrap_or_default();
        Self::new(log, name, &evidence, store)
    }

    pub fn of_stream(stream: Arc<LogStream>, store: &ManagerStore) -> Self {
        Self::new(Log::Stream(stream), "log websocket".to_owned(), &LogEvidence::default(), store)
    }

    fn new(log: Log, path: String, evidence: &LogEvidence, store: &ManagerStore) -> Self {
        let ledger = store.live_sessions().unwrap_or_default();
        Self {
            log,
            path,
            feed: Feed::resume(evidence, &ledger),
            timeline: Timeline::default(),
            places: BTreeMap::new(),
            owner: None,
            pending: Vec::new(),
            position: None,
        }
    }

    pub fn source(&self) -> Arc<dyn LogSource> {
        match &self.log {
            Log::File(file) => Arc::clone(file) as _,
            Log::Stream(stream) => Arc::clone(stream) as _,
        }
    }

    /// Reads a log file between two reconciles, and asks for one when there is news. A stream does so itself.
    pub fn watch(&self, interval: Span, clock: &Arc<dyn Clock>, wake: &Arc<Notify>) -> Option<BoxFuture<'static, ()>> {
        let Log::File(file) = &self.log else { return None };
        let every = Span::millis(interval.as_millis() / CHECKS_PER_INTERVAL);
        Some(Box::pin(Arc::clone(file).watch(every, LOG_TIMEOUT, Arc::clone(clock), Arc::clone(wake))))
    }

    /// Reads what is new, for at most [`LOG_TIMEOUT`].
    pub async fn catch_up(&self) {
        if let Log::File(file) = &self.log {
            file.catch_up(LOG_TIMEOUT).await;
        }
    }

    /// Fails when the store fails; nothing is lost, the next reconcile tries again.
    pub fn update_ledger(&mut self, sweep: &Sweep, store: &ManagerStore, metrics: &Metrics) -> Result<(), StoreError> {
        let manager = store.manager();
        if let Some(incarnation) = sweep.metrics.known().and_then(|metrics| metrics.incarnation) {
            self.timeline.observe(incarnation, sweep.at.wall);
        }
        if let Some(sets) = sweep.scale_sets.known() {
            self.places = sets.iter().filter_map(|set| Some((set.id, set.place()?))).collect();
        }
        if let Some(controller) = sweep.controller.known() {
            self.owner = Some(Owner::of_garm(&controller.id));
        }
        let position = match &self.log {
            Log::File(file) => {
                let batch = file.batch();
                for notice in &batch.notices {
                    tracing::warn!(%manager, log = %self.path, ?notice, "GARM's log");
                }
                self.pending.extend(batch.facts);
                batch.position.map(|position| (position, batch.evidence))
            }
            Log::Stream(stream) => {
                self.pending.extend(stream.facts());
                None
            }
        };
        let mut feed = self.feed.clone();
        let known = Known { timeline: &self.timeline, places: &self.places, owner: self.owner.as_ref() };
        let changes = feed.absorb(&self.pending, known);
        let before = if changes.is_empty() { Vec::new() } else { store.live_sessions()? };
        if let Err(error) = store.apply(&changes) {
            let surplus = self.pending.len().saturating_sub(PENDING_MAX);
            self.pending.drain(..surplus);
            return Err(error);
        }
        self.feed = feed;
        self.pending.clear();
        for (set, lifetime, at) in changes.iter().filter_map(|change| expired_session(change, &before)) {
            metrics.stale_session_ended(manager, lifetime);
            store.record_stale_lifetime(set, lifetime, at)?;
        }
        if let Some((place, evidence)) = &position
            && position != self.position
        {
            store.save_log_position(&self.path, place, evidence)?;
            self.position = position;
        }
        Ok(())
    }
}

/// How long GitHub kept a session that expired, after it was last seen alive.
fn expired_session(change: &LedgerChange, before: &[LedgerSession]) -> Option<(ScaleSetId, Span, Wall)> {
    let LedgerChange::End { session, at, how: SessionEnd::Expired } = change else { return None };
    let row = before.iter().find(|row| row.id == *session && row.ended.is_none())?;
    Some((row.set, at.since(row.last_seen), *at))
}
