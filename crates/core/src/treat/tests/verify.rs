//! Waiting for new listener evidence.

use super::*;
use crate::model::Confidence;

/// Enabled again at [`T0`].
pub(super) fn toggled() -> Case {
    Case::of(Step::Verifying)
}

fn deleted() -> Case {
    toggled().remedy(Remedy::DeleteSession { session: session() })
}

fn retries(at: Wall) -> Event {
    sees(Seen::ill().diagnosis(Diagnosis::ConflictRetrying, at).worker(WorkerState::Retrying, at))
}

#[test]
fn verification_needs_new_and_strong_listener_evidence() {
    let long_ago = T0.minus(Span::secs(60));
    let (recovered, restarted) = ("recovered: recovered", "verifying: worker_restarted");
    let listening = |since, worker, at| sees(Seen::ill().diagnosis(Diagnosis::Listening, since).worker(worker, at));
    let mut weak = Seen::ill().listening(after(5));
    weak.finding.confidence = Confidence::Weak;
    let behind = T0.minus(Span::millis(1500));
    check_each([
        ("new", toggled(), 8, listens(after(5)), recovered),
        ("old", toggled(), 8, listens(long_ago), "verifying"),
        ("new, by an old sign", toggled(), 8, listening(after(1), WorkerState::Listening, Wall(0)), "verifying"),
        ("weak", toggled(), 8, sees(weak), restarted),
        ("guessed", toggled(), 8, listening(after(1), WorkerState::Unknown, after(1)), "verifying"),
        ("enabled", toggled(), 8, lists(enabled("enabled")), "verifying"),
        ("listening all along", toggled(), 8, listening(long_ago, WorkerState::Listening, T0), restarted),
        ("all along, newer sign", toggled(), 8, listening(long_ago, WorkerState::Listening, after(1)), recovered),
        ("clock behind", toggled(), 8, listening(after(2), WorkerState::Listening, behind), recovered),
    ]);
    let case = toggled().run([(8, listens(after(5)), recovered)]);
    assert_eq!(case.treatment.why(), Some(&Note::Recovered { after: Span::secs(8) }));
}

#[test]
fn restarted_worker_is_waited_for() {
    let before = toggled().run([(3, retries(T0.minus(Span::secs(1))), "verifying")]);
    assert!(before.treatment.worker_restarted.is_none() && before.treatment.in_flight());
    let case = before.run([(4, retries(after(2)), "verifying: worker_restarted")]);
    assert!(!case.treatment.in_flight(), "others may start");
    let case = case.run([(329, retries(after(328)), "verifying")]);
    assert_eq!(case.treatment.worker_restarted, Some(after(4)));
    case.run([(330, retries(after(329)), "unverified: no_listener")]);
}

#[test]
fn verification_ends_without_a_worker_or_a_listener() {
    let new_run = Seen::ill().run(NEXT_RUN).listening(T0);
    check_each([
        ("no worker yet", toggled(), 29, ill(), "verifying"),
        ("no worker", toggled(), 30, ill(), "unverified: no_worker"),
        ("no listener yet", deleted(), 329, ill(), "verifying"),
        ("no listener", deleted(), 330, ill(), "unverified: no_listener"),
        ("disabled", toggled(), 400, lists(disabled("theirs", after(3))), "aborted: changed_by_others"),
        ("gone", toggled(), 400, missing(), "aborted: set_removed"),
        ("restarted", toggled(), 400, restarted(), "aborted: restarted_unverified"),
        ("restarted, listens", toggled(), 400, sees(new_run), "aborted: restarted_unverified"),
        ("down", toggled(), 9000, manager(ManagerState::Down), "verifying"),
        ("unreachable", toggled(), 9000, manager(ManagerState::Unreachable), "verifying"),
        ("stopped", toggled(), 0, Event::Shutdown, "verifying"),
        ("crashed", toggled(), 0, Event::Recover, "verifying"),
        ("an answer", toggled(), 0, unreadable(), "verifying"),
    ]);
}
