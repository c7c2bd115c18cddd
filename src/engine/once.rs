//! `once`: looks, and goes on looking only while that can change the answer: a healthy fleet costs one pass; an ill one
//! is watched for as long as it takes to judge it, and treated until every treatment has ended.

use crate::engine::reconcile::{Engine, Pass};
use crate::status::ManagerStatus;
use medic_core::clock::Clock;
use medic_core::model::{Decision, Diagnosis, Guard, ManagerName, ManagerState, Span, Treatment};

/// The longest a one-shot waits for its own treatments, whatever they wait for.
const TREATMENT_LIMIT: Span = Span::mins(10);
/// The longest it then takes to settle what is still open.
const SETTLE_LIMIT: Span = Span::secs(10);

/// What a one-shot came to, for the exit code and for people.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The last picture of every manager.
    pub managers: Vec<ManagerStatus>,
    /// Treatments that ended, with their manager.
    pub closed: Vec<(ManagerName, Treatment)>,
}

/// Runs all managers side by side. `observe` is how long an ill or unclear fleet is watched before it is judged.
pub async fn once(engines: Vec<Engine>, clock: &dyn Clock, observe: Span) -> Summary {
    let watched = engines.into_iter().map(|engine| one(engine, clock, observe));
    let mut summary = Summary { managers: Vec::new(), closed: Vec::new() };
    for (pass, closed) in futures_util::future::join_all(watched).await {
        let name = pass.status.name.clone();
        summary.closed.extend(closed.into_iter().map(|treatment| (name.clone(), treatment)));
        summary.managers.push(pass.status);
    }
    summary
}

async fn one(mut engine: Engine, clock: &dyn Clock, observe: Span) -> (Pass, Vec<Treatment>) {
    let began = clock.now().mono;
    let mut closed = Vec::new();
    loop {
        let mut pass = engine.pass().await;
        closed.append(&mut pass.closed);
        let watched = clock.now().mono.since(began);
        if is_settled(&pass, watched >= observe) || watched >= TREATMENT_LIMIT {
            closed.extend(super::service::settle(&mut engine, clock, SETTLE_LIMIT).await);
            return (pass, closed);
        }
        clock.sleep(engine.pause()).await;
    }
}

/// Whether another pass could not change the answer.
fn is_settled(pass: &Pass, observed: bool) -> bool {
    let status = &pass.status;
    if status.open_intents > 0 {
        return false;
    }
    if !matches!(status.state, ManagerState::Up | ManagerState::Restarted) {
        return observed;
    }
    status.sets.iter().all(|set| match &set.decision {
        Decision::Leave => set.is_healthy() && set.finding.diagnosis != Diagnosis::Settling || observed,
        Decision::Treat { .. } | Decision::Treating { .. } => false,
        Decision::Blocked { guards, .. } => observed && !guards.iter().all(|held| passes_soon(held.guard)),
        Decision::Watch { .. } | Decision::Escalate { .. } => observed,
    })
}

/// Whether the guard lifts by itself within seconds, so that waiting for it is worth it.
const fn passes_soon(guard: Guard) -> bool {
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
