//! A treatment's machine: (treatment, input) → (treatment, next request). Pure.
//!
//! The driver journals the treatment of each [`Transition`] before it sends its request, and feeds the answer back;
//! each sweep feeds [`Input::Sweep`]. So a treatment never sleeps, survives any crash, and sends nothing that the
//! journal does not name. The effect of a request whose answer was lost is read, never guessed.
//!
//! | file | step |
//! |---|---|
//! | `toggle` | disabling, disabled, enabling; a disable or an enable whose answer was lost |
//! | `deletion` | deleting a provably stale session |
//! | `session_check` | opening a session to learn whether anybody holds one |
//! | `verify` | waiting for new listener evidence |

use super::transition::{Input, Retry, StepContext, Transition};
use super::{deletion, session_check, toggle, verify};
use crate::model::{Now, Owner, Remedy, ScaleSet, Step, Treatment, Wall};
use crate::policy::Policy;

/// The first step of a remedy, to be journaled before anything is sent.
pub fn first_step(remedy: &Remedy, set: &ScaleSet, at: Wall) -> Step {
    match remedy {
        Remedy::Toggle => Step::Disabling { seen: set.revision.clone(), sent: None },
        Remedy::DeleteSession { session } | Remedy::DeleteThenToggle { session } => {
            let seen = Some(set.revision.clone());
            Step::Deleting { session: session.clone(), seen, attempts: 0, not_before: at }
        }
        // A unique owner distinguishes a conflict with a lost session of ours from any other.
        Remedy::SessionCheck => Step::CheckOpening { owner: Owner::of_session_check(set.id, at) },
    }
}

/// The next transition. A closed treatment stays as it is.
pub fn step(treatment: &Treatment, input: Input<'_>, now: Now, policy: &Policy) -> Transition {
    let ctx = StepContext { treatment, now: now.wall, policy };
    match &treatment.step {
        Step::Disabling { seen, sent } => toggle::step_disabling(ctx, seen, *sent, input),
        Step::DisableUnknown { seen, sent } => toggle::disable_answer_lost(ctx, seen, *sent, input),
        Step::Disabled { ours, again_until } => toggle::step_disabled(ctx, ours, *again_until, &input),
        Step::Enabling { ours, since: _, attempts, not_before } => {
            toggle::step_enabling(ctx, ours, Retry { attempts: *attempts, not_before: *not_before }, input)
        }
        Step::Deleting { session, seen, attempts, not_before } => {
            let retry = Retry { attempts: *attempts, not_before: *not_before };
            deletion::step_deleting(ctx, session, seen.as_ref(), retry, input)
        }
        Step::CheckOpening { owner } => session_check::step_opening(ctx, owner, input),
        Step::CheckOpened { session, attempts, not_before } => {
            session_check::step_opened(ctx, session, Retry { attempts: *attempts, not_before: *not_before }, input)
        }
        Step::Verifying => verify::step_verifying(ctx, &input),
        Step::Closed { .. } => ctx.stay_in_step(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::treat::testing::{T0, after, enabled, rev, session};

    #[test]
    fn first_step_names_what_will_be_sent() {
        let set = enabled("r7");
        let deleting = || Step::Deleting { session: session(), seen: Some(rev("r7")), attempts: 0, not_before: T0 };
        for (remedy, step) in [
            (Remedy::Toggle, Step::Disabling { seen: rev("r7"), sent: None }),
            (Remedy::DeleteSession { session: session() }, deleting()),
            (Remedy::DeleteThenToggle { session: session() }, deleting()),
            (Remedy::SessionCheck, Step::CheckOpening { owner: Owner::of_session_check(set.id, T0) }),
        ] {
            assert!(step.is_intent(), "{remedy:?}");
            assert_eq!(first_step(&remedy, &set, T0), step, "{remedy:?}");
        }
        let owner = |at| Owner::of_session_check(set.id, at);
        assert!(owner(T0) != owner(after(60)) && owner(T0).as_str().starts_with("scaleset-medic-1-"));
    }
}
