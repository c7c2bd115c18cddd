//! `run`: every manager has a task of its own, so that one that hangs delays no other. A task that dies ends the
//! service with an error.

use crate::engine::lease::Lease;
use crate::engine::reconcile::Engine;
use crate::metrics::Metrics;
use crate::status::{ManagerStatus, Status};
use crate::web::server::{self, Board, Shown};
use medic_core::clock::Clock;
use medic_core::model::{ManagerName, Span, Treatment};
use medic_core::policy::Mode;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// At shutdown, a reconcile that hangs is dropped after this; what it left open is in the journal.
const LAST_RECONCILE: Span = Span::secs(2);
/// Reasons to reconcile that come together are answered by one reconcile.
const WAKE_DEBOUNCE: Span = Span::millis(250);
/// Intervals without a finished reconcile, after which the service counts as stalled.
const STALLED_AFTER: u64 = 10;

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("the task of a manager ended unexpectedly: {0}; this is a bug, please report it")]
    TaskDied(String),
}

/// Publishes the status to the HTTP server and the gauges.
pub struct Publisher {
    /// What the HTTP server reads.
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    /// `observe` or `heal`, for the status document.
    pub mode: Mode,
    /// Longest calm interval, for the stall check.
    pub interval: Span,
    pub order: Vec<ManagerName>,
    pub latest: Mutex<BTreeMap<ManagerName, ManagerStatus>>,
}

impl Publisher {
    /// Publishes one manager's new status together with the others'. A manager without a finished sweep is listed as
    /// such.
    pub fn publish(&self, status: ManagerStatus) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.insert(status.name.clone(), status);
        let managers: Vec<_> = self.order.iter().filter_map(|name| latest.get(name).cloned()).collect();
        let not_swept_yet = self.order.iter().filter(|name| !latest.contains_key(name)).cloned().collect();
        drop(latest);
        let at = self.clock.now().wall;
        let status = Arc::new(Status::new(self.mode, at, managers, not_swept_yet));
        self.metrics.show(&status);
        self.board.publish(status, at, self.interval.times(STALLED_AFTER).plus(Span::mins(1)));
    }
}

/// What becomes of open treatments at shutdown.
#[derive(Debug, Clone, Default)]
pub enum Ending {
    /// Sets that we disabled are enabled, whether their workers are ready or not.
    #[default]
    Finished,
    /// Those of these managers stay open: another service is about to continue with the same store.
    HandedOver(BTreeSet<ManagerName>),
}

impl From<()> for Ending {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl Ending {
    fn finishes(&self, manager: &ManagerName) -> bool {
        match self {
            Self::Finished => true,
            Self::HandedOver(managers) => !managers.contains(manager),
        }
    }
}

/// Runs until `shutdown` resolves, then finishes open treatments or hands them over.
pub async fn run(
    engines: Vec<Engine>,
    publisher: Arc<Publisher>,
    lease: Arc<Lease>,
    listener: Option<TcpListener>,
    limit: Span,
    shutdown: impl Future<Output = impl Into<Ending>> + Send,
) -> Result<(), ServiceError> {
    let (stop, stopped) = watch::channel(None::<Arc<Ending>>);
    let mut tasks = JoinSet::new();
    publisher.metrics.watched(&publisher.order, publisher.interval);
    let server = listener.map(|listener| {
        let shown = Arc::new(Shown {
            metrics: Arc::clone(&publisher.metrics),
            board: Arc::clone(&publisher.board),
            clock: Arc::clone(&publisher.clock),
        });
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            let until = async move {
                let _ = stopped.wait_for(Option::is_some).await;
            };
            server::serve(listener, shown, until).await;
        })
    });
    for engine in engines {
        let publisher = Arc::clone(&publisher);
        tasks.spawn(run_manager(engine, publisher, limit, stopped.clone()));
    }
    let (ending, died) = tokio::select! {
        biased;
        ending = shutdown => (ending.into(), None),
        ended = tasks.join_next() => (Ending::Finished, Some(match ended {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) | None => "it returned".to_owned(),
        })),
    };
    let _ = stop.send(Some(Arc::new(ending)));
    while tasks.join_next().await.is_some() {}
    if let Some(server) = server {
        let _ = server.await;
    }
    lease.release();
    died.map_or(Ok(()), |why| Err(ServiceError::TaskDied(why)))
}

async fn run_manager(
    mut engine: Engine,
    publisher: Arc<Publisher>,
    limit: Span,
    mut stopped: watch::Receiver<Option<Arc<Ending>>>,
) {
    let clock = Arc::clone(&publisher.clock);
    let wake = engine.wake();
    let mut background = JoinSet::new();
    for connection in engine.take_background() {
        background.spawn(connection);
    }
    loop {
        let mut stop = stopped.clone();
        let stopping = async {
            let _ = stop.wait_for(Option::is_some).await;
            clock.sleep(LAST_RECONCILE).await;
        };
        tokio::select! {
            biased;
            done = engine.reconcile() => publisher.publish(done.status),
            () = stopping => {}
        }
        while background.try_join_next().is_some() {}
        if stopped.borrow().is_some() {
            break;
        }
        let wait = engine.until_next();
        tokio::select! {
            biased;
            () = clock.sleep(wait) => {}
            () = async {
                wake.notified().await;
                clock.sleep(WAKE_DEBOUNCE).await;
            } => {}
            _ = stopped.wait_for(Option::is_some) => break,
        }
    }
    let ending = stopped.borrow().clone();
    if ending.is_none_or(|ending| ending.finishes(engine.name())) {
        finish(&mut engine, clock.as_ref(), limit.minus(LAST_RECONCILE)).await;
    }
}

/// Finishes open treatments within `limit`; the next start continues with those that stay open. Returns the closed
/// ones.
pub async fn finish(engine: &mut Engine, clock: &dyn Clock, limit: Span) -> Vec<Treatment> {
    let manager = engine.name().clone();
    tokio::select! {
        biased;
        finished = engine.finish() => {
            for treatment in finished.open {
                tracing::warn!(
                    %manager, scale_set = %treatment.set, name = %treatment.name, step = treatment.step.label(),
                    "a treatment stays open; the next start finishes it first"
                );
            }
            finished.closed
        }
        () = clock.sleep(limit) => {
            tracing::warn!(%manager, "open treatments could not be finished in time; the next start finishes them \
                first");
            Vec::new()
        }
    }
}
