//! The manager and the forge's endpoints as wholes.
//!
//! Rules. A refused connection means *down*; anything else that is no answer means *unreachable*: a manager that
//! cannot be asked is neither ill nor well, and its sets are `unknown`. A run is the same as long as its start date is
//! the same, give or take a second or two ([`Incarnation::is_same_run`]); counters that go backwards within one are a new
//! run too. How the run before ended is told once it can be told: a crash leaves sessions behind, so the new run is
//! refused, or the ledger knows a living one of the old run.
//!
//! How old a run is decides what it may be blamed for, and the manager's clock need not be ours. So its age is a lower
//! bound: the run began no earlier than our last look at the one before, and no later than our first look at it.

use super::Context;
use super::memory::Memory;
use crate::model::session::OpenedBy;
use crate::model::{
    ConflictBehaviour, Diagnosis, EndpointName, EndpointState, EntityRef, Fact, FailureKind, Finding, Findings,
    Incarnation, ManagerState, Owner, RestartKind, ScaleSet, ScaleSetId, Seen, Span, Sweep, Wall,
};
use crate::policy::Policy;
use std::collections::{BTreeMap, BTreeSet};

/// After this, a run that was refused nothing began after a clean end.
const TELL_AFTER: Span = Span::secs(15);
/// A failure of the manager's own pulse (asked every 30 s) that is older than this is over.
const PULSE: Span = Span::secs(45);
/// A set that is changed has a worker that tries again within this.
const REVIVAL: Span = Span::mins(2);
const RESTARTS_KEPT: usize = 32;
/// Restarts are counted over this.
pub const LOOP_WINDOW: Span = Span::mins(15);
/// So many restarts within [`LOOP_WINDOW`] are a crash loop.
pub const CRASH_LOOP: u32 = 3;

/// The manager's present run: by its metrics, else by its log. One start known twice keeps its first date.
pub(super) fn incarnation(sweep: &Sweep, memory: &Memory) -> Option<Incarnation> {
    let by_metrics = sweep.metrics.known().and_then(|metrics| metrics.incarnation);
    // A log may have missed a start that the metrics showed: it only ever moves the run on.
    let by_log = || sweep.log.known().and_then(|log| log.run_started).map(Incarnation).max(memory.incarnation);
    let told = by_metrics.or_else(by_log);
    let kept = memory.incarnation.filter(|known| told.is_none_or(|told| known.is_same_run(told)));
    kept.or(told)
}

/// Notes a new run: what was known of the old one says nothing any more.
pub(super) fn note_run(memory: &mut Memory, incarnation: Option<Incarnation>, sweep: &Sweep) {
    let now = sweep.at.wall;
    let answers = sweep.scale_sets.known().is_some();
    let was_down = memory.answered.is_some() && memory.run_seen.is_none();
    match (memory.incarnation, incarnation) {
        (Some(known), Some(run)) if run > known => {
            memory.incarnation = Some(run);
            forget_run(memory);
            memory.restarted = Some(run);
            memory.restarts.push_back(now);
            if memory.restarts.len() > RESTARTS_KEPT {
                memory.restarts.pop_front();
            }
        }
        (Some(known), Some(run)) if run < known => {
            memory.incarnation = Some(run);
            forget_run(memory);
        }
        (None, Some(run)) => memory.incarnation = Some(run),
        // Nobody tells its start. It was down, so what answers now is another run.
        (None, None) if answers && was_down => forget_run(memory),
        (Some(_) | None, Some(_) | None) => {}
    }
    match &sweep.scale_sets {
        Seen::Known(_) => {
            memory.run_seen.get_or_insert(now);
            memory.answered = Some(now);
        }
        Seen::Failed(failure) if failure.kind == FailureKind::Connect && memory.incarnation.is_none() => {
            memory.answered = Some(now);
            memory.run_seen = None;
        }
        Seen::Failed(_) | Seen::NotAsked => {}
    }
}

fn forget_run(memory: &mut Memory) {
    memory.scopes.clear();
    memory.goroutines = None;
    memory.began_after = memory.answered;
    memory.run_seen = None;
    for set in memory.sets.values_mut() {
        set.verdict = None;
        set.conflict_since = None;
        set.log_opened = None;
    }
}

/// Restarts within [`LOOP_WINDOW`].
pub(super) fn restarts(memory: &Memory, now: Wall) -> u32 {
    let lately = memory.restarts.iter().filter(|at| now.since(**at) < LOOP_WINDOW);
    u32::try_from(lately.count()).unwrap_or(u32::MAX)
}

/// The latest date at which the present run can have begun, by our own clock as far as it tells.
pub(super) fn began(memory: &Memory) -> Option<Wall> {
    let told = memory.incarnation.map(|run| run.0.max(memory.began_after.unwrap_or(Wall(0))));
    match (told, memory.run_seen) {
        (Some(told), Some(seen)) => Some(told.min(seen)),
        (Some(date), None) | (None, Some(date)) => Some(date),
        (None, None) => None,
    }
}

