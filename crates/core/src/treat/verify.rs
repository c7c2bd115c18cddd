//! Waiting for new listener evidence: a 200 proves nothing (`docs/reference/design.md` §5). Two stages: once the worker
//! has *restarted* (it tries again), other treatments may start; only a set that listens has *recovered*.
//!
//! Edge cases: after a restart of the manager nobody can say whether the treatment helped; it is aborted, and the breaker
//! does not count it. While the manager cannot be asked, the time runs on and no treatment ends. A manager's clock may
//! be a little behind ours: a listener that began after the treatment, by our own sweeps, may be dated up to [`SKEW`]
//! before it.

use super::transition::{CHANGED_BY_OTHERS, Input, SET_REMOVED, SKEW, SetView, StepContext, Transition, View};
use crate::model::{Confidence, Diagnosis, Enablement, Finding, Outcome, RemedyKind, Treatment, WorkerState};

pub(super) fn step_verifying(ctx: StepContext<'_>, input: &Input<'_>) -> Transition {
    let (treatment, policy) = (ctx.treatment, ctx.policy);
    let Input::Sweep(view) = input else { return ctx.stay_in_step() };
    if !view.manager_answers() {
        return ctx.stay_in_step();
    }
    if let Some(why) = cannot_be_verified(ctx, view) {
        return ctx.close_treatment(Outcome::Aborted, why);
    }
    let Some(finding) = view.finding else { return ctx.stay_in_step() };
    if has_new_listener(treatment, finding) {
        let took = ctx.now.since(treatment.opened);
        return ctx.close_treatment(Outcome::Recovered, format!("the set listens again, {took} after the decision"));
    }
    if treatment.revived.is_none() && has_worker_restarted(treatment, finding) {
        let mut next = ctx.stay_with_note("the worker tries again".to_owned());
        next.treatment.revived = Some(ctx.now);
        return next;
    }
    let waited = ctx.now.since(treatment.step_at);
    if treatment.revived.is_none() && waited >= policy.restart_timeout && has_toggled(treatment) {
        let why = format!("no sign of the worker within {waited} of the enable");
        return ctx.close_treatment(Outcome::Unverified, why);
    }
    if waited >= policy.verify_timeout {
        return ctx.close_treatment(Outcome::Unverified, format!("no listener within {waited} of the treatment"));
    }
    ctx.stay_in_step()
}

fn cannot_be_verified(ctx: StepContext<'_>, view: &View<'_>) -> Option<&'static str> {
    match view.set {
        SetView::Gone => Some(SET_REMOVED),
        SetView::Seen(set) if set.enabled == Enablement::Disabled => Some(CHANGED_BY_OTHERS),
        SetView::Seen(_) | SetView::Unseen if ctx.is_other_incarnation(view) => {
            Some("GARM restarted before the treatment could be verified")
        }
        SetView::Seen(_) | SetView::Unseen => None,
    }
}

/// An old sign of a listener is no evidence, for example its last poll before the treatment.
fn has_new_listener(treatment: &Treatment, finding: &Finding) -> bool {
    let (worker, at) = finding.worker;
    let began = treatment.step_at;
    let is_new = at > began || (finding.since >= began && at.plus(SKEW) >= began);
    finding.diagnosis == Diagnosis::Listening
        && finding.confidence > Confidence::Weak
        && worker == WorkerState::Listening
        && is_new
}

fn has_worker_restarted(treatment: &Treatment, finding: &Finding) -> bool {
    let (worker, at) = finding.worker;
    let is_alive = match worker {
        WorkerState::Retrying | WorkerState::Listening => true,
        WorkerState::Unknown | WorkerState::Absent | WorkerState::Idle => false,
    };
    is_alive && at >= treatment.step_at
}

