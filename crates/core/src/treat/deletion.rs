//! Deleting a stale session of the manager's (`docs/reference/design.md` §5). Deleting a session that the manager still
//! holds kills its whole process (`docs/reference/design.md` §1). So the proof is checked again at every attempt, and the
//! manager's incarnation is read right before the request. What was decided for one incarnation is never done in another.
//!
//! Repeating is safe: 204, 404 and "expired" all mean that the session is gone. Then the manager retries automatically, or
//! its worker has given up and the set is toggled. A server that asks for a longer wait than [`LONGEST_RETRY_WAIT`] is not
//! waited for: the session ends sooner without us.

use super::toggle;
use super::transition::{
    Answer, CHANGED_BY_OTHERS, Input, PAUSED, Request, Retry, SET_REMOVED, StepContext, Transition, View, failure_of,
    next_attempt_at,
};
use crate::model::failure::WriteError;
use crate::model::{
    Diagnosis, Enablement, FailureKind, Outcome, Remedy, RemedyKind, Revision, SessionId, Span, Step, Wall,
};

/// Attempts, those at reading the manager's incarnation included.
const ATTEMPTS: u32 = 5;
const LONGEST_RETRY_WAIT: Span = Span::mins(5);

const OTHER_INCARNATION: &str = "GARM has restarted since the decision";
const TOO_OLD: &str = "the medic ended long ago, before the deletion was answered; the next reconcile decides again";

pub(super) fn step_deleting(
    ctx: StepContext<'_>,
    session: &SessionId,
    seen: Option<&Revision>,
    retry: Retry,
    input: Input<'_>,
) -> Transition {
    let attempts = retry.attempts;
    let retry_later = |retry_at: Option<Wall>, why: String| {
        let not_before = next_attempt_at(attempts, retry_at, ctx.now);
        if attempts >= ATTEMPTS || not_before.since(ctx.now) > LONGEST_RETRY_WAIT {
            ctx.close_treatment(Outcome::Failed, format!("{why}; given up after {attempts} attempts"))
        } else {
            let step = Step::Deleting { session: session.clone(), seen: seen.cloned(), attempts, not_before };
            ctx.change_step(step, why)
        }
    };
    match input {
        Input::Sweep(view) => check_before_deletion(ctx, session, seen, retry, &view),
        Input::Answer(Answer::Incarnation { incarnation: Ok(current), warrant }) => {
            // The log may have dated the decision's incarnation a little differently than the metrics.
            if ctx.treatment.incarnation.is_some_and(|known| known.is_same_run(current)) {
                ctx.send_request(Request::DeleteSession { warrant })
            } else {
                ctx.close_treatment(Outcome::Aborted, OTHER_INCARNATION)
            }
        }
        Input::Answer(Answer::Incarnation { incarnation: Err(error), .. }) => {
            retry_later(error.retry_at, format!("GARM's start time cannot be read before the deletion: {error}"))
        }
        Input::Answer(Answer::SessionDeleted(Ok(()))) => match &ctx.treatment.remedy {
            Remedy::DeleteThenToggle { .. } => ctx.send_request(Request::ReadSet),
            Remedy::DeleteSession { .. } | Remedy::Toggle | Remedy::SessionCheck => {
                ctx.change_step(Step::Verifying, "the stale session is gone")
            }
        },
        // We may not delete, or not soon. Toggling restarts the manager's worker, and needs nothing of GitHub.
        Input::Answer(Answer::SessionDeleted(Err(error)))
            if ctx.treatment.remedy.kind() == RemedyKind::DeleteThenToggle
                && is_hopeless(&error, attempts, ctx.now) =>
        {
            let note = format!("not deleted, toggling alone: {}", failure_of(&error));
            ctx.stay_with_note(note).then_send(Request::ReadSet)
        }
        Input::Answer(Answer::SessionDeleted(Err(error))) => {
            let reason = failure_of(&error);
            retry_later(reason.retry_at, format!("the stale session is not known to be gone: {reason}"))
        }
        Input::Answer(Answer::Read(Ok(Some(set)))) => match set.enabled {
            Enablement::Enabled if seen == Some(&set.revision) => toggle::send_disable(ctx, set.revision),
            Enablement::Enabled | Enablement::Disabled => ctx.close_treatment(Outcome::Aborted, CHANGED_BY_OTHERS),
        },
        Input::Answer(Answer::Read(Ok(None))) => ctx.close_treatment(Outcome::Aborted, SET_REMOVED),
        Input::Answer(Answer::Read(Err(error))) => {
            retry_later(error.retry_at, format!("the set cannot be read before it is disabled: {error}"))
        }
        Input::Recover if ctx.now.since(ctx.treatment.opened) >= LONGEST_RETRY_WAIT => {
            ctx.close_treatment(Outcome::Aborted, TOO_OLD)
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
            ctx.close_treatment(Outcome::Aborted, "GARM stopped answering before anything was sent")
        };
    }
    if ctx.is_other_incarnation(view) {
        return ctx.close_treatment(Outcome::Aborted, OTHER_INCARNATION);
    }
    if view.finding.is_some_and(|finding| finding.diagnosis == Diagnosis::Listening) {
        return ctx.close_treatment(Outcome::SelfRecovered, "the set listens again; nothing more is sent");
    }
    let Some(warrant) = view.warrant.clone().filter(|warrant| warrant.session() == session) else {
        return close_without_proof(ctx, attempts);
    };
    if view.paused {
        let why = if attempts > 0 { "healing was paused before the deletion was sent again" } else { PAUSED };
        return ctx.close_treatment(Outcome::Aborted, why);
    }
    // A longer wait than we ever ask for means that the clock was set back.
    if ctx.now < not_before && not_before.since(ctx.now) <= LONGEST_RETRY_WAIT {
        return ctx.stay_in_step();
    }
    let (session, seen, attempts) = (session.clone(), seen.cloned(), attempts.saturating_add(1));
    let step = Step::Deleting { session, seen, attempts, not_before };
    ctx.change_step(step, "reading GARM's start time").then_send(Request::CheckIncarnation { warrant })
}

