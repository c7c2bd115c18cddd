//! The manager and GitHub's endpoints as wholes.
//!
//! A refused connection means *down*, any other failure *unreachable*: a manager that cannot be asked is neither ill nor
//! well, and its sets are `unknown`. Two sweeps see the same incarnation if their start dates differ by at most a second
//! or two ([`Incarnation::is_same_run`]) and no counter went backwards. How the incarnation before ended is reported once
//! it is known: a crash leaves sessions behind, so the new incarnation is refused, or the ledger has a living session of
//! the old one.
//!
//! The manager's clock need not be ours, so the age of an incarnation is a lower bound: it began after the last sweep
//! that saw the one before, and before the first sweep that saw it.

use super::context::Context;
use super::log;
use super::state::State;
use crate::model::fleet::LOOP_WINDOW;
use crate::model::session::OpenedBy;
use crate::model::{
    ConflictBehaviour, EndpointName, EndpointState, EntityRef, FailureKind, Finding, Findings, Incarnation,
    ManagerState, RestartKind, ScaleSet, ScaleSetId, Seen, Span, Sweep, Wall,
};
use crate::policy::Policy;
use std::collections::{BTreeMap, BTreeSet};

/// After this, an incarnation that was refused nothing began after a clean end.
const CLEAN_AFTER: Span = Span::secs(15);
/// A set that is changed has a worker that tries again within this.
const WORKER_RESTARTS_WITHIN: Span = Span::mins(2);
const RESTARTS_KEPT: usize = 32;

/// The manager's present incarnation: by its metrics, else by its log. The first date seen of one start is kept.
pub(super) fn incarnation(sweep: &Sweep, state: &State) -> Option<Incarnation> {
    let by_metrics = sweep.metrics.known().and_then(|metrics| metrics.incarnation);
    // A log may lack a start that the metrics showed: it never moves the incarnation back.
    let by_log = || sweep.log.known().and_then(|log| log.run_started).map(Incarnation).max(state.incarnation);
    let dated = by_metrics.or_else(by_log);
    let kept = state.incarnation.filter(|known| dated.is_none_or(|dated| known.is_same_run(dated)));
    kept.or(dated)
}

/// Notes a new incarnation, and forgets what was known of the old one.
pub(super) fn note_incarnation(state: &mut State, incarnation: Option<Incarnation>, sweep: &Sweep) {
    let now = sweep.at.wall;
    let answers = sweep.scale_sets.known().is_some();
    let was_down = state.answered.is_some() && state.run_seen.is_none();
    match (state.incarnation, incarnation) {
        (Some(known), Some(run)) if run > known => {
            state.incarnation = Some(run);
            forget_incarnation(state);
            state.restarted = Some(run);
            state.restarts.push_back(now);
            if state.restarts.len() > RESTARTS_KEPT {
                state.restarts.pop_front();
            }
        }
        (Some(known), Some(run)) if run < known => {
            state.incarnation = Some(run);
            forget_incarnation(state);
        }
        (None, Some(run)) => state.incarnation = Some(run),
        // No source dates its start. It was down, so what answers now is another incarnation.
        (None, None) if answers && was_down => forget_incarnation(state),
        (Some(_) | None, Some(_) | None) => {}
    }
    match &sweep.scale_sets {
        Seen::Known(_) => {
            state.run_seen.get_or_insert(now);
            state.answered = Some(now);
        }
        Seen::Failed(failure) if failure.kind == FailureKind::Connect && state.incarnation.is_none() => {
            state.answered = Some(now);
            state.run_seen = None;
        }
        Seen::Failed(_) | Seen::NotAsked => {}
    }
}

fn forget_incarnation(state: &mut State) {
    state.scopes.clear();
    state.goroutines = None;
    state.began_after = state.answered;
    state.run_seen = None;
    for set in state.sets.values_mut() {
        set.verdict = None;
        set.conflict_since = None;
        set.log_opened = None;
    }
}

/// Restarts within [`LOOP_WINDOW`].
pub(super) fn restarts(state: &State, now: Wall) -> u32 {
    let lately = state.restarts.iter().filter(|at| now.since(**at) < LOOP_WINDOW);
    u32::try_from(lately.count()).unwrap_or(u32::MAX)
}

/// Reads the counters. Where one goes backwards, this is another incarnation, whose start no source dated.
pub(super) fn read_counters(state: &mut State, sweep: &Sweep) {
    let now = sweep.at.wall;
    if let Some(counted) = sweep.goroutines.known()
        && state.goroutines.is_none_or(|(before, _)| before != *counted)
    {
        state.goroutines = Some((*counted, now));
    }
    let Some(metrics) = sweep.metrics.known() else { return };
    let backwards = state.scopes.iter().any(|(kind, scope)| {
        let counters = metrics.scopes.get(kind).copied().unwrap_or_default();
        counters.create < scope.last.create
            || counters.poll < scope.last.poll
            || counters.delete < scope.last.delete
            || counters.create_errors < scope.last.create_errors
    });
    if backwards {
        forget_incarnation(state);
        state.run_seen = sweep.scale_sets.known().map(|_| now);
    }
    for (kind, counters) in &metrics.scopes {
        state.scopes.entry(*kind).or_default().read(*counters, now);
    }
    state.listener_series |= !metrics.listeners.is_empty();
    state.has_set_gauges = metrics.has_set_gauges;
    if metrics.has_set_gauges {
        state.conflict_behaviour = ConflictBehaviour::Retries;
    }
}

