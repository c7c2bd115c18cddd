//! Deleting a stale session of the manager's.

use super::*;
use crate::model::{Failed, Operation};
use FailureKind::{Forbidden, HeldBack, RateLimited, Rejected, Unauthorized};

/// After that many requests.
pub(super) fn deleting(attempts: u32) -> Case {
    let step = Step::Deleting { session: session(), seen: Some(rev("seen")), attempts, not_before: T0 };
    Case::of(step).remedy(Remedy::DeleteSession { session: session() })
}

pub(super) fn then_toggle(attempts: u32) -> Case {
    deleting(attempts).remedy(Remedy::DeleteThenToggle { session: session() })
}

fn run_is(incarnation: Result<Incarnation, RequestFailure>) -> Event {
    Event::Answer(Answer::Incarnation { incarnation, warrant: warrant() })
}

fn refuses(kind: FailureKind, retry_at: impl Into<Option<Wall>>) -> Event {
    deleted(Err(not_applied(kind, retry_at)))
}

#[test]
fn stale_session_is_deleted_after_reading_the_incarnation() {
    deleting(0).run([
        (0, ill(), "check_incarnation, deleting"),
        (0, run_is(Ok(RUN)), "delete_session, deleting"),
        (0, deleted(Ok(())), "verifying: stale_session_gone"),
    ]);
}

#[test]
fn deletion_is_followed_by_the_toggle() {
    let done = || then_toggle(1).run([(0, deleted(Ok(())), "read_set, deleting")]);
    let case = done().run([(3, read(enabled("seen")), "disable, disabling")]);
    assert_eq!(case.treatment.step, Step::Disabling { seen: rev("seen"), sent: Some(after(3)) });
    assert_eq!(case.treatment.step_at, after(3));
    done().run([(0, unreadable(), "deleting: read_before_disable"), (1, ill(), "check_incarnation, deleting")]);
    check_each([
        ("disabled", done(), 0, read(disabled("now", T0)), "aborted: changed_by_others"),
        ("edited", done(), 0, read(enabled("edited")), "aborted: changed_by_others"),
        ("gone", done(), 0, read(None), "aborted: set_removed"),
    ]);
}

#[test]
fn deletion_needs_proof_manager_and_same_incarnation() {
    let decided_in = |run| deleting(1).with(|case| case.treatment.incarnation = run);
    let fresh = || sees(Seen { stale: false, ..Seen::ill() });
    let dated = |off| decided_in(Some(Incarnation(RUN.0.minus(off))));
    check_each([
        ("no proof", deleting(0), 0, fresh(), "aborted: no_longer_stale"),
        ("no proof before the toggle", then_toggle(1), 2, fresh(), "aborted: no_longer_stale"),
        ("gone after a lost answer", deleting(1), 2, fresh(), "verifying: stale_session_replaced"),
        ("down", deleting(0), 0, manager(ManagerState::Down), "aborted: manager_away"),
        ("unreachable", deleting(0), 0, manager(ManagerState::Unreachable), "aborted: manager_away"),
        ("down after a request", deleting(1), 0, manager(ManagerState::Down), "deleting"),
        ("restarted", deleting(0), 0, restarted(), "aborted: restarted_since_decision"),
        ("restarted since the sweep", deleting(1), 0, run_is(Ok(NEXT_RUN)), "aborted: restarted_since_decision"),
        ("decided in an unknown run", decided_in(None), 0, run_is(Ok(RUN)), "aborted: restarted_since_decision"),
        ("dated by the log", dated(Span::millis(340)), 0, run_is(Ok(RUN)), "delete_session, deleting"),
        ("dated by the log, rounded", dated(Span::secs(2)), 0, run_is(Ok(RUN)), "delete_session, deleting"),
        ("listens", then_toggle(0), 2, listens(after(1)), "self_recovered: listens_again"),
        ("listens later", then_toggle(1), 2, listens(T0), "self_recovered: listens_again (sent)"),
        ("paused", deleting(0), 2, paused(), "aborted: paused"),
        ("paused after a request", deleting(1), 2, paused(), "aborted: paused (sent)"),
        ("crashed", deleting(1), 0, Event::Recover, "deleting"),
        ("crashed lately", then_toggle(1), 299, Event::Recover, "deleting"),
        ("crashed long ago", then_toggle(1), 300, Event::Recover, "aborted: medic_ended (sent)"),
        ("stopped", deleting(1), 0, Event::Shutdown, "deleting"),
    ]);
}

#[test]
fn deletion_is_tried_five_times_with_all_checks() {
    for answers in [
        vec![run_is(Ok(RUN)), deleted(Err(refused()))],
        vec![run_is(Ok(RUN)), deleted(Err(lost()))],
        vec![run_is(Err(failure(FailureKind::Timeout)))],
    ] {
        let mut case = deleting(0);
        assert_eq!(sent_at(&mut case, &ill(), &answers, 99), [0, 1, 3, 7, 15], "{answers:?}");
        assert!(matches!(case.treatment.why(), Some(Note::GivenUp { attempts: 5, .. })), "{case:?}");
        assert_eq!(case.treatment.outcome(), Some(Outcome::Failed));
    }
}

#[test]
fn deletion_obeys_retry_after_up_to_five_minutes() {
    for wait in [60, 300] {
        deleting(1).run([
            (0, refuses(RateLimited, after(wait)), "deleting: delete_stale_session"),
            (wait.cast_signed() - 1, ill(), "deleting"),
            (wait.cast_signed(), ill(), "check_incarnation, deleting"),
        ]);
    }
    let case = deleting(1).run([(0, refuses(RateLimited, after(3600)), "failed: given up after 1")]);
    let what = Failed::DeleteStaleSession;
    let failed = RequestFailure { retry_at: Some(after(3600)), ..failure(RateLimited) };
    assert_eq!(failed.operation, Operation::SetEnabled, "as the builder says");
    assert_eq!(case.treatment.why(), Some(&Note::GivenUp { attempts: 1, last: what, failure: failed }));
}

#[test]
fn toggle_goes_ahead_alone_when_deletion_is_hopeless() {
    let (alone, again) = ("read_set, deleting: delete_before_toggle", "deleting: delete_stale_session");
    let unknown = deleted(Err(WriteError::Unknown(failure(Forbidden))));
    check_each([
        ("no login", then_toggle(1), 0, refuses(Unauthorized, None), alone),
        ("no right", then_toggle(1), 0, refuses(Forbidden, None), alone),
        ("no right, maybe deleted", then_toggle(1), 0, unknown, again),
        ("no right, and no toggle to go on with", deleting(1), 0, refuses(Forbidden, None), again),
        ("rejected", then_toggle(1), 0, refuses(Rejected, None), again),
        ("a wait", then_toggle(1), 0, refuses(RateLimited, after(300)), again),
        ("too long a wait", then_toggle(1), 0, refuses(RateLimited, after(301)), alone),
        ("a wait of ours", then_toggle(1), 0, refuses(HeldBack, after(300)), again),
        ("too long a wait of ours", then_toggle(1), 0, refuses(HeldBack, after(301)), alone),
        ("too long, and no toggle", deleting(1), 0, refuses(HeldBack, after(301)), "failed: given up after 1"),
        ("the last attempt but one", then_toggle(4), 0, refuses(RateLimited, None), again),
        ("the last attempt", then_toggle(5), 0, refuses(RateLimited, None), alone),
    ]);
    then_toggle(1).run([(0, refuses(Forbidden, None), alone), (0, read(enabled("seen")), "disable, disabling")]);
}
