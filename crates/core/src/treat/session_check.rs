//! The session check: ask for a session under a name of our own. Refused: somebody holds one. Granted: nobody did, and
//! now we do. Its id is journaled before anything else, and it is deleted until it is gone (I7), also after our crash.
//!
//! Edge case: a grant whose answer was lost. Only the answer held the session's id, so the session cannot be deleted.
//! Nobody polls it, so GitHub forgets it within about a minute and a half. The treatment ends as failed and says so;
//! `decide::budget` waits long before the next session check of the set.

use super::transition::{
    Answer, Input, Request, Retry, SetView, StepContext, Transition, View, failure_of, is_undo_due, next_undo_at,
};
use crate::decide::warrant::DeletionWarrant;
use crate::model::failure::WriteError;
use crate::model::{
    Diagnosis, Enablement, Failed, FailureKind, Note, OpenAnswer, Outcome, Owner, SessionId, Step, Treatment,
    WorkerState,
};

/// A 404 that is not GitHub's own may be a proxy's. After this many, over two minutes, GitHub has forgotten a session that
/// nobody polls.
const NOT_FOUND_ATTEMPTS: u32 = 8;

pub(super) fn step_opening(ctx: StepContext<'_>, owner: &Owner, input: Input<'_>) -> Transition {
    match input {
        Input::Sweep(view) => {
            if !is_still_suspect(ctx, &view) {
                ctx.close_treatment(Outcome::Aborted, Note::SetChanged)
            } else if view.paused {
                ctx.close_treatment(Outcome::Aborted, Note::Paused { sent: false })
            } else {
                ctx.send_request(Request::OpenSession { owner: owner.clone() })
            }
        }
        Input::Answer(Answer::SessionOpened(Ok(OpenAnswer::Opened(session)))) => {
            let step = Step::CheckOpened { session, attempts: 0, not_before: ctx.now };
            end_own_session(ctx.change_step(step, Note::CheckOpened))
        }
        Input::Answer(Answer::SessionOpened(Ok(OpenAnswer::Held { owner }))) => {
            let treatment = &Treatment { holder: owner.clone(), ..ctx.treatment.clone() };
            StepContext { treatment, ..ctx }.close_treatment(Outcome::Held, Note::HeldBy { owner })
        }
        Input::Answer(Answer::SessionOpened(Ok(OpenAnswer::SetGone))) => {
            ctx.close_treatment(Outcome::Failed, Note::NotAtGithub)
        }
        Input::Answer(Answer::SessionOpened(Err(WriteError::NotApplied(failure)))) => {
            ctx.close_treatment(Outcome::Failed, Note::Failed { what: Failed::CheckRefused, failure })
        }
        Input::Answer(Answer::SessionOpened(Err(WriteError::Unknown(_)))) | Input::Shutdown | Input::Recover => {
            ctx.close_treatment(Outcome::Failed, Note::GrantLost)
        }
        Input::Answer(_) => ctx.stay_in_step(),
    }
}

/// A listener that lives is never checked: it could lose the race for its session to us.
fn is_still_suspect(ctx: StepContext<'_>, view: &View<'_>) -> bool {
    let listens = view.finding.is_some_and(|finding| {
        finding.diagnosis == Diagnosis::Listening || finding.worker.state == WorkerState::Listening
    });
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
        Input::Answer(Answer::SessionDeleted(Ok(()))) => ctx.close_treatment(Outcome::Unheld, Note::HeldByNobody),
        Input::Answer(Answer::SessionDeleted(Err(WriteError::NotApplied(failure))))
            if failure.kind == FailureKind::NotFound && attempts >= NOT_FOUND_ATTEMPTS =>
        {
            ctx.close_treatment(Outcome::Failed, Note::Failed { what: Failed::FindOwnSession, failure })
        }
        Input::Answer(Answer::SessionDeleted(Err(error))) => {
            let (failure, attempts) = (failure_of(&error).clone(), attempts.saturating_add(1));
            let not_before = next_undo_at(attempts, failure.retry_at, ctx.now);
            let step = Step::CheckOpened { session: session.clone(), attempts, not_before };
            ctx.change_step(step, Note::Failed { what: Failed::DeleteOwnSession, failure })
        }
        Input::Answer(_) => ctx.stay_in_step(),
    }
}