/// Reads the counters; ones that go backwards belong to another run, whose start nobody told.
pub(super) fn read_counters(memory: &mut Memory, sweep: &Sweep) {
    let now = sweep.at.wall;
    if let Some(counted) = sweep.goroutines.known()
        && memory.goroutines.is_none_or(|(before, _)| before != *counted)
    {
        memory.goroutines = Some((*counted, now));
    }
    let Some(metrics) = sweep.metrics.known() else { return };
    let backwards = memory.scopes.iter().any(|(kind, scope)| {
        let counters = metrics.scopes.get(kind).copied().unwrap_or_default();
        counters.create < scope.last.create
            || counters.poll < scope.last.poll
            || counters.delete < scope.last.delete
            || counters.create_errors < scope.last.create_errors
    });
    if backwards {
        forget_run(memory);
        memory.run_seen = sweep.scale_sets.known().map(|_| now);
    }
    for (kind, counters) in &metrics.scopes {
        memory.scopes.entry(*kind).or_default().read(*counters, now);
    }
    memory.listener_series |= !metrics.listeners.is_empty();
    memory.has_set_gauges = metrics.has_set_gauges;
    if metrics.has_set_gauges {
        memory.conflict_behaviour = ConflictBehaviour::Retries;
    }
}

/// How the run before the present one ended, once, as soon as it can be told.
pub(super) fn restart(memory: &mut Memory, sweep: &Sweep, context: &Context<'_>) -> Option<(RestartKind, Incarnation)> {
    let run = memory.restarted?;
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
                .chain(log.by_github.values().flat_map(BTreeMap::values))
                .any(|set| set.conflicts.is_some())
    });
    let said_goodbye = sweep.log.known().is_some_and(|log| {
        log.last_stop.is_some_and(|at| at <= run.0.plus(Incarnation::MARGIN) && at.plus(Span::mins(10)) >= run.0)
    });
    let kind = if refused || left_behind || conflict {
        RestartKind::Crash
    } else if said_goodbye
        || (began(memory).is_some_and(|began| sweep.at.wall.since(began) >= TELL_AFTER)
            && (sweep.metrics.known().is_some() || sweep.log.known().is_some()))
    {
        RestartKind::Clean
    } else {
        return None;
    };
    memory.restarted = None;
    Some((kind, run))
}

pub(super) fn state(sweep: &Sweep, memory: &Memory, policy: &Policy) -> ManagerState {
    // A run whose start nobody tells is young only where the one before was seen to end.
    let dated = memory.incarnation.is_some() || memory.began_after.is_some();
    match &sweep.scale_sets {
        Seen::Known(_) => match began(memory).filter(|_| dated) {
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
    sets: &BTreeMap<ScaleSetId, ScaleSet>,
    memory: &Memory,
) -> BTreeMap<EndpointName, EndpointState> {
    let now = sweep.at.wall;
    let names = sets.values().filter_map(|set| set.endpoint.as_ref()).map(|endpoint| &endpoint.name);
    let names: BTreeSet<&EndpointName> = names.chain(sweep.broker.keys().map(|entity| &entity.endpoint)).collect();
    let state = |name: &EndpointName| {
        asked_state(sweep, name).or_else(|| {
            if quota_used_up(sweep, name, now) {
                Some(EndpointState::Limited)
            } else {
                pulse_fails(memory, now).then_some(EndpointState::Degraded)
            }
        })
    };
    names.into_iter().filter_map(|name| Some((name.clone(), state(name)?))).collect()
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
        // Also when we hold ourselves back, because it asked us to.
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

/// Whether the manager's own calls to its endpoints fail now.
pub(super) fn pulse_fails(memory: &Memory, now: Wall) -> bool {
    memory.scopes.values().any(|scope| now.since(scope.pulse_moved) < PULSE)
}

/// Several entities fail at once, by our own questions: not one of them, but GitHub.
pub(super) fn entities_fail(sweep: &Sweep) -> bool {
    let failing = sweep.broker.values().filter(|answer| answer.failure().is_some_and(|failure| is_fault(failure.kind)));
    failing.count() >= 2
}

/// Sets of several entities conflict, and no restart of the manager explains it
/// (`docs/reference/failure-modes.md` §1b F5). A refusal that names another owner is that owner's doing, and a set that
/// was changed just before the run of conflicts began has a worker that came to it late.
pub(super) fn entities_conflict(
    findings: &Findings,
    sets: &BTreeMap<ScaleSetId, ScaleSet>,
    memory: &Memory,
    policy: &Policy,
) -> bool {
    let explained_until = began(memory).map(|began| began.plus(policy.stale_session_limit));
    let unexplained = |finding: &&Finding| {
        let known = memory.sets.get(&finding.set);
        let Some(since) = known.and_then(|known| known.conflict_since) else { return false };
        let changed = known.and_then(|known| known.revised).into_iter();
        let changed = changed.chain(sets.get(&finding.set).and_then(|set| set.updated_at));
        let revived = changed.into_iter().any(|at| at.plus(REVIVAL) >= since && at <= since.plus(REVIVAL));
        let foreign = named_owner(finding).is_some_and(|owner| memory.owner.as_ref() != Some(owner));
        explained_until.is_some_and(|until| since > until) && !revived && !foreign
    };
    let conflicting = findings
        .values()
        .filter(|finding| matches!(finding.diagnosis, Diagnosis::ConflictRetrying | Diagnosis::HeldElsewhere));
    let entities: BTreeSet<EntityRef> =
        conflicting.filter(unexplained).filter_map(|finding| sets.get(&finding.set)?.entity_ref()).collect();
    entities.len() >= 2
}

fn named_owner(finding: &Finding) -> Option<&Owner> {
    finding.evidence.iter().find_map(|evidence| {
        if let Fact::ConflictLine { owner, .. } | Fact::CheckRefused { owner } = &evidence.fact {
            owner.as_ref()
        } else {
            None
        }
    })
}
