//! Asking for a session, and deleting the one that was granted.

use super::*;

fn owner() -> Owner {
    Owner::new("scaleset-medic-1-0")
}

pub(super) fn opening() -> Case {
    Case::of(Step::CheckOpening { owner: owner() }).remedy(Remedy::SessionCheck)
}

pub(super) fn opened() -> Case {
    Case::of(Step::CheckOpened { session: session(), attempts: 0, not_before: T0 }).remedy(Remedy::SessionCheck)
}

fn answer(answer: Result<OpenAnswer, WriteError>) -> Event {
    Event::Answer(Answer::SessionOpened(answer))
}

#[test]
fn check_is_sent_only_for_the_set_that_was_decided_on() {
    let changed = "aborted: set_changed";
    let listening = Seen::ill().worker(WorkerState::Listening, T0);
    check_each([
        ("as decided", opening(), 0, ill(), "open_session, check_opening"),
        ("listens", opening(), 0, listens(T0), changed),
        ("has a listener", opening(), 0, sees(listening), changed),
        ("disabled", opening(), 0, lists(disabled("seen", T0)), changed),
        ("gone", opening(), 0, missing(), changed),
        ("restarted", opening(), 0, restarted(), changed),
        ("down", opening(), 0, manager(ManagerState::Down), changed),
        ("paused", opening(), 0, paused(), "aborted: paused"),
        ("unknown to GitHub", opening(), 0, answer(Ok(OpenAnswer::SetGone)), "failed: not_at_github"),
        ("refused", opening(), 0, answer(Err(refused())), "failed: check_refused"),
        ("lost grant", opening(), 0, answer(Err(lost())), "failed: grant_lost"),
        ("crashed: never sent again blindly", opening(), 0, Event::Recover, "failed: grant_lost"),
        ("stopped", opening(), 0, Event::Shutdown, "failed: grant_lost"),
    ]);
}

#[test]
fn refused_check_names_the_holder() {
    for holder in [Some(Owner::new("garm-other")), None] {
        let held = answer(Ok(OpenAnswer::Held { owner: holder.clone() }));
        let case = opening().run([(0, held, "held: held_by")]);
        assert_eq!(case.treatment.why(), Some(&Note::HeldBy { owner: holder.clone() }));
        assert_eq!(case.treatment.holder, holder, "in the journal");
    }
}

#[test]
fn granted_check_deletes_its_session_at_once() {
    let granted = answer(Ok(OpenAnswer::Opened(session())));
    let case = opening().run([(0, granted, "delete_own_session, check_opened: check_opened")]);
    assert_eq!(case.treatment.step, opened().treatment.step);
    case.run([(0, deleted(Ok(())), "unheld: held_by_nobody")]);
}

#[test]
fn own_session_is_deleted_until_it_is_gone() {
    let delete = "delete_own_session, check_opened";
    for error in [refused(), lost()] {
        let mut case = opened();
        let sent = sent_at(&mut case, &manager(ManagerState::Down), &[deleted(Err(error))], 9);
        assert_eq!(sent, [0, 1, 3, 7, 15, 31, 61, 91, 121], "whatever the state of the manager");
        case.run([(200, ill(), delete), (200, deleted(Ok(())), "unheld: held_by_nobody")]);
    }
    let busy = || deleted(Err(not_applied(FailureKind::RateLimited, after(3600))));
    let waits = || opened().run([(0, busy(), "check_opened: delete_own_session")]);
    check_each([
        ("stopped", opened(), 0, Event::Shutdown, delete),
        ("crashed", opened(), 0, Event::Recover, delete),
        ("paused", opened(), 0, paused(), delete),
        ("half a minute of Retry-After", waits(), 29, ill(), "check_opened"),
        ("no server may ask for more", waits(), 30, ill(), delete),
        ("clock set back", waits(), -3600, ill(), delete),
    ]);
}

#[test]
fn foreign_404_ends_the_check_only_after_two_minutes() {
    let mut case = opened();
    let not_found = deleted(Err(not_applied(FailureKind::NotFound, None)));
    assert_eq!(sent_at(&mut case, &ill(), &[not_found], 99), [0, 1, 3, 7, 15, 31, 61, 91, 121]);
    assert_eq!(case.treatment.outcome(), Some(Outcome::Failed), "no toggle follows");
}
