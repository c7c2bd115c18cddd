//! Waiting for *new listener evidence*: a 200 proves nothing (`docs/reference/design.md` §5). Two stages: a worker that
//! is seen to try again is *revived*, which lets other treatments start; only a set that listens is *recovered*.
//!
//! Edge cases: a restart of the manager takes the answer away, and says nothing about whether the act would have
//! helped: the treatment yields, so that the breaker does not count it. A manager that cannot be asked stops no clock,
//! but ends no treatment either. A manager's clock may be a little behind ours: a listener that began after the act by
//! our own sweeps may be dated up to [`SKEW`] before it.

use super::machine::{Input, SetView, Transition, View, answers, close, other_run, stay};
use super::toggle::SKEW;
use crate::model::{Confidence, Diagnosis, Enablement, Finding, Outcome, Treatment, Wall, WorkerState};
use crate::policy::Policy;

/// Acted; what came of it?
pub(super) fn verifying(treatment: &Treatment, input: &Input<'_>, now: Wall, policy: &Policy) -> Transition {
    let Input::Sweep(view) = input else { return stay(treatment) };
    if !answers(view) {
        return stay(treatment);
    }
    if let Some(over) = taken_away(treatment, view, now) {
        return over;
    }
    let Some(finding) = view.finding else { return stay(treatment) };
    if listens_anew(treatment, finding) {
        let took = now.since(treatment.opened);
        return close(treatment, Outcome::Recovered, now, format!("it listens again, {took} after the decision"));
    }
    let mut treatment = treatment.clone();
    if treatment.revived.is_none() && shows_life(&treatment, finding) {
        treatment.revived = Some(now);
        return Transition { treatment, effect: None, note: Some("the worker tries again".to_owned()) };
    }
    let waited = now.since(treatment.step_at);
    if treatment.revived.is_none() && waited >= policy.restart_timeout && treatment.remedy.kind().disables() {
        return close(&treatment, Outcome::Unverified, now, format!("no sign of life within {waited} of the enable"));
    }
    if waited >= policy.verify_timeout {
        return close(&treatment, Outcome::Unverified, now, format!("no listener within {waited} of the act"));
    }
    stay(&treatment)
}

fn taken_away(treatment: &Treatment, view: &View<'_>, now: Wall) -> Option<Transition> {
    let why = match view.set {
        SetView::Gone => "the scale set was removed from the manager meanwhile",
        SetView::Seen(set) if set.enabled == Enablement::Disabled => {
            "somebody disabled the scale set meanwhile; it is theirs"
        }
        SetView::Seen(_) | SetView::Unseen if other_run(treatment, view) => {
            "the manager restarted before the treatment could be verified"
        }
        SetView::Seen(_) | SetView::Unseen => return None,
    };
    Some(close(treatment, Outcome::Aborted, now, why))
}

/// An old sign of a listener, a last poll before the act for instance, is no evidence.
fn listens_anew(treatment: &Treatment, finding: &Finding) -> bool {
    let (worker, at) = finding.worker;
    let began = treatment.step_at;
    let is_new = at > began || (finding.since >= began && at.plus(SKEW) >= began);
    finding.diagnosis == Diagnosis::Listening
        && finding.confidence > Confidence::Weak
        && worker == WorkerState::Listening
        && is_new
}