/// How the incarnation before the present one ended: once, as soon as it is known.
pub(super) fn restart(state: &mut State, sweep: &Sweep, context: &Context<'_>) -> Option<(RestartKind, Incarnation)> {
    let run = state.restarted?;
    let refused = state.scopes.values().any(|scope| scope.last.create_errors > 0);
    let left_behind = context.ledger.iter().any(|session| match session.opened_by {
        OpenedBy::Manager(opened_in) => session.ended.is_none() && opened_in < run,
        OpenedBy::UnknownIncarnation | OpenedBy::Medic => false,
    });
    let crash_in_log = sweep.log.known().is_some_and(|log| {
        log.last_panic.is_some_and(|at| at.plus(Span::mins(10)) >= run.0)
            || log::sets(log).any(|set| set.conflicts.is_some())
    });
    let stop_was_logged = sweep.log.known().is_some_and(|log| {
        log.last_stop.is_some_and(|at| at <= run.0.plus(Incarnation::MARGIN) && at.plus(Span::mins(10)) >= run.0)
    });
    let kind = if refused || left_behind || crash_in_log {
        RestartKind::Crash
    } else if stop_was_logged
        || (state.began().is_some_and(|began| sweep.at.wall.since(began) >= CLEAN_AFTER)
            && (sweep.metrics.known().is_some() || sweep.log.known().is_some()))
    {
        RestartKind::Clean
    } else {
        return None;
    };
    state.restarted = None;
    Some((kind, run))
}

pub(super) fn state(sweep: &Sweep, state: &State, policy: &Policy) -> ManagerState {
    // An incarnation without a start date is young only where the one before was seen to end.
    let dated = state.incarnation.is_some() || state.began_after.is_some();
    match &sweep.scale_sets {
        Seen::Known(_) => match state.began().filter(|_| dated) {
            Some(began) if sweep.at.wall.since(began) < policy.settle => ManagerState::Restarted,
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
    let actions_service = sweep.actions_service.values().map(asked);
    let answers: Vec<bool> = sources.into_iter().chain(actions_service).flatten().collect();
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

/// Each endpoint: by our own requests, else by the manager's.
pub(super) fn endpoints(
    sweep: &Sweep,
    sets: &BTreeMap<ScaleSetId, ScaleSet>,
    state: &State,
) -> BTreeMap<EndpointName, EndpointState> {
    let now = sweep.at.wall;
    let names = sets.values().filter_map(|set| set.endpoint.as_ref()).map(|endpoint| &endpoint.name);
    let names: BTreeSet<&EndpointName> =
        names.chain(sweep.actions_service.keys().map(|entity| &entity.endpoint)).collect();
    let state_of = |name: &EndpointName| {
        asked_state(sweep, name).or_else(|| {
            if quota_used_up(sweep, name, now) {
                Some(EndpointState::Limited)
            } else {
                state.pulse_fails(now).then_some(EndpointState::Degraded)
            }
        })
    };
    names.into_iter().filter_map(|name| Some((name.clone(), state_of(name)?))).collect()
}

fn asked_state(sweep: &Sweep, name: &EndpointName) -> Option<EndpointState> {
    let answers: Vec<_> =
        sweep.actions_service.iter().filter(|(entity, _)| entity.endpoint == *name).map(|(_, a)| a).collect();
    let failures: Vec<_> = answers.iter().filter_map(|answer| answer.failure()).collect();
    let known = answers.iter().filter(|answer| answer.known().is_some()).count();
    // A missing permission for one entity is no fault of the endpoint.
    let faults = failures.iter().filter(|failure| is_fault(failure.kind)).count();
    if answers.is_empty() {
        return None;
    }
    Some(if faults == 0 {
        // `HeldBack`: we wait because the endpoint asked us to.
        let limited = |kind: FailureKind| matches!(kind, FailureKind::RateLimited | FailureKind::HeldBack);
        if known == 0 && failures.iter().any(|failure| limited(failure.kind)) {
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

/// Our own requests fail for several entities at once: a fault at GitHub.
pub(super) fn entities_fail(sweep: &Sweep) -> bool {
    let failing =
        sweep.actions_service.values().filter(|answer| answer.failure().is_some_and(|failure| is_fault(failure.kind)));
    failing.count() >= 2
}

/// Sets of several entities conflict, and no restart of the manager explains it
/// (`docs/reference/failure-modes.md` §1b F5). Refusals that name another owner do not count, nor those of a set that was
/// changed around the time at which they began: its worker started late.
pub(super) fn entities_conflict(
    findings: &Findings,
    sets: &BTreeMap<ScaleSetId, ScaleSet>,
    state: &State,
    policy: &Policy,
) -> bool {
    let explained_until = state.began().map(|began| began.plus(policy.stale_session_limit));
    let unexplained = |finding: &&Finding| {
        let known = state.sets.get(&finding.set);
        let Some(since) = known.and_then(|known| known.conflict_since) else { return false };
        let changed = known.and_then(|known| known.revised).into_iter();
        let changed = changed.chain(sets.get(&finding.set).and_then(|set| set.updated_at));
        let worker_restarted = changed
            .into_iter()
            .any(|at| at.plus(WORKER_RESTARTS_WITHIN) >= since && at <= since.plus(WORKER_RESTARTS_WITHIN));
        let foreign = finding.named_owner().is_some_and(|owner| state.owner.as_ref() != Some(owner));
        explained_until.is_some_and(|until| since > until) && !worker_restarted && !foreign
    };
    let conflicting = findings.values().filter(|finding| finding.diagnosis.is_refused_now());
    let entities: BTreeSet<EntityRef> =
        conflicting.filter(unexplained).filter_map(|finding| sets.get(&finding.set)?.entity_ref()).collect();
    entities.len() >= 2
}
