//! One concurrent pass over the sources of one manager. A failure is an observation, never an early return; a source
//! that hangs costs its own deadline and nothing else.

use futures_util::stream::{self, StreamExt};
use medic_core::clock::Clock;
use medic_core::due::Due;
use medic_core::model::{
    Endpoint, Entity, EntityRef, FailureKind, GithubSet, Operation, RequestFailure, ScaleSet, Seen, Span, Sweep,
};
use medic_core::ports::read::{GithubSource, LogSource, ManagerSource};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

/// Broker lists asked at once.
const BROKER_CONCURRENCY: usize = 8;

/// The sources of one manager. Reading only, by type.
#[derive(Clone)]
pub struct Sources {
    /// The manager's API, metrics and debug server.
    pub manager: Arc<dyn ManagerSource>,
    /// Whether `/metrics` is asked.
    pub metrics: bool,
    /// Whether the debug server is asked.
    pub debug_server: bool,
    /// GitHub, where credentials are configured.
    pub broker: Option<Arc<dyn GithubSource>>,
    /// The log, where configured.
    pub log: Option<Arc<dyn LogSource>>,
    /// The longest any one source may take, retries included.
    pub deadline: Span,
}

/// Asks everything that is due. Sources that are not due are [`Seen::NotAsked`].
pub async fn sweep(sources: &Sources, due: Due, clock: &dyn Clock) -> Sweep {
    let at = clock.now();
    let manager = sources.manager.as_ref();
    let within = Deadline { clock, deadline: sources.deadline };
    let (scale_sets, metrics, goroutines, controller, lingering) = tokio::join!(
        within.ask(true, Operation::ListScaleSets, manager.scale_sets()),
        within.ask(sources.metrics, Operation::Metrics, manager.metrics()),
        within.ask(sources.debug_server, Operation::Goroutines, manager.goroutines()),
        within.ask(due.controller, Operation::Controller, manager.controller()),
        within.ask(due.lingering, Operation::ListInstances, manager.lingering()),
    );
    let broker = match (&sources.broker, scale_sets.known()) {
        (Some(broker), Some(sets)) if due.broker => ask_github(broker.as_ref(), sets, within).await,
        _ => BTreeMap::new(),
    };
    let log = match &sources.log {
        Some(log) => Seen::from_result(log.evidence()),
        None => Seen::NotAsked,
    };
    Sweep { at, controller, scale_sets, lingering, metrics, goroutines, log, broker }
}

async fn ask_github(
    broker: &dyn GithubSource,
    sets: &[ScaleSet],
    within: Deadline<'_>,
) -> BTreeMap<EntityRef, Seen<Vec<GithubSet>>> {
    let mut entities: BTreeMap<EntityRef, (Arc<Endpoint>, Entity)> = BTreeMap::new();
    for set in sets {
        if let (Some(key), Some(endpoint), Some(entity)) = (set.entity_ref(), &set.endpoint, &set.entity)
            && broker.covers(endpoint, entity)
        {
            entities.entry(key).or_insert_with(|| (Arc::clone(endpoint), entity.clone()));
        }
    }
    stream::iter(entities)
        .map(|(key, (endpoint, entity))| async move {
            let seen = within.ask(true, Operation::ListGithubSets, broker.github_sets(&endpoint, &entity)).await;
            (key, seen)
        })
        .buffer_unordered(BROKER_CONCURRENCY)
        .collect()
        .await
}

#[derive(Clone, Copy)]
struct Deadline<'a> {
    clock: &'a dyn Clock,
    deadline: Span,
}

impl Deadline<'_> {
    async fn ask<T>(
        self,
        wanted: bool,
        operation: Operation,
        question: impl Future<Output = Result<T, RequestFailure>>,
    ) -> Seen<T> {
        if !wanted {
            return Seen::NotAsked;
        }
        tokio::select! {
            biased;
            answer = question => Seen::from_result(answer),
            () = self.clock.sleep(self.deadline) => Seen::Failed(RequestFailure {
                target: operation.target(),
                operation,
                kind: FailureKind::Timeout,
                detail: format!("no answer within {}; is the server overloaded or the network slow?", self.deadline),
                retry_at: None,
            }),
        }
    }
}
