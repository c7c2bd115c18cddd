//! Diagnosis → what may be done about it: the table of `docs/reference/design.md` §5, one row per diagnosis.
//!
//! **A no-op update is not a remedy.** `PUT {"enabled": true}` on an enabled set changes nothing and restarts no worker
//! (`docs/reference/garm-api.md` §6.4). Only a real change restarts a worker that gave up: disable, then enable. That is
//! the only update this tool ever sends.
//!
//! A session is deleted only with a [`Proof`]. Only an enabled set *without a running listener* is toggled (`allow_risky`
//! aside): nothing is interrupted, and GARM sends no DELETE that could crash it. A build that retries needs a toggle only
//! if its enable was lost (`unheld`). On weak evidence, a session check is the most that is done.
//!
//! What blocks a remedy is decided in [`super::guards`].

use super::Input;
use super::stale::Proof;
use crate::model::diagnosis::conflicts_began;
use crate::model::{
    Confidence, ConflictBehaviour, Decision, Diagnosis, Enablement, Escalation, Fact, Finding, Remedy, ScaleSet,
    Waiting, Wall, WorkerState,
};
use crate::policy::Policy;

/// What the table depends on.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub input: &'a Input<'a>,
    pub finding: &'a Finding,
    pub set: &'a ScaleSet,
    /// The proof that the set's session is stale, where a GitHub client of ours could delete it.
    pub stale: Option<&'a Proof>,
    /// Whether the ledger knows a session that the current incarnation holds.
    pub session_lives: bool,
    /// Whether we could ask for a session (policy, credential, place).
    pub may_check_session: bool,
}

impl Case<'_> {
    fn policy(&self) -> &Policy {
        &self.input.given.policy
    }
    fn now(&self) -> Wall {
        self.input.given.now.wall
    }
}

pub(super) enum Prescription {
    /// No remedy: this is decided.
    Decided(Decision),
    /// This, unless a guard blocks it.
    Apply(Remedy),
}

const LEAVE: Prescription = Prescription::Decided(Decision::Leave);

const fn watch(waiting: Waiting, until: Option<Wall>) -> Prescription {
    Prescription::Decided(Decision::Watch { waiting, until })
}

const fn escalate(escalation: Escalation) -> Prescription {
    Prescription::Decided(Decision::Escalate { escalation })
}

pub(super) fn prescribe(case: &Case<'_>) -> Prescription {
    match case.finding.diagnosis {
        Diagnosis::Listening | Diagnosis::Disabled => LEAVE,
        Diagnosis::DisabledByMedic => watch(Waiting::Treatment, None),
        Diagnosis::Settling => {
            watch(Waiting::Settling, case.input.fleet.incarnation.map(|run| run.0.plus(case.policy().settle)))
        }
        Diagnosis::ConflictAbandoned => conflict_abandoned(case),
        Diagnosis::ConflictRetrying => conflict_retrying(case),
        Diagnosis::StartAbandoned => match case.input.fleet.conflict_behaviour {
            ConflictBehaviour::Unknown | ConflictBehaviour::GivesUp => toggle(case),
            ConflictBehaviour::Retries => watch(Waiting::Evidence, None),
        },
        Diagnosis::Unheld => match case.finding.confidence {
            Confidence::Weak if case.may_check_session => session_check(case),
            Confidence::Weak | Confidence::Strong | Confidence::Proof => toggle(case),
        },
        Diagnosis::Unknown => {
            let suspect = case.finding.evidence.iter().any(|e| matches!(e.fact, Fact::CannotTellWhich { .. }));
            if suspect && case.may_check_session { session_check(case) } else { escalate(Escalation::Unknown) }
        }
        Diagnosis::Deaf => deaf(case),
        Diagnosis::HeldElsewhere if case.input.fleet.fault_at_github => escalate(Escalation::EndpointFault),
        Diagnosis::HeldElsewhere => escalate(Escalation::HeldElsewhere {
            owner: case.finding.named_owner().cloned(),
            run: case.now().since(conflict_since(case.finding, case.now())),
        }),
        Diagnosis::Missing => escalate(Escalation::Missing),
        Diagnosis::Mismatched => escalate(Escalation::Mismatched),
        Diagnosis::Unauthorized => escalate(Escalation::Unauthorized),
        Diagnosis::Starved => escalate(Escalation::Starved),
        Diagnosis::Flapping => escalate(Escalation::Flapping),
        Diagnosis::Evicted => escalate(Escalation::Evicted),
    }
}

/// When the set's present series of conflicts began: by the log, else by the sweeps. A series that became
/// `held_elsewhere` began when the set fell ill.
pub(super) fn conflict_since(finding: &Finding, now: Wall) -> Wall {
    let by_sweeps = if finding.diagnosis == Diagnosis::HeldElsewhere {
        finding.ill_since.map_or(finding.since, |ill| ill.min(finding.since))
    } else {
        finding.since
    };
    conflicts_began(&finding.evidence).unwrap_or(by_sweeps).min(now)
}

fn conflict_abandoned(case: &Case<'_>) -> Prescription {
    match (case.input.fleet.conflict_behaviour, case.stale) {
        // Such a build does not give up: this is a conflict between two attempts.
        (ConflictBehaviour::Retries, _) => conflict_retrying(case),
        (ConflictBehaviour::Unknown | ConflictBehaviour::GivesUp, Some(proof)) => {
            unless_working(case, Remedy::DeleteThenToggle { session: proof.session().clone() })
        }
        (ConflictBehaviour::Unknown | ConflictBehaviour::GivesUp, None) => toggle(case),
    }
}

fn conflict_retrying(case: &Case<'_>) -> Prescription {
    if let Some(proof) = case.stale {
        return unless_working(case, Remedy::DeleteSession { session: proof.session().clone() });
    }
    let since = conflict_since(case.finding, case.now());
    let limit = since.plus(case.policy().stale_session_limit);
    if case.input.fleet.fault_at_github && case.now() >= limit {
        return escalate(Escalation::EndpointFault);
    }
    let odd = case.now().since(since) >= case.policy().stale_session_odd;
    watch(if odd { Waiting::StaleSessionOdd } else { Waiting::StaleSession }, Some(limit))
}

fn toggle(case: &Case<'_>) -> Prescription {
    unless_working(case, Remedy::Toggle)
}

/// A stalled listener still runs. Its toggle makes GARM send a DELETE, which crashes it if GitHub has forgotten the
/// session (`docs/reference/design.md` §1): only where the risk is allowed, and the session is known to exist.
fn deaf(case: &Case<'_>) -> Prescription {
    if !(case.policy().allow_risky && case.session_lives) {
        return escalate(Escalation::Deaf);
    }
    match case.set.enabled {
        Enablement::Enabled => Prescription::Apply(Remedy::Toggle),
        Enablement::Disabled => LEAVE,
    }
}

fn session_check(case: &Case<'_>) -> Prescription {
    unless_working(case, Remedy::SessionCheck)
}

/// No remedy touches a set that an operator disabled meanwhile, or whose listener runs.
fn unless_working(case: &Case<'_>, remedy: Remedy) -> Prescription {
    match (case.set.enabled, case.finding.worker.state) {
        (Enablement::Disabled, _) => LEAVE,
        (Enablement::Enabled, WorkerState::Listening) => watch(Waiting::Evidence, None),
        (
            Enablement::Enabled,
            WorkerState::Unknown | WorkerState::Absent | WorkerState::Idle | WorkerState::Retrying,
        ) => Prescription::Apply(remedy),
    }
}
