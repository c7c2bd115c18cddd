//! `once`: reconciles until another reconcile could not change the result. A working fleet takes one; a stuck one is
//! observed until it can be judged, and treated until every treatment has ended.

use crate::engine::reconcile::{Engine, Reconciled};
use crate::engine::service::finish;
use crate::status::ManagerStatus;
use medic_core::clock::Clock;
use medic_core::model::{Decision, Diagnosis, Guard, ManagerName, ManagerState, Span, Treatment};

/// The longest wait for our own treatments.
const TREATMENT_LIMIT: Span = Span::mins(10);
/// The longest that finishing open treatments then takes.
const FINISH_LIMIT: Span = Span::secs(10);

#[derive(Debug, Clone)]
pub struct Summary {
    /// The last status of every manager.
    pub managers: Vec<ManagerStatus>,
    pub closed: Vec<(ManagerName, Treatment)>,
}

/// Runs all managers concurrently. `observe` is how long a stuck or unclear fleet is observed before it is judged.
pub async fn once(engines: Vec<Engine>, clock: &dyn Clock, observe: Span) -> Summary {
    let observed = engines.into_iter().map(|engine| run_one(engine, clock, observe));
    let mut summary = Summary { managers: Vec::new(), closed: Vec::new() };
    for (last, closed) in futures_util::future::join_all(observed).await {
        let name = last.status.name.clone();
        summary.closed.extend(closed.into_iter().map(|treatment| (name.clone(), treatment)));
        summary.managers.push(last.status);
    }
    summary
}

async fn run_one(mut engine: Engine, clock: &dyn Clock, observe: Span) -> (Reconciled, Vec<Treatment>) {
    let began = clock.now().mono;
    let mut closed = Vec::new();
    loop {
        let mut last = engine.reconcile().await;
        closed.append(&mut last.closed);
        let elapsed = clock.now().mono.since(began);
        if is_final(&last.status, elapsed >= observe) || elapsed >= TREATMENT_LIMIT {
            closed.extend(finish(&mut engine, clock, FINISH_LIMIT).await);
            return (last, closed);
        }
        clock.sleep(engine.until_next()).await;
    }
}

/// Whether another reconcile could not change the result.
fn is_final(status: &ManagerStatus, observed: bool) -> bool {
    if status.open_intents > 0 {
        return false;
    }
    if !matches!(status.state, ManagerState::Up | ManagerState::Restarted) {
        return observed;
    }
    status.sets.iter().all(|set| match &set.decision {
        Decision::Leave => set.is_healthy() && set.finding.diagnosis != Diagnosis::Settling || observed,
        Decision::Treat { .. } | Decision::Treating { .. } => false,
        Decision::Blocked { guards, .. } => observed && !guards.iter().all(|held| lifts_soon(held.guard)),
        Decision::Watch { .. } | Decision::Escalate { .. } => observed,
    })
}

/// Whether the guard ends within seconds, so that waiting is worth it.
const fn lifts_soon(guard: Guard) -> bool {
    match guard {
        Guard::Settle | Guard::Confirmation | Guard::Canary | Guard::InFlight | Guard::EntityLimit => true,
        Guard::DryRun
        | Guard::SetBudget
        | Guard::Backoff
        | Guard::ManagerBudget
        | Guard::Breaker
        | Guard::BlastRadius
        | Guard::Frozen
        | Guard::Paused
        | Guard::CauseNotResolved
        | Guard::Quota
        | Guard::Lease
        | Guard::Store
        | Guard::LeftDisabled
        | Guard::Undated
        | Guard::Bound => false,
    }
}
