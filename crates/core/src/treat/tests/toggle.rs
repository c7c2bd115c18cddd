//! Disable, wait for the worker, enable.

use super::{disabled as off, enabled as on, *};

pub(super) fn disabling() -> Case {
    Case::of(Step::Disabling { seen: rev("seen"), sent: None })
}

/// The disable has been sent.
fn sent() -> Case {
    Case::of(Step::Disabling { seen: rev("seen"), sent: Some(T0) })
}

/// Sent ten seconds after the decision, and never answered.
pub(super) fn unknown() -> Case {
    Case::of(Step::DisableUnknown { seen: rev("seen"), sent: after(10) })
}

pub(super) fn disabled() -> Case {
    Case::of(Step::Disabled { ours: rev("ours"), again_until: None })
}

pub(super) fn enabling() -> Case {
    Case::of(Step::Enabling { ours: rev("ours"), since: None, attempts: 0, not_before: T0 })
}

fn retried(attempts: u32, not_before: Wall) -> Case {
    Case::of(Step::Enabling { ours: rev("ours"), since: None, attempts, not_before })
}

fn ours() -> ScaleSet {
    off("ours", T0)
}

fn sees_ours() -> Seen {
    Seen::ill().with(ours())
}

fn idle(seconds: u64) -> Seen {
    sees_ours().worker(WorkerState::Idle, after(seconds))
}

fn off_answer(answer: Result<ScaleSet, WriteError>) -> Event {
    Event::Answer(Answer::Disabled(answer))
}

fn on_answer(answer: Result<ScaleSet, WriteError>) -> Event {
    Event::Answer(Answer::Enabled(answer))
}

#[test]
fn toggle_reads_disables_waits_for_worker_reads_and_enables() {
    let case = disabling().run([
        (0, ill(), "read_set, disabling"),
        (3, read(on("seen")), "disable, disabling"),
        (4, off_answer(Ok(off("ours", after(4)))), "disabled"),
    ]);
    assert_eq!(case.treatment.step, Step::Disabled { ours: rev("ours"), again_until: None });
    let case = case.run([
        (5, sees(idle(3)), "disabled"),
        (6, sees(idle(5)), "read_set, enabling: worker_due"),
        (6, read(ours()), "enable, enabling"),
        (7, on_answer(Err(refused())), "enabling: enable"),
    ]);
    assert_eq!(case.treatment.disabled_since(), Some(after(4)), "however often the enable is tried");
    assert!(case.treatment.refusal.is_some(), "for the operator who may have to enable it");
    let case = case.run([
        (8, sees(sees_ours()), "read_set, enabling"),
        (8, read(ours()), "enable, enabling"),
        (8, on_answer(Ok(on("enabled"))), "verifying"),
    ]);
    assert_eq!(case.treatment.disabled_since(), None);
}

#[test]
fn disable_is_sent_only_to_the_set_that_was_decided_on() {
    let down = Seen::ill().manager(ManagerState::Down).with(on("seen"));
    let dated = |at| off_answer(Ok(ScaleSet { updated_at: at, ..ours() }));
    check_each([
        ("listed disabled", disabling(), 0, lists(off("seen", T0)), "aborted: changed_by_others"),
        ("listed changed", disabling(), 0, lists(on("edited")), "aborted: changed_by_others"),
        ("not listed", disabling(), 0, missing(), "aborted: set_removed"),
        ("restarted", disabling(), 0, restarted(), "aborted: restarted_since_decision"),
        ("down", disabling(), 0, manager(ManagerState::Down), "aborted: manager_away"),
        ("unreachable", disabling(), 0, manager(ManagerState::Unreachable), "aborted: manager_away"),
        ("down, and listed", disabling(), 0, sees(down), "aborted: manager_away"),
        ("listens", disabling(), 0, listens(T0), "self_recovered: listens_again"),
        ("read disabled", disabling(), 0, read(off("seen", T0)), "aborted: changed_by_others"),
        ("read changed", disabling(), 0, read(on("edited")), "aborted: changed_by_others"),
        ("read both", disabling(), 0, read(off("edited", T0)), "aborted: changed_by_others"),
        ("read nothing", disabling(), 0, read(None), "aborted: set_removed"),
        ("unreadable", disabling(), 29, unreadable(), "disabling: read_before_disable"),
        ("tried again", disabling(), 29, ill(), "read_set, disabling"),
        ("unreadable for half a minute", disabling(), 30, unreadable(), "failed: read_before_disable"),
        ("paused", disabling(), 2, paused(), "aborted: paused"),
        ("refused", disabling(), 0, off_answer(Err(refused())), "failed: disable_refused"),
        ("answered, dated long ago", disabling(), 0, dated(Some(T0.minus(Span::hours(1)))), "disabled"),
        ("answered, dated in the future", disabling(), 0, dated(Some(T0.plus(Span::hours(1)))), "disabled"),
        ("answered, not dated", disabling(), 0, dated(None), "disabled"),
    ]);
}

