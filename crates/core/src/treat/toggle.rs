//! Disable, wait for the worker, enable: a set is never left disabled (`docs/reference/design.md` §7).
//!
//! Rules. The journal names the change that is ours by the set's revision (the manager's `updated_at`). A set is enabled
//! only if it is disabled by that very change; any other change is somebody's decision, and the treatment is aborted.
//! A disable whose answer was lost is read back: it is ours if the change is dated close after the request. The enable
//! is repeated until it is seen to have worked.
//!
//! Edge cases. GARM has no conditional update: if an operator disables the set between our read and our write, the write
//! is a no-op (`docs/reference/garm-api.md` §6.4) whose answer shows their change. So the set is read right before the
//! disable, which leaves one round trip. The answer's date is not used: with a manager's clock a few seconds off, every
//! disable of ours would look like theirs. A lost disable may still take effect late; it is assumed lost only after
//! [`LATE`](Treatment::LATE). A proxy may also deliver it twice; the set is enabled only after that time. A list that
//! lacks the set proves nothing: before a set that we disabled is given up, it is asked for by its id.

use super::transition::{
    Answer, Input, Request, Retry, SKEW, SetView, StepContext, Transition, View, failure_of, is_undo_due, next_undo_at,
};
use crate::model::failure::WriteError;
use crate::model::{
    Diagnosis, Enablement, Failed, ManagerState, Note, Outcome, Revision, ScaleSet, Span, Step, Treatment, Wall,
    Worker, WorkerState,
};

const LATE: Span = Treatment::LATE;

pub(super) fn step_disabling(
    ctx: StepContext<'_>,
    seen: &Revision,
    sent: Option<Wall>,
    input: Input<'_>,
) -> Transition {
    let since = ctx.treatment.step_at;
    let read_back = |note: Note| {
        let step = Step::DisableUnknown { seen: seen.clone(), sent: sent.unwrap_or(since) };
        ctx.change_step(step, note).then_send(Request::ReadSet)
    };
    match input {
        // The journal never got the answer: we died, or the disk failed.
        Input::Sweep(_) | Input::Recover | Input::Shutdown if sent.is_some() => read_back(Note::DisableMaybeSent),
        Input::Sweep(view) => read_before_disable(ctx, seen, &view),
        Input::Answer(Answer::Read(Ok(Some(set)))) => {
            if set.enabled == Enablement::Enabled && set.revision == *seen {
                send_disable(ctx, seen.clone())
            } else {
                ctx.close_treatment(Outcome::Aborted, Note::ChangedByOthers)
            }
        }
        Input::Answer(Answer::Read(Ok(None))) => ctx.close_treatment(Outcome::Aborted, Note::SetRemoved),
        Input::Answer(Answer::Read(Err(failure))) => {
            let why = Note::Failed { what: Failed::ReadBeforeDisable, failure };
            if ctx.now.since(since) < LATE {
                ctx.stay_with_note(why)
            } else {
                ctx.close_treatment(Outcome::Failed, why)
            }
        }
        Input::Answer(Answer::Disabled(Ok(set))) => match set.enabled {
            Enablement::Disabled => ctx.change_step(Step::Disabled { ours: set.revision, again_until: None }, None),
            Enablement::Enabled => read_back(Note::DisableShownEnabled),
        },
        Input::Answer(Answer::Disabled(Err(WriteError::NotApplied(failure)))) => {
            ctx.close_treatment(Outcome::Failed, Note::Failed { what: Failed::DisableRefused, failure })
        }
        Input::Answer(Answer::Disabled(Err(WriteError::Unknown(failure)))) => {
            read_back(Note::Failed { what: Failed::DisableUnanswered, failure })
        }
        // The next sweep checks again before anything is sent, unless the decision is too old.
        Input::Recover | Input::Shutdown if ctx.now.since(since) < LATE => ctx.stay_in_step(),
        Input::Recover | Input::Shutdown => ctx.close_treatment(Outcome::Aborted, Note::MedicEnded { sent: false }),
        Input::Answer(_) => ctx.stay_in_step(),
    }
}

fn read_before_disable(ctx: StepContext<'_>, seen: &Revision, view: &View<'_>) -> Transition {
    let set = match view.set {
        SetView::Seen(set) if view.manager_answers() => set,
        SetView::Gone => return ctx.close_treatment(Outcome::Aborted, Note::SetRemoved),
        SetView::Seen(_) | SetView::Unseen => return ctx.close_treatment(Outcome::Aborted, Note::ManagerAway),
    };
    if ctx.is_other_incarnation(view) {
        return ctx.close_treatment(Outcome::Aborted, Note::RestartedSinceDecision);
    }
    if set.enabled == Enablement::Disabled || set.revision != *seen {
        return ctx.close_treatment(Outcome::Aborted, Note::ChangedByOthers);
    }
    if view.finding.is_some_and(|finding| finding.diagnosis == Diagnosis::Listening) {
        return ctx.close_treatment(Outcome::SelfRecovered, Note::ListensAgain { sent: false });
    }
    if view.paused {
        return ctx.close_treatment(Outcome::Aborted, Note::Paused { sent: false });
    }
    ctx.send_request(Request::ReadSet)
}

