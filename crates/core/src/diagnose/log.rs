//! What the manager's log says about one set: the strongest evidence there is.
//!
//! Only facts of the present incarnation count. An edit restarts a worker that gave up, and the log need not show it:
//! a line that is older than the set's revision proves nothing.

use super::evidence::{Found, SweepEvidence};
use super::state::{RATE_WINDOW, SetState};
use crate::model::log_fact::{ListenerErrorKind, LogEvidence, SetLog};
use crate::model::{Confidence, Diagnosis, Fact, Incarnation, Rule, ScaleSet, Source, Span, Wall, Worker, WorkerState};
use std::collections::BTreeMap;

/// A worker retries every 2 s, plus the time of its requests; after this it no longer counts as retrying.
const RETRY_SEEN: Span = Span::secs(40);
/// A listener that had run waits up to 90 s between two attempts (`docs/reference/garm-api.md` §11.1).
const RETRY_SEEN_AFTER_END: Span = Span::secs(120);
/// When the manager stops a listener it closes the session first; the open poll then fails within this.
const ECHO: Span = Span::secs(5);
/// A failed refresh is retried every minute; without another failure within this it has worked.
const REFRESH_AGAIN: Span = Span::secs(150);
/// Message failures in a row that make a poison message.
const POISON: u32 = 3;

/// The set's facts, if any are of the present incarnation.
pub(super) fn of_set(log: &LogEvidence, set: &ScaleSet) -> Option<SetLog> {
    log.about(set.id, set.entity.as_ref().map(|entity| entity.name.as_str()), set.github_id)
}

/// Whether the log belongs to the manager's present incarnation.
pub(super) fn is_of_incarnation(log: &LogEvidence, incarnation: Option<Incarnation>) -> bool {
    match (log.run_started, incarnation) {
        (Some(started), Some(run)) => started.plus(Incarnation::MARGIN) >= run.0,
        (None, Some(run)) => log.newest.is_some_and(|newest| newest >= run.0),
        (Some(_) | None, None) => true,
    }
}

pub(super) fn sets(log: &LogEvidence) -> impl Iterator<Item = &SetLog> {
    log.by_id.values().chain(log.by_github.values().flat_map(BTreeMap::values))
}

/// The worker, by its latest line.
pub(super) fn worker(set: &SetLog) -> Worker {
    let retrying = set.conflicts.filter(|_| set.gave_up.is_none()).map(|(_, last)| (last, WorkerState::Retrying));
    let candidates = [
        set.gave_up.map(|at| (at, WorkerState::Absent)),
        set.idle.map(|at| (at, WorkerState::Idle)),
        set.started.map(|at| (at, WorkerState::Idle)),
        set.last_closed.map(|at| (at, WorkerState::Idle)),
        retrying,
        set.last_opened.map(|at| (at, WorkerState::Listening)),
        set.last_poll.map(|at| (at, WorkerState::Listening)),
        set.last_job.map(|at| (at, WorkerState::Listening)),
    ];
    let latest = candidates.into_iter().flatten().max_by_key(|(at, _)| *at);
    latest.map_or(Worker::UNKNOWN, |(since, state)| Worker { state, since })
}

/// Sessions opened within the last minute by the log, and the part of that minute that was seen.
pub(super) fn churn(facts: &SetLog, known: &mut SetState, now: Wall) -> Option<(u32, Span)> {
    let kept = known.log_opened.filter(|(at, count)| now.since(*at) <= RATE_WINDOW && *count <= facts.opened_count);
    let Some((from, before)) = kept else {
        known.log_opened = Some((now, facts.opened_count));
        return None;
    };
    Some((facts.opened_count.saturating_sub(before), now.since(from)))
}

/// The diagnosis that the log proves, if it proves one.
pub(super) fn verdict(
    seen: &SweepEvidence<'_>,
    log: &LogEvidence,
    facts: &SetLog,
    set: &ScaleSet,
    churn: Option<(u32, Span)>,
) -> Option<Found> {
    let revised_since = |at: Wall| set.updated_at.is_some_and(|updated| updated > at);
    if let Some((at, kind)) = facts.last_failure
        && is_latest(facts, at)
        && !is_echo(facts, at)
        && let Some(found) = failure(seen, at, kind)
    {
        return Some(found);
    }
    if let Some(found) = flapping(seen, facts, churn) {
        return Some(found);
    }
    if let Some(at) = facts.last_refresh_failure
        && facts.last_opened.is_none_or(|opened| opened < at)
        && seen.now.since(at) < REFRESH_AGAIN
    {
        let fact = Fact::ListenerErrorLine { kind: ListenerErrorKind::SessionExpired };
        return Some(proof(Diagnosis::Evicted, at, fact));
    }
    if let Some(gave_up) = facts.gave_up.filter(|at| !revised_since(*at)) {
        return Some(given_up(seen, facts, gave_up));
    }
    if let Some((first, last)) = facts.conflicts.filter(|_| facts.gave_up.is_none()) {
        return conflict(seen, facts, first, last);
    }
    listening(seen, log, facts)
}