#[test]
fn disable_without_usable_answer_is_read_back() {
    let case = disabling().run([
        (3, read(on("seen")), "disable, disabling"),
        (10, off_answer(Err(lost())), "read_set, disable_unknown: disable_unanswered"),
    ]);
    assert_eq!(case.treatment.step, Step::DisableUnknown { seen: rev("seen"), sent: after(3) });
    let maybe = "read_set, disable_unknown: disable_maybe_sent";
    check_each([
        ("impossible", disabling(), 0, off_answer(Ok(on("seen"))), "read_set, disable_unknown: disable_shown_enabled"),
        ("the list does not say by whom", sent(), 8, lists(off("ours", after(1))), maybe),
        ("paused", sent(), 2, paused(), maybe),
        ("crashed", sent(), 60, Event::Recover, maybe),
        ("stopped", sent(), 0, Event::Shutdown, maybe),
        ("crashed again", unknown(), 60, Event::Recover, "read_set, disable_unknown"),
        ("stopped then", unknown(), 11, Event::Shutdown, "read_set, disable_unknown"),
    ]);
}

#[test]
fn disable_not_sent_before_a_crash_is_not_claimed() {
    for restart in [Event::Recover, Event::Shutdown] {
        let theirs = lists(off("theirs", after(1)));
        disabling().run([(29, restart.clone(), "disabling"), (29, theirs, "aborted: changed_by_others")]);
        disabling().run([(30, restart, "aborted: medic_ended")]);
    }
}

#[test]
fn lost_disable_is_ours_when_dated_close_after_its_sending() {
    let (mine, theirs) = ("disabled: disable_took_effect", "aborted: changed_by_others");
    let undated = |revision| read(ScaleSet { updated_at: None, ..off(revision, T0) });
    check_each([
        ("long before", unknown(), 60, read(off("new", after(7))), theirs),
        ("within the skew", unknown(), 60, read(off("new", after(8))), mine),
        ("late", unknown(), 60, read(off("new", after(40))), mine),
        ("too late", unknown(), 60, read(off("new", after(41))), theirs),
        ("undated", unknown(), 60, undated("new"), theirs),
        ("a manager that dates nothing", unknown(), 12, undated(""), mine),
    ]);
    let case = unknown().run([(60, read(off("new", after(10))), mine)]);
    assert_eq!(case.treatment.step, Step::Disabled { ours: rev("new"), again_until: Some(after(40)) });
}

#[test]
fn lost_disable_that_worked_is_enabled_after_a_second_one() {
    let found = || unknown().run([(12, read(off("ours", after(11))), "disabled: disable_took_effect")]);
    let limited = || found().with(|case| case.policy.disabled_limit = Span::secs(15));
    let seen = || sees(Seen::ill().with(off("ours", after(11))).worker(WorkerState::Idle, after(12)));
    check_each([
        ("a second disable may still arrive", found(), 39, seen(), "disabled"),
        ("no more", found(), 40, seen(), "read_set, enabling: worker_due"),
        ("not listed", found(), 39, missing(), "disabled"),
        ("not listed later", found(), 40, missing(), "read_set, enabling: missing_in_list"),
        ("at once when the medic ends", found(), 13, Event::Shutdown, "read_set, enabling: medic_ends"),
        ("within the limit", limited(), 24, seen(), "disabled"),
        ("counted from the request", limited(), 25, seen(), "read_set, enabling: worker_due"),
    ]);
}

