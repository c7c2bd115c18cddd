//! Deleting a stale session of the manager's (`docs/reference/design.md` §5). Deleting one that the manager still holds
//! kills its whole process (`docs/reference/design.md` §1), so the proof is asked for again at every attempt, and the
//! manager's run is read at the last moment before the request goes out. What was decided for one run of the manager is
//! never done in another.
//!
//! Repeating is safe: 204, 404 and "expired" are all ends. After the end the manager either retries by itself, or its
//! worker has given up and is toggled. A server that asks for more patience than [`PATIENCE`] is not waited for: the
//! session ends by itself sooner.

use super::machine::{
    Answer, Input, Leave, PAUSED, Request, Transition, answers, ask, close, failure, go, next_attempt, other_run, stay,
};
use super::toggle;
use crate::model::failure::WriteError;
use crate::model::{
    Diagnosis, Enablement, FailureKind, Outcome, Remedy, RemedyKind, Revision, SessionId, Span, Step, Treatment, Wall,
};

/// Requests, the look at the manager's run included, before giving up.
const ATTEMPTS: u32 = 5;
/// The longest wait that a server may ask for between two attempts.
const PATIENCE: Span = Span::mins(5);

const AWAY: &str = "the manager went away before anything was sent";
const OTHER_RUN: &str = "the manager runs anew, and the decision was made for its run before";
const CHANGED: &str = "somebody changed the scale set meanwhile; it is not toggled, and the next pass decides anew";
const OLD: &str = "the medic ended before the deletion was answered, long ago; the next pass decides anew";
const PERSON: &str = "somebody disabled the scale set meanwhile; it is theirs";

pub(super) fn deleting(
    treatment: &Treatment,
    (session, seen): (&SessionId, Option<&Revision>),
    (attempts, not_before): (u32, Wall),
    input: Input<'_>,
    now: Wall,
) -> Transition {
    let step =
        |attempts, not_before| Step::Deleting { session: session.clone(), seen: seen.cloned(), attempts, not_before };
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
                return if attempts > 0 { stay(treatment) } else { close(treatment, Outcome::Aborted, now, AWAY) };
            }
            if other_run(treatment, &view) {
                return close(treatment, Outcome::Aborted, now, OTHER_RUN);
            }
            if view.finding.is_some_and(|finding| finding.diagnosis == Diagnosis::Listening) {
                return close(treatment, Outcome::SelfRecovered, now, "it listens again; nothing more is sent");
            }
            let Some(warrant) = view.warrant.filter(|warrant| warrant.session() == session) else {
                return no_longer_stale(treatment, attempts, now);
            };
            if view.leave == Leave::Paused {
                let why =
                    if attempts > 0 { "healing was paused before the deletion was asked for again" } else { PAUSED };
                return close(treatment, Outcome::Aborted, now, why);
            }
            // A wait longer than any that we ask for: the clock was set back.
            if now < not_before && not_before.since(now) <= PATIENCE {
                return stay(treatment);
            }
            go(treatment, step(attempts.saturating_add(1), not_before), now, "checking the manager's run")
                .then(Request::CheckIncarnation { warrant })
        }
        Input::Answer(Answer::Incarnation { run: Ok(run), warrant }) => {
            // The run that was decided for may be known by the log's date, which is not the metrics'.
            if treatment.incarnation.is_some_and(|known| known.is_same_run(run)) {
                ask(treatment, Request::DeleteSession { warrant })
            } else {
                close(treatment, Outcome::Aborted, now, OTHER_RUN)
            }
        }
        Input::Answer(Answer::Incarnation { run: Err(error), .. }) => {
            again(error.retry_at, format!("the manager's run cannot be read before the deletion: {error}"))
        }
        Input::Answer(Answer::SessionDeleted(Ok(()))) => match &treatment.remedy {
            Remedy::DeleteThenToggle { .. } => ask(treatment, Request::ReadSet),
            Remedy::DeleteSession { .. } | Remedy::Toggle | Remedy::SessionCheck => {
                go(treatment, Step::Verifying, now, "the stale session is gone")
            }
        },
        // We may not delete, or not soon; the manager's worker is still to be revived: toggling needs nothing of GitHub.
        Input::Answer(Answer::SessionDeleted(Err(error)))
            if treatment.remedy.kind() == RemedyKind::DeleteThenToggle && is_hopeless(&error, attempts, now) =>
        {
            Transition {
                note: Some(format!("not deleted, toggling alone: {}", failure(&error))),
                ..ask(treatment, Request::ReadSet)
            }
        }
        Input::Answer(Answer::SessionDeleted(Err(error))) => {
            let reason = failure(&error);
            again(reason.retry_at, format!("the stale session is not known to be gone: {reason}"))
        }
        Input::Answer(Answer::Read(Ok(Some(set)))) => match set.enabled {
            Enablement::Enabled if seen == Some(&set.revision) => toggle::disable(treatment, set.revision, now),
            Enablement::Enabled => close(treatment, Outcome::Aborted, now, CHANGED),
            Enablement::Disabled => close(treatment, Outcome::Aborted, now, PERSON),
        },
        Input::Answer(Answer::Read(Ok(None))) => {
            close(treatment, Outcome::Aborted, now, "the scale set was removed from the manager meanwhile")
        }
        Input::Answer(Answer::Read(Err(error))) => {
            again(error.retry_at, format!("the set cannot be read before it is disabled: {error}"))
        }
        // What was decided long ago is decided anew.
        Input::Recover if now.since(treatment.opened) >= PATIENCE => close(treatment, Outcome::Aborted, now, OLD),
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
        Remedy::DeleteSession { .. } | Remedy::DeleteThenToggle { .. } | Remedy::Toggle | Remedy::SessionCheck => {
            close(treatment, Outcome::Aborted, now, "the session is no longer provably stale")
        }
    }
}

