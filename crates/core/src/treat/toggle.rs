//! Disable, wait for the worker, enable: a set is never left disabled (`docs/reference/design.md` §7).
//!
//! Rules. Between the two writes the journal says which change of the set is ours, by the manager's `updated_at`.
//! A set is enabled only if it is disabled *by that very change*; any other change is somebody's decision, and we
//! yield. A disable whose answer was lost is settled by reading: it is ours if the change is dated close after the
//! sending. The enable is tried until it is seen to have worked, however long that takes.
//!
//! Edge cases. GARM has no conditional update: a person who disables the set between our look and our write makes the
//! write a no-op (`docs/reference/garm-api.md` §6.4) whose answer shows *their* change. So the set is read right before
//! the disable, which leaves one round trip for it; the answer's date is not used, because a manager whose clock is a
//! few seconds off would make every disable of ours look like theirs, and leave the set disabled. A disable that was
//! lost on the way may still take effect late: only after [`LATE`](Treatment::LATE) is it taken for lost. One that took
//! effect and was not answered may come a second time (a proxy asks again): only after that is the set enabled. A list
//! that does not show the set proves nothing: before a set that we disabled is let go, it is asked for by its id.

use super::machine::{
    Answer, Input, Leave, PAUSED, Request, SetView, Transition, View, answers, ask, close, failure, go, is_undo_due,
    next_undo, note, other_run, stay,
};
use crate::model::failure::WriteError;
use crate::model::{
    Diagnosis, Enablement, ManagerState, Outcome, Revision, ScaleSet, Span, Step, Treatment, Wall, WorkerState,
};
use crate::policy::Policy;

/// The two clocks, ours and the manager's, differ by less than this.
pub const SKEW: Span = Span::secs(2);

const LATE: Span = Treatment::LATE;

const NEVER: &str = "the disable had no effect and is taken for lost; should nobody else disable the set and it is disabled, it was this";
const GONE: &str = "the scale set was removed from the manager meanwhile";
const UNSENT: &str = "the medic ended before anything was sent; the next pass decides anew";
const PERSON: &str = "somebody else changed the scale set meanwhile; it is theirs";

pub(super) fn disabling(
    treatment: &Treatment,
    seen: &Revision,
    sent: Option<Wall>,
    input: Input<'_>,
    now: Wall,
) -> Transition {
    let since = treatment.step_at;
    let unknown = |note: String| {
        let step = Step::DisableUnknown { seen: seen.clone(), sent: sent.unwrap_or(since) };
        go(treatment, step, now, note).then(Request::ReadSet)
    };
    match input {
        // Its answer came to no journal: we died, or the disk failed.
        Input::Sweep(_) | Input::Recover | Input::Shutdown if sent.is_some() => {
            unknown("the disable may have been sent".to_owned())
        }
        Input::Sweep(view) => before_disable(treatment, seen, &view, now),
        Input::Answer(Answer::Read(Ok(Some(set)))) => {
            if set.enabled == Enablement::Enabled && set.revision == *seen {
                disable(treatment, seen.clone(), now)
            } else {
                close(treatment, Outcome::Aborted, now, PERSON)
            }
        }
        Input::Answer(Answer::Read(Ok(None))) => close(treatment, Outcome::Aborted, now, GONE),
        Input::Answer(Answer::Read(Err(error))) => {
            let why = format!("the set cannot be read before it is disabled, nothing was sent: {error}");
            if now.since(since) < LATE { note(treatment, why) } else { close(treatment, Outcome::Failed, now, why) }
        }
        Input::Answer(Answer::Disabled(Ok(set))) => match set.enabled {
            Enablement::Disabled => {
                go(treatment, Step::Disabled { ours: set.revision, again_until: None }, now, "disabled")
            }
            Enablement::Enabled => unknown("the answer to the disable shows the set enabled".to_owned()),
        },
        Input::Answer(Answer::Disabled(Err(WriteError::NotApplied(failure)))) => {
            close(treatment, Outcome::Failed, now, format!("the disable was refused, nothing was changed: {failure}"))
        }
        Input::Answer(Answer::Disabled(Err(WriteError::Unknown(failure)))) => {
            unknown(format!("whether the disable took effect is not known: {failure}"))
        }
        // The next pass looks again before anything is sent; what was decided long ago is decided anew.
        Input::Recover | Input::Shutdown if now.since(since) < LATE => stay(treatment),
        Input::Recover | Input::Shutdown => close(treatment, Outcome::Aborted, now, UNSENT),
        Input::Answer(_) => stay(treatment),
    }
}

