//! The session check: ask for a session under a name of our own. Refused: somebody holds one. Granted: nobody did, and
//! now we do. Its id is journaled before anything else, and it is deleted until it is gone (I7), also after our crash.
//!
//! Edge case: a grant whose answer was lost. Only the answer held the session's id, so the session cannot be deleted.
//! Nobody polls it, so GitHub forgets it within about a minute and a half. The treatment ends as failed and says so;
//! `decide::budget` waits long before the next session check of the set.

use super::transition::{
    Answer, Input, OpenAnswer, PAUSED, Request, Retry, SetView, StepContext, Transition, View, failure_of, is_undo_due,
    next_undo_at,
};
use crate::decide::warrant::DeletionWarrant;
use crate::model::failure::WriteError;
use crate::model::{Diagnosis, Enablement, FailureKind, Outcome, Owner, SessionId, Step, Treatment, WorkerState};

const GRANT_LOST: &str = "whether the session check opened a session is not known; if it did, nobody polls it, and \
                          GitHub forgets it within about 90 s";

const LEFT_OVER: &str = "is still there: its grant was lost, and GitHub has not forgotten it yet";

/// A 404 that is not GitHub's own may be a proxy's. After this many, over two minutes, GitHub has forgotten a session that
/// nobody polls.
const NOT_FOUND_ATTEMPTS: u32 = 8;
const NOT_FOUND: &str = "the session of the check is gone, according to an answer that is not GitHub's own";

pub(super) fn step_opening(ctx: StepContext<'_>, owner: &Owner, input: Input<'_>) -> Transition {
    match input {
        Input::Sweep(view) => {
            if !is_still_suspect(ctx, &view) {
                ctx.close_treatment(Outcome::Aborted, "the set has changed; nothing was sent")
            } else if view.paused {
                ctx.close_treatment(Outcome::Aborted, PAUSED)
            } else {
                ctx.send_request(Request::OpenSession { owner: owner.clone() })
            }
        }
        Input::Answer(Answer::SessionOpened(Ok(OpenAnswer::Opened(session)))) => {
            let step = Step::CheckOpened { session, attempts: 0, not_before: ctx.now };
            let note = "nobody held a session; the session of the check is deleted";
            end_own_session(ctx.change_step(step, note))
        }
        Input::Answer(Answer::SessionOpened(Ok(OpenAnswer::Held { owner }))) => {
            let why = match &owner {
                None => "somebody holds the set's session".to_owned(),
                Some(owner) if owner.is_of_a_session_check() => {
                    format!("the session of an earlier session check ({owner}) {LEFT_OVER}")
                }
                Some(owner) => format!("{owner} holds the set's session"),
            };
            let treatment = &Treatment { holder: owner, ..ctx.treatment.clone() };
            StepContext { treatment, ..ctx }.close_treatment(Outcome::Held, why)
        }
        Input::Answer(Answer::SessionOpened(Ok(OpenAnswer::SetGone))) => {
            ctx.close_treatment(Outcome::Failed, "GitHub does not know the set")
        }
        Input::Answer(Answer::SessionOpened(Err(WriteError::NotApplied(failure)))) => {
            ctx.close_treatment(Outcome::Failed, format!("the session check was refused: {failure}"))
        }
        Input::Answer(Answer::SessionOpened(Err(WriteError::Unknown(_)))) | Input::Shutdown | Input::Recover => {
            ctx.close_treatment(Outcome::Failed, GRANT_LOST)
        }
        Input::Answer(_) => ctx.stay_in_step(),
    }
}

/// A listener that lives is never checked: it could lose the race for its session to us.
fn is_still_suspect(ctx: StepContext<'_>, view: &View<'_>) -> bool {
    let listens = view
        .finding
        .is_some_and(|finding| finding.diagnosis == Diagnosis::Listening || finding.worker.0 == WorkerState::Listening);
    let enabled = match view.set {
        SetView::Seen(set) => set.enabled == Enablement::Enabled,
        SetView::Unseen | SetView::Gone => false,
    };
    enabled && !listens && view.manager_answers() && !ctx.is_other_incarnation(view)
}

