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

use super::stale::Proof;
use crate::model::{
    Confidence, ConflictBehaviour, Diagnosis, Enablement, Escalation, Fact, Finding, Incarnation, Owner, Remedy,
    ScaleSet, Waiting, Wall, WorkerState,
};
use crate::policy::Policy;

/// What the table depends on.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    pub finding: &'a Finding,
    pub set: &'a ScaleSet,
    pub conflict_behaviour: ConflictBehaviour,
    pub incarnation: Option<Incarnation>,
    /// The proof that the set's session is stale, where a GitHub client of ours could delete it.
    pub stale: Option<&'a Proof>,
    /// Whether the ledger knows a session that the current incarnation holds.
    pub session_lives: bool,
    /// Whether we could ask for a session (policy, credential, place).
    pub may_check_session: bool,
    /// Whether several entities show a fault at GitHub.
    pub fault_at_github: bool,
    pub now: Wall,
    pub policy: &'a Policy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prescription {
    /// Nothing is wrong, or nothing is ours to repair.
    Leave,
    /// Waiting is the remedy.
    Watch(Waiting, Option<Wall>),
    /// An operator is needed.
    Escalate(Escalation),
    /// This, unless a guard blocks it.
    Apply(Remedy),
}

#[must_use]
pub fn prescribe(case: &Case<'_>) -> Prescription {
    match case.finding.diagnosis {
        Diagnosis::Listening | Diagnosis::Disabled => Prescription::Leave,
        Diagnosis::DisabledByMedic => Prescription::Watch(Waiting::Treatment, None),
        Diagnosis::Settling => {
            Prescription::Watch(Waiting::Settling, case.incarnation.map(|run| run.0.plus(case.policy.settle)))
        }
        Diagnosis::ConflictAbandoned => conflict_abandoned(case),
        Diagnosis::ConflictRetrying => conflict_retrying(case),
        Diagnosis::StartAbandoned => match case.conflict_behaviour {
            ConflictBehaviour::Unknown | ConflictBehaviour::GivesUp => toggle(case),
            ConflictBehaviour::Retries => Prescription::Watch(Waiting::Evidence, None),
        },
        Diagnosis::Unheld => match case.finding.confidence {
            Confidence::Weak if case.may_check_session => session_check(case),
            Confidence::Weak | Confidence::Strong | Confidence::Proof => toggle(case),
        },
        Diagnosis::Unknown => {
            let suspect = case.finding.evidence.iter().any(|e| matches!(e.fact, Fact::CannotTellWhich { .. }));
            if suspect && case.may_check_session {
                session_check(case)
            } else {
                Prescription::Escalate(Escalation::Unknown)
            }
        }
        Diagnosis::Deaf => deaf(case),
        Diagnosis::HeldElsewhere if case.fault_at_github => Prescription::Escalate(Escalation::EndpointFault),
        Diagnosis::HeldElsewhere => Prescription::Escalate(Escalation::HeldElsewhere {
            owner: named_owner(case.finding).cloned(),
            run: case.now.since(conflict_since(case.finding, case.now)),
        }),
        Diagnosis::Missing => Prescription::Escalate(Escalation::Missing),
        Diagnosis::Mismatched => Prescription::Escalate(Escalation::Mismatched),
        Diagnosis::Unauthorized => Prescription::Escalate(Escalation::Unauthorized),
        Diagnosis::Starved => Prescription::Escalate(Escalation::Starved),
        Diagnosis::Flapping => Prescription::Escalate(Escalation::Flapping),
        Diagnosis::Evicted => Prescription::Escalate(Escalation::Evicted),
    }
}

/// When the set's present series of conflicts began: by the log, else by the sweeps. A series that became
/// `held_elsewhere` began when the set fell ill.
#[must_use]
pub fn conflict_since(finding: &Finding, now: Wall) -> Wall {
    let by_log = finding.evidence.iter().find_map(|evidence| {
        if let Fact::ConflictLine { run, .. } = &evidence.fact { Some(evidence.at.minus(*run)) } else { None }
    });
    let by_sweeps = if finding.diagnosis == Diagnosis::HeldElsewhere {
        finding.ill_since.map_or(finding.since, |ill| ill.min(finding.since))
    } else {
        finding.since
    };
    by_log.unwrap_or(by_sweeps).min(now)
}

