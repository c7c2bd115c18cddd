//! Waiting for *new listener evidence*: a 200 proves nothing (design §5). Two stages: a worker that is seen to try
//! again is *revived*, which lets other treatments start; only a set that listens is *recovered*.
//!
//! Edge cases: a restart of the manager takes the answer away, and says nothing about whether the act would have
//! helped: the treatment yields, so that the breaker does not count it. A manager that cannot be asked stops no clock,
//! but ends no treatment either. A manager's clock may be a little behind ours: a listener that began after the act by
//! our own sweeps may be dated up to [`SKEW`] before it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

use super::machine::{Input, SetView, Transition, View, answers, close, other_run, stay};
use super::toggle::SKEW;
use crate::decide::policy::Policy;
use crate::model::{Confidence, Diagnosis, Enablement, Finding, Outcome, RemedyKind, Treatment, Wall, WorkerState};

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
    if treatment.revived.is_none() && waited >= policy.revive_timeout && toggles(&treatment) {
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
    Some(close(treatment, Outcome::Yielded, now, why))
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

fn toggles(treatment: &Treatment) -> bool {
    match treatment.remedy.kind() {
        RemedyKind::Toggle | RemedyKind::DeleteThenToggle => true,
        RemedyKind::DeleteSession | RemedyKind::SessionProbe => false,
    }
}