/// Disables a set that was just read to be enabled at revision `seen`. The step gets the date of the request: should the
/// answer be lost, that date distinguishes our change from an operator's.
pub(super) fn send_disable(ctx: StepContext<'_>, seen: Revision) -> Transition {
    let step = Step::Disabling { seen, sent: Some(ctx.now) };
    let treatment = Treatment { step, step_at: ctx.now, ..ctx.treatment.clone() };
    Transition { treatment, request: Some(Request::Disable), note: None }
}

pub(super) fn disable_answer_lost(ctx: StepContext<'_>, seen: &Revision, sent: Wall, input: Input<'_>) -> Transition {
    match input {
        Input::Sweep(View { manager: ManagerState::Down, .. }) => ctx.stay_in_step(),
        // The list of this sweep may be older than the end of the wait.
        Input::Sweep(_) | Input::Recover | Input::Shutdown => ctx.send_request(Request::ReadSet),
        Input::Answer(Answer::Read(Ok(Some(set)))) => attribute_lost_disable(ctx, seen, sent, set),
        Input::Answer(Answer::Read(Ok(None))) => ctx.close_treatment(Outcome::Aborted, Note::SetRemoved),
        Input::Answer(Answer::Read(Err(failure))) => {
            ctx.stay_with_note(Note::Failed { what: Failed::ReadAfterDisable, failure })
        }
        Input::Answer(_) => ctx.stay_in_step(),
    }
}

fn attribute_lost_disable(ctx: StepContext<'_>, seen: &Revision, sent: Wall, set: ScaleSet) -> Transition {
    match set.enabled {
        // Also after an operator's edit: a late disable would take effect all the same, and nothing would show why.
        Enablement::Enabled if ctx.now.since(sent) < LATE => ctx.stay_in_step(),
        Enablement::Enabled if set.revision != *seen => ctx.close_treatment(Outcome::Aborted, Note::ChangedByOthers),
        Enablement::Enabled => ctx.close_treatment(Outcome::Failed, Note::DisableLost),
        Enablement::Disabled if is_dated_ours(&set, sent) => {
            let step = Step::Disabled { ours: set.revision, again_until: Some(sent.plus(LATE)) };
            ctx.change_step(step, Note::DisableTookEffect)
        }
        Enablement::Disabled => ctx.close_treatment(Outcome::Aborted, Note::ChangedByOthers),
    }
}

/// Whether the set's last change is dated as our disable would be. A set whose changes have no dates is only toggled
/// where the operator allows it (`decide::guards`), and then it is to be enabled again.
fn is_dated_ours(set: &ScaleSet, sent: Wall) -> bool {
    set.revision.as_str().is_empty() || set.updated_at.is_some_and(|at| at >= sent.minus(SKEW) && at <= sent.plus(LATE))
}

pub(super) fn step_disabled(
    ctx: StepContext<'_>,
    ours: &Revision,
    again_until: Option<Wall>,
    input: &Input<'_>,
) -> Transition {
    let since = ctx.treatment.disabled_since().unwrap_or(ctx.treatment.step_at);
    // After a clock was set back, sooner is better.
    let is_overdue = ctx.now < since || ctx.now.since(since) >= ctx.policy.disabled_limit;
    let is_delivered_once = is_overdue || again_until.is_none_or(|until| ctx.now >= until);
    let read_before_enable = |note: Note| {
        let step = Step::Enabling { ours: ours.clone(), since: Some(since), attempts: 0, not_before: ctx.now };
        ctx.change_step(step, note).then_send(Request::ReadSet)
    };
    match input {
        Input::Sweep(view) => match compare_to_ours(ctx, ours, view) {
            Compared::Ours if is_delivered_once && is_enable_due(ctx, view) => read_before_enable(Note::WorkerDue),
            Compared::Ours | Compared::Doubtful if is_overdue => read_before_enable(Note::DisabledTooLong),
            Compared::Missing if is_delivered_once => read_before_enable(Note::MissingInList),
            Compared::Ours | Compared::Missing | Compared::Doubtful | Compared::Unseen => ctx.stay_in_step(),
            Compared::Changed(transition) => *transition,
        },
        Input::Shutdown => read_before_enable(Note::MedicEnds),
        Input::Recover | Input::Answer(_) => ctx.stay_in_step(),
    }
}