fn has_toggled(treatment: &Treatment) -> bool {
    match treatment.remedy.kind() {
        RemedyKind::Toggle | RemedyKind::DeleteThenToggle => true,
        RemedyKind::DeleteSession | RemedyKind::SessionCheck => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FailureKind, ManagerState, Remedy, Span, Step, Wall};
    use crate::treat::testing::{Case, NEXT_RUN, Seen, T0, after, disabled, enabled, failure, session};
    use crate::treat::transition::{Answer, Request};

    /// Enabled again at [`T0`].
    fn toggled() -> Case {
        Case::of(Step::Verifying)
    }

    fn deleted() -> Case {
        toggled().remedy(Remedy::DeleteSession { session: session() })
    }

    fn retries(at: Wall) -> Seen {
        Seen::ill().diagnosis(Diagnosis::ConflictRetrying, at).worker(WorkerState::Retrying, at)
    }

    #[test]
    fn new_listener_evidence_recovers_the_set() {
        let mut case = toggled();
        assert_eq!(case.at(8).sweep(&Seen::ill().listening(after(5))), None);
        assert_eq!(case.outcome(), Some(Outcome::Recovered));
        assert_eq!(case.why(), "the set listens again, 8 s after the decision");
    }

    #[test]
    fn old_or_weak_evidence_proves_nothing() {
        let old = Seen::ill().listening(T0.minus(Span::secs(60)));
        let looks_new = Seen::ill().diagnosis(Diagnosis::Listening, after(1)).worker(WorkerState::Listening, Wall(0));
        let mut weak = Seen::ill().listening(after(5));
        weak.finding.confidence = Confidence::Weak;
        let guessed = Seen::ill().diagnosis(Diagnosis::Listening, after(1)).worker(WorkerState::Unknown, after(1));
        for seen in [old, looks_new, weak, guessed, Seen::ill().with(enabled("enabled"))] {
            let mut case = toggled();
            case.at(8).sweep(&seen);
            assert_eq!(case.outcome(), None, "{seen:?}");
        }
    }

    #[test]
    fn set_listening_all_along_needs_newer_evidence() {
        let long = T0.minus(Span::secs(60));
        for (sign, recovered) in [(T0, false), (after(1), true)] {
            let mut case = toggled();
            case.at(8).sweep(&Seen::ill().listening(sign).diagnosis(Diagnosis::Listening, long));
            assert_eq!(case.outcome(), recovered.then_some(Outcome::Recovered), "{sign}");
        }
    }

    #[test]
    fn managers_clock_behind_does_not_hide_a_recovery() {
        let seen = Seen::ill().listening(T0.minus(Span::millis(1500))).diagnosis(Diagnosis::Listening, after(2));
        let mut case = toggled();
        case.at(2).sweep(&seen);
        assert_eq!(case.outcome(), Some(Outcome::Recovered));
    }

    #[test]
    fn restarted_worker_is_waited_for() {
        let mut case = toggled();
        case.at(3).sweep(&retries(T0.minus(Span::secs(1))));
        assert_eq!(case.treatment.revived, None, "that was before");
        assert!(case.treatment.in_flight());
        case.at(4).sweep(&retries(after(2)));
        assert_eq!(case.treatment.revived, Some(after(4)));
        assert!(!case.treatment.in_flight(), "others may start");
        case.at(329).sweep(&retries(after(328)));
        assert_eq!((case.outcome(), case.treatment.revived), (None, Some(after(4))));
        case.at(330).sweep(&retries(after(329)));
        assert_eq!(case.outcome(), Some(Outcome::Unverified));
    }

    #[test]
    fn toggle_without_a_worker_is_unverified_after_30_s() {
        let mut case = toggled();
        case.at(29).sweep(&Seen::ill());
        assert_eq!(case.outcome(), None);
        case.at(30).sweep(&Seen::ill());
        assert_eq!(case.outcome(), Some(Outcome::Unverified));
        assert_eq!(case.why(), "no sign of the worker within 30 s of the enable");
    }

    #[test]
    fn deletion_without_a_listener_is_unverified_later() {
        let mut case = deleted();
        case.at(329).sweep(&Seen::ill());
        assert_eq!(case.outcome(), None);
        case.at(330).sweep(&Seen::ill());
        assert_eq!(case.outcome(), Some(Outcome::Unverified));
    }

    #[test]
    fn changes_by_others_abort_the_verification() {
        for seen in [
            Seen::ill().with(disabled("theirs", after(3))),
            Seen::ill().gone(),
            Seen::ill().run(NEXT_RUN),
            Seen::ill().run(NEXT_RUN).listening(after(70)),
        ] {
            let mut case = toggled();
            assert_eq!(case.at(400).sweep(&seen), None, "{seen:?}");
            assert_eq!(case.outcome(), Some(Outcome::Aborted), "{seen:?}");
        }
    }

    #[test]
    fn verification_waits_for_an_unreachable_manager() {
        for state in [ManagerState::Down, ManagerState::Unreachable] {
            let mut case = toggled();
            case.at(9000).sweep(&Seen::ill().manager(state));
            assert_eq!(case.outcome(), None);
        }
    }

    #[test]
    fn verification_sends_nothing() {
        let mut case = toggled();
        let none: Option<Request> = None;
        assert_eq!(case.shut_down(), none);
        assert_eq!(case.recover(), none);
        assert_eq!(case.answer(Answer::Read(Err(failure(FailureKind::Server)))), none);
        assert_eq!(case.label(), "verifying");
    }
}
