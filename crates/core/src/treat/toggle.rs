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
    Answer, CHANGED_BY_OTHERS, Input, PAUSED, Request, Retry, SET_REMOVED, SKEW, SetView, StepContext, Transition,
    View, failure_of, is_undo_due, next_undo_at,
};
use crate::model::failure::WriteError;
use crate::model::{
    Diagnosis, Enablement, ManagerState, Outcome, Revision, ScaleSet, Span, Step, Treatment, Wall, WorkerState,
};

const LATE: Span = Treatment::LATE;

const DISABLE_LOST: &str = "the disable request had no visible effect and is assumed lost; if the set turns up \
                            disabled later, this request caused it";
const NOT_SENT: &str = "the medic ended before anything was sent; the next reconcile decides again";

pub(super) fn step_disabling(
    ctx: StepContext<'_>,
    seen: &Revision,
    sent: Option<Wall>,
    input: Input<'_>,
) -> Transition {
    let since = ctx.treatment.step_at;
    let read_back = |note: String| {
        let step = Step::DisableUnknown { seen: seen.clone(), sent: sent.unwrap_or(since) };
        ctx.change_step(step, note).then_send(Request::ReadSet)
    };
    match input {
        // The journal never got the answer: we died, or the disk failed.
        Input::Sweep(_) | Input::Recover | Input::Shutdown if sent.is_some() => {
            read_back("the disable may have been sent".to_owned())
        }
        Input::Sweep(view) => read_before_disable(ctx, seen, &view),
        Input::Answer(Answer::Read(Ok(Some(set)))) => {
            if set.enabled == Enablement::Enabled && set.revision == *seen {
                send_disable(ctx, seen.clone())
            } else {
                ctx.close_treatment(Outcome::Aborted, CHANGED_BY_OTHERS)
            }
        }
        Input::Answer(Answer::Read(Ok(None))) => ctx.close_treatment(Outcome::Aborted, SET_REMOVED),
        Input::Answer(Answer::Read(Err(error))) => {
            let why = format!("the set cannot be read before it is disabled, nothing was sent: {error}");
            if ctx.now.since(since) < LATE {
                ctx.stay_with_note(why)
            } else {
                ctx.close_treatment(Outcome::Failed, why)
            }
        }
        Input::Answer(Answer::Disabled(Ok(set))) => match set.enabled {
            Enablement::Disabled => {
                ctx.change_step(Step::Disabled { ours: set.revision, again_until: None }, "disabled")
            }
            Enablement::Enabled => read_back("the answer to the disable shows the set enabled".to_owned()),
        },
        Input::Answer(Answer::Disabled(Err(WriteError::NotApplied(failure)))) => {
            ctx.close_treatment(Outcome::Failed, format!("the disable was refused, nothing was changed: {failure}"))
        }
        Input::Answer(Answer::Disabled(Err(WriteError::Unknown(failure)))) => {
            read_back(format!("whether the disable took effect is not known: {failure}"))
        }
        // The next sweep checks again before anything is sent, unless the decision is too old.
        Input::Recover | Input::Shutdown if ctx.now.since(since) < LATE => ctx.stay_in_step(),
        Input::Recover | Input::Shutdown => ctx.close_treatment(Outcome::Aborted, NOT_SENT),
        Input::Answer(_) => ctx.stay_in_step(),
    }
}

fn read_before_disable(ctx: StepContext<'_>, seen: &Revision, view: &View<'_>) -> Transition {
    let set = match view.set {
        SetView::Seen(set) if view.manager_answers() => set,
        SetView::Gone => return ctx.close_treatment(Outcome::Aborted, SET_REMOVED),
        SetView::Seen(_) | SetView::Unseen => {
            return ctx.close_treatment(Outcome::Aborted, "GARM stopped answering before anything was sent");
        }
    };
    if ctx.is_other_incarnation(view) {
        return ctx.close_treatment(Outcome::Aborted, "GARM restarted before anything was sent");
    }
    if set.enabled == Enablement::Disabled || set.revision != *seen {
        return ctx.close_treatment(Outcome::Aborted, CHANGED_BY_OTHERS);
    }
    if view.finding.is_some_and(|finding| finding.diagnosis == Diagnosis::Listening) {
        return ctx.close_treatment(Outcome::SelfRecovered, "the set listens again; nothing was sent");
    }
    if view.paused {
        return ctx.close_treatment(Outcome::Aborted, PAUSED);
    }
    ctx.send_request(Request::ReadSet)
}