fn proof(diagnosis: Diagnosis, at: Wall, fact: Fact) -> Found {
    Found::new(Rule::Log, (diagnosis, Confidence::Proof), Source::Log, at, fact)
}

/// No sign of life came after `at`.
fn is_latest(facts: &SetLog, at: Wall) -> bool {
    facts.last_sign_of_life().is_none_or(|sign| sign <= at) && facts.gave_up.is_none()
}

/// The failure of a poll whose session the manager has just closed.
fn is_echo(facts: &SetLog, at: Wall) -> bool {
    facts.last_closed.is_some_and(|closed| closed <= at && at.since(closed) <= ECHO)
}

fn failure(seen: &SweepEvidence<'_>, at: Wall, kind: ListenerErrorKind) -> Option<Found> {
    if seen.now.since(at) > RETRY_SEEN {
        return None;
    }
    let diagnosis = match kind {
        ListenerErrorKind::Unauthorized => Diagnosis::Unauthorized,
        ListenerErrorKind::Mismatch => Diagnosis::Mismatched,
        ListenerErrorKind::SessionExpired | ListenerErrorKind::NotFound => Diagnosis::Evicted,
        ListenerErrorKind::Network | ListenerErrorKind::Server | ListenerErrorKind::Other => return None,
    };
    Some(proof(diagnosis, at, Fact::ListenerErrorLine { kind }))
}

fn flapping(seen: &SweepEvidence<'_>, facts: &SetLog, churn: Option<(u32, Span)>) -> Option<Found> {
    let (opened, within) = churn?;
    let limit = u64::from(seen.policy.flapping_per_minute);
    (u64::from(opened) >= limit).then(|| {
        let fact = Fact::SessionChurn { opened: u64::from(opened), within };
        proof(Diagnosis::Flapping, facts.last_opened.unwrap_or(seen.now), fact)
    })
}

fn given_up(seen: &SweepEvidence<'_>, facts: &SetLog, gave_up: Wall) -> Found {
    let found = |diagnosis, fact| proof(diagnosis, gave_up, Fact::GaveUpLine).with(Source::Log, gave_up, fact);
    match facts.gave_up_on {
        None => {
            let owner = facts.conflict_owner.clone();
            let foreign = seen.is_foreign(owner.as_ref());
            let run = facts.conflicts.map_or(Span::ZERO, |(first, last)| last.since(first));
            let diagnosis = if foreign { Diagnosis::HeldElsewhere } else { Diagnosis::ConflictAbandoned };
            found(diagnosis, Fact::ConflictLine { owner, run })
        }
        Some(kind) => {
            let found = found(Diagnosis::StartAbandoned, Fact::ListenerErrorLine { kind });
            if seen.cause_gone { found.with(Source::Metrics, seen.now, Fact::CauseGone) } else { found }
        }
    }
}

fn conflict(seen: &SweepEvidence<'_>, facts: &SetLog, first: Wall, last: Wall) -> Option<Found> {
    let limit = if facts.opened_count > 0 { RETRY_SEEN_AFTER_END } else { RETRY_SEEN };
    if seen.now.since(last) > limit {
        return None;
    }
    // Whether the conflicts last longer than any stale session is judged later, for all sources alike.
    let owner = facts.conflict_owner.clone();
    let foreign = seen.is_foreign(owner.as_ref());
    let diagnosis = if foreign { Diagnosis::HeldElsewhere } else { Diagnosis::ConflictRetrying };
    Some(proof(diagnosis, last, Fact::ConflictLine { owner, run: last.since(first) }))
}

fn listening(seen: &SweepEvidence<'_>, log: &LogEvidence, facts: &SetLog) -> Option<Found> {
    if facts.message_failures >= POISON {
        let fact = Fact::PoisonMessage { failures: facts.message_failures };
        return Some(proof(Diagnosis::Starved, seen.now, fact));
    }
    let sign = facts.last_poll.max(facts.last_job).max(facts.last_opened)?;
    if facts.last_closed.is_some_and(|closed| closed >= sign) || facts.idle.is_some_and(|idle| idle >= sign) {
        return None;
    }
    let ago = seen.now.since(sign);
    if ago < seen.policy.deaf_after {
        let fact = facts.last_poll.map_or(Fact::SessionOpenedLine, |poll| Fact::PollLine { ago: seen.now.since(poll) });
        return Some(proof(Diagnosis::Listening, sign, fact));
    }
    // Silence is proof only where polls are logged and the log still grows.
    let log_goes_on = log.newest.is_some_and(|newest| seen.now.since(newest) < Span::mins(2));
    (log.debug && log_goes_on && facts.last_poll.is_some())
        .then(|| proof(Diagnosis::Deaf, sign, Fact::PollLine { ago }))
}
