//! One concurrent sweep over the sources of one manager. A failure is an observation, never an early return; a source
//! that hangs costs its own deadline and nothing else.

use crate::engine::log_follower::LogFollower;
use crate::engine::records::Records;
use crate::engine::source_cache::SourceCache;
use futures_util::stream::{self, StreamExt};
use medic_core::clock::Clock;
use medic_core::diagnose::Fleet;
use medic_core::due::{Due, Urgency};
use medic_core::model::{
    Endpoint, EndpointName, Entity, EntityRef, FailureKind, GithubSet, Operation, RequestFailure, ScaleSet, ScaleSetId,
    Seen, Span, Sweep,
};
use medic_core::ports::read::{GithubSource, LogSource, ManagerSource};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

const GITHUB_CONCURRENCY: usize = 8;

/// The sources of one manager. Reading only, by type.
#[derive(Clone)]
pub struct Sources {
    pub manager: Arc<dyn ManagerSource>,
    /// Whether `/metrics` is asked.
    pub metrics: bool,
    pub debug_server: bool,
    /// Where credentials are configured.
    pub github: Option<Arc<dyn GithubSource>>,
    pub log: Option<Arc<dyn LogSource>>,
    /// The longest any one source may take, retries included.
    pub deadline: Span,
}

/// Sweeps the sources; slow ones only when they are due, else from the cache.
pub struct Sweeper {
    pub(super) sources: Sources,
    log: Option<LogFollower>,
    clock: Arc<dyn Clock>,
    cache: SourceCache,
}

impl Sweeper {
    pub fn new(sources: Sources, log: Option<LogFollower>, clock: Arc<dyn Clock>, interval: Span) -> Self {
        Self { sources, log, clock, cache: SourceCache::new(interval) }
    }

    pub(super) async fn sweep(&mut self, urgency: Urgency) -> Sweep {
        let due = self.cache.due(urgency, self.clock.now().mono);
        if let Some(log) = &self.log {
            log.catch_up().await;
        }
        let mut sweep = sweep(&self.sources, due, self.clock.as_ref()).await;
        self.cache.fill(&mut sweep, due);
        sweep
    }

    /// Brings the session ledger up to date with the log. A failure is retried by the next reconcile.
    pub(super) fn follow_log(&mut self, sweep: &Sweep, records: &Records) {
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.update_ledger(sweep, &records.store, &records.metrics) {
            records.report_failure(&error);
        }
    }
}

impl Sources {
    /// The sets whose sessions a credential of ours can open and delete.
    pub(super) fn covered_sets(&self, fleet: &Fleet) -> BTreeSet<ScaleSetId> {
        let Some(github) = &self.github else { return BTreeSet::new() };
        let is_covered = |set: &&ScaleSet| {
            let place = set.endpoint.as_deref().zip(set.entity.as_ref()).filter(|_| set.has_place());
            place.is_some_and(|(endpoint, entity)| github.covers(endpoint, entity))
        };
        fleet.sets.values().filter(is_covered).map(|set| set.id).collect()
    }

    /// A quota of each endpoint of the manager's sets.
    pub(super) fn quotas<T>(
        &self,
        fleet: &Fleet,
        quota: impl Fn(&dyn GithubSource, &Endpoint) -> Option<T>,
    ) -> BTreeMap<EndpointName, T> {
        let Some(github) = &self.github else { return BTreeMap::new() };
        let endpoints = fleet.sets.values().filter_map(|set| set.endpoint.as_ref());
        let endpoints: BTreeMap<_, _> = endpoints.map(|endpoint| (&endpoint.name, endpoint)).collect();
        let quota = |endpoint: &Endpoint| quota(github.as_ref(), endpoint);
        endpoints.into_iter().filter_map(|(name, endpoint)| Some((name.clone(), quota(endpoint)?))).collect()
    }
}

/// Asks everything that is due; the rest is [`Seen::NotAsked`].
pub async fn sweep(sources: &Sources, due: Due, clock: &dyn Clock) -> Sweep {
    let at = clock.now();
    let manager = sources.manager.as_ref();
    let deadline = Deadline { clock, limit: sources.deadline };
    let (scale_sets, metrics, goroutines, controller, lingering) = tokio::join!(
        deadline.ask(Operation::ListScaleSets, manager.scale_sets()),
        deadline.ask_if(sources.metrics, Operation::Metrics, manager.metrics()),
        deadline.ask_if(sources.debug_server, Operation::Goroutines, manager.goroutines()),
        deadline.ask_if(due.controller, Operation::Controller, manager.controller()),
        deadline.ask_if(due.lingering, Operation::ListInstances, manager.lingering()),
    );
    let actions_service = match (&sources.github, scale_sets.known()) {
        (Some(github), Some(sets)) if due.github => ask_github(github.as_ref(), sets, deadline).await,
        _ => BTreeMap::new(),
    };
    let log = match &sources.log {
        Some(log) => Seen::from_result(log.evidence()),
        None => Seen::NotAsked,
    };
    Sweep { at, controller, scale_sets, lingering, metrics, goroutines, log, actions_service }
}

async fn ask_github(
    github: &dyn GithubSource,
    sets: &[ScaleSet],
    deadline: Deadline<'_>,
) -> BTreeMap<EntityRef, Seen<Vec<GithubSet>>> {
    let mut entities: BTreeMap<EntityRef, (Arc<Endpoint>, Entity)> = BTreeMap::new();
    for set in sets {
        if let (Some(key), Some(endpoint), Some(entity)) = (set.entity_ref(), &set.endpoint, &set.entity)
            && github.covers(endpoint, entity)
        {
            entities.entry(key).or_insert_with(|| (Arc::clone(endpoint), entity.clone()));
        }
    }
    stream::iter(entities)
        .map(|(key, (endpoint, entity))| async move {
            (key, deadline.ask(Operation::ListGithubSets, github.github_sets(&endpoint, &entity)).await)
        })
        .buffer_unordered(GITHUB_CONCURRENCY)
        .collect()
        .await
}

#[derive(Clone, Copy)]
pub(crate) struct Deadline<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) limit: Span,
}

impl Deadline<'_> {
    pub(crate) async fn ask_if<T>(
        self,
        wanted: bool,
        operation: Operation,
        answer: impl Future<Output = Result<T, RequestFailure>>,
    ) -> Seen<T> {
        if wanted { self.ask(operation, answer).await } else { Seen::NotAsked }
    }

    pub(crate) async fn ask<T>(
        self,
        operation: Operation,
        answer: impl Future<Output = Result<T, RequestFailure>>,
    ) -> Seen<T> {
        tokio::select! {
            biased;
            answer = answer => Seen::from_result(answer),
            () = self.clock.sleep(self.limit) => Seen::Failed(self.exceeded(operation)),
        }
    }

    pub(crate) fn exceeded(self, operation: Operation) -> RequestFailure {
        RequestFailure {
            target: operation.target(),
            operation,
            kind: FailureKind::Timeout,
            detail: format!("no answer within {}; is the server overloaded or the network slow?", self.limit),
            retry_at: None,
        }
    }
}
