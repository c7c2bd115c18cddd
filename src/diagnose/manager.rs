//! The manager and the forge's endpoints as wholes.
//!
//! Rules. A refused connection means *down*; anything else that is no answer means *unreachable*: a manager that
//! cannot be asked is neither ill nor well, and its sets are `unknown`. A run is the same as long as its start date is
//! the same; counters that go backwards within one are a new run too. How the run before ended is told once it can be
//! told: a crash leaves sessions behind, so the new run is refused, or the ledger knows a living one of the old run.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

use super::Context;
use super::memory::Memory;
use crate::decide::policy::Policy;
use crate::model::session::OpenedBy;
use crate::model::{
    EndpointName, EndpointState, EntityRef, FailureKind, Generation, Incarnation, ManagerState, RestartKind, ScaleSet,
    Seen, Span, Sweep, Wall,
};
use std::collections::BTreeMap;

/// After this, a run that was refused nothing began after a clean end.
const TELL_AFTER: Span = Span::secs(15);
/// A failure of the manager's own pulse (asked every 30 s) that is older than this is over.
const PULSE: Span = Span::secs(45);
/// One start known by two sources differs by up to this.
const MARGIN: Span = Span::secs(2);

/// The manager's present run: by its metrics, else by its log.
pub(super) fn incarnation(sweep: &Sweep, memory: &Memory) -> Option<Incarnation> {
    let by_metrics = sweep.metrics.known().and_then(|metrics| metrics.incarnation);
    let by_log = || {
        let started = sweep.log.known().and_then(|log| log.run_started)?;
        // Our memory of the same run, by a better source, is kept.
        let same = memory.incarnation.filter(|run| run.0.since(started) <= MARGIN && started.since(run.0) <= MARGIN);
        Some(same.unwrap_or(Incarnation(started)))
    };
    by_metrics.or_else(by_log).or(memory.incarnation)
}

/// Notes a new run: what was known of the old one says nothing any more.
pub(super) fn note_run(memory: &mut Memory, incarnation: Option<Incarnation>) {
    let Some(run) = incarnation else { return };
    let Some(known) = memory.incarnation else {
        memory.incarnation = Some(run);
        return;
    };
    if known == run {
        return;
    }
    memory.incarnation = Some(run);
    memory.scopes.clear();
    if run.0.since(known.0) > MARGIN {
        memory.restarted = Some((run, known));
        for set in memory.sets.values_mut() {
            set.verdict = None;
        }
    }
}

/// Reads the counters; ones that go backwards belong to another run, whose start nobody told.
pub(super) fn read_counters(memory: &mut Memory, sweep: &Sweep) {
    let Some(metrics) = sweep.metrics.known() else { return };
    let backwards = metrics.scopes.iter().any(|(kind, counters)| {
        memory.scopes.get(kind).is_some_and(|scope| {
            counters.create < scope.last.create
                || counters.poll < scope.last.poll
                || counters.delete < scope.last.delete
        })
    });
    if backwards {
        memory.scopes.clear();
    }
    for (kind, counters) in &metrics.scopes {
        memory.scopes.entry(*kind).or_default().read(*counters, sweep.at.wall);
    }
    memory.listener_series |= !metrics.listeners.is_empty();
    if metrics.has_set_gauges {
        memory.generation = Generation::Retries;
    }
}

/// How the run before the present one ended, once, as soon as it can be told.
pub(super) fn restart(memory: &mut Memory, sweep: &Sweep, context: &Context<'_>) -> Option<(RestartKind, Incarnation)> {
    let (run, before) = memory.restarted?;
    let refused = memory.scopes.values().any(|scope| scope.last.create_errors > 0);
    let left_behind = context.ledger.iter().any(|session| match session.opened_by {
        OpenedBy::Manager(opened_in) => session.ended.is_none() && opened_in < run,
        OpenedBy::UnknownIncarnation | OpenedBy::Medic => false,
    });
    let conflict = sweep.log.known().is_some_and(|log| {
        log.last_panic.is_some_and(|at| at.plus(Span::mins(10)) >= run.0)
            || log
                .by_id
                .values()
                .chain(log.by_forge.values().flat_map(BTreeMap::values))
                .any(|set| set.conflicts.is_some())
    });
    // The log says that the run before closed down, and nothing says that it did not get to the end.
    let closed_down =
        sweep.log.known().and_then(|log| log.last_stop).is_some_and(|at| at >= before.0 && at <= run.0.plus(MARGIN));
    let kind = if refused || left_behind || conflict {
        RestartKind::Crash
    } else if closed_down || sweep.at.wall.since(run.0) >= TELL_AFTER && sweep.metrics.known().is_some() {
        RestartKind::Clean
    } else {
        return None;
    };
    memory.restarted = None;
    Some((kind, run))
}