fn before_disable(treatment: &Treatment, seen: &Revision, view: &View<'_>, now: Wall) -> Transition {
    let set = match view.set {
        SetView::Seen(set) if answers(view) => set,
        SetView::Gone => return close(treatment, Outcome::Aborted, now, GONE),
        SetView::Seen(_) | SetView::Unseen => {
            return close(treatment, Outcome::Aborted, now, "the manager went away before anything was sent");
        }
    };
    if other_run(treatment, view) {
        return close(treatment, Outcome::Aborted, now, "the manager restarted before anything was sent");
    }
    if set.enabled == Enablement::Disabled || set.revision != *seen {
        return close(treatment, Outcome::Aborted, now, PERSON);
    }
    if view.finding.is_some_and(|finding| finding.diagnosis == Diagnosis::Listening) {
        return close(treatment, Outcome::SelfRecovered, now, "it listens again; nothing was sent");
    }
    if view.leave == Leave::Paused {
        return close(treatment, Outcome::Aborted, now, PAUSED);
    }
    ask(treatment, Request::ReadSet)
}

/// Sends the disable of a set that was just read to be enabled at revision `seen`. The step is dated anew: its date
/// tells our change from a person's, should the answer be lost.
pub(super) fn disable(treatment: &Treatment, seen: Revision, now: Wall) -> Transition {
    let treatment = Treatment { step: Step::Disabling { seen, sent: Some(now) }, step_at: now, ..treatment.clone() };
    Transition { treatment, effect: Some(Request::Disable), note: Some("disabling".to_owned()) }
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
        Input::Sweep(_) | Input::Recover | Input::Shutdown => ask(treatment, Request::ReadSet),
        Input::Answer(Answer::Read(Ok(Some(set)))) => settle_disable(treatment, seen, sent, &set, now),
        Input::Answer(Answer::Read(Ok(None))) => close(treatment, Outcome::Aborted, now, GONE),
        Input::Answer(Answer::Read(Err(error))) => {
            note(treatment, format!("whether the disable took effect cannot be read: {error}"))
        }
        Input::Answer(_) => stay(treatment),
    }
}

fn settle_disable(treatment: &Treatment, seen: &Revision, sent: Wall, set: &ScaleSet, now: Wall) -> Transition {
    match set.enabled {
        // Also after a person's edit: what comes late would disable the set all the same, and nobody would know.
        Enablement::Enabled if now.since(sent) < LATE => stay(treatment),
        Enablement::Enabled if set.revision != *seen => close(treatment, Outcome::Aborted, now, PERSON),
        Enablement::Enabled => close(treatment, Outcome::Failed, now, NEVER),
        Enablement::Disabled if is_dated_ours(set, sent) => {
            let step = Step::Disabled { ours: set.revision.clone(), again_until: Some(sent.plus(LATE)) };
            go(treatment, step, now, "the disable had taken effect")
        }
        Enablement::Disabled => close(treatment, Outcome::Aborted, now, PERSON),
    }
}

/// Whether the set's last change is dated as our disable would be. Where changes have no dates, whoever allowed it to be
/// toggled all the same wants it enabled again (`decide::guards`).
fn is_dated_ours(set: &ScaleSet, sent: Wall) -> bool {
    set.revision.as_str().is_empty() || set.updated_at.is_some_and(|at| at >= sent.minus(SKEW) && at <= sent.plus(LATE))
}

