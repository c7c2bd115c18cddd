//! Deleting a stale session of the manager's. Deleting one that the manager still holds kills its whole process
//! (design §1), so the proof is asked for again at every attempt, and the manager's run is read at the last moment
//! before the request goes out.
//!
//! Repeating is safe: 204, 404 and "expired" are all ends. After the end the manager either retries by itself, or its
//! worker has given up and is toggled.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

use super::machine::{Answer, Effect, Input, Transition, answers, ask, close, failure, go, next_attempt, stay};
use crate::model::{Enablement, Outcome, Remedy, SessionId, Step, Treatment, Wall};

/// Requests, the look at the manager's run included, before giving up.
const ATTEMPTS: u32 = 5;

/// About to delete.
pub(super) fn deleting(
    treatment: &Treatment,
    (session, attempts, not_before): (&SessionId, u32, Wall),
    input: Input<'_>,
    now: Wall,
) -> Transition {
    let step = |attempts, not_before| Step::Deleting { session: session.clone(), attempts, not_before };
    let again = |retry_at: Option<Wall>, why: String| {
        if attempts >= ATTEMPTS {
            close(treatment, Outcome::Failed, now, format!("{why}; given up after {attempts} attempts"))
        } else {
            go(treatment, step(attempts, next_attempt(attempts, retry_at, now)), now, why)
        }
    };
    match input {
        Input::Sweep(view) => {
            if !answers(&view) || now < not_before {
                return stay(treatment);
            }
            if !view.stale_proof {
                return close(treatment, Outcome::Yielded, now, "the session is no longer provably stale");
            }
            go(treatment, step(attempts.saturating_add(1), not_before), now, "checking the manager's run")
                .then(Effect::CheckIncarnation)
        }
        Input::Answer(Answer::Incarnation(Ok(run))) => {
            if treatment.incarnation == Some(run) {
                ask(treatment, Effect::DeleteSession { session: session.clone() })
            } else {
                close(treatment, Outcome::Yielded, now, "the manager restarted before anything was sent")
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
            Enablement::Enabled => {
                go(treatment, Step::Disabling { seen: set.revision }, now, "the stale session is gone; disabling")
                    .then(Effect::Disable)
            }
            Enablement::Disabled => {
                close(treatment, Outcome::Yielded, now, "somebody disabled the scale set meanwhile; it is theirs")
            }
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