/// The manager.
pub(super) fn state(sweep: &Sweep, incarnation: Option<Incarnation>, policy: &Policy) -> ManagerState {
    match &sweep.scale_sets {
        Seen::Known(_) => match incarnation {
            Some(run) if sweep.at.wall.since(run.0) < policy.settle => ManagerState::Restarted,
            Some(_) | None => ManagerState::Up,
        },
        Seen::Failed(failure) if failure.kind == FailureKind::Connect => ManagerState::Down,
        Seen::Failed(_) | Seen::NotAsked => ManagerState::Unreachable,
    }
}

/// More than half of the sources that were asked do not answer.
pub(super) fn blind(sweep: &Sweep) -> bool {
    let sources = [
        asked(&sweep.scale_sets),
        asked(&sweep.metrics),
        asked(&sweep.goroutines),
        asked(&sweep.log),
        asked(&sweep.lingering),
    ];
    let broker = sweep.broker.values().map(asked);
    let answers: Vec<bool> = sources.into_iter().chain(broker).flatten().collect();
    let failed = answers.iter().filter(|answered| !**answered).count();
    failed.saturating_mul(2) > answers.len() || sweep.scale_sets.known().is_none()
}

fn asked<T>(seen: &Seen<T>) -> Option<bool> {
    match seen {
        Seen::Known(_) => Some(true),
        Seen::Failed(_) => Some(false),
        Seen::NotAsked => None,
    }
}

/// Each endpoint: by our own questions, and by the manager's own trouble with it.
pub(super) fn endpoints(
    sweep: &Sweep,
    sets: &BTreeMap<crate::model::ScaleSetId, ScaleSet>,
    memory: &Memory,
) -> BTreeMap<EndpointName, EndpointState> {
    let now = sweep.at.wall;
    let mut endpoints = BTreeMap::new();
    let names = sets.values().filter_map(|set| set.endpoint.as_ref()).map(|endpoint| endpoint.name.clone());
    for name in names.chain(sweep.broker.keys().map(|entity| entity.endpoint.clone())) {
        if endpoints.contains_key(&name) {
            continue;
        }
        if let Some(state) = asked_state(sweep, &name) {
            endpoints.insert(name, state);
        } else if quota_used_up(sweep, &name, now) {
            endpoints.insert(name, EndpointState::Limited);
        } else if pulse_fails(memory, now) {
            endpoints.insert(name, EndpointState::Degraded);
        }
    }
    endpoints
}

fn asked_state(sweep: &Sweep, name: &EndpointName) -> Option<EndpointState> {
    let answers: Vec<_> = sweep.broker.iter().filter(|(entity, _)| entity.endpoint == *name).map(|(_, a)| a).collect();
    let failures: Vec<_> = answers.iter().filter_map(|answer| answer.failure()).collect();
    let known = answers.iter().filter(|answer| answer.known().is_some()).count();
    // One entity's missing right is no fault of the endpoint.
    let faults = failures.iter().filter(|failure| is_fault(failure.kind)).count();
    if answers.is_empty() {
        return None;
    }
    Some(if faults == 0 {
        if known == 0 && failures.iter().all(|failure| failure.kind == FailureKind::RateLimited) {
            EndpointState::Limited
        } else {
            EndpointState::Up
        }
    } else if known == 0 {
        EndpointState::Down
    } else {
        EndpointState::Degraded
    })
}

const fn is_fault(kind: FailureKind) -> bool {
    match kind {
        FailureKind::Connect
        | FailureKind::Tls
        | FailureKind::Timeout
        | FailureKind::Broken
        | FailureKind::Server
        | FailureKind::Redirect
        | FailureKind::Malformed
        | FailureKind::TooLarge => true,
        FailureKind::Unauthorized
        | FailureKind::Forbidden
        | FailureKind::NotFound
        | FailureKind::Conflict
        | FailureKind::NotInitialised
        | FailureKind::RateLimited
        | FailureKind::Rejected
        | FailureKind::NotEnabled
        | FailureKind::HeldBack => false,
    }
}

fn quota_used_up(sweep: &Sweep, name: &EndpointName, now: Wall) -> bool {
    let Some(metrics) = sweep.metrics.known() else { return false };
    let mut quotas = metrics.quotas.iter().filter(|quota| quota.endpoint == *name && quota.limit > 0).peekable();
    quotas.peek().is_some() && quotas.all(|quota| quota.remaining == 0 && quota.reset.is_some_and(|reset| reset > now))
}

/// Whether the manager's own calls to its endpoints fail now.
pub(super) fn pulse_fails(memory: &Memory, now: Wall) -> bool {
    memory.scopes.values().any(|scope| scope.pulse_moved > Wall(0) && now.since(scope.pulse_moved) < PULSE)
}

/// Several entities fail at once, by our own questions: not one of them, but GitHub.
pub(super) fn fault_at_forge(sweep: &Sweep) -> bool {
    let failing: Vec<&EntityRef> = sweep
        .broker
        .iter()
        .filter(|(_, answer)| answer.failure().is_some_and(|failure| is_fault(failure.kind)))
        .map(|(entity, _)| entity)
        .collect();
    failing.len() >= 2
}