/// The owner of the conflicting session, where a refusal named one.
#[must_use]
pub fn named_owner(finding: &Finding) -> Option<&Owner> {
    finding.evidence.iter().find_map(|evidence| {
        if let Fact::ConflictLine { owner, .. } | Fact::CheckRefused { owner } = &evidence.fact {
            owner.as_ref()
        } else {
            None
        }
    })
}

fn conflict_abandoned(case: &Case<'_>) -> Prescription {
    match (case.conflict_behaviour, case.stale) {
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
    let since = conflict_since(case.finding, case.now);
    let limit = since.plus(case.policy.stale_session_limit);
    if case.fault_at_github && case.now >= limit {
        return Prescription::Escalate(Escalation::EndpointFault);
    }
    let odd = case.now.since(since) >= case.policy.stale_session_odd;
    Prescription::Watch(if odd { Waiting::StaleSessionOdd } else { Waiting::StaleSession }, Some(limit))
}

fn toggle(case: &Case<'_>) -> Prescription {
    unless_working(case, Remedy::Toggle)
}

/// A stalled listener still runs. Its toggle makes GARM send a DELETE, which crashes it if GitHub has forgotten the
/// session (`docs/reference/design.md` §1): only where the risk is allowed, and the session is known to exist.
fn deaf(case: &Case<'_>) -> Prescription {
    if !(case.policy.allow_risky && case.session_lives) {
        return Prescription::Escalate(Escalation::Deaf);
    }
    match case.set.enabled {
        Enablement::Enabled => Prescription::Apply(Remedy::Toggle),
        Enablement::Disabled => Prescription::Leave,
    }
}

fn session_check(case: &Case<'_>) -> Prescription {
    unless_working(case, Remedy::SessionCheck)
}

/// No remedy touches a set that an operator disabled meanwhile, or whose listener runs.
fn unless_working(case: &Case<'_>, remedy: Remedy) -> Prescription {
    match (case.set.enabled, case.finding.worker.0) {
        (Enablement::Disabled, _) => Prescription::Leave,
        (Enablement::Enabled, WorkerState::Listening) => Prescription::Watch(Waiting::Evidence, None),
        (
            Enablement::Enabled,
            WorkerState::Unknown | WorkerState::Absent | WorkerState::Idle | WorkerState::Retrying,
        ) => Prescription::Apply(remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::stale::{CurrentManager, provably_stale};
    use crate::decide::testing::{evidence, finding, ledger_session, mins, scale_set};
    use crate::model::{ManagerState, SessionId, Span};

    const RUN: Incarnation = Incarnation(mins(60));
    const NOW: Wall = mins(61);

    struct Try {
        finding: Finding,
        set: ScaleSet,
        conflict_behaviour: ConflictBehaviour,
        stale: bool,
        session_lives: bool,
        may_check_session: bool,
        fault_at_github: bool,
        now: Wall,
        policy: Policy,
    }

    fn of(diagnosis: Diagnosis, confidence: Confidence) -> Try {
        Try {
            finding: finding(1, diagnosis, confidence),
            set: scale_set(1),
            conflict_behaviour: ConflictBehaviour::GivesUp,
            stale: false,
            session_lives: false,
            may_check_session: false,
            fault_at_github: false,
            now: NOW,
            policy: Policy::default(),
        }
    }

    impl Try {
        fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
            change(&mut self);
            self
        }
        fn says(&self) -> Prescription {
            let owner = Owner::of_garm("c1");
            let session = ledger_session(1, "s-1", Incarnation(mins(10)), mins(11));
            let manager = CurrentManager { state: ManagerState::Up, incarnation: Some(RUN), owner: Some(&owner) };
            let proof = provably_stale(&session, &scale_set(1), manager).unwrap();
            prescribe(&Case {
                finding: &self.finding,
                set: &self.set,
                conflict_behaviour: self.conflict_behaviour,
                incarnation: Some(RUN),
                stale: self.stale.then_some(&proof),
                session_lives: self.session_lives,
                may_check_session: self.may_check_session,
                fault_at_github: self.fault_at_github,
                now: self.now,
                policy: &self.policy,
            })
        }
    }

    fn session() -> SessionId {
        SessionId::new("s-1")
    }

    #[test]
    fn conflict_abandoned_deletes_a_stale_session_then_toggles() {
        let case = of(Diagnosis::ConflictAbandoned, Confidence::Proof);
        assert_eq!(case.says(), Prescription::Apply(Remedy::Toggle));
        let known = case.with(|t| t.stale = true);
        assert_eq!(known.says(), Prescription::Apply(Remedy::DeleteThenToggle { session: session() }));
        let retries = known.with(|t| t.conflict_behaviour = ConflictBehaviour::Retries);
        assert_eq!(retries.says(), Prescription::Apply(Remedy::DeleteSession { session: session() }));
    }

    #[test]
    fn build_that_retries_is_toggled_only_if_unheld() {
        for diagnosis in Diagnosis::ALL.iter().copied() {
            let says = of(diagnosis, Confidence::Proof)
                .with(|t| {
                    t.conflict_behaviour = ConflictBehaviour::Retries;
                    t.finding.evidence.push(evidence(NOW, Fact::CauseGone));
                })
                .says();
            assert_eq!(says == Prescription::Apply(Remedy::Toggle), diagnosis == Diagnosis::Unheld, "{diagnosis}");
        }
    }

    #[test]
    fn conflict_retrying_waits_and_deletes_only_with_proof() {
        let case = |now| {
            of(Diagnosis::ConflictRetrying, Confidence::Proof).with(|t| {
                t.now = now;
                let fact = Fact::ConflictLine { owner: None, run: Span::mins(1) };
                t.finding.evidence.push(evidence(mins(61), fact));
            })
        };
        let limit = Some(mins(65));
        assert_eq!(case(mins(61)).says(), Prescription::Watch(Waiting::StaleSession, limit));
        assert_eq!(case(mins(63)).says(), Prescription::Watch(Waiting::StaleSessionOdd, limit));
        assert_eq!(case(mins(65)).says(), Prescription::Watch(Waiting::StaleSessionOdd, limit), "no fault is seen");
        let early = case(mins(64)).with(|t| t.fault_at_github = true);
        assert_eq!(early.says(), Prescription::Watch(Waiting::StaleSessionOdd, limit), "GitHub may still end it");
        assert_eq!(
            case(mins(65)).with(|t| t.fault_at_github = true).says(),
            Prescription::Escalate(Escalation::EndpointFault)
        );
        assert_eq!(
            case(mins(61)).with(|t| t.stale = true).says(),
            Prescription::Apply(Remedy::DeleteSession { session: session() })
        );
    }

    #[test]
    fn unheld_is_toggled_or_checked_on_weak_evidence() {
        assert_eq!(of(Diagnosis::Unheld, Confidence::Strong).says(), Prescription::Apply(Remedy::Toggle));
        let weak = of(Diagnosis::Unheld, Confidence::Weak).with(|t| t.may_check_session = true);
        assert_eq!(weak.says(), Prescription::Apply(Remedy::SessionCheck));
        let heard = weak.with(|t| t.finding.worker.0 = WorkerState::Listening);
        assert_eq!(heard.says(), Prescription::Watch(Waiting::Evidence, None), "a running listener is never checked");
    }

    #[test]
    fn unknown_is_checked_only_if_some_sets_listen() {
        let blind = of(Diagnosis::Unknown, Confidence::Weak).with(|t| t.may_check_session = true);
        assert_eq!(blind.says(), Prescription::Escalate(Escalation::Unknown));
        let some = blind.with(|t| {
            t.finding.evidence.push(evidence(NOW, Fact::CannotTellWhich { listening: 3, of: 4 }));
        });
        assert_eq!(some.says(), Prescription::Apply(Remedy::SessionCheck));
        assert_eq!(some.with(|t| t.may_check_session = false).says(), Prescription::Escalate(Escalation::Unknown));
    }

    #[test]
    fn deaf_is_toggled_only_if_risky_and_its_session_lives() {
        for (allowed, lives) in [(false, false), (false, true), (true, false), (true, true)] {
            let says = of(Diagnosis::Deaf, Confidence::Strong)
                .with(|t| {
                    t.policy.allow_risky = allowed;
                    t.session_lives = lives;
                    t.finding.worker.0 = WorkerState::Listening;
                })
                .says();
            let expected = if allowed && lives {
                Prescription::Apply(Remedy::Toggle)
            } else {
                Prescription::Escalate(Escalation::Deaf)
            };
            assert_eq!(says, expected, "allowed {allowed}, lives {lives}");
        }
    }

    #[test]
    fn escalations_apply_no_remedy() {
        for (diagnosis, escalation) in [
            (Diagnosis::Missing, Escalation::Missing),
            (Diagnosis::Mismatched, Escalation::Mismatched),
            (Diagnosis::Unauthorized, Escalation::Unauthorized),
            (Diagnosis::Starved, Escalation::Starved),
            (Diagnosis::Flapping, Escalation::Flapping),
            (Diagnosis::Evicted, Escalation::Evicted),
            (Diagnosis::Unknown, Escalation::Unknown),
        ] {
            let says = of(diagnosis, Confidence::Proof).with(|t| t.stale = true).says();
            assert_eq!(says, Prescription::Escalate(escalation));
        }
    }

    #[test]
    fn held_elsewhere_names_the_holder_and_the_duration() {
        let case = of(Diagnosis::HeldElsewhere, Confidence::Proof).with(|t| {
            let fact = Fact::ConflictLine { owner: Some(Owner::new("garm-other")), run: Span::mins(6) };
            t.finding.evidence.push(evidence(NOW, fact));
        });
        assert_eq!(
            case.says(),
            Prescription::Escalate(Escalation::HeldElsewhere {
                owner: Some(Owner::new("garm-other")),
                run: Span::mins(6)
            })
        );
        let fault = case.with(|t| t.fault_at_github = true);
        assert_eq!(fault.says(), Prescription::Escalate(Escalation::EndpointFault));
    }

    #[test]
    fn well_idle_and_settling_sets_get_no_remedy() {
        assert_eq!(of(Diagnosis::Listening, Confidence::Proof).says(), Prescription::Leave);
        assert_eq!(of(Diagnosis::Disabled, Confidence::Proof).says(), Prescription::Leave);
        let until = Some(RUN.0.plus(Span::secs(20)));
        assert_eq!(of(Diagnosis::Settling, Confidence::Proof).says(), Prescription::Watch(Waiting::Settling, until));
        let says = of(Diagnosis::DisabledByMedic, Confidence::Proof).says();
        assert_eq!(says, Prescription::Watch(Waiting::Treatment, None));
    }

    #[test]
    fn disabled_set_gets_no_remedy() {
        for diagnosis in Diagnosis::ALL.iter().copied() {
            let says = of(diagnosis, Confidence::Proof)
                .with(|t| {
                    t.set.enabled = Enablement::Disabled;
                    (t.stale, t.session_lives, t.may_check_session, t.policy.allow_risky) = (true, true, true, true);
                })
                .says();
            assert!(!matches!(says, Prescription::Apply(_)), "{diagnosis}: {says:?}");
        }
    }

    #[test]
    fn start_abandoned_is_toggled() {
        assert_eq!(of(Diagnosis::StartAbandoned, Confidence::Proof).says(), Prescription::Apply(Remedy::Toggle));
    }
}
