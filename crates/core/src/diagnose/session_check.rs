//! What the answer of a session check shows, and for how long: until anything newer is known of the set.

use super::context::CheckAnswer;
use super::evidence::{Found, SweepEvidence};
use crate::model::{Confidence, Diagnosis, Fact, Owner, Rule, ScaleSet, Source, Wall};

/// `newest` is the date of the newest evidence in the log: a check that is older is not used.
pub(super) fn answer(seen: &SweepEvidence<'_>, set: &ScaleSet, newest: Option<Wall>) -> Option<Found> {
    let (at, answer) = seen.context.checks.get(&set.id)?;
    let of_incarnation = seen.fleet.incarnation.is_none_or(|incarnation| *at >= incarnation.0);
    if !of_incarnation || !is_current(seen, set, *at) || newest.is_some_and(|newest| newest > *at) {
        return None;
    }
    let found = |diagnosis, fact| Found::new(Rule::SessionCheck, diagnosis, Source::Journal, *at, fact);
    match answer {
        // The counters or the set's own listener show a session opened since: perhaps it is this set's.
        CheckAnswer::Unheld if opened_since(seen, set, *at) => None,
        CheckAnswer::Unheld => Some(found((Diagnosis::Unheld, Confidence::Strong), Fact::CheckOpened)),
        CheckAnswer::Held { owner } => seen
            .is_foreign(owner.as_ref())
            .then(|| found((Diagnosis::HeldElsewhere, Confidence::Proof), Fact::CheckRefused { owner: owner.clone() })),
    }
}

/// Whether a session check found a holder that no crash explains: it asked when every stale session had ended, and
/// nothing of the set has changed since. [`answer`] finds a foreign owner; this one may well be the manager.
pub(super) fn is_held_by_somebody(seen: &SweepEvidence<'_>, set: &ScaleSet) -> bool {
    let Some((at, CheckAnswer::Held { owner })) = seen.context.checks.get(&set.id) else { return false };
    if owner.as_ref().is_some_and(Owner::is_of_a_session_check) {
        return false;
    }
    let explained = seen.began.is_none_or(|began| *at <= began.plus(seen.policy.stale_session_limit));
    !explained && is_current(seen, set, *at)
}

fn is_current(seen: &SweepEvidence<'_>, set: &ScaleSet, at: Wall) -> bool {
    let changed = set.updated_at.is_some_and(|updated| updated > at);
    !changed && seen.now.since(at) <= seen.policy.stale_session_limit
}

fn opened_since(seen: &SweepEvidence<'_>, set: &ScaleSet, at: Wall) -> bool {
    let polled = seen
        .metrics()
        .and_then(|metrics| metrics.listeners.get(&set.id)?.last_success)
        .is_some_and(|success| success > at);
    let scope = set.entity.as_ref().and_then(|entity| seen.scopes.get(&entity.kind));
    polled || scope.is_some_and(|scope| scope.grown_since(at) > 0)
}
