//! Disable, wait for the worker, enable: a set is never left disabled (design §7).
//!
//! Rules. Between the two writes the journal says which change of the set is ours, by the manager's `updated_at`.
//! A set is enabled only if it is disabled *by that very change*; any other change is somebody's decision, and we
//! yield. A disable whose answer was lost is settled by reading: it is ours if the change is dated close after the
//! sending. The enable is tried until it is seen to have worked, however long that takes.
//!
//! Edge cases: a person who disables the set in the moment between our look and our write makes our write a no-op,
//! whose answer shows *their* change: it is told by its date. A disable that was lost on the way may still take
//! effect late: only after [`LATE`] is it taken for lost.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

use super::machine::{
    Answer, Effect, Input, SetView, Transition, View, answers, ask, close, failure, go, next_attempt, other_run, stay,
};
use super::ports::WriteError;
use crate::decide::policy::Policy;
use crate::model::{
    Diagnosis, Enablement, FailureKind, Outcome, Revision, ScaleSet, Span, Step, Treatment, Wall, WorkerState,
};

/// A disable that took effect did so within this after it was sent.
pub const LATE: Span = Span::secs(30);

/// The two clocks, ours and the manager's, differ by less than this.
pub const SKEW: Span = Span::secs(2);

const GONE: &str = "the scale set was removed from the manager meanwhile";
const PERSON: &str = "somebody else changed the scale set meanwhile; it is theirs";

/// About to disable.
pub(super) fn disabling(treatment: &Treatment, seen: &Revision, input: Input<'_>, now: Wall) -> Transition {
    let sent = treatment.step_at;
    let unknown = |note: String| {
        go(treatment, Step::DisableUnknown { seen: seen.clone(), sent }, now, note).then(Effect::ReadSet)
    };
    match input {
        Input::Sweep(view) => before_disable(treatment, seen, &view, now),
        Input::Answer(Answer::Disabled(Ok(set))) => match set.enabled {
            Enablement::Disabled if is_dated_ours(&set, sent) => {
                go(treatment, Step::Disabled { ours: set.revision }, now, "disabled")
            }
            Enablement::Disabled => close(treatment, Outcome::Yielded, now, PERSON),
            Enablement::Enabled => unknown("the answer to the disable shows the set enabled".to_owned()),
        },
        Input::Answer(Answer::Disabled(Err(WriteError::NotApplied(failure)))) => {
            close(treatment, Outcome::Failed, now, format!("the disable was refused, nothing was changed: {failure}"))
        }
        Input::Answer(Answer::Disabled(Err(WriteError::Unknown(failure)))) => {
            unknown(format!("whether the disable took effect is not known: {failure}"))
        }
        Input::Recover | Input::Shutdown => unknown("the disable may have been sent".to_owned()),
        Input::Answer(_) => stay(treatment),
    }
}

fn before_disable(treatment: &Treatment, seen: &Revision, view: &View<'_>, now: Wall) -> Transition {
    let set = match view.set {
        SetView::Seen(set) if answers(view) => set,
        SetView::Gone => return close(treatment, Outcome::Yielded, now, GONE),
        SetView::Seen(_) | SetView::Unseen => {
            return close(treatment, Outcome::Yielded, now, "the manager went away before anything was sent");
        }
    };
    if other_run(treatment, view) {
        return close(treatment, Outcome::Yielded, now, "the manager restarted before anything was sent");
    }
    if set.enabled == Enablement::Disabled || set.revision != *seen {
        return close(treatment, Outcome::Yielded, now, PERSON);
    }
    if view.finding.is_some_and(|finding| finding.diagnosis == Diagnosis::Listening) {
        return close(treatment, Outcome::SelfRecovered, now, "it listens again; nothing was sent");
    }
    ask(treatment, Effect::Disable)
}

/// A disable was sent, and its answer was lost.
pub(super) fn disable_unknown(
    treatment: &Treatment,
    seen: &Revision,
    sent: Wall,
    input: Input<'_>,
    now: Wall,
) -> Transition {
    match input {
        Input::Sweep(View { set: SetView::Seen(set), .. }) => settle_disable(treatment, seen, sent, set, now),
        Input::Answer(Answer::Read(Ok(Some(set)))) => settle_disable(treatment, seen, sent, &set, now),
        Input::Sweep(View { set: SetView::Gone, .. }) | Input::Answer(Answer::Read(Ok(None))) => {
            close(treatment, Outcome::Yielded, now, GONE)
        }
        Input::Recover | Input::Shutdown => ask(treatment, Effect::ReadSet),
        Input::Sweep(View { set: SetView::Unseen, .. }) | Input::Answer(_) => stay(treatment),
    }
}

fn settle_disable(treatment: &Treatment, seen: &Revision, sent: Wall, set: &ScaleSet, now: Wall) -> Transition {
    match set.enabled {
        Enablement::Enabled if set.revision != *seen => close(treatment, Outcome::Yielded, now, PERSON),
        Enablement::Enabled if now.since(sent) < LATE => stay(treatment),
        Enablement::Enabled => {
            close(treatment, Outcome::Failed, now, "the disable never took effect; nothing was changed")
        }
        Enablement::Disabled if is_dated_ours(set, sent) => {
            go(treatment, Step::Disabled { ours: set.revision.clone() }, now, "the disable had taken effect")
        }
        Enablement::Disabled => close(treatment, Outcome::Yielded, now, PERSON),
    }
}