/// Older GARM loses an enable that comes before the new worker exists: wait for evidence of the worker where there is
/// any, else for a time.
fn is_enable_due(ctx: StepContext<'_>, view: &View<'_>) -> bool {
    let disabled_at = ctx.treatment.step_at;
    let restarted = view.incarnation.filter(|_| ctx.is_other_incarnation(view));
    // The manager's own date of our disable: its worker may be up before the answer has reached us.
    let written = match view.set {
        SetView::Seen(set) => set.updated_at.filter(|at| is_dated_ours(set, disabled_at) && *at <= disabled_at),
        SetView::Gone | SetView::Unseen => None,
    };
    let since = restarted.map_or(disabled_at, |incarnation| incarnation.0.max(disabled_at));
    let evidence_since = if restarted.is_some() { since } else { written.unwrap_or(since) };
    let worker = view.finding.map_or(Worker::UNKNOWN, |finding| finding.worker);
    let wait = match worker.state {
        WorkerState::Idle | WorkerState::Retrying if worker.since >= evidence_since => Span::ZERO,
        WorkerState::Unknown => ctx.policy.toggle_gap,
        // A listener that has not stopped yet, a worker that is not there yet, or nothing new.
        WorkerState::Idle | WorkerState::Retrying | WorkerState::Listening | WorkerState::Absent => {
            ctx.policy.toggle_gap_limit
        }
    };
    ctx.now.since(since) >= wait
}

/// Reads the set before each enable: only what is disabled by our own change is enabled.
pub(super) fn step_enabling(
    ctx: StepContext<'_>,
    ours: &Revision,
    Retry { attempts, not_before }: Retry,
    input: Input<'_>,
) -> Transition {
    let since = ctx.treatment.disabled_since();
    // The refusal is kept for operators: they may have to enable the set by hand.
    let retry_later = |attempts: u32, refusal: Note| {
        let retry_at = refusal.failure().and_then(|failure| failure.retry_at);
        let not_before = next_undo_at(attempts, retry_at, ctx.now);
        let step = Step::Enabling { ours: ours.clone(), since, attempts, not_before };
        let mut next = ctx.change_step(step, refusal.clone());
        next.treatment.refusal = Some(refusal);
        next
    };
    match input {
        Input::Sweep(view) => match compare_to_ours(ctx, ours, &view) {
            Compared::Changed(transition) => *transition,
            Compared::Ours | Compared::Missing | Compared::Doubtful if is_undo_due(not_before, ctx.now) => {
                ctx.send_request(Request::ReadSet)
            }
            Compared::Ours | Compared::Missing | Compared::Doubtful | Compared::Unseen => ctx.stay_in_step(),
        },
        Input::Shutdown | Input::Recover => ctx.send_request(Request::ReadSet),
        Input::Answer(Answer::Read(Ok(Some(set)))) => changed_by_others(ctx, ours, &set).unwrap_or_else(|| {
            let attempts = attempts.saturating_add(1);
            let step = Step::Enabling { ours: ours.clone(), since, attempts, not_before };
            ctx.change_step(step, None).then_send(Request::Enable)
        }),
        Input::Answer(Answer::Read(Ok(None))) => ctx.close_treatment(Outcome::Aborted, Note::SetRemoved),
        Input::Answer(Answer::Read(Err(failure))) => {
            retry_later(attempts.saturating_add(1), Note::Failed { what: Failed::ReadBeforeEnable, failure })
        }
        Input::Answer(Answer::Enabled(Ok(set))) => match set.enabled {
            Enablement::Enabled => ctx.change_step(Step::Verifying, None),
            Enablement::Disabled => retry_later(attempts, Note::EnableShownDisabled),
        },
        Input::Answer(Answer::Enabled(Err(error))) => {
            retry_later(attempts, Note::Failed { what: Failed::Enable, failure: failure_of(&error).clone() })
        }
        Input::Answer(_) => ctx.stay_in_step(),
    }
}

/// What a sweep says of a set that we disabled.
enum Compared {
    Ours,
    /// The manager answers, and its list lacks the set.
    Missing,
    /// The manager runs, and its list cannot be used.
    Doubtful,
    /// The manager is down.
    Unseen,
    /// By somebody else.
    Changed(Box<Transition>),
}

fn compare_to_ours(ctx: StepContext<'_>, ours: &Revision, view: &View<'_>) -> Compared {
    match (view.set, view.manager) {
        (SetView::Seen(set), _) => {
            changed_by_others(ctx, ours, set).map_or(Compared::Ours, |next| Compared::Changed(Box::new(next)))
        }
        (SetView::Gone, _) => Compared::Missing,
        (SetView::Unseen, ManagerState::Down) => Compared::Unseen,
        (SetView::Unseen, ManagerState::Up | ManagerState::Restarted | ManagerState::Unreachable) => Compared::Doubtful,
    }
}

/// Where the treatment goes when the set is not as we left it.
fn changed_by_others(ctx: StepContext<'_>, ours: &Revision, set: &ScaleSet) -> Option<Transition> {
    match set.enabled {
        Enablement::Enabled => Some(ctx.change_step(Step::Verifying, Note::FoundEnabled)),
        Enablement::Disabled if set.revision == *ours => None,
        Enablement::Disabled => Some(ctx.close_treatment(Outcome::Aborted, Note::ChangedByOthers)),
    }
}
