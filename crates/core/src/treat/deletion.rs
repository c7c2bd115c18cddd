//! Deleting a stale session of the manager's (`docs/reference/design.md` §5). Deleting a session that the manager still
//! holds kills its whole process (`docs/reference/design.md` §1). So the proof is checked again at every attempt, and the
//! manager's incarnation is read right before the request. What was decided for one incarnation is never done in another.
//!
//! Repeating is safe: 204, 404 and "expired" all mean that the session is gone. Then the manager retries automatically, or
//! its worker has given up and the set is toggled. A server that asks for a longer wait than [`LONGEST_RETRY_WAIT`] is not
//! waited for: the session ends sooner without us.

use super::toggle;
use super::transition::{Answer, Input, Request, Retry, StepContext, Transition, View, failure_of, next_attempt_at};
use crate::model::failure::WriteError;
use crate::model::{
    Diagnosis, Enablement, Failed, FailureKind, Note, Outcome, Remedy, RemedyKind, RequestFailure, Revision, SessionId,
    Span, Step, Wall,
};

/// Attempts, those at reading the manager's incarnation included.
const ATTEMPTS: u32 = 5;
const LONGEST_RETRY_WAIT: Span = Span::mins(5);

pub(super) fn step_deleting(
    ctx: StepContext<'_>,
    session: &SessionId,
    seen: Option<&Revision>,
    retry: Retry,
    input: Input<'_>,
) -> Transition {
    let attempts = retry.attempts;
    let retry_later = |what: Failed, failure: RequestFailure| {
        let not_before = next_attempt_at(attempts, failure.retry_at, ctx.now);
        if attempts >= ATTEMPTS || not_before.since(ctx.now) > LONGEST_RETRY_WAIT {
            ctx.close_treatment(Outcome::Failed, Note::GivenUp { attempts, last: what, failure })
        } else {
            let step = Step::Deleting { session: session.clone(), seen: seen.cloned(), attempts, not_before };
            ctx.change_step(step, Note::Failed { what, failure })
        }
    };
    match input {
        Input::Sweep(view) => check_before_deletion(ctx, session, seen, retry, &view),
        Input::Answer(Answer::Incarnation { incarnation: Ok(current), warrant }) => {
            // The log may have dated the decision's incarnation a little differently than the metrics.
            if ctx.treatment.incarnation.is_some_and(|known| known.is_same_run(current)) {
                ctx.send_request(Request::DeleteSession { warrant })
            } else {
                ctx.close_treatment(Outcome::Aborted, Note::RestartedSinceDecision)
            }
        }
        Input::Answer(Answer::Incarnation { incarnation: Err(failure), .. }) => {
            retry_later(Failed::ReadIncarnation, failure)
        }
        Input::Answer(Answer::SessionDeleted(Ok(()))) => match &ctx.treatment.remedy {
            Remedy::DeleteThenToggle { .. } => ctx.send_request(Request::ReadSet),
            Remedy::DeleteSession { .. } | Remedy::Toggle | Remedy::SessionCheck => {
                ctx.change_step(Step::Verifying, Note::StaleSessionGone)
            }
        },
        // We may not delete, or not soon. Toggling restarts the manager's worker, and needs nothing of GitHub.
        Input::Answer(Answer::SessionDeleted(Err(error)))
            if ctx.treatment.remedy.kind() == RemedyKind::DeleteThenToggle
                && is_hopeless(&error, attempts, ctx.now) =>
        {
            let (what, failure) = (Failed::DeleteBeforeToggle, failure_of(&error).clone());
            ctx.stay_with_note(Note::Failed { what, failure }).then_send(Request::ReadSet)
        }
        Input::Answer(Answer::SessionDeleted(Err(error))) => {
            retry_later(Failed::DeleteStaleSession, failure_of(&error).clone())
        }
        Input::Answer(Answer::Read(Ok(Some(set)))) => match set.enabled {
            Enablement::Enabled if seen == Some(&set.revision) => toggle::send_disable(ctx, set.revision),
            Enablement::Enabled | Enablement::Disabled => ctx.close_treatment(Outcome::Aborted, Note::ChangedByOthers),
        },
        Input::Answer(Answer::Read(Ok(None))) => ctx.close_treatment(Outcome::Aborted, Note::SetRemoved),
        Input::Answer(Answer::Read(Err(failure))) => retry_later(Failed::ReadBeforeDisable, failure),
        Input::Recover if ctx.now.since(ctx.treatment.opened) >= LONGEST_RETRY_WAIT => {
            ctx.close_treatment(Outcome::Aborted, Note::MedicEnded { sent: attempts > 0 })
        }
        // A deletion may be sent twice, and is not undone.
        Input::Shutdown | Input::Recover | Input::Answer(_) => ctx.stay_in_step(),
    }
}

fn check_before_deletion(
    ctx: StepContext<'_>,
    session: &SessionId,
    seen: Option<&Revision>,
    Retry { attempts, not_before }: Retry,
    view: &View<'_>,
) -> Transition {
    if !view.manager_answers() {
        // What was sent is sent again once the incarnation can be read again.
        return if attempts > 0 {
            ctx.stay_in_step()
        } else {
            ctx.close_treatment(Outcome::Aborted, Note::ManagerAway)
        };
    }
    if ctx.is_other_incarnation(view) {
        return ctx.close_treatment(Outcome::Aborted, Note::RestartedSinceDecision);
    }
    if view.finding.is_some_and(|finding| finding.diagnosis == Diagnosis::Listening) {
        return ctx.close_treatment(Outcome::SelfRecovered, Note::ListensAgain { sent: attempts > 0 });
    }
    let Some(warrant) = view.warrant.clone().filter(|warrant| warrant.session() == session) else {
        return close_without_proof(ctx, attempts);
    };
    if view.paused {
        return ctx.close_treatment(Outcome::Aborted, Note::Paused { sent: attempts > 0 });
    }
    // A longer wait than we ever ask for means that the clock was set back.
    if ctx.now < not_before && not_before.since(ctx.now) <= LONGEST_RETRY_WAIT {
        return ctx.stay_in_step();
    }
    let (session, seen, attempts) = (session.clone(), seen.cloned(), attempts.saturating_add(1));
    let step = Step::Deleting { session, seen, attempts, not_before };
    ctx.change_step(step, None).then_send(Request::CheckIncarnation { warrant })
}

/// Something newer is known of the set's session.
fn close_without_proof(ctx: StepContext<'_>, attempts: u32) -> Transition {
    match ctx.treatment.remedy {
        // The answer may have been lost; the manager retries automatically and may have a new session.
        Remedy::DeleteSession { .. } if attempts > 0 => ctx.change_step(Step::Verifying, Note::StaleSessionReplaced),
        Remedy::DeleteSession { .. } | Remedy::DeleteThenToggle { .. } | Remedy::Toggle | Remedy::SessionCheck => {
            ctx.close_treatment(Outcome::Aborted, Note::NoLongerStale)
        }
    }
}

/// Whether a deletion that had no effect need not be retried: we have no right to it, or the wait would be too long.
fn is_hopeless(error: &WriteError, attempts: u32, now: Wall) -> bool {
    let WriteError::NotApplied(failure) = error else { return false };
    let is_forbidden = matches!(failure.kind, FailureKind::Unauthorized | FailureKind::Forbidden);
    let is_delayed = matches!(failure.kind, FailureKind::RateLimited | FailureKind::HeldBack);
    let wait = next_attempt_at(attempts, failure.retry_at, now).since(now);
    is_forbidden || is_delayed && (attempts >= ATTEMPTS || wait > LONGEST_RETRY_WAIT)
}