pub(super) fn disabled(
    treatment: &Treatment,
    (ours, again_until): (&Revision, Option<Wall>),
    input: &Input<'_>,
    now: Wall,
    policy: &Policy,
) -> Transition {
    let since = treatment.disabled_since().unwrap_or(treatment.step_at);
    let is_overdue = is_overdue(since, now, policy);
    let is_last_word = is_overdue || again_until.is_none_or(|until| now >= until);
    let enable = |note: &str| {
        let step = Step::Enabling { ours: ours.clone(), since: Some(since), attempts: 0, not_before: now };
        go(treatment, step, now, note).then(Request::ReadSet)
    };
    match input {
        Input::Sweep(view) => match compare(treatment, ours, view, now) {
            Compared::Ours if is_last_word && is_due(treatment, view, now, policy) => enable("the worker is due"),
            Compared::Ours | Compared::Doubtful if is_overdue => enable("the longest time is over"),
            Compared::Missing if is_last_word => enable("the manager's list lacks the set: asking for it"),
            Compared::Ours | Compared::Missing | Compared::Doubtful | Compared::Unseen => stay(treatment),
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
    // The manager's own date of our disable: its worker may be up before the answer has reached us.
    let written = match view.set {
        SetView::Seen(set) => {
            set.updated_at.filter(|at| is_dated_ours(set, treatment.step_at) && *at <= treatment.step_at)
        }
        SetView::Gone | SetView::Unseen => None,
    };
    let since = restarted.map_or(treatment.step_at, |run| run.0.max(treatment.step_at));
    let shown_since = if restarted.is_some() { since } else { written.unwrap_or(since) };
    let (state, at) = view.finding.map_or((WorkerState::Unknown, Wall(0)), |finding| finding.worker);
    let enough = match state {
        WorkerState::Idle | WorkerState::Retrying if at >= shown_since => Span::ZERO,
        WorkerState::Unknown => policy.toggle_gap,
        // A listener that has not stopped yet, a worker that is not there yet, or nothing new.
        WorkerState::Idle | WorkerState::Retrying | WorkerState::Listening | WorkerState::Absent => {
            policy.toggle_gap_limit
        }
    };
    now.since(since) >= enough
}

/// Whether a set that we have had disabled since then was so for as long as we may. A clock that was set back says
/// nothing: better now.
fn is_overdue(since: Wall, now: Wall, policy: &Policy) -> bool {
    now < since || now.since(since) >= policy.disabled_limit
}

/// About to enable: always read first, enable only what is disabled by us.
pub(super) fn enabling(
    treatment: &Treatment,
    (ours, attempts, not_before): (&Revision, u32, Wall),
    input: Input<'_>,
    now: Wall,
) -> Transition {
    let since = treatment.disabled_since();
    // What came back is kept for people: nobody else can enable the set while they do not know.
    let again = |attempts: u32, retry_at: Option<Wall>, note: String, refusal: String| {
        let not_before = next_undo(attempts, retry_at, now);
        let step = Step::Enabling { ours: ours.clone(), since, attempts, not_before };
        let mut next = go(treatment, step, now, note);
        next.treatment.refusal = Some(refusal);
        next
    };
    match input {
        Input::Sweep(view) => match compare(treatment, ours, &view, now) {
            Compared::Over(transition) => *transition,
            Compared::Ours | Compared::Missing | Compared::Doubtful if is_undo_due(not_before, now) => {
                ask(treatment, Request::ReadSet)
            }
            Compared::Ours | Compared::Missing | Compared::Doubtful | Compared::Unseen => stay(treatment),
        },
        Input::Shutdown | Input::Recover => ask(treatment, Request::ReadSet),
        Input::Answer(Answer::Read(Ok(Some(set)))) => over(treatment, ours, &set, now).unwrap_or_else(|| {
            let attempts = attempts.saturating_add(1);
            let step = Step::Enabling { ours: ours.clone(), since, attempts, not_before };
            go(treatment, step, now, "enabling").then(Request::Enable)
        }),
        Input::Answer(Answer::Read(Ok(None))) => close(treatment, Outcome::Aborted, now, GONE),
        Input::Answer(Answer::Read(Err(error))) => again(
            attempts.saturating_add(1),
            error.retry_at,
            format!("the set cannot be read before it is enabled: {error}"),
            error.to_string(),
        ),
        Input::Answer(Answer::Enabled(Ok(set))) => match set.enabled {
            Enablement::Enabled => go(treatment, Step::Verifying, now, "enabled"),
            Enablement::Disabled => {
                let shown = "the answer to the enable shows the set disabled".to_owned();
                again(attempts, None, shown.clone(), shown)
            }
        },
        Input::Answer(Answer::Enabled(Err(error))) => {
            let (reason, refusal) = (failure(&error), failure(&error).to_string());
            again(attempts, reason.retry_at, format!("the enable is tried again: {reason}"), refusal)
        }
        Input::Answer(_) => stay(treatment),
    }
}

/// What a pass says of a set that we disabled.
enum Compared {
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
        Enablement::Disabled => Some(close(treatment, Outcome::Aborted, now, PERSON)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FailureKind, Incarnation, RequestFailure};
    use crate::treat::testing::{
        NEXT_RUN, RUN, Seen, T0, Table, after, disabled as off, enabled as on, failure as failing, lost, refused, rev,
    };

    fn disabling() -> Table {
        Table::of(Step::Disabling { seen: rev("seen"), sent: None })
    }

    /// The disable is on its way.
    fn sent() -> Table {
        Table::of(Step::Disabling { seen: rev("seen"), sent: Some(T0) })
    }

    /// Ten seconds after the decision, the disable's answer was lost.
    fn unknown() -> Table {
        Table::of(Step::DisableUnknown { seen: rev("seen"), sent: after(10) })
    }

    fn disabled() -> Table {
        Table::of(Step::Disabled { ours: rev("ours"), again_until: None })
    }

    fn enabling() -> Table {
        Table::of(Step::Enabling { ours: rev("ours"), since: None, attempts: 0, not_before: T0 })
    }

    fn ours() -> ScaleSet {
        off("ours", T0)
    }

    fn sees_ours() -> Seen {
        Seen::ill().with(ours())
    }

    #[test]
    fn a_toggle_reads_disables_waits_for_the_worker_reads_again_and_enables() {
        let mut table = disabling();
        assert_eq!(table.sees(&Seen::ill()), Some(Request::ReadSet));
        assert_eq!(table.reads(on("seen")), Some(Request::Disable));
        assert_eq!(table.hears(Answer::Disabled(Ok(ours()))), None);
        assert_eq!(table.treatment.step, Step::Disabled { ours: rev("ours"), again_until: None });
        assert_eq!(table.at(2).sees(&sees_ours()), None, "no sign of the new worker yet");
        assert_eq!(table.at(4).sees(&sees_ours().worker(WorkerState::Idle, after(3))), Some(Request::ReadSet));
        assert_eq!(table.reads(ours()), Some(Request::Enable));
        assert_eq!(table.treatment.disabled_since(), Some(T0), "however often the enable is tried");
        assert_eq!(table.at(5).hears(Answer::Enabled(Err(refused()))), None);
        assert_eq!(table.treatment.disabled_since(), Some(T0));
        table.at(6).sees(&sees_ours());
        table.reads(ours());
        assert_eq!(table.hears(Answer::Enabled(Ok(on("enabled")))), None);
        assert_eq!((table.label(), table.treatment.disabled_since()), ("verifying", None));
    }

    #[test]
    fn a_worker_that_was_up_before_the_answer_came_is_no_older_than_our_disable() {
        for (shown, due) in [(4, true), (3, true), (2, false)] {
            let mut table = disabling();
            table.sees(&Seen::ill());
            table.reads(on("seen"));
            table.at(5).hears(Answer::Disabled(Ok(off("ours", after(3)))));
            let seen = Seen::ill().with(off("ours", after(3))).worker(WorkerState::Idle, after(shown));
            assert_eq!(table.at(6).sees(&seen), due.then_some(Request::ReadSet), "{shown}");
        }
    }

    #[test]
    fn a_managers_clock_that_is_off_does_not_date_its_worker() {
        let (before, later) = (T0.minus(Span::secs(10)), after(3));
        for (dated, worker, due) in [(T0.minus(Span::hours(1)), before, false), (after(5), later, true)] {
            let seen = Seen::ill().with(off("ours", dated)).worker(WorkerState::Idle, worker);
            assert_eq!(disabled().at(4).sees(&seen), due.then_some(Request::ReadSet), "disabled at {dated}");
        }
    }

    #[test]
    fn nothing_is_sent_when_the_set_is_no_longer_what_was_treated() {
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
            let mut table = disabling();
            assert_eq!(table.sees(&seen), None, "{seen:?}");
            assert_eq!(table.outcome(), Some(outcome), "{seen:?}");
        }
    }

    #[test]
    fn a_pause_ends_what_has_not_been_sent_and_hinders_no_enable() {
        let mut table = disabling();
        assert_eq!(table.sees(&Seen::ill()), Some(Request::ReadSet));
        table.hears(Answer::Read(Err(failing(FailureKind::Server))));
        assert_eq!(table.at(2).sees(&Seen::ill().paused()), None);
        assert_eq!((table.outcome(), table.why()), (Some(Outcome::Aborted), PAUSED));

        assert_eq!(
            sent().sees(&Seen::ill().paused()),
            Some(Request::ReadSet),
            "it may have been sent: what came of it?"
        );
        let mut table = disabled();
        assert_eq!(table.at(4).sees(&sees_ours().worker(WorkerState::Idle, after(3)).paused()), Some(Request::ReadSet));
        assert_eq!(table.reads(ours()), Some(Request::Enable));
    }

    #[test]
    fn nothing_is_sent_when_the_last_look_differs_from_the_first() {
        for set in [off("seen", T0), on("edited"), off("edited", T0)] {
            let mut table = disabling();
            table.sees(&Seen::ill());
            assert_eq!(table.reads(set), None);
            assert_eq!(table.outcome(), Some(Outcome::Aborted));
        }
        let mut table = disabling();
        table.sees(&Seen::ill());
        assert_eq!(table.hears(Answer::Read(Ok(None))), None);
        assert_eq!(table.outcome(), Some(Outcome::Aborted));
    }

    #[test]
    fn a_last_look_that_fails_is_repeated_for_half_a_minute() {
        let mut table = disabling();
        for second in [0, 10, 29] {
            assert_eq!(table.at(second).sees(&Seen::ill()), Some(Request::ReadSet));
            assert_eq!(table.hears(Answer::Read(Err(failing(FailureKind::Server)))), None);
            assert_eq!(table.outcome(), None, "{second} s");
        }
        table.at(30).hears(Answer::Read(Err(failing(FailureKind::Server))));
        assert_eq!(table.outcome(), Some(Outcome::Failed));
        assert!(table.why().contains("nothing was sent"), "{}", table.why());
    }

    #[test]
    fn a_refused_disable_changed_nothing() {
        let mut table = disabling();
        assert_eq!(table.hears(Answer::Disabled(Err(refused()))), None);
        assert_eq!(table.outcome(), Some(Outcome::Failed));
        assert!(table.why().contains("nothing was changed"), "{}", table.why());
    }

    #[test]
    fn an_answered_disable_is_ours_however_wrong_the_managers_clock_is() {
        for at in [Some(T0.minus(Span::hours(1))), Some(T0.plus(Span::hours(1))), None] {
            let mut table = disabling();
            table.hears(Answer::Disabled(Ok(ScaleSet { updated_at: at, ..ours() })));
            assert_eq!(table.treatment.step, Step::Disabled { ours: rev("ours"), again_until: None });
        }
    }

    #[test]
    fn a_disable_without_an_answer_is_settled_by_reading() {
        let mut table = disabling();
        assert_eq!(table.at(3).sees(&Seen::ill()), Some(Request::ReadSet));
        assert_eq!(table.reads(on("seen")), Some(Request::Disable));
        assert_eq!(table.at(10).hears(Answer::Disabled(Err(lost()))), Some(Request::ReadSet));
        assert_eq!(
            table.treatment.step,
            Step::DisableUnknown { seen: rev("seen"), sent: after(3) },
            "dated by the sending, not by the decision"
        );
        let mut table = disabling();
        assert_eq!(table.hears(Answer::Disabled(Ok(on("seen")))), Some(Request::ReadSet), "an answer that cannot be");
        assert_eq!(table.label(), "disable_unknown");
    }

    #[test]
    fn after_a_crash_a_disable_may_have_been_sent() {
        for table in [&mut sent(), &mut unknown()] {
            assert_eq!(table.at(60).recovers(), Some(Request::ReadSet));
            assert_eq!(table.label(), "disable_unknown");
        }
        assert_eq!(sent().ends(), Some(Request::ReadSet));
    }

    #[test]
    fn after_a_crash_before_the_disable_was_sent_a_disabled_set_is_a_persons() {
        for restart in [Table::recovers, Table::ends] {
            let mut table = disabling();
            table.sees(&Seen::ill());
            assert_eq!(restart(table.at(2)), None, "nothing was sent, nothing is to be settled");
            assert_eq!(table.clone().at(4).sees(&Seen::ill()), Some(Request::ReadSet), "a last look anew");
            assert_eq!(table.at(4).sees(&Seen::ill().with(off("theirs", after(1)))), None);
            assert_eq!(table.outcome(), Some(Outcome::Aborted));
        }
        let mut table = disabling();
        assert_eq!(table.at(30).recovers(), None, "decided too long ago");
        assert_eq!(table.outcome(), Some(Outcome::Aborted));
    }

    #[test]
    fn a_disable_whose_answer_no_journal_has_is_settled_by_reading() {
        let mut table = sent();
        assert_eq!(table.at(8).sees(&Seen::ill().with(off("ours", after(1)))), Some(Request::ReadSet));
        assert_eq!(table.label(), "disable_unknown", "disabled, and not yet said by whom");
        assert_eq!(table.reads(off("ours", after(1))), None);
        assert_eq!(table.label(), "disabled");
    }

    #[test]
    fn a_lost_disable_is_ours_when_dated_close_after_its_sending() {
        for (seconds, is_ours) in [(7, false), (8, true), (10, true), (40, true), (41, false)] {
            let mut table = unknown();
            assert_eq!(table.at(60).reads(off("new", after(seconds))), None);
            if is_ours {
                let step = Step::Disabled { ours: rev("new"), again_until: Some(after(40)) };
                assert_eq!(table.treatment.step, step, "{seconds} s");
            } else {
                assert_eq!(table.outcome(), Some(Outcome::Aborted), "{seconds} s: a person's");
            }
        }
        let mut table = unknown();
        table.at(60).reads(ScaleSet { updated_at: None, ..off("new", T0) });
        assert_eq!(table.outcome(), Some(Outcome::Aborted), "what nobody can date is not ours");
    }

    #[test]
    fn a_disable_that_was_not_answered_may_come_again_and_the_set_is_enabled_after_that() {
        let settled = || {
            let mut table = unknown();
            table.at(12).reads(off("ours", after(11)));
            table
        };
        let seen = Seen::ill().with(off("ours", after(11))).worker(WorkerState::Idle, after(12));
        let mut table = settled();
        assert_eq!(table.at(39).sees(&seen), None, "the worker is due, and a second disable may be on its way");
        assert_eq!(table.at(40).sees(&seen), Some(Request::ReadSet));
        let mut table = settled();
        assert_eq!(table.at(13).ends(), Some(Request::ReadSet), "a medic that ends leaves no set disabled");
        let mut table = settled();
        table.policy.disabled_limit = Span::secs(15);
        assert_eq!(table.at(24).sees(&seen), None);
        assert_eq!(table.at(25).sees(&seen), Some(Request::ReadSet), "no longer than the limit, from its sending on");
        let mut table = settled();
        assert_eq!(table.at(39).sees(&seen.clone().gone()), None, "nor where a list lacks it");
        assert_eq!(table.at(40).sees(&seen.clone().gone()), Some(Request::ReadSet));
    }

    #[test]
    fn a_lost_disable_may_come_late_and_is_waited_for() {
        let mut table = unknown();
        for second in [11, 20, 39] {
            assert_eq!(table.at(second).sees(&Seen::ill()), Some(Request::ReadSet), "read in each pass");
            assert_eq!(table.reads(on("seen")), None);
            assert_eq!(table.label(), "disable_unknown", "{second} s");
        }
        table.at(40).sees(&Seen::ill());
        assert_eq!(table.reads(on("seen")), None);
        assert_eq!(table.outcome(), Some(Outcome::Failed));
        assert_eq!(table.why(), NEVER);
    }

    #[test]
    fn a_lost_disable_ends_where_somebody_acted() {
        let mut table = unknown();
        table.at(12).reads(on("edited"));
        assert_eq!(table.outcome(), None, "it may still come, and would have to be undone");
        table.at(40).reads(on("edited"));
        assert_eq!(table.outcome(), Some(Outcome::Aborted));
        let mut table = unknown();
        assert_eq!(table.sees(&Seen::ill().gone()), Some(Request::ReadSet), "a list may be wrong");
        table.hears(Answer::Read(Ok(None)));
        assert_eq!(table.outcome(), Some(Outcome::Aborted));
    }

    #[test]
    fn a_lost_disable_stays_open_while_the_manager_cannot_be_read() {
        let mut table = unknown();
        assert_eq!(table.at(500).sees(&Seen::ill().manager(ManagerState::Down)), None);
        assert_eq!(table.sees(&Seen::ill().manager(ManagerState::Unreachable)), Some(Request::ReadSet));
        assert_eq!(table.hears(Answer::Read(Err(failing(FailureKind::Timeout)))), None);
        assert_eq!(table.label(), "disable_unknown");
    }

    #[test]
    fn the_enable_comes_when_the_worker_is_there_or_its_time_is_over() {
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
                assert_eq!(disabled().at(early).sees(&seen), None, "{state} dated {at}");
            }
            assert_eq!(disabled().at(due).sees(&seen), Some(Request::ReadSet), "{state} dated {at}");
        }
    }

    #[test]
    fn no_gap_is_longer_than_the_longest_time_disabled() {
        let mut table = disabled();
        (table.policy.toggle_gap, table.policy.toggle_gap_limit) = (Span::mins(9), Span::mins(9));
        assert_eq!(table.at(119).sees(&sees_ours()), None);
        assert_eq!(table.at(120).sees(&sees_ours()), Some(Request::ReadSet));
    }

    #[test]
    fn a_clock_set_back_does_not_prolong_the_time_disabled() {
        let mut table = disabled();
        table.at = T0.minus(Span::hours(1));
        assert_eq!(table.sees(&sees_ours()), Some(Request::ReadSet));
        table.treatment.step = Step::Enabling { ours: rev("ours"), since: None, attempts: 3, not_before: T0 };
        assert_eq!(table.sees(&sees_ours()), Some(Request::ReadSet));
    }

    #[test]
    fn after_a_restart_the_new_process_gets_time_to_make_its_worker() {
        let seen = sees_ours().run(NEXT_RUN);
        assert_eq!(disabled().at(64).sees(&seen), None, "4 s after the start");
        assert_eq!(disabled().at(65).sees(&seen), Some(Request::ReadSet));
        let before = sees_ours().run(NEXT_RUN).worker(WorkerState::Idle, after(30));
        assert_eq!(disabled().at(62).sees(&before), None, "the worker of the process before");
        let ahead = sees_ours().run(Incarnation(after(90_000)));
        assert_eq!(disabled().at(120).sees(&ahead), Some(Request::ReadSet), "a wrong clock does not prolong it");
    }

    #[test]
    fn a_set_that_somebody_enabled_is_verified_without_our_enable() {
        let mut table = disabled();
        assert_eq!(table.sees(&Seen::ill().with(on("theirs"))), None);
        assert_eq!(table.label(), "verifying");
        let mut table = enabling();
        assert_eq!(table.reads(on("theirs")), None);
        assert_eq!(table.label(), "verifying");
    }

    #[test]
    fn a_set_that_somebody_edited_while_disabled_is_theirs_and_stays_as_it_is() {
        let theirs = off("theirs", after(3));
        for table in [&mut disabled(), &mut enabling()] {
            assert_eq!(table.at(20).sees(&Seen::ill().with(theirs.clone())), None);
            assert_eq!(table.outcome(), Some(Outcome::Aborted));
        }
        let mut table = enabling();
        assert_eq!(table.reads(theirs), None, "the last look decides");
        assert_eq!(table.outcome(), Some(Outcome::Aborted));
    }

    #[test]
    fn a_list_that_lacks_the_set_is_not_believed_before_the_set_itself_was_asked_for() {
        for table in [&mut disabled(), &mut enabling()] {
            assert_eq!(table.at(1).sees(&Seen::ill().gone()), Some(Request::ReadSet));
            assert_eq!(table.clone().reads(ours()), Some(Request::Enable), "the list was wrong");
            table.hears(Answer::Read(Ok(None)));
            assert_eq!(table.outcome(), Some(Outcome::Aborted), "it was right");
        }
    }

    #[test]
    fn while_the_manager_is_down_the_intent_is_kept_without_limit() {
        for table in [&mut disabled(), &mut enabling()] {
            let before = table.treatment.clone();
            assert_eq!(table.at(90_000).sees(&Seen::ill().manager(ManagerState::Down)), None);
            assert_eq!(table.treatment, before);
            assert_eq!(table.sees(&sees_ours().run(NEXT_RUN)), Some(Request::ReadSet), "still ours after a restart");
        }
    }

    #[test]
    fn a_manager_whose_list_cannot_be_used_is_asked_for_the_set_alone_once_it_is_time() {
        let blind = Seen::ill().manager(ManagerState::Unreachable);
        let mut table = disabled();
        assert_eq!(table.at(119).sees(&blind), None);
        assert_eq!(table.at(120).sees(&blind), Some(Request::ReadSet));
        assert_eq!(table.hears(Answer::Read(Err(failing(FailureKind::Timeout)))), None);
        assert_eq!(table.sees(&blind), None, "not at once again");
        assert_eq!(table.at(121).sees(&blind), Some(Request::ReadSet));
        assert_eq!(table.reads(ours()), Some(Request::Enable));
    }

    #[test]
    fn the_enable_is_tried_until_it_is_seen_to_have_worked() {
        let mut table = enabling();
        let mut waits = Vec::new();
        let mut second = 0;
        for _ in 0..8 {
            assert_eq!(table.at(second).sees(&sees_ours()), Some(Request::ReadSet));
            assert_eq!(table.reads(ours()), Some(Request::Enable));
            assert_eq!(table.hears(Answer::Enabled(Err(refused()))), None);
            let since = second;
            while table.at(second).sees(&sees_ours()).is_none() {
                second += 1;
                assert!(second < 200, "not tried again: {waits:?}");
            }
            waits.push(second - since);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(table.outcome(), None);
        assert_eq!(table.reads(ours()), Some(Request::Enable));
        assert_eq!(table.hears(Answer::Enabled(Ok(on("enabled")))), None);
        assert_eq!(table.label(), "verifying");
    }

    #[test]
    fn no_server_can_ask_us_to_leave_a_set_disabled_for_longer() {
        let mut table = enabling();
        let busy = RequestFailure { retry_at: Some(after(3600)), ..failing(FailureKind::RateLimited) };
        table.hears(Answer::Enabled(Err(WriteError::NotApplied(busy))));
        assert_eq!(table.at(29).sees(&sees_ours()), None);
        assert_eq!(table.at(30).sees(&sees_ours()), Some(Request::ReadSet));
    }

    #[test]
    fn an_enable_without_an_answer_is_settled_by_reading() {
        let sent = || {
            let mut table = enabling();
            assert_eq!(table.reads(ours()), Some(Request::Enable));
            assert_eq!(table.hears(Answer::Enabled(Err(lost()))), None);
            table.at(2);
            table
        };
        let mut table = sent();
        assert_eq!(table.sees(&Seen::ill().with(on("enabled"))), None);
        assert_eq!(table.label(), "verifying", "it had worked");
        let mut table = sent();
        assert_eq!(table.sees(&sees_ours()), Some(Request::ReadSet));
        assert_eq!(table.reads(ours()), Some(Request::Enable), "it had not");
        let mut table = enabling();
        table.hears(Answer::Enabled(Ok(ours())));
        assert_eq!(table.label(), "enabling", "an answer that shows it disabled is no success");
    }

    #[test]
    fn a_set_that_is_gone_needs_no_enable() {
        let mut table = enabling();
        // A 404 may be a proxy's: the set is asked for.
        table.hears(Answer::Enabled(Err(WriteError::NotApplied(failing(FailureKind::NotFound)))));
        assert_eq!(table.outcome(), None);
        assert_eq!(table.at(2).sees(&sees_ours()), Some(Request::ReadSet));
        table.hears(Answer::Read(Ok(None)));
        assert_eq!(table.outcome(), Some(Outcome::Aborted));
    }

    #[test]
    fn a_lost_disable_of_a_manager_that_dates_nothing_is_taken_for_ours_and_enabled() {
        let mut table = unknown();
        let undated = ScaleSet { updated_at: None, ..off("", T0) };
        assert_eq!(table.at(12).sees(&Seen::ill()), Some(Request::ReadSet));
        table.reads(undated);
        assert_eq!(table.label(), "disabled");
    }

    #[test]
    fn when_the_medic_ends_or_starts_a_set_of_ours_is_enabled_after_a_look() {
        let mut table = disabled();
        assert_eq!(table.at(1).ends(), Some(Request::ReadSet), "at once, whatever the worker does");
        assert_eq!(table.reads(ours()), Some(Request::Enable));
        for input in [Table::ends, Table::recovers] {
            let mut table = enabling();
            table.treatment.step =
                Step::Enabling { ours: rev("ours"), since: None, attempts: 5, not_before: after(30) };
            assert_eq!(input(&mut table), Some(Request::ReadSet), "whatever the wait");
            assert_eq!(table.reads(ours()), Some(Request::Enable));
        }
        let mut table = disabled();
        assert_eq!(table.at(400).recovers(), None, "nothing is in flight");
        assert_eq!(table.sees(&sees_ours().run(RUN)), Some(Request::ReadSet));
    }
}
