//! `run`: every manager has a task of its own, so that one that hangs delays no other. The service ends when it is told
//! to, or with an error when a task dies: no task ever ends in silence.

use crate::engine::lease::Lease;
use crate::engine::reconcile::Engine;
use crate::metrics::Metrics;
use crate::status::{ManagerStatus, STATUS_SCHEMA, Status};
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

/// A pass that hangs when the process must end is dropped after this; what it left is in the journal.
const LAST_PASS: Span = Span::secs(2);
/// Between a reason to look and the look: what comes together is looked at together.
const BREATH: Span = Span::millis(250);
/// A medic without a finished pass for this many intervals counts as stalled.
const STALLED_AFTER: u64 = 10;

/// Why the service ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A manager's task panicked or ended.
    #[error("the watch of a manager ended by itself: {0}; this is a bug, please report it")]
    TaskDied(String),
}

/// What is published: the board for the server, the gauges, and a hook for the lab.
pub struct Publisher {
    /// The board that the HTTP server reads.
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    /// `observe` or `heal`, for the status document.
    pub mode: Mode,
    /// Longest calm interval, for the stall check.
    pub interval: Span,
    /// The managers in the configuration's order.
    pub order: Vec<ManagerName>,
    /// Latest picture of each manager.
    pub latest: Mutex<BTreeMap<ManagerName, ManagerStatus>>,
}

impl Publisher {
    /// Takes one manager's new picture in and publishes the whole. Nobody waits for a manager that hangs: it is told as
    /// not swept yet.
    pub fn publish(&self, status: ManagerStatus) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.insert(status.name.clone(), status);
        let managers: Vec<_> = self.order.iter().filter_map(|name| latest.get(name).cloned()).collect();
        let not_swept_yet = self.order.iter().filter(|name| !latest.contains_key(name)).cloned().collect();
        drop(latest);
        let at = self.clock.now().wall;
        let status = Arc::new(Status {
            schema: STATUS_SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: self.mode,
            at,
            managers,
            not_swept_yet,
        });
        self.metrics.show(&status);
        self.board.publish(status, at, self.interval.times(STALLED_AFTER).plus(Span::mins(1)));
    }
}

/// What becomes of the open intents when a service ends.
#[derive(Debug, Clone, Default)]
pub enum Ending {
    /// They are settled: sets that we disabled are enabled, whether their workers are ready or not.
    #[default]
    Settled,
    /// Those of these managers stay as they are: in a moment another service goes on with the same store.
    HandedOver(BTreeSet<ManagerName>),
}

impl From<()> for Ending {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl Ending {
    fn settles(&self, manager: &ManagerName) -> bool {
        match self {
            Self::Settled => true,
            Self::HandedOver(managers) => !managers.contains(manager),
        }
    }
}

/// Watches until `shutdown` resolves, then settles open intents, or hands them over, and returns.
///
/// # Errors
/// When a manager's task died.
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
        tasks.spawn(watch_manager(engine, publisher, limit, stopped.clone()));
    }
    let (ending, died) = tokio::select! {
        biased;
        ending = shutdown => (ending.into(), None),
        ended = tasks.join_next() => (Ending::Settled, Some(match ended {
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

async fn watch_manager(
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
            clock.sleep(LAST_PASS).await;
        };
        tokio::select! {
            biased;
            pass = engine.pass() => publisher.publish(pass.status),
            () = stopping => {}
        }
        while background.try_join_next().is_some() {}
        if stopped.borrow().is_some() {
            break;
        }
        let pause = engine.pause();
        tokio::select! {
            biased;
            () = clock.sleep(pause) => {}
            () = async {
                wake.notified().await;
                clock.sleep(BREATH).await;
            } => {}
            _ = stopped.wait_for(Option::is_some) => break,
        }
    }
    let ending = stopped.borrow().clone();
    if ending.is_none_or(|ending| ending.settles(engine.name())) {
        settle(&mut engine, clock.as_ref(), limit.minus(LAST_PASS)).await;
    }
}

/// Settles open intents within `limit`; what stays open is in the journal, and the next start settles it first. Returns
/// the treatments that have closed.
pub async fn settle(engine: &mut Engine, clock: &dyn Clock, limit: Span) -> Vec<Treatment> {
    let manager = engine.name().clone();
    tokio::select! {
        biased;
        settled = engine.settle() => {
            for treatment in settled.open {
                tracing::warn!(
                    %manager, scale_set = %treatment.set, name = %treatment.name, step = treatment.step.label(),
                    "an intent stays open; the next start settles it first"
                );
            }
            settled.closed
        }
        () = clock.sleep(limit) => {
            tracing::warn!(%manager, "open intents could not be settled in time; the next start settles them first");
            Vec::new()
        }
    }
}
