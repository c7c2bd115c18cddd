//! What the manager's log says about one set: the strongest evidence there is.
//!
//! Only facts of the present run count. A worker that gave up may have been revived by an edit that the log does not
//! show at its level: then the set's revision is younger than the line, and the line proves nothing any more.

use super::memory::{RATE_WINDOW, SetMemory};
use super::rules::Found;
use crate::model::log_fact::{ListenerErrorKind, LogEvidence, SetLog};
use crate::model::{
    Confidence, Diagnosis, Evidence, Fact, Incarnation, Owner, ScaleSet, Source, Span, Wall, WorkerState,
};
use crate::policy::Policy;

/// A worker that retries does so every 2 s, plus the time of its requests; after this it is not seen to retry.
const RETRY_SEEN: Span = Span::secs(40);
/// A listener that had run waits up to 90 s between two attempts (`docs/reference/garm-api.md` §11.1).
const RETRY_SEEN_AFTER_END: Span = Span::secs(120);
/// A listener that the manager stops ends its session first; the poll that is still under way then fails, this soon.
const ECHO: Span = Span::secs(5);
/// A refresh that fails is tried again every minute; without another failure within this, it has worked since.
const REFRESH_AGAIN: Span = Span::secs(150);
/// Message failures in a row that make a poison message.
const POISON: u32 = 3;

/// What a pass knows that bears on a line.
pub(super) struct Scene<'a> {
    pub now: Wall,
    pub owner: Option<&'a Owner>,
    pub cause_gone: bool,
    /// Sessions opened within the last minute, by the log.
    pub churn: Option<(u32, Span)>,
    pub policy: &'a Policy,
}

/// The set's facts, if any are of the present run.
pub(super) fn of_set(log: &LogEvidence, set: &ScaleSet) -> Option<SetLog> {
    log.about(set.id, set.entity.as_ref().map(|entity| entity.name.as_str()), set.github_id)
}

/// Whether the log belongs to the manager's present run.
pub(super) fn is_of_run(log: &LogEvidence, incarnation: Option<Incarnation>) -> bool {
    match (log.run_started, incarnation) {
        (Some(started), Some(run)) => started.plus(Incarnation::MARGIN) >= run.0,
        (None, Some(run)) => log.newest.is_some_and(|newest| newest >= run.0),
        (Some(_) | None, None) => true,
    }
}

/// The worker, by its latest line.
pub(super) fn worker(set: &SetLog) -> (WorkerState, Wall) {
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
    latest.map_or((WorkerState::Unknown, Wall(0)), |(at, state)| (state, at))
}

/// Sessions opened lately by the log, and within which time.
pub(super) fn churn(facts: &SetLog, known: &mut SetMemory, now: Wall) -> Option<(u32, Span)> {
    let kept = known.log_opened.filter(|(at, count)| now.since(*at) <= RATE_WINDOW && *count <= facts.opened_count);
    let Some((from, before)) = kept else {
        known.log_opened = Some((now, facts.opened_count));
        return None;
    };
    Some((facts.opened_count.saturating_sub(before), now.since(from)))
}

/// The diagnosis that the log proves, if it proves one.
pub(super) fn verdict(log: &LogEvidence, facts: &SetLog, set: &ScaleSet, scene: &Scene<'_>) -> Option<Found> {
    let revised_since = |at: Wall| set.updated_at.is_some_and(|updated| updated > at);
    if let Some((at, kind)) = facts.last_failure
        && is_latest(facts, at)
        && !is_echo(facts, at)
        && let Some(found) = failure(at, kind, scene)
    {
        return Some(found);
    }
    if let Some(found) = flapping(facts, scene) {
        return Some(found);
    }
    if let Some(at) = facts.last_refresh_failure
        && facts.last_opened.is_none_or(|opened| opened < at)
        && scene.now.since(at) < REFRESH_AGAIN
    {
        let fact = Fact::ListenerErrorLine { kind: ListenerErrorKind::SessionExpired };
        return Some(Found::new(Diagnosis::Evicted, Confidence::Proof, at, Source::Log, fact));
    }
    if let Some(gave_up) = facts.gave_up.filter(|at| !revised_since(*at)) {
        return Some(given_up(facts, gave_up, scene));
    }
    if let Some((first, last)) = facts.conflicts.filter(|_| facts.gave_up.is_none()) {
        return conflict(facts, first, last, scene);
    }
    listening(log, facts, scene)
}

/// No sign of life came after `at`.
fn is_latest(facts: &SetLog, at: Wall) -> bool {
    facts.last_sign_of_life().is_none_or(|sign| sign <= at) && facts.gave_up.is_none()
}

/// The failure of a poll whose session the manager itself has just closed.
fn is_echo(facts: &SetLog, at: Wall) -> bool {
    facts.last_closed.is_some_and(|closed| closed <= at && at.since(closed) <= ECHO)
}

