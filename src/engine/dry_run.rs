//! A dry run where no instance runs: what one would see and decide, and which guards would block it.
//!
//! The engine is the real one in the configured mode with `dry_run`, on a copy of the store in memory. So pauses,
//! budgets, the breaker and left-over treatments count, and neither a server nor the state directory sees a write.

use crate::config::{Config, ManagerConfig};
use crate::engine::reconcile::Engine;
use crate::status::{ManagerStatus, SetStatus};
use futures_util::future::join_all;
use medic_core::clock::Clock;
use medic_core::model::session::LedgerChange;
use medic_core::model::{Diagnosis, ManagerState, Span, Wall};
use medic_core::ports::write::Journal as _;
use medic_store::{NewPause, Store};
use std::collections::BTreeMap;

const LIFETIMES: u32 = 20;

/// Copies what bears on findings and decisions into an empty store: everything but the lease and manual heals.
/// Fails when a store cannot be read or written; the copy is then incomplete.
pub fn copy(from: &Store, to: &Store, config: &Config, now: Wall) -> anyhow::Result<()> {
    for pause in from.pauses(now)? {
        let (scope, reason, author) = (pause.scope, pause.reason, pause.author);
        to.add_pause(NewPause { scope, reason, author, created: pause.created, expires: pause.expires })?;
    }
    config.managers.iter().try_for_each(|manager| copy_manager(from, to, manager, now.minus(config.policy.history())))
}

fn copy_manager(from: &Store, to: &Store, manager: &ManagerConfig, since: Wall) -> anyhow::Result<()> {
    let (from, to) = (from.for_manager(&manager.name), to.for_manager(&manager.name));
    let rows = from.unfinished()?.into_iter().chain(from.since(since)?);
    let rows: BTreeMap<_, _> = rows.map(|row| (row.id, row)).collect();
    for row in rows.into_values() {
        to.open(row)?;
    }
    to.apply(&from.live_sessions()?.into_iter().map(LedgerChange::See).collect::<Vec<_>>())?;
    for lifetime in from.stale_lifetimes(LIFETIMES)?.into_iter().rev() {
        to.record_stale_lifetime(lifetime.set, lifetime.span, lifetime.at)?;
    }
    if let Some(at) = from.breaker_reset()? {
        to.save_breaker_reset(at)?;
    }
    if let Some(memory) = from.load_state()? {
        to.save_state(&memory)?;
    }
    if let Some(path) = manager.log_file.as_deref().map(|path| path.display().to_string())
        && let Some((position, evidence)) = from.load_log_position(&path)?
    {
        to.save_log_position(&path, &position, &evidence)?;
    }
    Ok(())
}

/// Observes for that long, or until all sets work; returns the last status of every manager.
pub async fn dry_run(engines: Vec<Engine>, clock: &dyn Clock, observe: Span) -> Vec<ManagerStatus> {
    join_all(engines.into_iter().map(|engine| run_one(engine.with_dry_run(), clock, observe))).await
}

async fn run_one(mut engine: Engine, clock: &dyn Clock, observe: Span) -> ManagerStatus {
    let began = clock.now().mono;
    loop {
        let status = engine.reconcile().await.status;
        if is_all_working(&status) || clock.now().mono.since(began) >= observe {
            return status;
        }
        clock.sleep(engine.until_next()).await;
    }
}

fn is_all_working(status: &ManagerStatus) -> bool {
    let is_working = |set: &SetStatus| set.is_healthy() && set.finding.diagnosis != Diagnosis::Settling;
    matches!(status.state, ManagerState::Up | ManagerState::Restarted) && status.sets.iter().all(is_working)
}