/// Whether the set's last change is dated as our disable would be.
fn is_dated_ours(set: &ScaleSet, sent: Wall) -> bool {
    set.updated_at.is_some_and(|at| at >= sent.minus(SKEW) && at <= sent.plus(LATE))
}

/// Disabled by us.
pub(super) fn disabled(
    treatment: &Treatment,
    ours: &Revision,
    input: &Input<'_>,
    now: Wall,
    policy: &Policy,
) -> Transition {
    let enable = |note: &str| {
        let step = Step::Enabling { ours: ours.clone(), attempts: 0, not_before: now };
        go(treatment, step, now, note).then(Effect::ReadSet)
    };
    match input {
        Input::Sweep(view) => match compare(treatment, ours, view, now) {
            Compared::Ours if is_due(treatment, view, now, policy) => enable("the worker is due"),
            Compared::Ours | Compared::Unseen => stay(treatment),
            Compared::Over(transition) => *transition,
        },
        Input::Shutdown => enable("the medic ends: enabling now"),
        Input::Recover | Input::Answer(_) => stay(treatment),
    }
}

/// An enable that comes before the new worker exists is lost on older GARM: wait for evidence of it where there is
/// any, else for a time.
fn is_due(treatment: &Treatment, view: &View<'_>, now: Wall, policy: &Policy) -> bool {
    let waited = now.since(treatment.step_at);
    let worker = view.finding.map_or((WorkerState::Unknown, Wall(0)), |finding| finding.worker);
    let (state, at) = worker;
    let seen_since = at >= treatment.step_at;
    let enough = match state {
        WorkerState::Idle | WorkerState::Retrying | WorkerState::Listening if seen_since => Span::ZERO,
        WorkerState::Unknown => policy.toggle_gap,
        WorkerState::Idle | WorkerState::Retrying | WorkerState::Listening | WorkerState::Absent => {
            policy.toggle_gap_limit
        }
    };
    waited >= enough.min(policy.disabled_limit)
}

/// About to enable: always read first, enable only what is disabled by us.
pub(super) fn enabling(
    treatment: &Treatment,
    (ours, attempts, not_before): (&Revision, u32, Wall),
    input: Input<'_>,
    now: Wall,
) -> Transition {
    let again = |attempts: u32, retry_at: Option<Wall>, note: String| {
        let not_before = next_attempt(attempts, retry_at, now);
        go(treatment, Step::Enabling { ours: ours.clone(), attempts, not_before }, now, note)
    };
    match input {
        Input::Sweep(view) => match compare(treatment, ours, &view, now) {
            Compared::Ours if now >= not_before => ask(treatment, Effect::ReadSet),
            Compared::Ours | Compared::Unseen => stay(treatment),
            Compared::Over(transition) => *transition,
        },
        Input::Shutdown | Input::Recover => ask(treatment, Effect::ReadSet),
        Input::Answer(Answer::Read(Ok(Some(set)))) => match compare_set(treatment, ours, &set, now) {
            Compared::Ours => {
                let step = Step::Enabling { ours: ours.clone(), attempts: attempts.saturating_add(1), not_before };
                go(treatment, step, now, "enabling").then(Effect::Enable)
            }
            Compared::Over(transition) => *transition,
            Compared::Unseen => stay(treatment),
        },
        Input::Answer(Answer::Read(Ok(None))) => close(treatment, Outcome::Yielded, now, GONE),
        Input::Answer(Answer::Read(Err(error))) => {
            again(attempts, error.retry_at, format!("the set cannot be read before it is enabled: {error}"))
        }
        Input::Answer(Answer::Enabled(Ok(set))) => match set.enabled {
            Enablement::Enabled => go(treatment, Step::Verifying, now, "enabled"),
            Enablement::Disabled => again(attempts, None, "the answer to the enable shows the set disabled".to_owned()),
        },
        Input::Answer(Answer::Enabled(Err(error))) => {
            let reason = failure(&error);
            match error {
                WriteError::NotApplied(_) if reason.kind == FailureKind::NotFound => {
                    close(treatment, Outcome::Yielded, now, GONE)
                }
                WriteError::NotApplied(_) | WriteError::Unknown(_) => {
                    again(attempts, reason.retry_at, format!("the enable is tried again: {reason}"))
                }
            }
        }
        Input::Answer(_) => stay(treatment),
    }
}

/// The set against what we know of it.
enum Compared {
    /// Disabled, by us.
    Ours,
    /// Not to be seen.
    Unseen,
    /// Somebody else has decided.
    Over(Box<Transition>),
}

fn compare(treatment: &Treatment, ours: &Revision, view: &View<'_>, now: Wall) -> Compared {
    match view.set {
        SetView::Seen(set) => compare_set(treatment, ours, set, now),
        SetView::Gone => Compared::Over(Box::new(close(treatment, Outcome::Yielded, now, GONE))),
        SetView::Unseen => Compared::Unseen,
    }
}

fn compare_set(treatment: &Treatment, ours: &Revision, set: &ScaleSet, now: Wall) -> Compared {
    match set.enabled {
        Enablement::Enabled => Compared::Over(Box::new(go(treatment, Step::Verifying, now, "the set is enabled"))),
        Enablement::Disabled if set.revision == *ours => Compared::Ours,
        Enablement::Disabled => Compared::Over(Box::new(close(treatment, Outcome::Yielded, now, PERSON))),
    }
}