fn failure(at: Wall, kind: ListenerErrorKind, scene: &Scene<'_>) -> Option<Found> {
    if scene.now.since(at) > RETRY_SEEN {
        return None;
    }
    let diagnosis = match kind {
        ListenerErrorKind::Unauthorized => Diagnosis::Unauthorized,
        ListenerErrorKind::Mismatch => Diagnosis::Mismatched,
        ListenerErrorKind::SessionExpired | ListenerErrorKind::NotFound => Diagnosis::Evicted,
        ListenerErrorKind::Network | ListenerErrorKind::Server | ListenerErrorKind::Other => return None,
    };
    Some(Found::new(diagnosis, Confidence::Proof, at, Source::Log, Fact::ListenerErrorLine { kind }))
}

fn flapping(facts: &SetLog, scene: &Scene<'_>) -> Option<Found> {
    let (opened, within) = scene.churn?;
    let limit = u64::from(scene.policy.flapping_per_minute);
    (u64::from(opened) >= limit).then(|| {
        let fact = Fact::SessionChurn { opened: u64::from(opened), within };
        let at = facts.last_opened.unwrap_or(scene.now);
        Found::new(Diagnosis::Flapping, Confidence::Proof, at, Source::Log, fact)
    })
}

fn given_up(facts: &SetLog, gave_up: Wall, scene: &Scene<'_>) -> Found {
    let line = Evidence { source: Source::Log, at: gave_up, fact: Fact::GaveUpLine };
    match facts.gave_up_on {
        None => {
            let owner = facts.conflict_owner.clone();
            let run = facts.conflicts.map_or(Span::ZERO, |(first, last)| last.since(first));
            let foreign = is_foreign(facts, scene);
            let diagnosis = if foreign { Diagnosis::HeldElsewhere } else { Diagnosis::ConflictAbandoned };
            Found::new(diagnosis, Confidence::Proof, gave_up, Source::Log, Fact::GaveUpLine).with(
                Source::Log,
                gave_up,
                Fact::ConflictLine { owner, run },
            )
        }
        Some(kind) => {
            let mut found = Found::new(Diagnosis::StartAbandoned, Confidence::Proof, gave_up, Source::Log, line.fact)
                .with(Source::Log, gave_up, Fact::ListenerErrorLine { kind });
            if scene.cause_gone {
                found = found.with(Source::Metrics, scene.now, Fact::CauseGone);
            }
            found
        }
    }
}

fn conflict(facts: &SetLog, first: Wall, last: Wall, scene: &Scene<'_>) -> Option<Found> {
    let seen = if facts.opened_count > 0 { RETRY_SEEN_AFTER_END } else { RETRY_SEEN };
    if scene.now.since(last) > seen {
        return None;
    }
    let run = last.since(first);
    // A run that is too long for a stale session is judged where runs are measured, whatever tells of them.
    let diagnosis = if is_foreign(facts, scene) { Diagnosis::HeldElsewhere } else { Diagnosis::ConflictRetrying };
    let fact = Fact::ConflictLine { owner: facts.conflict_owner.clone(), run };
    Some(Found::new(diagnosis, Confidence::Proof, last, Source::Log, fact))
}

/// Whether a refusal named another owner.
fn is_foreign(facts: &SetLog, scene: &Scene<'_>) -> bool {
    facts.conflict_owner.as_ref().is_some_and(|owner| scene.owner.is_some_and(|ours| owner.is_foreign_to(ours)))
}

fn listening(log: &LogEvidence, facts: &SetLog, scene: &Scene<'_>) -> Option<Found> {
    if facts.message_failures >= POISON {
        let fact = Fact::PoisonMessage { failures: facts.message_failures };
        return Some(Found::new(Diagnosis::Starved, Confidence::Proof, scene.now, Source::Log, fact));
    }
    let sign = facts.last_poll.max(facts.last_job).max(facts.last_opened)?;
    if facts.last_closed.is_some_and(|closed| closed >= sign) || facts.idle.is_some_and(|idle| idle >= sign) {
        return None;
    }
    let ago = scene.now.since(sign);
    if ago < scene.policy.deaf_after {
        let fact =
            facts.last_poll.map_or(Fact::SessionOpenedLine, |poll| Fact::PollLine { ago: scene.now.since(poll) });
        return Some(Found::new(Diagnosis::Listening, Confidence::Proof, sign, Source::Log, fact));
    }
    // Silence proves deafness only where polls are logged and the log itself goes on.
    let log_goes_on = log.newest.is_some_and(|newest| scene.now.since(newest) < Span::mins(2));
    (log.debug && log_goes_on && facts.last_poll.is_some())
        .then(|| Found::new(Diagnosis::Deaf, Confidence::Proof, sign, Source::Log, Fact::PollLine { ago }))
}
