//! The session probe: ask for a session under a name of our own. Refused = somebody holds one. Granted = nobody did,
//! and now we do: its id is journaled before anything else, and it is deleted until it is gone (I7), also after a
//! crash of ours.
//!
//! Edge case: a grant whose answer was lost. Only the answer told the session's id, so it cannot be deleted; nobody
//! polls it, so GitHub forgets it as it does any stale session, within about a minute and a half. The treatment ends
//! as failed and says so; `decide::budget` waits long before the next probe of the set.

use super::machine::{
    Answer, Input, Leave, PAUSED, Request, SetView, Transition, View, answers, ask, close, failure, go, is_undo_due,
    next_undo, other_run, stay,
};
use crate::decide::warrant::DeletionWarrant;
use crate::model::failure::WriteError;
use crate::model::{Diagnosis, Enablement, FailureKind, Outcome, Owner, SessionId, Step, Treatment, Wall, WorkerState};
use crate::ports::write::OpenAnswer;

const LOST: &str = "whether the session probe opened a session is not known; if it did, nobody polls it, and GitHub \
                    forgets it within about 90 s";

const LEFT: &str = "is still there: its grant was lost, and GitHub has not forgotten it yet";

/// A 404 that is not GitHub's own may be a proxy's; after so many, over two minutes, what nobody polls is gone in any case.
const NOT_FOUND_ATTEMPTS: u32 = 8;
const NOT_THERE: &str = "the probe's session is not there any more, by an answer that is not GitHub's own";

pub(super) fn opening(treatment: &Treatment, owner: &Owner, input: Input<'_>, now: Wall) -> Transition {
    match input {
        Input::Sweep(view) => {
            if !is_still_suspect(treatment, &view) {
                close(treatment, Outcome::Aborted, now, "the set is not as it was; nothing was sent")
            } else if view.leave == Leave::Paused {
                close(treatment, Outcome::Aborted, now, PAUSED)
            } else {
                ask(treatment, Request::OpenSession { owner: owner.clone() })
            }
        }
        Input::Answer(Answer::SessionOpened(Ok(OpenAnswer::Opened(session)))) => {
            let step = Step::CheckOpened { session, attempts: 0, not_before: now };
            end_own_session(go(treatment, step, now, "nobody held a session; ours is ended"))
        }
        Input::Answer(Answer::SessionOpened(Ok(OpenAnswer::Held { owner }))) => {
            let why = match &owner {
                None => "somebody holds the set's session".to_owned(),
                Some(owner) if owner.is_of_a_session_check() => {
                    format!("the session of an earlier probe ({owner}) {LEFT}")
                }
                Some(owner) => format!("{owner} holds the set's session"),
            };
            let treatment = Treatment { holder: owner, ..treatment.clone() };
            close(&treatment, Outcome::Held, now, why)
        }
        Input::Answer(Answer::SessionOpened(Ok(OpenAnswer::SetGone))) => {
            close(treatment, Outcome::Failed, now, "GitHub does not know the set")
        }
        Input::Answer(Answer::SessionOpened(Err(WriteError::NotApplied(failure)))) => {
            close(treatment, Outcome::Failed, now, format!("the session probe was refused: {failure}"))
        }
        Input::Answer(Answer::SessionOpened(Err(WriteError::Unknown(_)))) | Input::Shutdown | Input::Recover => {
            close(treatment, Outcome::Failed, now, LOST)
        }
        Input::Answer(_) => stay(treatment),
    }
}

/// Never asked of a listener that lives: it would lose the race for a session to us.
fn is_still_suspect(treatment: &Treatment, view: &View<'_>) -> bool {
    let listens = view
        .finding
        .is_some_and(|finding| finding.diagnosis == Diagnosis::Listening || finding.worker.0 == WorkerState::Listening);
    let enabled = match view.set {
        SetView::Seen(set) => set.enabled == Enablement::Enabled,
        SetView::Unseen | SetView::Gone => false,
    };
    enabled && !listens && answers(view) && !other_run(treatment, view)
}

/// Deletes the session that the journaled step says we opened.
fn end_own_session(transition: Transition) -> Transition {
    let warrant = DeletionWarrant::of_own_session(&transition.treatment.step);
    Transition { effect: warrant.map(|warrant| Request::DeleteOwnSession { warrant }), ..transition }
}