/// Disables a set that was just read to be enabled at revision `seen`. The step gets the date of the request: should the
/// answer be lost, that date distinguishes our change from an operator's.
pub(super) fn send_disable(ctx: StepContext<'_>, seen: Revision) -> Transition {
    let step = Step::Disabling { seen, sent: Some(ctx.now) };
    let treatment = Treatment { step, step_at: ctx.now, ..ctx.treatment.clone() };
    Transition { treatment, request: Some(Request::Disable), note: Some("disabling".to_owned()) }
}

pub(super) fn disable_answer_lost(ctx: StepContext<'_>, seen: &Revision, sent: Wall, input: Input<'_>) -> Transition {
    match input {
        Input::Sweep(View { manager: ManagerState::Down, .. }) => ctx.stay_in_step(),
        // The list of this sweep may be older than the end of the wait.
        Input::Sweep(_) | Input::Recover | Input::Shutdown => ctx.send_request(Request::ReadSet),
        Input::Answer(Answer::Read(Ok(Some(set)))) => attribute_lost_disable(ctx, seen, sent, set),
        Input::Answer(Answer::Read(Ok(None))) => ctx.close_treatment(Outcome::Aborted, SET_REMOVED),
        Input::Answer(Answer::Read(Err(error))) => {
            ctx.stay_with_note(format!("whether the disable took effect cannot be read: {error}"))
        }
        Input::Answer(_) => ctx.stay_in_step(),
    }
}