#[test]
fn lost_disable_is_waited_for_and_then_assumed_lost() {
    for (revision, end) in [("seen", "failed: disable_lost"), ("edited", "aborted: changed_by_others")] {
        unknown().run([
            (20, ill(), "read_set, disable_unknown"),
            (39, read(on(revision)), "disable_unknown"),
            (40, ill(), "read_set, disable_unknown"),
            (40, read(on(revision)), end),
        ]);
    }
    unknown().run([
        (500, manager(ManagerState::Down), "disable_unknown"),
        (500, manager(ManagerState::Unreachable), "read_set, disable_unknown"),
        (500, unreadable(), "disable_unknown: read_after_disable"),
        (500, missing(), "read_set, disable_unknown"),
        (500, read(None), "aborted: set_removed"),
    ]);
}

#[test]
fn enable_comes_when_the_worker_is_there_or_its_time_is_over() {
    let (old, new) = (T0.minus(Span::secs(1)), after(1));
    for (state, at, due) in [
        (WorkerState::Idle, new, 0),
        (WorkerState::Retrying, new, 0),
        (WorkerState::Unknown, new, 5),
        (WorkerState::Absent, new, 15),
        (WorkerState::Listening, new, 15),
        (WorkerState::Idle, old, 15),
        (WorkerState::Retrying, old, 15),
    ] {
        let seen = || sees(sees_ours().worker(state, at));
        for early in [0, due - 1].into_iter().filter(|second| (0..due).contains(second)) {
            disabled().run([(early, seen(), "disabled")]);
        }
        disabled().run([(due, seen(), "read_set, enabling: worker_due")]);
    }
}

#[test]
fn worker_evidence_is_compared_with_the_managers_date() {
    let due = "read_set, enabling: worker_due";
    let answered_late = || disabling().run([(5, off_answer(Ok(off("ours", after(3)))), "disabled")]);
    let shows = |dated, worker| sees(Seen::ill().with(off("ours", dated)).worker(WorkerState::Idle, worker));
    check_each([
        ("after it", answered_late(), 6, shows(after(3), after(4)), due),
        ("with it", answered_late(), 6, shows(after(3), after(3)), due),
        ("before it", answered_late(), 6, shows(after(3), after(2)), "disabled"),
        ("clock behind", disabled(), 4, shows(T0.minus(Span::hours(1)), T0.minus(Span::secs(10))), "disabled"),
        ("clock ahead", disabled(), 4, shows(after(5), after(3)), due),
    ]);
}

#[test]
fn disabled_time_has_a_limit_also_after_a_clock_change() {
    let gap = Span::mins(9);
    let patient = || disabled().with(|case| (case.policy.toggle_gap, case.policy.toggle_gap_limit) = (gap, gap));
    let started = |run| sees(sees_ours().run(run));
    let (overdue, due) = ("read_set, enabling: disabled_too_long", "read_set, enabling: worker_due");
    check_each([
        ("within the limit", patient(), 119, sees(sees_ours()), "disabled"),
        ("at the limit", patient(), 120, sees(sees_ours()), overdue),
        ("clock set back", patient(), -3600, sees(sees_ours()), overdue),
        ("clock set back later", retried(3, T0), -3600, sees(sees_ours()), "read_set, enabling"),
        ("4 s after a start", disabled(), 64, started(NEXT_RUN), "disabled"),
        ("5 s after a start", disabled(), 65, started(NEXT_RUN), due),
        ("worker of the process before", disabled(), 62, sees(idle(30).run(NEXT_RUN)), "disabled"),
        ("a start in the future", disabled(), 120, started(Incarnation(after(90_000))), overdue),
    ]);
}