/// Something newer is known of the set's session.
fn close_without_proof(ctx: StepContext<'_>, attempts: u32) -> Transition {
    match ctx.treatment.remedy {
        // The answer may have been lost; the manager retries automatically and may have a new session.
        Remedy::DeleteSession { .. } if attempts > 0 => {
            ctx.change_step(Step::Verifying, "the session is no longer there to be deleted")
        }
        Remedy::DeleteSession { .. } | Remedy::DeleteThenToggle { .. } | Remedy::Toggle | Remedy::SessionCheck => {
            ctx.close_treatment(Outcome::Aborted, "the session is no longer provably stale")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Incarnation, ManagerState, RequestFailure};
    use crate::treat::testing::{
        Case, NEXT_RUN, RUN, Seen, T0, after, disabled, enabled, failure as failing, lost, refused, rev, session,
        warrant,
    };

    fn deleting() -> Case {
        let step = Step::Deleting { session: session(), seen: Some(rev("seen")), attempts: 0, not_before: T0 };
        Case::of(step).remedy(Remedy::DeleteSession { session: session() })
    }

    fn then_toggle() -> Case {
        deleting().remedy(Remedy::DeleteThenToggle { session: session() })
    }

    fn incarnation(incarnation: Result<Incarnation, RequestFailure>) -> Answer {
        Answer::Incarnation { incarnation, warrant: warrant() }
    }

    fn check_incarnation() -> Request {
        Request::CheckIncarnation { warrant: warrant() }
    }

    fn delete_session() -> Request {
        Request::DeleteSession { warrant: warrant() }
    }

    fn send_deletion(case: &mut Case) {
        assert_eq!(case.sweep(&Seen::ill()), Some(check_incarnation()));
        assert_eq!(case.answer(incarnation(Ok(RUN))), Some(delete_session()));
    }

    fn sent(mut case: Case) -> Case {
        send_deletion(&mut case);
        case
    }

    /// What the machine does after the first deletion was answered so.
    fn answered(case: Case, answer: Result<(), WriteError>) -> (Case, Option<Request>) {
        let mut case = sent(case);
        let next = case.answer(Answer::SessionDeleted(answer));
        (case, next)
    }

    fn not_applied(kind: FailureKind, retry_at: Option<Wall>) -> Result<(), WriteError> {
        Err(WriteError::NotApplied(RequestFailure { retry_at, ..failing(kind) }))
    }

    #[test]
    fn stale_session_is_deleted_after_reading_the_incarnation() {
        let (case, next) = answered(deleting(), Ok(()));
        assert_eq!((next, case.label()), (None, "verifying"));
    }

    #[test]
    fn deletion_is_followed_by_the_toggle() {
        let (mut case, next) = answered(then_toggle(), Ok(()));
        assert_eq!(next, Some(Request::ReadSet));
        let mut unreadable = case.clone();
        assert_eq!(case.at(3).read(enabled("seen")), Some(Request::Disable));
        assert_eq!(case.treatment.step, Step::Disabling { seen: rev("seen"), sent: Some(after(3)) });
        assert_eq!(case.treatment.step_at, after(3));

        assert_eq!(unreadable.answer(Answer::Read(Err(failing(FailureKind::Server)))), None);
        send_deletion(unreadable.at(1));
    }

    #[test]
    fn toggle_is_left_out_when_somebody_changed_the_set() {
        for set in [Some(disabled("now", T0)), Some(enabled("edited")), None] {
            let (mut case, _) = answered(then_toggle(), Ok(()));
            assert_eq!(case.answer(Answer::Read(Ok(set.clone()))), None, "{set:?}");
            assert_eq!(case.outcome(), Some(Outcome::Aborted), "{set:?}");
        }
    }

    #[test]
    fn deletion_needs_proof_manager_and_same_incarnation() {
        for seen in [
            Seen::ill().fresh(),
            Seen::ill().manager(ManagerState::Down),
            Seen::ill().manager(ManagerState::Unreachable),
            Seen::ill().run(NEXT_RUN),
        ] {
            let mut case = deleting();
            assert_eq!((case.sweep(&seen), case.outcome()), (None, Some(Outcome::Aborted)), "{seen:?}");
        }
        for (decided_in, current, why) in [
            (Some(RUN), NEXT_RUN, "it restarted since this sweep"),
            (None, RUN, "decided without knowing the incarnation"),
        ] {
            let mut case = deleting();
            case.treatment.incarnation = decided_in;
            case.sweep(&Seen::ill());
            assert_eq!(case.answer(incarnation(Ok(current))), None, "{why}");
            assert_eq!(case.outcome(), Some(Outcome::Aborted), "{why}");
        }
    }

    #[test]
    fn incarnation_dated_by_the_log_is_the_same_by_metrics() {
        for off in [Span::ZERO, Span::millis(340), Span::secs(2)] {
            let mut case = deleting();
            case.treatment.incarnation = Some(Incarnation(RUN.0.minus(off)));
            case.sweep(&Seen::ill());
            assert_eq!(case.answer(incarnation(Ok(RUN))), Some(delete_session()), "{off}");
        }
    }

    #[test]
    fn deletion_fails_when_the_incarnation_stays_unreadable() {
        let mut case = deleting();
        for attempt in 1..=5 {
            case.at(attempt * 60);
            assert_eq!(case.outcome(), None);
            assert_eq!(case.sweep(&Seen::ill()), Some(check_incarnation()));
            assert_eq!(case.answer(incarnation(Err(failing(FailureKind::Timeout)))), None);
        }
        assert_eq!(case.outcome(), Some(Outcome::Failed));
        assert!(case.why().ends_with("given up after 5 attempts"), "{}", case.why());
    }

    #[test]
    fn deletion_is_tried_five_times_with_all_checks() {
        for error in [refused(), lost()] {
            let (mut case, mut second, mut sent_at) = (deleting(), 0, Vec::new());
            while case.outcome().is_none() {
                if case.at(second).sweep(&Seen::ill()) == Some(check_incarnation()) {
                    assert_eq!(case.answer(incarnation(Ok(RUN))), Some(delete_session()));
                    assert_eq!(case.answer(Answer::SessionDeleted(Err(error.clone()))), None);
                    sent_at.push(second);
                }
                second += 1;
                assert!(second < 100, "never given up: {sent_at:?}");
            }
            assert_eq!((sent_at, case.outcome()), (vec![0, 1, 3, 7, 15], Some(Outcome::Failed)));
        }
    }

    #[test]
    fn deletion_obeys_retry_after_up_to_five_minutes() {
        for wait in [60, 300] {
            let (mut case, _) = answered(deleting(), not_applied(FailureKind::RateLimited, Some(after(wait))));
            assert_eq!(case.at(wait - 1).sweep(&Seen::ill()), None);
            send_deletion(case.at(wait));
        }
        let (case, _) = answered(deleting(), not_applied(FailureKind::RateLimited, Some(after(3600))));
        assert_eq!(case.outcome(), Some(Outcome::Failed));
    }

    #[test]
    fn toggle_goes_ahead_alone_when_deletion_is_hopeless() {
        use FailureKind::{Forbidden, HeldBack, RateLimited, Rejected, Unauthorized};
        let late = Some(after(301));
        for (kind, retry_at, toggled) in [
            (Unauthorized, None, true),
            (Forbidden, None, true),
            (Rejected, None, false),
            (RateLimited, Some(after(300)), false),
            (RateLimited, late, true),
            (HeldBack, Some(after(300)), false),
            (HeldBack, late, true),
        ] {
            let (mut case, next) = answered(then_toggle(), not_applied(kind, retry_at));
            assert_eq!(next, toggled.then_some(Request::ReadSet), "{kind:?}");
            assert_eq!(case.note.as_deref().unwrap().starts_with("not deleted, toggling alone: "), toggled);
            if toggled {
                assert_eq!(case.read(enabled("seen")), Some(Request::Disable));
            } else {
                send_deletion(case.at(300));
            }
            let (_, next) = answered(deleting(), not_applied(kind, retry_at));
            assert_eq!(next, None, "{kind:?}: no toggle to go on with");
        }
        let (_, next) = answered(then_toggle(), Err(WriteError::Unknown(failing(Forbidden))));
        assert_eq!(next, None, "it may have been deleted after all");
        let mut case = then_toggle();
        for attempt in 1..=5 {
            send_deletion(case.at(attempt * 60));
            let next = case.answer(Answer::SessionDeleted(not_applied(RateLimited, None)));
            assert_eq!(next, (attempt == 5).then_some(Request::ReadSet), "attempt {attempt}");
        }
    }

    #[test]
    fn lost_deletion_that_worked_is_verified_not_repeated() {
        let (mut case, _) = answered(deleting(), Err(lost()));
        assert_eq!(case.at(2).sweep(&Seen::ill().fresh()), None, "the manager has a new session by now");
        assert_eq!(case.label(), "verifying");
        let (mut case, _) = answered(then_toggle(), Err(lost()));
        case.at(2).sweep(&Seen::ill().fresh());
        assert_eq!(case.outcome(), Some(Outcome::Aborted), "no toggle without a new decision");
    }

    #[test]
    fn crash_repeats_the_deletion_with_all_checks() {
        let mut case = sent(deleting());
        assert_eq!(case.recover(), None);
        assert_eq!(case.sweep(&Seen::ill().manager(ManagerState::Down)), None, "waits for the manager");
        assert_eq!(case.outcome(), None);
        send_deletion(&mut case);
        assert_eq!(case.shut_down(), None, "nothing must be undone");
        for (seconds, outcome) in [(299, None), (300, Some(Outcome::Aborted))] {
            let mut case = sent(then_toggle());
            assert_eq!((case.at(seconds).recover(), case.outcome()), (None, outcome), "{seconds} s");
        }
    }

    #[test]
    fn listening_set_ends_the_deletion() {
        for mut case in [then_toggle(), answered(then_toggle(), Err(lost())).0] {
            assert_eq!(case.at(2).sweep(&Seen::ill().listening(after(1))), None);
            assert_eq!(case.outcome(), Some(Outcome::SelfRecovered));
        }
    }

    #[test]
    fn pause_stops_a_deletion_that_would_be_sent() {
        let again = "healing was paused before the deletion was sent again";
        for (mut case, why) in [(deleting(), PAUSED), (answered(deleting(), Err(lost())).0, again)] {
            assert_eq!(case.at(2).sweep(&Seen::ill().paused()), None);
            assert_eq!((case.outcome(), case.why()), (Some(Outcome::Aborted), why));
        }
    }
}
