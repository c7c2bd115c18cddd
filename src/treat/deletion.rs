//! Deleting a stale session of the manager's (design §5). Deleting one that the manager still holds kills its whole process
//! (design §1), so the proof is asked for again at every attempt, and the manager's run is read at the last moment
//! before the request goes out. What was decided for one run of the manager is never done in another.
//!
//! Repeating is safe: 204, 404 and "expired" are all ends. After the end the manager either retries by itself, or its
//! worker has given up and is toggled. A server that asks for more patience than [`PATIENCE`] is not waited for: the
//! session ends by itself sooner.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

use super::machine::{
    Answer, Effect, Input, Transition, answers, ask, close, failure, go, next_attempt, other_run, stay,
};
use super::toggle;
use crate::model::{Enablement, Outcome, Remedy, SessionId, Span, Step, Treatment, Wall};

/// Requests, the look at the manager's run included, before giving up.
const ATTEMPTS: u32 = 5;
/// The longest wait that a server may ask for between two attempts.
const PATIENCE: Span = Span::mins(5);

const AWAY: &str = "the manager went away before anything was sent";
const OTHER_RUN: &str = "the manager runs anew, and the decision was made for its run before";
const PERSON: &str = "somebody disabled the scale set meanwhile; it is theirs";

/// About to delete.
pub(super) fn deleting(
    treatment: &Treatment,
    (session, attempts, not_before): (&SessionId, u32, Wall),
    input: Input<'_>,
    now: Wall,
) -> Transition {
    let step = |attempts, not_before| Step::Deleting { session: session.clone(), attempts, not_before };
    let again = |retry_at: Option<Wall>, why: String| {
        let not_before = next_attempt(attempts, retry_at, now);
        if attempts >= ATTEMPTS || not_before.since(now) > PATIENCE {
            close(treatment, Outcome::Failed, now, format!("{why}; given up after {attempts} attempts"))
        } else {
            go(treatment, step(attempts, not_before), now, why)
        }
    };
    match input {
        Input::Sweep(view) => {
            if !answers(&view) {
                // What was sent is settled by sending it again, once the manager's run can be read again.
                return if attempts > 0 { stay(treatment) } else { close(treatment, Outcome::Yielded, now, AWAY) };
            }
            if other_run(treatment, &view) {
                return close(treatment, Outcome::Yielded, now, OTHER_RUN);
            }
            if !view.stale_proof {
                return no_longer_stale(treatment, attempts, now);
            }
            // A wait longer than any that we ask for: the clock was set back.
            if now < not_before && not_before.since(now) <= PATIENCE {
                return stay(treatment);
            }
            go(treatment, step(attempts.saturating_add(1), not_before), now, "checking the manager's run")
                .then(Effect::CheckIncarnation)
        }
        Input::Answer(Answer::Incarnation(Ok(run))) => {
            if treatment.incarnation == Some(run) {
                ask(treatment, Effect::DeleteSession { session: session.clone() })
            } else {
                close(treatment, Outcome::Yielded, now, OTHER_RUN)
            }
        }
        Input::Answer(Answer::Incarnation(Err(error))) => {
            again(error.retry_at, format!("the manager's run cannot be read before the deletion: {error}"))
        }
        Input::Answer(Answer::SessionDeleted(Ok(()))) => match &treatment.remedy {
            Remedy::DeleteThenToggle { .. } => ask(treatment, Effect::ReadSet),
            Remedy::DeleteSession { .. } | Remedy::Toggle | Remedy::SessionProbe => {
                go(treatment, Step::Verifying, now, "the stale session is gone")
            }
        },
        Input::Answer(Answer::SessionDeleted(Err(error))) => {
            let reason = failure(&error);
            again(reason.retry_at, format!("the stale session is not known to be gone: {reason}"))
        }
        Input::Answer(Answer::Read(Ok(Some(set)))) => match set.enabled {
            Enablement::Enabled => toggle::disable(treatment, set.revision, now),
            Enablement::Disabled => close(treatment, Outcome::Yielded, now, PERSON),
        },
        Input::Answer(Answer::Read(Ok(None))) => {
            close(treatment, Outcome::Yielded, now, "the scale set was removed from the manager meanwhile")
        }
        Input::Answer(Answer::Read(Err(error))) => {
            again(error.retry_at, format!("the set cannot be read before it is disabled: {error}"))
        }
        // What was sent may be sent again; what was not sent need not be undone.
        Input::Shutdown | Input::Recover | Input::Answer(_) => stay(treatment),
    }
}

/// The proof is gone: something newer is known of the set's session.
fn no_longer_stale(treatment: &Treatment, attempts: u32, now: Wall) -> Transition {
    match treatment.remedy {
        // Its answer may have been lost; the manager retries by itself and may have got a session of its own.
        Remedy::DeleteSession { .. } if attempts > 0 => {
            go(treatment, Step::Verifying, now, "the session is no longer there to be deleted")
        }
        Remedy::DeleteSession { .. } | Remedy::DeleteThenToggle { .. } | Remedy::Toggle | Remedy::SessionProbe => {
            close(treatment, Outcome::Yielded, now, "the session is no longer provably stale")
        }
    }
}