fn attribute_lost_disable(ctx: StepContext<'_>, seen: &Revision, sent: Wall, set: ScaleSet) -> Transition {
    match set.enabled {
        // Also after an operator's edit: a late disable would take effect all the same, and nobody would know why.
        Enablement::Enabled if ctx.now.since(sent) < LATE => ctx.stay_in_step(),
        Enablement::Enabled if set.revision != *seen => ctx.close_treatment(Outcome::Aborted, CHANGED_BY_OTHERS),
        Enablement::Enabled => ctx.close_treatment(Outcome::Failed, DISABLE_LOST),
        Enablement::Disabled if is_dated_ours(&set, sent) => {
            let step = Step::Disabled { ours: set.revision, again_until: Some(sent.plus(LATE)) };
            ctx.change_step(step, "the disable had taken effect")
        }
        Enablement::Disabled => ctx.close_treatment(Outcome::Aborted, CHANGED_BY_OTHERS),
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
    let read_before_enable = |note: &str| {
        let step = Step::Enabling { ours: ours.clone(), since: Some(since), attempts: 0, not_before: ctx.now };
        ctx.change_step(step, note).then_send(Request::ReadSet)
    };
    match input {
        Input::Sweep(view) => match compare_to_ours(ctx, ours, view) {
            Compared::Ours if is_delivered_once && is_enable_due(ctx, view) => read_before_enable("the worker is due"),
            Compared::Ours | Compared::Doubtful if is_overdue => read_before_enable("disabled for the longest time"),
            Compared::Missing if is_delivered_once => {
                read_before_enable("GARM's list lacks the set: asking for the set by its id")
            }
            Compared::Ours | Compared::Missing | Compared::Doubtful | Compared::Unseen => ctx.stay_in_step(),
            Compared::Changed(transition) => *transition,
        },
        Input::Shutdown => read_before_enable("the medic ends: enabling now"),
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
    let (state, at) = view.finding.map_or((WorkerState::Unknown, Wall(0)), |finding| finding.worker);
    let wait = match state {
        WorkerState::Idle | WorkerState::Retrying if at >= evidence_since => Span::ZERO,
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
    let retry_later = |attempts: u32, retry_at: Option<Wall>, note: String, refusal: String| {
        let not_before = next_undo_at(attempts, retry_at, ctx.now);
        let mut next = ctx.change_step(Step::Enabling { ours: ours.clone(), since, attempts, not_before }, note);
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
            ctx.change_step(step, "enabling").then_send(Request::Enable)
        }),
        Input::Answer(Answer::Read(Ok(None))) => ctx.close_treatment(Outcome::Aborted, SET_REMOVED),
        Input::Answer(Answer::Read(Err(error))) => {
            let note = format!("the set cannot be read before it is enabled: {error}");
            retry_later(attempts.saturating_add(1), error.retry_at, note, error.to_string())
        }
        Input::Answer(Answer::Enabled(Ok(set))) => match set.enabled {
            Enablement::Enabled => ctx.change_step(Step::Verifying, "enabled"),
            Enablement::Disabled => {
                let refusal = "the answer to the enable shows the set disabled".to_owned();
                retry_later(attempts, None, refusal.clone(), refusal)
            }
        },
        Input::Answer(Answer::Enabled(Err(error))) => {
            let reason = failure_of(&error);
            retry_later(attempts, reason.retry_at, format!("the enable is retried: {reason}"), reason.to_string())
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
        Enablement::Enabled => Some(ctx.change_step(Step::Verifying, "the set is enabled")),
        Enablement::Disabled if set.revision == *ours => None,
        Enablement::Disabled => Some(ctx.close_treatment(Outcome::Aborted, CHANGED_BY_OTHERS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FailureKind, Incarnation, RequestFailure};
    use crate::treat::testing::{
        Case, NEXT_RUN, Seen, T0, after, disabled as off, enabled as on, failure as failing, lost, refused, rev,
    };

    fn disabling() -> Case {
        Case::of(Step::Disabling { seen: rev("seen"), sent: None })
    }

    /// The disable has been sent.
    fn sent() -> Case {
        Case::of(Step::Disabling { seen: rev("seen"), sent: Some(T0) })
    }

    /// Sent ten seconds after the decision, and never answered.
    fn unknown() -> Case {
        Case::of(Step::DisableUnknown { seen: rev("seen"), sent: after(10) })
    }

    fn disabled() -> Case {
        Case::of(Step::Disabled { ours: rev("ours"), again_until: None })
    }

    fn enabling() -> Case {
        Case::of(Step::Enabling { ours: rev("ours"), since: None, attempts: 0, not_before: T0 })
    }

    fn ours() -> ScaleSet {
        off("ours", T0)
    }

    fn sees_ours() -> Seen {
        Seen::ill().with(ours())
    }

    fn unreadable() -> Answer {
        Answer::Read(Err(failing(FailureKind::Timeout)))
    }

    #[test]
    fn toggle_reads_disables_waits_for_worker_reads_and_enables() {
        let mut case = disabling();
        assert_eq!(case.sweep(&Seen::ill()), Some(Request::ReadSet));
        assert_eq!(case.read(on("seen")), Some(Request::Disable));
        assert_eq!(case.answer(Answer::Disabled(Ok(ours()))), None);
        assert_eq!(case.treatment.step, Step::Disabled { ours: rev("ours"), again_until: None });
        assert_eq!(case.at(2).sweep(&sees_ours()), None, "no sign of the new worker yet");
        assert_eq!(case.at(4).sweep(&sees_ours().worker(WorkerState::Idle, after(3))), Some(Request::ReadSet));
        assert_eq!(case.read(ours()), Some(Request::Enable));
        assert_eq!(case.treatment.disabled_since(), Some(T0), "however often the enable is tried");
        assert_eq!(case.at(5).answer(Answer::Enabled(Err(refused()))), None);
        assert_eq!(case.treatment.disabled_since(), Some(T0));
        case.at(6).sweep(&sees_ours());
        case.read(ours());
        assert_eq!(case.answer(Answer::Enabled(Ok(on("enabled")))), None);
        assert_eq!((case.label(), case.treatment.disabled_since()), ("verifying", None));
    }

    #[test]
    fn disable_is_not_sent_when_the_sweep_shows_a_change() {
        for (seen, outcome) in [
            (Seen::ill().with(off("seen", T0)), Outcome::Aborted),
            (Seen::ill().with(on("edited")), Outcome::Aborted),
            (Seen::ill().gone(), Outcome::Aborted),
            (Seen::ill().run(NEXT_RUN), Outcome::Aborted),
            (Seen::ill().manager(ManagerState::Down), Outcome::Aborted),
            (Seen::ill().manager(ManagerState::Unreachable), Outcome::Aborted),
            (Seen::ill().manager(ManagerState::Down).with(on("seen")), Outcome::Aborted),
            (Seen::ill().listening(T0), Outcome::SelfRecovered),
        ] {
            let mut case = disabling();
            assert_eq!((case.sweep(&seen), case.outcome()), (None, Some(outcome)), "{seen:?}");
        }
    }

    #[test]
    fn disable_is_not_sent_when_the_last_read_shows_a_change() {
        for set in [Some(off("seen", T0)), Some(on("edited")), Some(off("edited", T0)), None] {
            let mut case = disabling();
            case.sweep(&Seen::ill());
            assert_eq!(case.answer(Answer::Read(Ok(set.clone()))), None, "{set:?}");
            assert_eq!(case.outcome(), Some(Outcome::Aborted), "{set:?}");
        }
    }

    #[test]
    fn pause_stops_a_disable_and_no_enable() {
        let mut case = disabling();
        assert_eq!(case.sweep(&Seen::ill()), Some(Request::ReadSet));
        case.answer(unreadable());
        assert_eq!(case.at(2).sweep(&Seen::ill().paused()), None);
        assert_eq!((case.outcome(), case.why()), (Some(Outcome::Aborted), PAUSED));

        assert_eq!(sent().sweep(&Seen::ill().paused()), Some(Request::ReadSet), "it may have been sent");
        let mut case = disabled();
        assert_eq!(case.at(4).sweep(&sees_ours().worker(WorkerState::Idle, after(3)).paused()), Some(Request::ReadSet));
        assert_eq!(case.read(ours()), Some(Request::Enable));
    }

    #[test]
    fn failing_last_read_is_repeated_for_half_a_minute() {
        let mut case = disabling();
        for second in [0, 10, 29] {
            assert_eq!(case.at(second).sweep(&Seen::ill()), Some(Request::ReadSet));
            assert_eq!((case.answer(unreadable()), case.outcome()), (None, None), "{second} s");
        }
        case.at(30).answer(unreadable());
        assert_eq!(case.outcome(), Some(Outcome::Failed));
        assert!(case.why().contains("nothing was sent"), "{}", case.why());
    }

    #[test]
    fn refused_disable_fails_the_treatment() {
        let mut case = disabling();
        assert_eq!(case.answer(Answer::Disabled(Err(refused()))), None);
        assert_eq!(case.outcome(), Some(Outcome::Failed));
        assert!(case.why().contains("nothing was changed"), "{}", case.why());
    }

    #[test]
    fn answered_disable_is_ours_whatever_its_date() {
        for at in [Some(T0.minus(Span::hours(1))), Some(T0.plus(Span::hours(1))), None] {
            let mut case = disabling();
            case.answer(Answer::Disabled(Ok(ScaleSet { updated_at: at, ..ours() })));
            assert_eq!(case.treatment.step, Step::Disabled { ours: rev("ours"), again_until: None });
        }
    }

    #[test]
    fn disable_without_usable_answer_is_read_back() {
        let mut case = disabling();
        assert_eq!(case.at(3).sweep(&Seen::ill()), Some(Request::ReadSet));
        assert_eq!(case.read(on("seen")), Some(Request::Disable));
        assert_eq!(case.at(10).answer(Answer::Disabled(Err(lost()))), Some(Request::ReadSet));
        let dated_by_the_request = Step::DisableUnknown { seen: rev("seen"), sent: after(3) };
        assert_eq!(case.treatment.step, dated_by_the_request);

        let mut case = disabling();
        assert_eq!(case.answer(Answer::Disabled(Ok(on("seen")))), Some(Request::ReadSet), "an impossible answer");
        assert_eq!(case.label(), "disable_unknown");

        let mut case = sent();
        assert_eq!(case.at(8).sweep(&Seen::ill().with(off("ours", after(1)))), Some(Request::ReadSet));
        assert_eq!(case.label(), "disable_unknown", "the list does not say by whom");
        assert_eq!((case.read(off("ours", after(1))), case.label()), (None, "disabled"));

        for case in [&mut sent(), &mut unknown()] {
            assert_eq!((case.at(60).recover(), case.label()), (Some(Request::ReadSet), "disable_unknown"));
        }
        assert_eq!(sent().shut_down(), Some(Request::ReadSet));
    }

    #[test]
    fn disable_not_sent_before_a_crash_is_not_claimed() {
        for restart in [Case::recover, Case::shut_down] {
            let mut case = disabling();
            case.sweep(&Seen::ill());
            assert_eq!(restart(case.at(2)), None, "nothing was sent");
            assert_eq!(case.clone().at(4).sweep(&Seen::ill()), Some(Request::ReadSet));
            assert_eq!(case.at(4).sweep(&Seen::ill().with(off("theirs", after(1)))), None);
            assert_eq!(case.outcome(), Some(Outcome::Aborted));
        }
        let mut case = disabling();
        assert_eq!((case.at(30).recover(), case.outcome()), (None, Some(Outcome::Aborted)), "decided too long ago");
    }

    #[test]
    fn lost_disable_is_ours_when_dated_close_after_its_sending() {
        for (seconds, is_ours) in [(7, false), (8, true), (10, true), (40, true), (41, false)] {
            let mut case = unknown();
            assert_eq!(case.at(60).read(off("new", after(seconds))), None);
            if is_ours {
                let step = Step::Disabled { ours: rev("new"), again_until: Some(after(40)) };
                assert_eq!(case.treatment.step, step, "{seconds} s");
            } else {
                assert_eq!(case.outcome(), Some(Outcome::Aborted), "{seconds} s: an operator's");
            }
        }
        let undated = |revision| ScaleSet { updated_at: None, ..off(revision, T0) };
        let mut case = unknown();
        case.at(60).read(undated("new"));
        assert_eq!(case.outcome(), Some(Outcome::Aborted), "without a date it is not ours");
        let mut case = unknown();
        case.at(12).read(undated(""));
        assert_eq!(case.label(), "disabled", "a manager that dates nothing");
    }

    #[test]
    fn lost_disable_that_worked_is_enabled_after_a_second_one() {
        let found = || {
            let mut case = unknown();
            case.at(12).read(off("ours", after(11)));
            case
        };
        let seen = Seen::ill().with(off("ours", after(11))).worker(WorkerState::Idle, after(12));
        let mut case = found();
        assert_eq!(case.at(39).sweep(&seen), None, "a second disable may still arrive");
        assert_eq!(case.at(40).sweep(&seen), Some(Request::ReadSet));
        assert_eq!(found().at(13).shut_down(), Some(Request::ReadSet), "at once when the medic ends");
        let mut case = found();
        case.policy.disabled_limit = Span::secs(15);
        assert_eq!(case.at(24).sweep(&seen), None);
        assert_eq!(case.at(25).sweep(&seen), Some(Request::ReadSet), "counted from the request");
        let (mut case, gone) = (found(), seen.gone());
        assert_eq!(case.at(39).sweep(&gone), None);
        assert_eq!(case.at(40).sweep(&gone), Some(Request::ReadSet));
    }

    #[test]
    fn lost_disable_is_waited_for_and_then_assumed_lost() {
        for (set, end, why) in
            [(on("seen"), Outcome::Failed, DISABLE_LOST), (on("edited"), Outcome::Aborted, CHANGED_BY_OTHERS)]
        {
            let mut case = unknown();
            for second in [11, 20, 39] {
                assert_eq!(case.at(second).sweep(&Seen::ill()), Some(Request::ReadSet), "each sweep reads");
                assert_eq!((case.read(set.clone()), case.label()), (None, "disable_unknown"), "{second} s");
            }
            case.at(40).sweep(&Seen::ill());
            assert_eq!(case.read(set), None);
            assert_eq!((case.outcome(), case.why()), (Some(end), why));
        }
    }

    #[test]
    fn lost_disable_stays_open_while_the_manager_is_unreadable() {
        let mut case = unknown();
        assert_eq!(case.at(500).sweep(&Seen::ill().manager(ManagerState::Down)), None);
        assert_eq!(case.sweep(&Seen::ill().manager(ManagerState::Unreachable)), Some(Request::ReadSet));
        assert_eq!((case.answer(unreadable()), case.label()), (None, "disable_unknown"));
        assert_eq!(case.sweep(&Seen::ill().gone()), Some(Request::ReadSet), "a list may be wrong");
        case.answer(Answer::Read(Ok(None)));
        assert_eq!(case.outcome(), Some(Outcome::Aborted));
    }

    #[test]
    fn enable_comes_when_the_worker_is_there_or_its_time_is_over() {
        let (old, new) = (T0.minus(Span::secs(1)), after(1));
        for (state, at, due) in [
            (WorkerState::Idle, new, 0_u64),
            (WorkerState::Retrying, new, 0),
            (WorkerState::Unknown, new, 5),
            (WorkerState::Absent, new, 15),
            (WorkerState::Listening, new, 15),
            (WorkerState::Idle, old, 15),
            (WorkerState::Retrying, old, 15),
        ] {
            let seen = sees_ours().worker(state, at);
            for early in [0, due.saturating_sub(1)].into_iter().filter(|second| *second < due) {
                assert_eq!(disabled().at(early).sweep(&seen), None, "{state} dated {at}");
            }
            assert_eq!(disabled().at(due).sweep(&seen), Some(Request::ReadSet), "{state} dated {at}");
        }
    }

    #[test]
    fn worker_evidence_is_compared_with_the_managers_date() {
        for (shown, due) in [(4, true), (3, true), (2, false)] {
            let mut case = disabling();
            case.sweep(&Seen::ill());
            case.read(on("seen"));
            case.at(5).answer(Answer::Disabled(Ok(off("ours", after(3)))));
            let seen = Seen::ill().with(off("ours", after(3))).worker(WorkerState::Idle, after(shown));
            assert_eq!(case.at(6).sweep(&seen), due.then_some(Request::ReadSet), "answered late; {shown}");
        }
        let (before, later) = (T0.minus(Span::secs(10)), after(3));
        for (dated, worker, due) in [(T0.minus(Span::hours(1)), before, false), (after(5), later, true)] {
            let seen = Seen::ill().with(off("ours", dated)).worker(WorkerState::Idle, worker);
            assert_eq!(disabled().at(4).sweep(&seen), due.then_some(Request::ReadSet), "clock is off; {dated}");
        }
    }

    #[test]
    fn disabled_time_has_a_limit_also_after_a_clock_change() {
        let mut case = disabled();
        (case.policy.toggle_gap, case.policy.toggle_gap_limit) = (Span::mins(9), Span::mins(9));
        assert_eq!(case.at(119).sweep(&sees_ours()), None);
        assert_eq!(case.at(120).sweep(&sees_ours()), Some(Request::ReadSet));
        let mut case = disabled();
        case.at = T0.minus(Span::hours(1));
        assert_eq!(case.sweep(&sees_ours()), Some(Request::ReadSet));
        case.treatment.step = Step::Enabling { ours: rev("ours"), since: None, attempts: 3, not_before: T0 };
        assert_eq!(case.sweep(&sees_ours()), Some(Request::ReadSet));
    }

    #[test]
    fn restarted_manager_gets_time_for_its_worker() {
        let seen = sees_ours().run(NEXT_RUN);
        assert_eq!(disabled().at(64).sweep(&seen), None, "4 s after the start");
        assert_eq!(disabled().at(65).sweep(&seen), Some(Request::ReadSet));
        let before = sees_ours().run(NEXT_RUN).worker(WorkerState::Idle, after(30));
        assert_eq!(disabled().at(62).sweep(&before), None, "the worker of the process before");
        let ahead = sees_ours().run(Incarnation(after(90_000)));
        assert_eq!(disabled().at(120).sweep(&ahead), Some(Request::ReadSet), "a wrong clock does not prolong it");
    }

    #[test]
    fn change_by_somebody_else_ends_the_toggle() {
        let mut case = disabled();
        assert_eq!((case.sweep(&Seen::ill().with(on("theirs"))), case.label()), (None, "verifying"));
        let mut case = enabling();
        assert_eq!((case.read(on("theirs")), case.label()), (None, "verifying"));

        let theirs = off("theirs", after(3));
        for case in [&mut disabled(), &mut enabling()] {
            assert_eq!(case.at(20).sweep(&Seen::ill().with(theirs.clone())), None);
            assert_eq!(case.outcome(), Some(Outcome::Aborted));
        }
        let mut case = enabling();
        assert_eq!((case.read(theirs), case.outcome()), (None, Some(Outcome::Aborted)), "the last read decides");
    }

    #[test]
    fn set_missing_from_the_list_is_asked_for_by_its_id() {
        for case in [&mut disabled(), &mut enabling()] {
            assert_eq!(case.at(1).sweep(&Seen::ill().gone()), Some(Request::ReadSet));
            assert_eq!(case.clone().read(ours()), Some(Request::Enable), "the list was wrong");
            case.answer(Answer::Read(Ok(None)));
            assert_eq!(case.outcome(), Some(Outcome::Aborted), "the list was right");
        }
        let mut case = enabling();
        case.answer(Answer::Enabled(Err(WriteError::NotApplied(failing(FailureKind::NotFound)))));
        assert_eq!(case.outcome(), None, "a 404 may be a proxy's");
        assert_eq!(case.at(2).sweep(&sees_ours()), Some(Request::ReadSet));
        case.answer(Answer::Read(Ok(None)));
        assert_eq!(case.outcome(), Some(Outcome::Aborted));
    }

    #[test]
    fn intent_is_kept_while_the_manager_is_down() {
        for case in [&mut disabled(), &mut enabling()] {
            let before = case.treatment.clone();
            assert_eq!(case.at(90_000).sweep(&Seen::ill().manager(ManagerState::Down)), None);
            assert_eq!(case.treatment, before);
            assert_eq!(case.sweep(&sees_ours().run(NEXT_RUN)), Some(Request::ReadSet), "still ours after a restart");
        }
    }

    #[test]
    fn unusable_list_leads_to_a_read_once_the_time_is_over() {
        let blind = Seen::ill().manager(ManagerState::Unreachable);
        let mut case = disabled();
        assert_eq!(case.at(119).sweep(&blind), None);
        assert_eq!(case.at(120).sweep(&blind), Some(Request::ReadSet));
        assert_eq!(case.answer(unreadable()), None);
        assert_eq!(case.sweep(&blind), None, "not again at once");
        assert_eq!(case.at(121).sweep(&blind), Some(Request::ReadSet));
        assert_eq!(case.read(ours()), Some(Request::Enable));
    }

    #[test]
    fn enable_is_repeated_until_it_has_worked() {
        let (mut case, mut waits, mut second) = (enabling(), Vec::new(), 0);
        for _ in 0..8 {
            assert_eq!(case.at(second).sweep(&sees_ours()), Some(Request::ReadSet));
            assert_eq!(case.read(ours()), Some(Request::Enable));
            assert_eq!(case.answer(Answer::Enabled(Err(refused()))), None);
            let since = second;
            while case.at(second).sweep(&sees_ours()).is_none() {
                second += 1;
                assert!(second < 200, "not tried again: {waits:?}");
            }
            waits.push(second - since);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!((case.outcome(), case.read(ours())), (None, Some(Request::Enable)));
        assert_eq!((case.answer(Answer::Enabled(Ok(on("enabled")))), case.label()), (None, "verifying"));

        let mut case = enabling();
        let busy = RequestFailure { retry_at: Some(after(3600)), ..failing(FailureKind::RateLimited) };
        case.answer(Answer::Enabled(Err(WriteError::NotApplied(busy))));
        assert_eq!(case.at(29).sweep(&sees_ours()), None);
        assert_eq!(case.at(30).sweep(&sees_ours()), Some(Request::ReadSet), "no server may ask for a longer wait");
    }

    #[test]
    fn enable_without_usable_answer_is_read_back() {
        let lost_enable = || {
            let mut case = enabling();
            assert_eq!(case.read(ours()), Some(Request::Enable));
            assert_eq!(case.answer(Answer::Enabled(Err(lost()))), None);
            case.at(2);
            case
        };
        let mut case = lost_enable();
        assert_eq!((case.sweep(&Seen::ill().with(on("enabled"))), case.label()), (None, "verifying"));
        let mut case = lost_enable();
        assert_eq!(case.sweep(&sees_ours()), Some(Request::ReadSet));
        assert_eq!(case.read(ours()), Some(Request::Enable), "it had not worked");
        let mut case = enabling();
        case.answer(Answer::Enabled(Ok(ours())));
        assert_eq!(case.label(), "enabling", "an answer that shows the set disabled is no success");
    }

    #[test]
    fn shutdown_and_restart_enable_a_set_of_ours_after_a_read() {
        let mut case = disabled();
        assert_eq!(case.at(1).shut_down(), Some(Request::ReadSet), "at once, whatever the worker does");
        assert_eq!(case.read(ours()), Some(Request::Enable));
        for input in [Case::shut_down, Case::recover] {
            let mut case =
                Case::of(Step::Enabling { ours: rev("ours"), since: None, attempts: 5, not_before: after(30) });
            assert_eq!(input(&mut case), Some(Request::ReadSet), "whatever the wait");
            assert_eq!(case.read(ours()), Some(Request::Enable));
        }
        let mut case = disabled();
        assert_eq!(case.at(400).recover(), None, "no request is in flight");
        assert_eq!(case.sweep(&sees_ours()), Some(Request::ReadSet));
    }
}
