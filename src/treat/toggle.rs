//! Disable, wait for the worker, enable: a set is never left disabled (design §7).
//!
//! Rules. Between the two writes the journal says which change of the set is ours, by the manager's `updated_at`.
//! A set is enabled only if it is disabled *by that very change*; any other change is somebody's decision, and we
//! yield. A disable whose answer was lost is settled by reading: it is ours if the change is dated close after the
//! sending. The enable is tried until it is seen to have worked, however long that takes.
//!
//! Edge cases. GARM has no conditional update: a person who disables the set between our look and our write makes the
//! write a no-op (`reference/garm-api.md` §6.4) whose answer shows *their* change. So the set is read right before the
//! disable, which leaves one round trip for it; the answer's date is not used, because a manager whose clock is a few
//! seconds off would make every disable of ours look like theirs, and leave the set disabled. A disable that was lost
//! on the way may still take effect late: only after [`LATE`] is it taken for lost. A list that does not show the set
//! proves nothing: before a set that we disabled is let go, it is asked for by its id.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

use super::machine::{
    Answer, Effect, Input, SetView, Transition, View, answers, ask, close, failure, go, is_undo_due, next_undo, note,
    other_run, stay,
};
use super::ports::WriteError;
use crate::decide::policy::Policy;
use crate::model::{
    Diagnosis, Enablement, FailureKind, ManagerState, Outcome, Revision, ScaleSet, Span, Step, Treatment, Wall,
    WorkerState,
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
        Input::Answer(Answer::Read(Ok(Some(set)))) => {
            if set.enabled == Enablement::Enabled && set.revision == *seen {
                disable(treatment, seen.clone(), now)
            } else {
                close(treatment, Outcome::Yielded, now, PERSON)
            }
        }
        Input::Answer(Answer::Read(Ok(None))) => close(treatment, Outcome::Yielded, now, GONE),
        Input::Answer(Answer::Read(Err(error))) => {
            let why = format!("the set cannot be read before it is disabled, nothing was sent: {error}");
            if now.since(sent) < LATE { note(treatment, why) } else { close(treatment, Outcome::Failed, now, why) }
        }
        Input::Answer(Answer::Disabled(Ok(set))) => match set.enabled {
            Enablement::Disabled => go(treatment, Step::Disabled { ours: set.revision }, now, "disabled"),
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
    ask(treatment, Effect::ReadSet)
}

/// Sends the disable of a set that was just read to be enabled at revision `seen`. The step is dated anew: its date
/// tells our change from a person's, should the answer be lost.
pub(super) fn disable(treatment: &Treatment, seen: Revision, now: Wall) -> Transition {
    let treatment = Treatment { step: Step::Disabling { seen }, step_at: now, ..treatment.clone() };
    Transition { treatment, effect: Some(Effect::Disable), note: Some("disabling".to_owned()) }
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
        Input::Sweep(View { manager: ManagerState::Down, .. }) => stay(treatment),
        // The list of this pass may be older than the end of the wait.
        Input::Sweep(_) | Input::Recover | Input::Shutdown => ask(treatment, Effect::ReadSet),
        Input::Answer(Answer::Read(Ok(Some(set)))) => settle_disable(treatment, seen, sent, &set, now),
        Input::Answer(Answer::Read(Ok(None))) => close(treatment, Outcome::Yielded, now, GONE),
        Input::Answer(Answer::Read(Err(error))) => {
            note(treatment, format!("whether the disable took effect cannot be read: {error}"))
        }
        Input::Answer(_) => stay(treatment),
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
            Compared::Doubtful if is_overdue(treatment, now, policy) => enable("the longest time is over"),
            Compared::Missing => enable("the manager's list lacks the set: asking for it"),
            Compared::Ours | Compared::Doubtful | Compared::Unseen => stay(treatment),
            Compared::Over(transition) => *transition,
        },
        Input::Shutdown => enable("the medic ends: enabling now"),
        Input::Recover | Input::Answer(_) => stay(treatment),
    }
}

