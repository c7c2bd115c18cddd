//! What one set's own evidence proves: the first rule that answers decides ([`Rule`] has them in their order). What these
//! rules leave open is left to the counters of the set's scope ([`super::attribute`]).

use super::evidence::{Found, SweepEvidence};
use super::state::SetState;
use super::{log, session_check};
use crate::model::{
    Confidence, Diagnosis, Enablement, Fact, GithubStatistics, Rule, ScaleSet, Source, Span, Wall, Worker, WorkerState,
};

/// A listener's first poll completes within this (`docs/reference/failure-modes.md` §4: 50–90 s when idle).
const FIRST_POLL: Span = Span::secs(120);

/// `None` where the set's own evidence leaves it open.
pub(super) fn own_evidence(seen: &SweepEvidence<'_>, set: &ScaleSet, known: &mut SetState) -> Option<Found> {
    let facts = seen.log.and_then(|log| Some((log, log::of_set(log, set)?)));
    let worker = facts.as_ref().map_or(Worker::UNKNOWN, |(_, facts)| log::worker(facts));
    if set.enabled == Enablement::Disabled {
        return Some(disabled(seen, set, worker));
    }
    if let Some(found) = at_github(seen, set, known) {
        return Some(Found { worker, ..found });
    }
    let by_log = facts.as_ref().and_then(|(log, facts)| {
        let churn = log::churn(facts, known, seen.now);
        log::verdict(seen, log, facts, set, churn)
    });
    let newest = by_log.as_ref().and_then(|found| found.evidence.iter().map(|evidence| evidence.at).max());
    if let Some(found) = session_check::answer(seen, set, newest) {
        return Some(Found { worker, ..found });
    }
    by_log
        .or_else(|| own_series(seen, set, known))
        .map(|found| if worker.since > found.worker.since { Found { worker, ..found } } else { found })
        .or_else(|| (!is_created(set)).then(|| not_created(seen.now)))
}

/// Whether the set exists at GitHub, so that it could hold a session.
fn is_created(set: &ScaleSet) -> bool {
    set.github_id.is_some() && set.entity.is_some()
}

fn not_created(now: Wall) -> Found {
    Found::new(Rule::Created, (Diagnosis::Unknown, Confidence::Weak), Source::Api, now, Fact::NothingToSee)
}

fn disabled(seen: &SweepEvidence<'_>, set: &ScaleSet, worker: Worker) -> Found {
    let treated = seen.context.treatments.iter().any(|row| row.set == set.id && row.may_have_disabled());
    // Every worker but those that gave up lives, and a disabled set's worker runs no listener.
    let all_live =
        seen.goroutines().is_some_and(|counted| counted.workers.saturating_add(seen.given_up) >= seen.total());
    let idle = Worker { state: WorkerState::Idle, since: seen.now };
    let worker = if all_live && worker.state != WorkerState::Idle { idle } else { worker };
    // Where workers are counted and one is missing, its absence is known.
    let worker = match (worker.state, seen.goroutines()) {
        (WorkerState::Unknown, Some(_)) => Worker { state: WorkerState::Absent, ..worker },
        (WorkerState::Unknown, None)
        | (WorkerState::Absent | WorkerState::Idle | WorkerState::Retrying | WorkerState::Listening, _) => worker,
    };
    let (diagnosis, source, fact) = if treated {
        (Diagnosis::DisabledByMedic, Source::Journal, Fact::DisabledByTreatment)
    } else {
        (Diagnosis::Disabled, Source::Api, Fact::Disabled)
    };
    Found { worker, ..Found::new(Rule::Enabled, (diagnosis, Confidence::Proof), source, seen.now, fact) }
}