/// Deletes the session that the journaled step says we opened.
fn end_own_session(transition: Transition) -> Transition {
    let warrant = DeletionWarrant::of_own_session(&transition.treatment.step);
    Transition { request: warrant.map(|warrant| Request::DeleteOwnSession { warrant }), ..transition }
}

/// We hold a session, and delete it.
pub(super) fn step_opened(
    ctx: StepContext<'_>,
    session: &SessionId,
    Retry { attempts, not_before }: Retry,
    input: Input<'_>,
) -> Transition {
    match input {
        Input::Sweep(_) if !is_undo_due(not_before, ctx.now) => ctx.stay_in_step(),
        Input::Sweep(_) | Input::Shutdown | Input::Recover => end_own_session(ctx.stay_in_step()),
        Input::Answer(Answer::SessionDeleted(Ok(()))) => {
            ctx.close_treatment(Outcome::Unheld, "nobody held the set's session; the session of the check is deleted")
        }
        Input::Answer(Answer::SessionDeleted(Err(WriteError::NotApplied(failure))))
            if failure.kind == FailureKind::NotFound && attempts >= NOT_FOUND_ATTEMPTS =>
        {
            ctx.close_treatment(Outcome::Failed, format!("{NOT_FOUND}: {failure}"))
        }
        Input::Answer(Answer::SessionDeleted(Err(error))) => {
            let (reason, attempts) = (failure_of(&error), attempts.saturating_add(1));
            let not_before = next_undo_at(attempts, reason.retry_at, ctx.now);
            let step = Step::CheckOpened { session: session.clone(), attempts, not_before };
            ctx.change_step(step, format!("the session of the check is not known to be gone: {reason}"))
        }
        Input::Answer(_) => ctx.stay_in_step(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ManagerState, Remedy, RequestFailure, Wall};
    use crate::treat::machine;
    use crate::treat::testing::{
        Case, NEXT_RUN, Seen, T0, after, disabled, enabled, failure as failing, lost, refused, session, warrant,
    };

    fn owner() -> Owner {
        Owner::new("scaleset-medic-1-0")
    }

    fn opening() -> Case {
        Case::of(Step::CheckOpening { owner: owner() }).remedy(Remedy::SessionCheck)
    }

    fn opened() -> Case {
        Case::of(Step::CheckOpened { session: session(), attempts: 0, not_before: T0 }).remedy(Remedy::SessionCheck)
    }

    /// After the request was answered so.
    fn answered(answer: Result<OpenAnswer, WriteError>) -> (Case, Option<Request>) {
        let mut case = opening();
        assert_eq!(case.sweep(&Seen::ill()), Some(Request::OpenSession { owner: owner() }));
        let next = case.answer(Answer::SessionOpened(answer));
        (case, next)
    }

    fn delete_own() -> Request {
        Request::DeleteOwnSession { warrant: warrant() }
    }

    fn not_deleted(error: WriteError) -> Answer {
        Answer::SessionDeleted(Err(error))
    }

    #[test]
    fn each_check_has_an_owner_of_its_own() {
        let name = |at| {
            let step = machine::first_step(&Remedy::SessionCheck, &enabled("seen"), at);
            let Step::CheckOpening { owner } = step else { panic!("{step:?}") };
            owner
        };
        assert_ne!(name(T0), name(after(60)));
        assert!(name(T0).as_str().starts_with("scaleset-medic-1-"));
    }

    #[test]
    fn check_is_not_sent_for_a_changed_set() {
        for seen in [
            Seen::ill().listening(T0),
            Seen::ill().worker(WorkerState::Listening, T0),
            Seen::ill().with(disabled("seen", T0)),
            Seen::ill().gone(),
            Seen::ill().run(NEXT_RUN),
            Seen::ill().manager(ManagerState::Down),
        ] {
            let mut case = opening();
            assert_eq!((case.sweep(&seen), case.outcome()), (None, Some(Outcome::Aborted)), "{seen:?}");
        }
    }

    #[test]
    fn pause_stops_an_unsent_check_and_no_deletion() {
        let mut case = opening();
        assert_eq!(case.sweep(&Seen::ill().paused()), None);
        assert_eq!((case.outcome(), case.why()), (Some(Outcome::Aborted), PAUSED));
        assert_eq!(opened().sweep(&Seen::ill().paused()), Some(delete_own()));
    }

    #[test]
    fn refused_check_names_the_holder() {
        let earlier = "the session of an earlier session check (scaleset-medic-1-0) is still there: its grant was lost, \
                       and GitHub has not forgotten it yet";
        for (holder, why) in [
            (Some(Owner::new("garm-other")), "garm-other holds the set's session"),
            (None, "somebody holds the set's session"),
            (Some(owner()), earlier),
        ] {
            let (case, next) = answered(Ok(OpenAnswer::Held { owner: holder.clone() }));
            assert_eq!((next, case.outcome(), case.why()), (None, Some(Outcome::Held), why));
            assert_eq!(case.treatment.holder, holder, "in the journal");
        }
    }

    #[test]
    fn granted_check_deletes_its_session_at_once() {
        let (mut case, next) = answered(Ok(OpenAnswer::Opened(session())));
        assert_eq!(next, Some(delete_own()));
        assert_eq!(case.treatment.step, opened().treatment.step);
        assert_eq!(case.answer(Answer::SessionDeleted(Ok(()))), None);
        assert_eq!(case.outcome(), Some(Outcome::Unheld));
    }

    #[test]
    fn check_fails_on_any_other_refusal() {
        for answer in [Ok(OpenAnswer::SetGone), Err(refused())] {
            let (case, next) = answered(answer);
            assert_eq!((next, case.outcome()), (None, Some(Outcome::Failed)));
        }
    }

    #[test]
    fn lost_grant_fails_the_check_and_says_so() {
        let (mut crashed, mut stopped) = (opening(), opening());
        assert_eq!((crashed.recover(), stopped.shut_down()), (None, None), "never sent again blindly");
        for case in [answered(Err(lost())).0, crashed, stopped] {
            assert_eq!((case.outcome(), case.why()), (Some(Outcome::Failed), GRANT_LOST));
        }
    }

    #[test]
    fn own_session_is_deleted_until_it_is_gone() {
        for error in [refused(), lost()] {
            let (mut case, mut second, mut sent_at) = (opened(), 0, Vec::new());
            while sent_at.len() < 9 {
                if case.at(second).sweep(&Seen::ill().manager(ManagerState::Down)).is_some() {
                    assert_eq!(case.answer(not_deleted(error.clone())), None);
                    sent_at.push(second);
                }
                second += 1;
                assert!(second < 200, "not sent again: {sent_at:?}");
            }
            assert_eq!(sent_at, [0, 1, 3, 7, 15, 31, 61, 91, 121], "whatever the state of the manager");
            assert_eq!(case.at(200).sweep(&Seen::ill()), Some(delete_own()));
            case.answer(Answer::SessionDeleted(Ok(())));
            assert_eq!(case.outcome(), Some(Outcome::Unheld));
        }
        assert_eq!(opened().shut_down(), Some(delete_own()));
        assert_eq!(opened().recover(), Some(delete_own()));
    }

    #[test]
    fn foreign_404_ends_the_check_only_after_two_minutes() {
        let (mut case, mut second) = (opened(), 0);
        while case.outcome().is_none() {
            if case.at(second).sweep(&Seen::ill()).is_some() {
                case.answer(not_deleted(WriteError::NotApplied(failing(FailureKind::NotFound))));
            }
            second += 1;
            assert!(second < 1_000, "never ends: {case:?}");
        }
        assert!((100..300).contains(&second), "{second} s");
        assert_eq!(case.outcome(), Some(Outcome::Failed), "no toggle follows");
    }

    #[test]
    fn retry_after_and_clock_cannot_keep_our_session() {
        let mut case = opened();
        let busy = RequestFailure { retry_at: Some(after(3600)), ..failing(FailureKind::RateLimited) };
        case.answer(not_deleted(WriteError::NotApplied(busy)));
        assert_eq!(case.at(30).sweep(&Seen::ill()), Some(delete_own()));
        case.at = Wall(0);
        assert_eq!(case.sweep(&Seen::ill()), Some(delete_own()));
    }
}
