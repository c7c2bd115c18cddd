//! What the commands that watch managers have in common: the store, the lease, the clock, signals.

use super::Failure;
use crate::config::Config;
use crate::engine::assemble::{self, Shared};
use crate::engine::lease::Lease;
use crate::engine::reconcile::Engine;
use crate::exit::ExitCode;
use crate::metrics::Metrics;
use anyhow::Context as _;
use medic_clock::SystemClock;
use medic_core::clock::Clock;
use medic_core::model::{ManagerName, Span};
use medic_store::Store;
use std::sync::Arc;
use tokio::signal::unix::{self, SignalKind};

/// The longest that finishing takes after a signal.
const FINISH_LIMIT: Span = Span::secs(8);

/// Receives signals while it lives: one that comes between two waits is returned by the next.
pub(super) struct Signals(Option<(unix::Signal, unix::Signal)>);

impl Signals {
    /// Needs a runtime.
    pub(super) fn listen() -> Self {
        let both = (unix::signal(SignalKind::interrupt()), unix::signal(SignalKind::terminate()));
        let (Ok(interrupt), Ok(terminate)) = both else {
            tracing::error!("signals cannot be listened for");
            return Self(None);
        };
        Self(Some((interrupt, terminate)))
    }

    /// The exit code of the next signal to end; never resolves where signals cannot be received.
    pub(super) async fn next(&mut self) -> ExitCode {
        let Some((interrupt, terminate)) = &mut self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = interrupt.recv() => ExitCode::Interrupted,
            _ = terminate.recv() => ExitCode::Terminated,
        }
    }
}

/// The exit code of the first signal that asks the process to end.
pub(super) async fn signal() -> ExitCode {
    Signals::listen().next().await
}

/// A runtime whose end does not wait for a thread that a hanging file system blocks.
pub(super) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    pub(super) fn block_on<F: Future>(&self, future: F) -> Result<F::Output, Failure> {
        let runtime = self.0.as_ref().context("the runtime has ended").map_err(Failure::Internal)?;
        Ok(runtime.block_on(future))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// One thread is enough: the work per reconcile is small.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(Runtime(Some(runtime.context("cannot start the runtime").map_err(Failure::Internal)?)))
}

/// Opens the store and makes what all engines share.
pub(super) fn shared(config: &Config) -> Result<Shared, Failure> {
    share(config, Store::open(&config.run.state_dir).map_err(Failure::internal)?)
}

/// As [`shared`], with a store in memory, for a check that changes nothing.
pub(super) fn shared_in_memory(config: &Config) -> Result<Shared, Failure> {
    share(config, Store::in_memory().map_err(Failure::internal)?)
}

fn share(config: &Config, store: Store) -> Result<Shared, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let names: Vec<_> = config.managers.iter().map(|manager| manager.name.clone()).collect();
    let metrics = Metrics::new(&names, config.run.mode).map_err(Failure::internal)?;
    log_orphans(&store, &names);
    let lease = Lease::new(store.clone(), holder(clock.as_ref()), Arc::clone(&clock));
    Ok(Shared {
        store,
        lease: Arc::new(lease),
        clock,
        metrics: Arc::new(metrics),
        runtime: assemble::Runtime::default(),
    })
}

/// Open treatments of managers that are no longer configured: only an operator can finish them.
fn log_orphans(store: &Store, watched: &[ManagerName]) {
    let orphans = store.intents_of_others(watched).unwrap_or_else(|error| {
        tracing::warn!(%error, "open treatments of other managers cannot be read");
        Vec::new()
    });
    for (manager, intent) in orphans {
        tracing::error!(
            %manager, scale_set = %intent.set, name = %intent.name, step = intent.step.label(), since = %intent.step_at,
            "a treatment at a GARM that is no longer configured is unfinished: configure it again, or check that the \
             scale set is enabled"
        );
    }
}

fn holder(clock: &dyn Clock) -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "medic".to_owned());
    format!("{host}/{}/{}", std::process::id(), clock.now().wall.0)
}

/// Who heals or pauses: the given name, else the user's, else the uid and host: images set no `USER`.
pub(super) fn author(given: Option<&str>) -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    given.map(str::to_owned).or_else(|| variable("USER")).or_else(|| variable("LOGNAME")).unwrap_or_else(|| {
        let uid = std::fs::metadata("/proc/self").map(|found| std::os::unix::fs::MetadataExt::uid(&found));
        let host = variable("HOSTNAME").or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
        let host = host.map_or_else(|| "this machine".to_owned(), |host| host.trim().to_owned());
        uid.map_or_else(|_| format!("unknown user at {host}"), |uid| format!("uid {uid} at {host}"))
    })
}

/// Finishes the treatments that dropped reconciles left open.
pub(super) async fn finish(engines: Vec<Engine>, clock: &dyn Clock) {
    futures_util::future::join_all(engines.into_iter().map(|mut engine| async move {
        drop(crate::engine::service::finish(&mut engine, clock, FINISH_LIMIT).await);
    }))
    .await;
}