fn at_github(seen: &SweepEvidence<'_>, set: &ScaleSet, known: &mut SetState) -> Option<Found> {
    let list = seen.lists.of_set(set)?;
    let github_id = set.github_id?;
    if list.find(github_id).is_some() {
        known.missing_since = None;
        return None;
    }
    let since = known.missing_since.filter(|(id, _)| *id == github_id).map_or(seen.now, |(_, since)| since);
    known.missing_since = Some((github_id, since));
    if seen.now.since(since) < seen.policy.missing_after {
        return None;
    }
    let fact = Fact::GithubLacksSet { since };
    let missing =
        Found::new(Rule::GithubList, (Diagnosis::Missing, Confidence::Proof), Source::ActionsService, seen.now, fact);
    Some(match list.find_by_name(&set.name) {
        Some(other) => Found {
            diagnosis: Diagnosis::Mismatched,
            ..missing.with(Source::ActionsService, seen.now, Fact::GithubOtherId { id: other.id })
        },
        None => missing,
    })
}

/// The metrics of the set's own listener, where the build exports them.
fn own_series(seen: &SweepEvidence<'_>, set: &ScaleSet, known: &SetState) -> Option<Found> {
    let metrics = seen.metrics()?;
    let changed = seen.changed(set, Some(known)).map_or(Span::MAX, |at| seen.now.since(at));
    let last = metrics.listeners.get(&set.id).and_then(|listener| listener.last_success);
    let last = last.filter(|at| seen.fleet.incarnation.is_none_or(|incarnation| *at >= incarnation.0));
    if let Some(at) = last {
        let ago = seen.now.since(at);
        let fact = Fact::LastPoll { ago };
        let found = |diagnosis| {
            let proven = (diagnosis, Confidence::Proof);
            Found::new(Rule::ListenerMetrics, proven, Source::ListenerMetrics, at, fact.clone())
                .working(WorkerState::Listening, at)
        };
        return if ago < seen.policy.deaf_after {
            Some(found(Diagnosis::Listening))
        } else if changed >= seen.policy.deaf_after {
            Some(found(Diagnosis::Deaf))
        } else {
            // This poll began before the change; the listener of after it has not completed one yet.
            None
        };
    }
    // A worker that has never polled in this incarnation, in a build that would show its polls: not before its first
    // poll had the time to complete, and only while the manager is being refused.
    let exported = seen.listener_series && !metrics.listeners.is_empty();
    let scope = seen.scopes.get(&set.entity.as_ref()?.kind)?;
    let in_time =
        seen.age().min(changed) < FIRST_POLL || scope.open.is_none_or(|(_, at)| seen.now.since(at) < FIRST_POLL);
    (exported && !in_time && scope.is_growing(seen.now)).then(|| {
        let refused = (Diagnosis::ConflictRetrying, Confidence::Strong);
        Found::new(Rule::ListenerMetrics, refused, Source::ListenerMetrics, seen.now, Fact::NoListenerSeries)
            .working(WorkerState::Retrying, scope.errors_moved)
    })
}

/// Notes since when jobs of the set wait and nothing moves: no job starts, no runner comes, the queue does not shrink.
/// A busy set always has waiting jobs; it is starved only when it stands still.
pub(super) fn waiting_jobs(seen: &SweepEvidence<'_>, set: &ScaleSet, known: &mut SetState) -> Option<Fact> {
    let statistics = seen.lists.of_set(set)?.find(set.github_id?)?.statistics?;
    let waiting = |counts: &GithubStatistics| counts.assigned_jobs.saturating_sub(counts.running_jobs);
    let room = u64::from(set.max_runners).saturating_sub(statistics.busy_runners);
    if waiting(&statistics) == 0 || room == 0 {
        known.jobs_wait = None;
        return None;
    }
    let still = known.jobs_wait.filter(|(_, before)| {
        waiting(&statistics) >= waiting(before)
            && statistics.running_jobs <= before.running_jobs
            && statistics.registered_runners <= before.registered_runners
    });
    let since = still.map_or(seen.now, |(since, _)| since);
    known.jobs_wait = Some((since, statistics));
    let waiting = waiting(&statistics);
    (seen.now.since(since) >= seen.policy.starved_after).then_some(Fact::JobsWait { waiting, since })
}
