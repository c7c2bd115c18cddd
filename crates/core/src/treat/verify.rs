//! Waiting for new listener evidence: a 200 proves nothing (`docs/reference/design.md` §5). Two stages: once the worker
//! has *restarted* (it tries again), other treatments may start; only a set that listens has *recovered*.
//!
//! Edge cases: after a restart of the manager nobody can say whether the treatment helped; it is aborted, and the breaker
//! does not count it. While the manager cannot be asked, the time runs on and no treatment ends. A manager's clock may
//! be a little behind ours: a listener that began after the treatment, by our own sweeps, may be dated up to [`SKEW`]
//! before it.

use super::transition::{Input, SKEW, SetView, StepContext, Transition, View};
use crate::model::{Confidence, Diagnosis, Enablement, Finding, Note, Outcome, Treatment, Worker, WorkerState};

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
        return ctx.close_treatment(Outcome::Recovered, Note::Recovered { after: ctx.now.since(treatment.opened) });
    }
    if treatment.worker_restarted.is_none() && has_worker_restarted(treatment, finding) {
        let mut next = ctx.stay_with_note(Note::WorkerRestarted);
        next.treatment.worker_restarted = Some(ctx.now);
        return next;
    }
    let waited = ctx.now.since(treatment.step_at);
    if treatment.worker_restarted.is_none() && waited >= policy.restart_timeout && treatment.remedy.kind().disables() {
        return ctx.close_treatment(Outcome::Unverified, Note::NoWorker { within: waited });
    }
    if waited >= policy.verify_timeout {
        return ctx.close_treatment(Outcome::Unverified, Note::NoListener { within: waited });
    }
    ctx.stay_in_step()
}

fn cannot_be_verified(ctx: StepContext<'_>, view: &View<'_>) -> Option<Note> {
    match view.set {
        SetView::Gone => Some(Note::SetRemoved),
        SetView::Seen(set) if set.enabled == Enablement::Disabled => Some(Note::ChangedByOthers),
        SetView::Seen(_) | SetView::Unseen if ctx.is_other_incarnation(view) => Some(Note::RestartedUnverified),
        SetView::Seen(_) | SetView::Unseen => None,
    }
}

/// An old sign of a listener is no evidence, for example its last poll before the treatment.
fn has_new_listener(treatment: &Treatment, finding: &Finding) -> bool {
    let Worker { state, since } = finding.worker;
    let began = treatment.step_at;
    let is_new = since > began || (finding.since >= began && since.plus(SKEW) >= began);
    finding.diagnosis == Diagnosis::Listening
        && finding.confidence > Confidence::Weak
        && state == WorkerState::Listening
        && is_new
}

fn has_worker_restarted(treatment: &Treatment, finding: &Finding) -> bool {
    let Worker { state, since } = finding.worker;
    let is_alive = match state {
        WorkerState::Retrying | WorkerState::Listening => true,
        WorkerState::Unknown | WorkerState::Absent | WorkerState::Idle => false,
    };
    is_alive && since >= treatment.step_at
}
