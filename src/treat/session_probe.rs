//! The session probe: ask for a session under a name of our own. Refused = somebody holds one. Granted = nobody did,
//! and now we do: its id is journaled before anything else, and it is deleted until it is gone (I7), also after a
//! crash of ours.
//!
//! Edge case: a grant whose answer was lost. Only the answer told the session's id, so it cannot be deleted; nobody
//! polls it, so GitHub forgets it as it does any stale session, within about a minute and a half. The treatment ends
//! as failed and says so; `decide::budget` waits long before the next probe of the set.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

use super::machine::{
    Answer, Effect, Input, SetView, Transition, View, answers, ask, close, failure, go, is_undo_due, next_undo,
    other_run, stay,
};
use super::ports::{OpenAnswer, WriteError};
use crate::model::{Diagnosis, Enablement, Outcome, Owner, SessionId, Step, Treatment, Wall, WorkerState};

const LOST: &str = "whether the session probe opened a session is not known; if it did, nobody polls it, and GitHub \
                    forgets it within about 90 s";

/// About to open.
pub(super) fn opening(treatment: &Treatment, owner: &Owner, input: Input<'_>, now: Wall) -> Transition {
    match input {
        Input::Sweep(view) => {
            if is_still_suspect(treatment, &view) {
                ask(treatment, Effect::OpenSession { owner: owner.clone() })
            } else {
                close(treatment, Outcome::Yielded, now, "the set is not as it was; nothing was sent")
            }
        }
        Input::Answer(Answer::SessionOpened(Ok(OpenAnswer::Opened(session)))) => {
            let step = Step::ProbeOpened { session: session.clone(), attempts: 0, not_before: now };
            go(treatment, step, now, "nobody held a session; ours is ended").then(Effect::DeleteOwnSession { session })
        }
        Input::Answer(Answer::SessionOpened(Ok(OpenAnswer::Held { owner }))) => {
            let why = owner.map_or_else(
                || "somebody holds the set's session".to_owned(),
                |owner| format!("{owner} holds the set's session"),
            );
            close(treatment, Outcome::Held, now, why)
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

/// We hold a session, and end it.
pub(super) fn opened(
    treatment: &Treatment,
    (session, attempts, not_before): (&SessionId, u32, Wall),
    input: Input<'_>,
    now: Wall,
) -> Transition {
    match input {
        Input::Sweep(_) if !is_undo_due(not_before, now) => stay(treatment),
        Input::Sweep(_) | Input::Shutdown | Input::Recover => {
            ask(treatment, Effect::DeleteOwnSession { session: session.clone() })
        }
        Input::Answer(Answer::SessionDeleted(Ok(()))) => {
            close(treatment, Outcome::Unheld, now, "nobody held the set's session; the probe's own is gone")
        }
        Input::Answer(Answer::SessionDeleted(Err(error))) => {
            let (reason, attempts) = (failure(&error), attempts.saturating_add(1));
            let not_before = next_undo(attempts, reason.retry_at, now);
            let step = Step::ProbeOpened { session: session.clone(), attempts, not_before };
            go(treatment, step, now, format!("the probe's session is not known to be gone: {reason}"))
        }
        Input::Answer(_) => stay(treatment),
    }
}