#[test]
fn set_of_ours_is_enabled_unless_somebody_else_changed_it() {
    let theirs = || off("theirs", after(3));
    let changed = "aborted: changed_by_others";
    check_each([
        ("listed enabled", disabled(), 0, lists(on("theirs")), "verifying: found_enabled"),
        ("listed enabled later", enabling(), 0, lists(on("theirs")), "verifying: found_enabled"),
        ("read enabled", enabling(), 0, read(on("theirs")), "verifying: found_enabled"),
        ("listed changed", disabled(), 20, lists(theirs()), changed),
        ("listed changed later", enabling(), 20, lists(theirs()), changed),
        ("read changed", enabling(), 0, read(theirs()), changed),
        ("not listed", disabled(), 1, missing(), "read_set, enabling: missing_in_list"),
        ("not listed later", enabling(), 1, missing(), "read_set, enabling"),
        ("listed wrongly", enabling(), 1, read(ours()), "enable, enabling"),
        ("gone", enabling(), 1, read(None), "aborted: set_removed"),
        ("down", disabled(), 90_000, manager(ManagerState::Down), "disabled"),
        ("down later", enabling(), 90_000, manager(ManagerState::Down), "enabling"),
        ("restarted", enabling(), 90_000, sees(sees_ours().run(NEXT_RUN)), "read_set, enabling"),
        ("stopped", disabled(), 1, Event::Shutdown, "read_set, enabling: medic_ends"),
        ("stopped while it waits", retried(5, after(30)), 0, Event::Shutdown, "read_set, enabling"),
        ("crashed while it waits", retried(5, after(30)), 0, Event::Recover, "read_set, enabling"),
        ("paused", disabled(), 4, sees(Seen { paused: true, ..idle(3) }), "read_set, enabling: worker_due"),
        ("crashed, and nothing is in flight", disabled(), 400, Event::Recover, "disabled"),
    ]);
    let not_found = not_applied(FailureKind::NotFound, None);
    enabling().run([
        (0, on_answer(Err(not_found)), "enabling: enable"),
        (2, sees(sees_ours()), "read_set, enabling"),
        (2, read(None), "aborted: set_removed"),
    ]);
}

#[test]
fn unusable_list_leads_to_a_read_once_the_time_is_over() {
    let blind = || manager(ManagerState::Unreachable);
    disabled().run([
        (119, blind(), "disabled"),
        (120, blind(), "read_set, enabling: disabled_too_long"),
        (120, unreadable(), "enabling: read_before_enable"),
        (120, blind(), "enabling"),
        (121, blind(), "read_set, enabling"),
        (121, read(ours()), "enable, enabling"),
    ]);
}

#[test]
fn enable_is_repeated_until_it_has_worked() {
    let mut case = enabling();
    let refuse = [read(ours()), on_answer(Err(refused()))];
    let sent = sent_at(&mut case, &sees(sees_ours()), &refuse, 9);
    assert_eq!(sent, [0, 1, 3, 7, 15, 31, 61, 91, 121]);
    let busy = || on_answer(Err(not_applied(FailureKind::RateLimited, after(3600))));
    case.run([(121, read(ours()), "enable, enabling"), (121, on_answer(Ok(on("enabled"))), "verifying")]);
    enabling().run([
        (0, busy(), "enabling: enable"),
        (29, sees(sees_ours()), "enabling"),
        (30, sees(sees_ours()), "read_set, enabling"),
    ]);
}

#[test]
fn enable_without_usable_answer_is_read_back() {
    let lost = || retried(1, T0).run([(0, on_answer(Err(lost())), "enabling: enable")]);
    check_each([
        ("it worked", lost(), 2, lists(on("enabled")), "verifying: found_enabled"),
        ("it may have worked", lost(), 2, sees(sees_ours()), "read_set, enabling"),
        ("it had not worked", lost(), 2, read(ours()), "enable, enabling"),
        ("impossible", enabling(), 0, on_answer(Ok(ours())), "enabling: enable_shown_disabled"),
    ]);
}
