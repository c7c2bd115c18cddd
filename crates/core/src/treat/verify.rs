//! Waiting for new listener evidence: a 200 proves nothing (`docs/reference/design.md` §5). Two stages: once the worker
//! has *restarted* (it tries again), other treatments may start; only a set that listens has *recovered*.
//!
//! Edge cases: after a restart of the manager nobody can say whether the treatment helped; it is aborted, and the breaker
//! does not count it. While the manager cannot be asked, the time runs on and no treatment ends. A manager's clock may
//! be a little behind ours: a listener that began after the treatment, by our own sweeps, may be dated up to [`SKEW`]
//! before it.

use super::transition::{CHANGED_BY_OTHERS, Input, SET_REMOVED, SKEW, SetView, StepContext, Transition, View};
use crate::model::{Confidence, Diagnosis, Enablement, Finding, Outcome, Treatment, WorkerState};

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
    if treatment.revived.is_none() && waited >= policy.restart_timeout && treatment.remedy.kind().disables() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FailureKind, ManagerState, Remedy, Span, Step, Wall};
    use crate::treat::testing::{Case, NEXT_RUN, Seen, T0, after, disabled, enabled, failure, session};
    use crate::treat::transition::Answer;

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
    fn verification_needs_new_and_strong_listener_evidence() {
        let long_ago = T0.minus(Span::secs(60));
        let listening = |since, worker, at| Seen::ill().diagnosis(Diagnosis::Listening, since).worker(worker, at);
        let mut weak = Seen::ill().listening(after(5));
        weak.finding.confidence = Confidence::Weak;
        for (what, seen, recovered) in [
            ("new", Seen::ill().listening(after(5)), true),
            ("old", Seen::ill().listening(long_ago), false),
            ("new diagnosis of an old sign", listening(after(1), WorkerState::Listening, Wall(0)), false),
            ("weak", weak, false),
            ("guessed", listening(after(1), WorkerState::Unknown, after(1)), false),
            ("enabled", Seen::ill().with(enabled("enabled")), false),
            ("listening all along", listening(long_ago, WorkerState::Listening, T0), false),
            ("all along, newer sign", listening(long_ago, WorkerState::Listening, after(1)), true),
            ("clock behind", listening(after(2), WorkerState::Listening, T0.minus(Span::millis(1500))), true),
        ] {
            let mut case = toggled();
            assert_eq!(case.at(8).sweep(&seen), None, "{what}");
            assert_eq!(case.outcome(), recovered.then_some(Outcome::Recovered), "{what}");
            assert!(!recovered || case.why() == "the set listens again, 8 s after the decision", "{what}");
        }
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
    fn verification_ends_without_a_worker_or_a_listener() {
        for (mut case, limit, why) in [
            (toggled(), 30, "no sign of the worker within 30 s of the enable"),
            (deleted(), 330, "no listener within 5 min 30 s of the treatment"),
        ] {
            case.at(limit - 1).sweep(&Seen::ill());
            assert_eq!(case.outcome(), None);
            case.at(limit).sweep(&Seen::ill());
            assert_eq!((case.outcome(), case.why()), (Some(Outcome::Unverified), why));
        }
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
            assert_eq!((case.at(400).sweep(&seen), case.outcome()), (None, Some(Outcome::Aborted)), "{seen:?}");
        }
    }

    #[test]
    fn verification_waits_for_sweeps_that_show_the_manager() {
        for state in [ManagerState::Down, ManagerState::Unreachable] {
            let mut case = toggled();
            case.at(9000).sweep(&Seen::ill().manager(state));
            assert_eq!(case.outcome(), None);
        }
        let mut case = toggled();
        assert_eq!((case.shut_down(), case.recover()), (None, None));
        assert_eq!(case.answer(Answer::Read(Err(failure(FailureKind::Server)))), None);
        assert_eq!(case.label(), "verifying");
    }
}