/// An enable that comes before the new worker exists is lost on older GARM: wait for evidence of it where there is
/// any, else for a time.
fn is_due(treatment: &Treatment, view: &View<'_>, now: Wall, policy: &Policy) -> bool {
    let restarted = view.incarnation.filter(|_| other_run(treatment, view));
    let since = restarted.map_or(treatment.step_at, |run| run.0.max(treatment.step_at));
    let (state, at) = view.finding.map_or((WorkerState::Unknown, Wall(0)), |finding| finding.worker);
    let enough = match state {
        WorkerState::Idle | WorkerState::Retrying if at >= since => Span::ZERO,
        WorkerState::Unknown => policy.toggle_gap,
        // A listener that has not stopped yet, a worker that is not there yet, or nothing new.
        WorkerState::Idle | WorkerState::Retrying | WorkerState::Listening | WorkerState::Absent => {
            policy.toggle_gap_limit
        }
    };
    is_overdue(treatment, now, policy) || now.since(since) >= enough
}

/// Whether the set was disabled for as long as we may. A clock that was set back says nothing: better now.
fn is_overdue(treatment: &Treatment, now: Wall, policy: &Policy) -> bool {
    now < treatment.step_at || now.since(treatment.step_at) >= policy.disabled_limit
}

/// About to enable: always read first, enable only what is disabled by us.
pub(super) fn enabling(
    treatment: &Treatment,
    (ours, attempts, not_before): (&Revision, u32, Wall),
    input: Input<'_>,
    now: Wall,
) -> Transition {
    let again = |attempts: u32, retry_at: Option<Wall>, note: String| {
        let not_before = next_undo(attempts, retry_at, now);
        go(treatment, Step::Enabling { ours: ours.clone(), attempts, not_before }, now, note)
    };
    match input {
        Input::Sweep(view) => match compare(treatment, ours, &view, now) {
            Compared::Over(transition) => *transition,
            Compared::Unseen => stay(treatment),
            Compared::Ours | Compared::Missing | Compared::Doubtful if is_undo_due(not_before, now) => {
                ask(treatment, Effect::ReadSet)
            }
            Compared::Ours | Compared::Missing | Compared::Doubtful => stay(treatment),
        },
        Input::Shutdown | Input::Recover => ask(treatment, Effect::ReadSet),
        Input::Answer(Answer::Read(Ok(Some(set)))) => over(treatment, ours, &set, now).unwrap_or_else(|| {
            let step = Step::Enabling { ours: ours.clone(), attempts: attempts.saturating_add(1), not_before };
            go(treatment, step, now, "enabling").then(Effect::Enable)
        }),
        Input::Answer(Answer::Read(Ok(None))) => close(treatment, Outcome::Yielded, now, GONE),
        Input::Answer(Answer::Read(Err(error))) => again(
            attempts.saturating_add(1),
            error.retry_at,
            format!("the set cannot be read before it is enabled: {error}"),
        ),
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

/// What a pass says of a set that we disabled.
enum Compared {
    /// Disabled, by us.
    Ours,
    /// The manager answers, and its list lacks the set.
    Missing,
    /// The manager runs, and its list cannot be used.
    Doubtful,
    /// The manager is down.
    Unseen,
    /// Somebody else has decided.
    Over(Box<Transition>),
}

fn compare(treatment: &Treatment, ours: &Revision, view: &View<'_>, now: Wall) -> Compared {
    match (view.set, view.manager) {
        (SetView::Seen(set), _) => {
            over(treatment, ours, set, now).map_or(Compared::Ours, |over| Compared::Over(Box::new(over)))
        }
        (SetView::Gone, _) => Compared::Missing,
        (SetView::Unseen, ManagerState::Down) => Compared::Unseen,
        (SetView::Unseen, ManagerState::Up | ManagerState::Restarted | ManagerState::Unreachable) => Compared::Doubtful,
    }
}

/// Where the treatment goes when the set is not as we left it.
fn over(treatment: &Treatment, ours: &Revision, set: &ScaleSet, now: Wall) -> Option<Transition> {
    match set.enabled {
        Enablement::Enabled => Some(go(treatment, Step::Verifying, now, "the set is enabled")),
        Enablement::Disabled if set.revision == *ours => None,
        Enablement::Disabled => Some(close(treatment, Outcome::Yielded, now, PERSON)),
    }
}