/// Whether a deletion that had no effect need not be tried again: we have no right to it, or are asked to wait for too
/// long.
fn is_hopeless(error: &WriteError, attempts: u32, now: Wall) -> bool {
    match error {
        WriteError::NotApplied(failure) => match failure.kind {
            FailureKind::Unauthorized | FailureKind::Forbidden => true,
            FailureKind::RateLimited | FailureKind::HeldBack => {
                attempts >= ATTEMPTS || next_attempt(attempts, failure.retry_at, now).since(now) > PATIENCE
            }
            FailureKind::Connect
            | FailureKind::Tls
            | FailureKind::Timeout
            | FailureKind::Broken
            | FailureKind::NotFound
            | FailureKind::Conflict
            | FailureKind::NotInitialised
            | FailureKind::Rejected
            | FailureKind::Server
            | FailureKind::Redirect
            | FailureKind::Malformed
            | FailureKind::TooLarge
            | FailureKind::NotEnabled => false,
        },
        WriteError::Unknown(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::failure::WriteError;
    use crate::model::{FailureKind, Incarnation, ManagerState, RequestFailure};
    use crate::treat::testing::{
        NEXT_RUN, RUN, Seen, T0, Table, after, disabled, enabled, failure as failing, lost, refused, rev, session,
        warrant,
    };

    fn deleting() -> Table {
        let step = Step::Deleting { session: session(), seen: Some(rev("seen")), attempts: 0, not_before: T0 };
        Table::of(step).remedy(Remedy::DeleteSession { session: session() })
    }

    fn then_toggle() -> Table {
        deleting().remedy(Remedy::DeleteThenToggle { session: session() })
    }

    fn right_run() -> Answer {
        Answer::Incarnation { run: Ok(RUN), warrant: warrant() }
    }

    /// One attempt, up to its answer.
    fn sends(table: &mut Table) {
        assert_eq!(table.sees(&Seen::ill()), Some(Request::CheckIncarnation { warrant: warrant() }));
        assert_eq!(table.hears(right_run()), Some(Request::DeleteSession { warrant: warrant() }));
    }

    #[test]
    fn a_stale_session_is_deleted_after_a_last_look_at_the_managers_run() {
        let mut table = deleting();
        sends(&mut table);
        assert_eq!(table.hears(Answer::SessionDeleted(Ok(()))), None);
        assert_eq!(table.label(), "verifying");
    }

    #[test]
    fn a_manager_that_gave_up_is_then_toggled() {
        let mut table = then_toggle();
        sends(&mut table);
        assert_eq!(table.hears(Answer::SessionDeleted(Ok(()))), Some(Request::ReadSet));
        assert_eq!(table.at(3).reads(enabled("seen")), Some(Request::Disable));
        assert_eq!(table.treatment.step, Step::Disabling { seen: rev("seen"), sent: Some(after(3)) });
        assert_eq!(table.treatment.step_at, after(3));
    }

    #[test]
    fn the_toggle_is_left_out_where_a_person_acted() {
        let (off, again) = (disabled("now", T0), enabled("toggled by a person"));
        for answer in [Answer::Read(Ok(Some(off))), Answer::Read(Ok(Some(again))), Answer::Read(Ok(None))] {
            let mut table = then_toggle();
            sends(&mut table);
            table.hears(Answer::SessionDeleted(Ok(())));
            assert_eq!(table.hears(answer), None);
            assert_eq!(table.outcome(), Some(Outcome::Aborted));
        }
    }

    #[test]
    fn nothing_is_deleted_in_another_run_of_the_manager() {
        let mut table = deleting();
        assert_eq!(table.sees(&Seen::ill().run(NEXT_RUN)), None);
        assert_eq!(table.outcome(), Some(Outcome::Aborted));
        let mut table = deleting();
        table.sees(&Seen::ill());
        assert_eq!(
            table.hears(Answer::Incarnation { run: Ok(NEXT_RUN), warrant: warrant() }),
            None,
            "it restarted since this pass looked"
        );
        assert_eq!(table.outcome(), Some(Outcome::Aborted));
        let mut table = deleting();
        table.treatment.incarnation = None;
        table.sees(&Seen::ill());
        assert_eq!(table.hears(right_run()), None, "decided without knowing the run");
        assert_eq!(table.outcome(), Some(Outcome::Aborted));
    }

    #[test]
    fn a_run_that_was_known_by_its_log_is_the_same_run_by_its_metrics() {
        for off in [Span::ZERO, Span::millis(340), Span::secs(2)] {
            let mut table = deleting();
            table.treatment.incarnation = Some(Incarnation(RUN.0.minus(off)));
            table.sees(&Seen::ill());
            assert_eq!(table.hears(right_run()), Some(Request::DeleteSession { warrant: warrant() }), "{off}");
        }
    }

    #[test]
    fn nothing_is_deleted_without_the_proof_or_a_manager_that_answers() {
        for seen in [
            Seen::ill().fresh(),
            Seen::ill().manager(ManagerState::Down),
            Seen::ill().manager(ManagerState::Unreachable),
        ] {
            let mut table = deleting();
            assert_eq!(table.sees(&seen), None, "{seen:?}");
            assert_eq!(table.outcome(), Some(Outcome::Aborted), "{seen:?}");
        }
    }

    #[test]
    fn nothing_is_deleted_while_the_managers_run_cannot_be_read() {
        let mut table = deleting();
        for attempt in 1..=5 {
            table.at(attempt * 60);
            assert_eq!(table.outcome(), None);
            assert_eq!(table.sees(&Seen::ill()), Some(Request::CheckIncarnation { warrant: warrant() }));
            assert_eq!(
                table.hears(Answer::Incarnation { run: Err(failing(FailureKind::Timeout)), warrant: warrant() }),
                None
            );
        }
        assert_eq!(table.outcome(), Some(Outcome::Failed));
        assert!(table.why().ends_with("given up after 5 attempts"), "{}", table.why());
    }

    #[test]
    fn a_refused_or_lost_deletion_is_repeated_five_times_with_the_look_each_time() {
        for error in [refused(), lost()] {
            let mut table = deleting();
            let mut second = 0;
            let mut sent_at = Vec::new();
            while table.outcome().is_none() {
                if table.at(second).sees(&Seen::ill()) == Some(Request::CheckIncarnation { warrant: warrant() }) {
                    assert_eq!(table.hears(right_run()), Some(Request::DeleteSession { warrant: warrant() }));
                    assert_eq!(table.hears(Answer::SessionDeleted(Err(error.clone()))), None);
                    sent_at.push(second);
                }
                second += 1;
                assert!(second < 100, "never given up: {sent_at:?}");
            }
            assert_eq!(sent_at, [0, 1, 3, 7, 15]);
            assert_eq!(table.outcome(), Some(Outcome::Failed));
        }
    }

    #[test]
    fn a_server_is_given_the_time_it_asks_for_and_left_alone_where_that_is_too_long() {
        let busy = |seconds| {
            let failure = RequestFailure { retry_at: Some(after(seconds)), ..failing(FailureKind::RateLimited) };
            Answer::SessionDeleted(Err(WriteError::NotApplied(failure)))
        };
        let mut table = deleting();
        sends(&mut table);
        table.hears(busy(60));
        assert_eq!(table.at(59).sees(&Seen::ill()), None);
        assert_eq!(table.at(60).sees(&Seen::ill()), Some(Request::CheckIncarnation { warrant: warrant() }));
        let mut table = deleting();
        sends(&mut table);
        table.hears(busy(300));
        assert_eq!(table.at(299).sees(&Seen::ill()), None);
        sends(table.at(300));
        let mut table = deleting();
        sends(&mut table);
        table.hears(busy(3600));
        assert_eq!(table.outcome(), Some(Outcome::Failed));
    }

    #[test]
    fn a_manager_that_gave_up_is_toggled_although_our_credential_may_not_delete() {
        use FailureKind::{Forbidden, Rejected, Unauthorized};
        let says = |kind| Answer::SessionDeleted(Err(WriteError::NotApplied(failing(kind))));
        for (kind, toggled) in [(Unauthorized, true), (Forbidden, true), (Rejected, false)] {
            let mut table = then_toggle();
            sends(&mut table);
            assert_eq!(table.hears(says(kind)), toggled.then_some(Request::ReadSet), "{kind:?}");
            assert_eq!(table.note.as_deref().unwrap().starts_with("not deleted, toggling alone: "), toggled);
            let mut table = deleting();
            sends(&mut table);
            assert_eq!(table.hears(says(kind)), None, "{kind:?}: there is no toggle to go on with");
            sends(table.at(1));
        }
        let mut table = then_toggle();
        sends(&mut table);
        let lost = Answer::SessionDeleted(Err(WriteError::Unknown(failing(Forbidden))));
        assert_eq!(table.hears(lost), None, "it may have been deleted after all");
    }

    #[test]
    fn a_manager_that_gave_up_is_toggled_alone_where_the_deletion_would_have_to_wait_for_too_long() {
        for kind in [FailureKind::RateLimited, FailureKind::HeldBack] {
            let wait = |seconds: u64| {
                let failure = RequestFailure { retry_at: Some(after(seconds)), ..failing(kind) };
                Answer::SessionDeleted(Err(WriteError::NotApplied(failure)))
            };
            let mut table = then_toggle();
            sends(&mut table);
            assert_eq!(table.hears(wait(300)), None, "{kind}: five minutes are waited for");
            sends(table.at(300));
            let mut table = then_toggle();
            sends(&mut table);
            assert_eq!(table.hears(wait(301)), Some(Request::ReadSet), "{kind}");
            assert!(table.note.as_deref().unwrap().starts_with("not deleted, toggling alone: "));
            assert_eq!(table.reads(enabled("seen")), Some(Request::Disable));
        }
    }

    #[test]
    fn a_manager_that_gave_up_is_toggled_alone_once_the_deletion_was_put_off_five_times() {
        let busy = || Answer::SessionDeleted(Err(WriteError::NotApplied(failing(FailureKind::RateLimited))));
        let mut table = then_toggle();
        for attempt in 1..5 {
            sends(table.at(attempt * 60));
            assert_eq!(table.hears(busy()), None, "attempt {attempt}");
        }
        sends(table.at(300));
        assert_eq!(table.hears(busy()), Some(Request::ReadSet));
        assert_eq!(table.outcome(), None);
    }

    #[test]
    fn a_lost_deletion_that_worked_is_verified_and_not_repeated() {
        let mut table = deleting();
        sends(&mut table);
        table.hears(Answer::SessionDeleted(Err(lost())));
        assert_eq!(table.at(2).sees(&Seen::ill().fresh()), None, "the manager has a new session by now");
        assert_eq!(table.label(), "verifying");
        let mut table = then_toggle();
        sends(&mut table);
        table.hears(Answer::SessionDeleted(Err(lost())));
        table.at(2).sees(&Seen::ill().fresh());
        assert_eq!(table.outcome(), Some(Outcome::Aborted), "no toggle without a new decision");
    }

    #[test]
    fn a_crash_in_between_repeats_the_deletion_with_all_its_checks() {
        let mut table = deleting();
        sends(&mut table);
        assert_eq!(table.recovers(), None);
        assert_eq!(table.sees(&Seen::ill().manager(ManagerState::Down)), None, "waits for the manager");
        assert_eq!(table.outcome(), None);
        sends(&mut table);
        assert_eq!(table.ends(), None, "nothing of it must be undone");
    }

    #[test]
    fn a_set_that_listens_again_is_left_alone_whatever_was_sent() {
        for tried in [false, true] {
            let mut table = then_toggle();
            if tried {
                sends(&mut table);
                table.hears(Answer::SessionDeleted(Err(lost())));
            }
            assert_eq!(table.at(2).sees(&Seen::ill().listening(after(1))), None);
            assert_eq!(table.outcome(), Some(Outcome::SelfRecovered));
        }
    }

    #[test]
    fn a_deletion_that_a_medic_left_behind_long_ago_is_decided_anew() {
        for (seconds, outcome) in [(299, None), (300, Some(Outcome::Aborted))] {
            let mut table = then_toggle();
            sends(&mut table);
            assert_eq!(table.at(seconds).recovers(), None);
            assert_eq!(table.outcome(), outcome, "{seconds} s");
        }
    }

    #[test]
    fn a_pause_ends_a_deletion_that_would_be_sent() {
        let mut table = deleting();
        assert_eq!(table.sees(&Seen::ill().paused()), None);
        assert_eq!((table.outcome(), table.why()), (Some(Outcome::Aborted), PAUSED));
        let mut table = deleting();
        sends(&mut table);
        table.hears(Answer::SessionDeleted(Err(lost())));
        assert_eq!(table.at(2).sees(&Seen::ill().paused()), None);
        assert_eq!(table.outcome(), Some(Outcome::Aborted));
        assert_eq!(table.why(), "healing was paused before the deletion was asked for again");
    }

    #[test]
    fn after_the_deletion_a_set_that_cannot_be_read_is_tried_from_the_start() {
        let mut table = then_toggle();
        sends(&mut table);
        table.hears(Answer::SessionDeleted(Ok(())));
        assert_eq!(table.hears(Answer::Read(Err(failing(FailureKind::Server)))), None);
        sends(table.at(1));
    }
}