/// We hold a session, and end it.
pub(super) fn opened(
    treatment: &Treatment,
    (session, attempts, not_before): (&SessionId, u32, Wall),
    input: Input<'_>,
    now: Wall,
) -> Transition {
    match input {
        Input::Sweep(_) if !is_undo_due(not_before, now) => stay(treatment),
        Input::Sweep(_) | Input::Shutdown | Input::Recover => end_own_session(stay(treatment)),
        Input::Answer(Answer::SessionDeleted(Ok(()))) => {
            close(treatment, Outcome::Unheld, now, "nobody held the set's session; the probe's own is gone")
        }
        Input::Answer(Answer::SessionDeleted(Err(WriteError::NotApplied(failure))))
            if failure.kind == FailureKind::NotFound && attempts >= NOT_FOUND_ATTEMPTS =>
        {
            close(treatment, Outcome::Failed, now, format!("{NOT_THERE}: {failure}"))
        }
        Input::Answer(Answer::SessionDeleted(Err(error))) => {
            let (reason, attempts) = (failure(&error), attempts.saturating_add(1));
            let not_before = next_undo(attempts, reason.retry_at, now);
            let step = Step::CheckOpened { session: session.clone(), attempts, not_before };
            go(treatment, step, now, format!("the probe's session is not known to be gone: {reason}"))
        }
        Input::Answer(_) => stay(treatment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ManagerState, Remedy, RequestFailure};
    use crate::treat::machine;
    use crate::treat::testing::{
        NEXT_RUN, Seen, T0, Table, after, disabled, enabled, failure as failing, lost, refused, session, warrant,
    };

    fn owner() -> Owner {
        Owner::new("scaleset-medic-1-0")
    }

    fn opening() -> Table {
        Table::of(Step::CheckOpening { owner: owner() }).remedy(Remedy::SessionCheck)
    }

    fn opened() -> Table {
        Table::of(Step::CheckOpened { session: session(), attempts: 0, not_before: T0 }).remedy(Remedy::SessionCheck)
    }

    fn delete_own() -> Request {
        Request::DeleteOwnSession { warrant: warrant() }
    }

    #[test]
    fn a_foreign_404_ends_our_session_only_when_github_has_forgotten_it() {
        let mut table = opened();
        let foreign = Answer::SessionDeleted(Err(WriteError::NotApplied(failing(FailureKind::NotFound))));
        let mut second = 0;
        while table.outcome().is_none() {
            if table.at(second).sees(&Seen::ill()).is_some() {
                table.hears(foreign.clone());
            }
            second += 1;
            assert!(second < 1_000, "asked for ever: {table:?}");
        }
        assert!((100..300).contains(&second), "{second} s");
        assert_eq!(table.outcome(), Some(Outcome::Failed), "which earns no toggle");
    }

    #[test]
    fn a_pause_ends_a_probe_that_has_not_asked_and_no_session_stays_open_for_it() {
        let mut table = opening();
        assert_eq!(table.sees(&Seen::ill().paused()), None);
        assert_eq!((table.outcome(), table.why()), (Some(Outcome::Aborted), PAUSED));
        assert_eq!(opened().sees(&Seen::ill().paused()), Some(delete_own()));
    }

    #[test]
    fn each_probe_asks_under_a_name_of_its_own() {
        let name = |at| {
            let step = machine::begin(&Remedy::SessionCheck, &enabled("seen"), at);
            let Step::CheckOpening { owner } = step else { panic!("{step:?}") };
            owner
        };
        assert_ne!(name(T0), name(after(60)));
        assert!(name(T0).as_str().starts_with("scaleset-medic-1-"));
    }

    #[test]
    fn refused_means_that_somebody_holds_a_session() {
        for (told, why) in [
            (Some(Owner::new("garm-other")), "garm-other holds the set's session"),
            (None, "somebody holds the set's session"),
            (
                Some(owner()),
                "the session of an earlier probe (scaleset-medic-1-0) is still there: its grant was lost, and GitHub has \
                 not forgotten it yet",
            ),
        ] {
            let mut table = opening();
            assert_eq!(table.sees(&Seen::ill()), Some(Request::OpenSession { owner: owner() }));
            let named = told.clone();
            assert_eq!(table.hears(Answer::SessionOpened(Ok(OpenAnswer::Held { owner: told }))), None);
            assert_eq!((table.outcome(), table.why()), (Some(Outcome::Held), why));
            assert_eq!(table.treatment.holder, named, "the journal keeps the name");
        }
    }

    #[test]
    fn granted_means_that_nobody_did_and_ours_is_ended_at_once() {
        let mut table = opening();
        table.sees(&Seen::ill());
        let granted = Answer::SessionOpened(Ok(OpenAnswer::Opened(session())));
        assert_eq!(table.hears(granted), Some(delete_own()));
        assert_eq!(table.treatment.step, Step::CheckOpened { session: session(), attempts: 0, not_before: T0 });
        assert_eq!(table.hears(Answer::SessionDeleted(Ok(()))), None);
        assert_eq!(table.outcome(), Some(Outcome::Unheld));
    }

    #[test]
    fn a_set_that_is_not_as_it_was_is_not_asked_about() {
        for seen in [
            Seen::ill().listening(T0),
            Seen::ill().worker(WorkerState::Listening, T0),
            Seen::ill().with(disabled("seen", T0)),
            Seen::ill().gone(),
            Seen::ill().run(NEXT_RUN),
            Seen::ill().manager(ManagerState::Down),
        ] {
            let mut table = opening();
            assert_eq!(table.sees(&seen), None, "{seen:?}");
            assert_eq!(table.outcome(), Some(Outcome::Aborted), "{seen:?}");
        }
    }

    #[test]
    fn a_refusal_of_another_kind_tells_nothing() {
        for answer in [Ok(OpenAnswer::SetGone), Err(refused())] {
            let mut table = opening();
            table.sees(&Seen::ill());
            assert_eq!(table.hears(Answer::SessionOpened(answer)), None);
            assert_eq!(table.outcome(), Some(Outcome::Failed));
        }
    }

    #[test]
    fn a_lost_grant_cannot_be_ended_by_us_and_says_so() {
        let mut lost_answer = opening();
        lost_answer.sees(&Seen::ill());
        lost_answer.hears(Answer::SessionOpened(Err(lost())));
        let (mut crashed, mut stopped) = (opening(), opening());
        assert_eq!((crashed.recovers(), stopped.ends()), (None, None), "never asked again blindly");
        for table in [lost_answer, crashed, stopped] {
            assert_eq!(table.outcome(), Some(Outcome::Failed));
            assert!(table.why().ends_with("GitHub forgets it within about 90 s"), "{}", table.why());
        }
    }

    #[test]
    fn our_session_is_deleted_until_it_is_gone() {
        for error in [refused(), lost()] {
            let mut table = opened();
            let (mut second, mut sent_at) = (0, Vec::new());
            while sent_at.len() < 9 {
                if table.at(second).sees(&Seen::ill().manager(ManagerState::Down)).is_some() {
                    assert_eq!(table.hears(Answer::SessionDeleted(Err(error.clone()))), None);
                    sent_at.push(second);
                }
                second += 1;
                assert!(second < 200, "not sent again: {sent_at:?}");
            }
            assert_eq!(sent_at, [0, 1, 3, 7, 15, 31, 61, 91, 121], "the manager has no say in it");
            assert_eq!(table.at(200).sees(&Seen::ill()), Some(delete_own()));
            table.hears(Answer::SessionDeleted(Ok(())));
            assert_eq!(table.outcome(), Some(Outcome::Unheld));
        }
    }

    #[test]
    fn neither_a_servers_word_nor_a_clock_set_back_keeps_our_session() {
        let mut table = opened();
        let busy = RequestFailure { retry_at: Some(after(3600)), ..failing(FailureKind::RateLimited) };
        table.hears(Answer::SessionDeleted(Err(WriteError::NotApplied(busy))));
        assert_eq!(table.at(30).sees(&Seen::ill()), Some(delete_own()));
        table.at = Wall(0);
        assert_eq!(table.sees(&Seen::ill()), Some(delete_own()));
    }

    #[test]
    fn our_session_is_deleted_when_the_medic_ends_and_after_its_crash() {
        assert_eq!(opened().ends(), Some(delete_own()));
        assert_eq!(opened().recovers(), Some(delete_own()));
    }
}
