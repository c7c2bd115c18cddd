//! Following the manager's log: evidence for the diagnosis, and the ledger of sessions.
//!
//! The rule, per pass: read the log to its end; note which run of the manager the scrape showed; apply what the facts
//! change in the ledger; *then* keep the place. Any order of deaths in between reads some lines twice, and the ledger
//! takes a session twice as once. A ledger that cannot be written keeps its facts for the next pass.

use crate::metrics::Metrics;
use futures_util::future::BoxFuture;
use medic_core::clock::Clock;
use medic_core::model::log_fact::{LogEvidence, LogFact, LogPosition};
use medic_core::model::session::{LedgerChange, LedgerSession, SessionEnd};
use medic_core::model::{GithubPlace, ManagerName, Owner, ScaleSetId, Span, Sweep, Wall};
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

/// Where the log is read.
enum Log {
    File(Arc<LogFile>),
    /// Nothing of it can be read again, so no place is kept.
    Stream(Arc<LogStream>),
}

/// Follows one manager's log.
pub struct Chronicle {
    log: Log,
    path: String,
    feed: Feed,
    timeline: Timeline,
    places: BTreeMap<ScaleSetId, GithubPlace>,
    owner: Option<Owner>,
    /// Facts that the ledger could not take yet.
    held: Vec<LogFact>,
    /// The place as it was kept last, and what the log had said there.
    kept: Option<(LogPosition, LogEvidence)>,
}

/// How long a pass waits for the log: far more than a whole look takes, far less than a treatment may be held up by a
/// file system that hangs.
const LOG_PATIENCE: Span = Span::secs(3);

/// How often the log is looked at between two calm passes: every second, by default. An unchanged one costs a `stat`.
const WATCHES_PER_INTERVAL: u64 = 15;

/// Facts held for a ledger that cannot be written; beyond them the oldest are forgotten, and with them the right to
/// delete the sessions that they named.
const HELD_MAX: usize = 20_000;

impl Chronicle {
    /// Goes on where the store says that the last run of ours stopped.
    #[must_use]
    pub fn open(path: &Path, store: &ManagerStore, reading: Reading) -> Self {
        let name = path.display().to_string();
        let kept = store.load_log_position(&name).unwrap_or_else(|error| {
            tracing::warn!(%error, log = %name, "the place in the manager's log is not known; reading it anew");
            None
        });
        let ledger = store.live_sessions().unwrap_or_default();
        let evidence = kept.as_ref().map(|(_, evidence)| evidence.clone()).unwrap_or_default();
        Self {
            log: Log::File(Arc::new(LogFile::new(path, kept, Facts::Taken).read(reading))),
            path: name,
            feed: Feed::resume(&evidence, &ledger),
            timeline: Timeline::default(),
            places: BTreeMap::new(),
            owner: None,
            held: Vec::new(),
            kept: None,
        }
    }

    /// Follows a log stream.
    #[must_use]
    pub fn of_stream(stream: Arc<LogStream>, store: &ManagerStore) -> Self {
        let ledger = store.live_sessions().unwrap_or_default();
        Self {
            log: Log::Stream(stream),
            path: "log websocket".to_owned(),
            feed: Feed::resume(&LogEvidence::default(), &ledger),
            timeline: Timeline::default(),
            places: BTreeMap::new(),
            owner: None,
            held: Vec::new(),
            kept: None,
        }
    }

    /// The log as a source of evidence.
    #[must_use]
    pub fn source(&self) -> Arc<dyn LogSource> {
        match &self.log {
            Log::File(file) => Arc::clone(file) as _,
            Log::Stream(stream) => Arc::clone(stream) as _,
        }
    }

    /// What reads the log between two passes and asks for one when there is news; a stream does so by itself.
    #[must_use]
    pub fn watch(&self, interval: Span, clock: &Arc<dyn Clock>, wake: &Arc<Notify>) -> Option<BoxFuture<'static, ()>> {
        match &self.log {
            Log::File(file) => {
                let every = Span::millis(interval.as_millis() / WATCHES_PER_INTERVAL);
                Some(Box::pin(Arc::clone(file).watch(every, LOG_PATIENCE, Arc::clone(clock), Arc::clone(wake))))
            }
            Log::Stream(_) => None,
        }
    }

    /// Reads what is new; a file system that hangs holds nobody up for longer than [`LOG_PATIENCE`].
    pub async fn catch_up(&self) {
        match &self.log {
            Log::File(file) => file.catch_up(LOG_PATIENCE).await,
            Log::Stream(_) => {}
        }
    }

    /// Brings the ledger up to date with what was read and with what this sweep saw.
    ///
    /// # Errors
    /// When the store fails; nothing is lost, the next pass tries again.
    pub fn enter(
        &mut self,
        sweep: &Sweep,
        store: &ManagerStore,
        metrics: &Metrics,
        manager: &ManagerName,
    ) -> Result<(), StoreError> {
        if let Some(incarnation) = sweep.metrics.known().and_then(|metrics| metrics.incarnation) {
            self.timeline.observe(incarnation, sweep.at.wall);
        }
        if let Some(sets) = sweep.scale_sets.known() {
            self.places = sets.iter().filter_map(|set| Some((set.id, set.place()?))).collect();
        }
        if let Some(controller) = sweep.controller.known() {
            self.owner = Some(Owner::of_garm(&controller.id));
        }
        let place = match &self.log {
            Log::File(file) => {
                let batch = file.batch();
                for notice in &batch.notices {
                    tracing::warn!(%manager, log = %self.path, ?notice, "the manager's log");
                }
                self.held.extend(batch.facts);
                batch.position.map(|position| (position, batch.evidence))
            }
            Log::Stream(stream) => {
                self.held.extend(stream.facts());
                None
            }
        };
        let mut feed = self.feed.clone();
        let known = Known { timeline: &self.timeline, places: &self.places, owner: self.owner.as_ref() };
        let changes = feed.absorb(&self.held, known);
        let before = if changes.is_empty() { Vec::new() } else { store.live_sessions()? };
        if let Err(error) = store.apply(&changes) {
            let surplus = self.held.len().saturating_sub(HELD_MAX);
            self.held.drain(..surplus);
            return Err(error);
        }
        self.feed = feed;
        self.held.clear();
        for (set, lifetime, at) in changes.iter().filter_map(|change| expired(change, &before)) {
            metrics.stale_session_ended(manager, lifetime);
            store.record_stale_lifetime(set, lifetime, at)?;
        }
        match &place {
            // What is as it was kept, by this process at least, needs no write.
            Some(_) if place == self.kept => Ok(()),
            Some((position, evidence)) => {
                store.save_log_position(&self.path, position, evidence)?;
                self.kept = place;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// How long GitHub kept a session that ended by itself, after it was last seen alive.
fn expired(change: &LedgerChange, before: &[LedgerSession]) -> Option<(ScaleSetId, Span, Wall)> {
    let LedgerChange::End { session, at, how: SessionEnd::Expired } = change else { return None };
    let row = before.iter().find(|row| row.id == *session && row.ended.is_none())?;
    Some((row.set, at.since(row.last_seen), *at))
}