fn shows_life(treatment: &Treatment, finding: &Finding) -> bool {
    let (worker, at) = finding.worker;
    let alive = match worker {
        WorkerState::Retrying | WorkerState::Listening => true,
        WorkerState::Unknown | WorkerState::Absent | WorkerState::Idle => false,
    };
    alive && at >= treatment.step_at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FailureKind, ManagerState, Remedy, Span, Step};
    use crate::treat::machine::{Answer, Request};
    use crate::treat::testing::{NEXT_RUN, Seen, T0, Table, after, disabled, enabled, failure, session};

    /// Enabled again at [`T0`].
    fn toggled() -> Table {
        Table::of(Step::Verifying)
    }

    fn deleted() -> Table {
        toggled().remedy(Remedy::DeleteSession { session: session() })
    }

    fn retries(at: Wall) -> Seen {
        Seen::ill().diagnosis(Diagnosis::ConflictRetrying, at).worker(WorkerState::Retrying, at)
    }

    #[test]
    fn a_set_is_recovered_by_a_new_sign_of_its_listener_only() {
        let mut table = toggled();
        assert_eq!(table.at(8).sees(&Seen::ill().listening(after(5))), None);
        assert_eq!(table.outcome(), Some(Outcome::Recovered));
        assert_eq!(table.why(), "it listens again, 8 s after the decision");
    }

    #[test]
    fn an_old_sign_a_weak_one_or_an_enabled_set_prove_nothing() {
        let old = Seen::ill().listening(T0.minus(Span::secs(60)));
        let looks_new = Seen::ill().diagnosis(Diagnosis::Listening, after(1)).worker(WorkerState::Listening, Wall(0));
        let mut weak = Seen::ill().listening(after(5));
        weak.finding.confidence = Confidence::Weak;
        let guessed = Seen::ill().diagnosis(Diagnosis::Listening, after(1)).worker(WorkerState::Unknown, after(1));
        for seen in [old, looks_new, weak, guessed, Seen::ill().with(enabled("enabled"))] {
            let mut table = toggled();
            table.at(8).sees(&seen);
            assert_eq!(table.outcome(), None, "{seen:?}");
        }
    }

    #[test]
    fn a_set_that_was_thought_to_listen_all_along_needs_a_sign_from_after_the_act() {
        let long = T0.minus(Span::secs(60));
        for (sign, recovered) in [(T0, false), (after(1), true)] {
            let mut table = toggled();
            table.at(8).sees(&Seen::ill().listening(sign).diagnosis(Diagnosis::Listening, long));
            assert_eq!(table.outcome(), recovered.then_some(Outcome::Recovered), "{sign}");
        }
    }

    #[test]
    fn a_managers_clock_a_little_behind_does_not_hide_a_recovery() {
        let seen = Seen::ill().listening(T0.minus(Span::millis(1500))).diagnosis(Diagnosis::Listening, after(2));
        let mut table = toggled();
        table.at(2).sees(&seen);
        assert_eq!(table.outcome(), Some(Outcome::Recovered));
    }

    #[test]
    fn a_worker_that_tries_again_is_revived_and_waited_for() {
        let mut table = toggled();
        table.at(3).sees(&retries(T0.minus(Span::secs(1))));
        assert_eq!(table.treatment.revived, None, "that was before");
        assert!(table.treatment.in_flight());
        table.at(4).sees(&retries(after(2)));
        assert_eq!(table.treatment.revived, Some(after(4)));
        assert!(!table.treatment.in_flight(), "others may start");
        table.at(329).sees(&retries(after(328)));
        assert_eq!((table.outcome(), table.treatment.revived), (None, Some(after(4))));
        table.at(330).sees(&retries(after(329)));
        assert_eq!(table.outcome(), Some(Outcome::Unverified));
    }

    #[test]
    fn a_toggled_worker_that_shows_no_life_is_unverified_after_half_a_minute() {
        let mut table = toggled();
        table.at(29).sees(&Seen::ill());
        assert_eq!(table.outcome(), None);
        table.at(30).sees(&Seen::ill());
        assert_eq!(table.outcome(), Some(Outcome::Unverified));
        assert_eq!(table.why(), "no sign of life within 30 s of the enable");
    }

    #[test]
    fn after_a_deletion_the_manager_takes_its_own_time() {
        let mut table = deleted();
        table.at(329).sees(&Seen::ill());
        assert_eq!(table.outcome(), None);
        table.at(330).sees(&Seen::ill());
        assert_eq!(table.outcome(), Some(Outcome::Unverified));
    }

    #[test]
    fn what_others_did_meanwhile_is_no_failure_of_the_act() {
        for seen in [
            Seen::ill().with(disabled("theirs", after(3))),
            Seen::ill().gone(),
            Seen::ill().run(NEXT_RUN),
            Seen::ill().run(NEXT_RUN).listening(after(70)),
        ] {
            let mut table = toggled();
            assert_eq!(table.at(400).sees(&seen), None, "{seen:?}");
            assert_eq!(table.outcome(), Some(Outcome::Aborted), "{seen:?}");
        }
    }

    #[test]
    fn a_manager_that_cannot_be_asked_ends_no_treatment() {
        for state in [ManagerState::Down, ManagerState::Unreachable] {
            let mut table = toggled();
            table.at(9000).sees(&Seen::ill().manager(state));
            assert_eq!(table.outcome(), None);
        }
    }

    #[test]
    fn verifying_sends_nothing() {
        let mut table = toggled();
        let none: Option<Request> = None;
        assert_eq!(table.ends(), none);
        assert_eq!(table.recovers(), none);
        assert_eq!(table.hears(Answer::Read(Err(failure(FailureKind::Server)))), none);
        assert_eq!(table.label(), "verifying");
    }
}
