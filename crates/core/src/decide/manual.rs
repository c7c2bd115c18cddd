//! A manual heal (`heal SET`): what it may do, and what it may not.
//!
//! It lifts the limits on what we do automatically: settle time, repeated confirmation, canary, budgets, back-off,
//! breaker, blast radius, and the mode `observe`. It lifts nothing that prevents harm: weak evidence may miss a running
//! listener, a set that an operator disabled is not enabled, and a session of the current incarnation is never deleted.
//! A session that the operator names may be unknown to us. Then a refusal must show that it is not the manager's own:
//! whoever holds the session is not refused one.

use super::Input;
use super::remedy::Prescription;
use super::stale::{self, CurrentManager};
use super::warrant::DeletionWarrant;
use crate::model::session::{LedgerSession, NotStale};
use crate::model::{
    Class, ConflictBehaviour, Decision, Diagnosis, Enablement, Finding, ManagerState, ManualAction, ManualHeal,
    ManualHealAnswer, ManualWait, Refusal, Remedy, ScaleSet, ScaleSetId, SessionId, WorkerState,
};

/// Sweeps that a manual heal waits for a clear diagnosis.
const UNCLEAR_SWEEPS: u32 = 5;

/// The latest manual heal of a set.
pub(super) fn of<'a>(input: &Input<'a>, set: ScaleSetId) -> Option<&'a ManualHeal> {
    input.orders.iter().rev().find(|order| order.set == set)
}

/// Its remedy, or why there is none.
pub(super) fn remedy(
    input: &Input<'_>,
    finding: &Finding,
    set: &ScaleSet,
    order: &ManualHeal,
    prescription: &Prescription,
) -> Result<Remedy, Refusal> {
    match (&order.what, prescription) {
        // What we would do automatically is better founded than a bare toggle; a session check heals nothing.
        (ManualAction::Heal, Prescription::Apply(remedy)) if remedy.kind().heals() => Ok(remedy.clone()),
        (ManualAction::Heal | ManualAction::DeleteSession { .. }, _) => carry_out(input, finding, set, order),
    }
}

/// The answer to a manual heal, from this sweep's decision about its set.
#[must_use]
pub fn answer(input: &Input<'_>, order: &ManualHeal, decision: &Decision) -> ManualHealAnswer {
    match decision {
        Decision::Treating { treatment } => ManualHealAnswer::Treating { treatment: *treatment },
        Decision::Treat { .. } => ManualHealAnswer::Waiting { why: ManualWait::Begins },
        Decision::Blocked { guards, .. } => ManualHealAnswer::Waiting { why: ManualWait::BlockedBy(guards.clone()) },
        Decision::Leave | Decision::Watch { .. } | Decision::Escalate { .. } => refusal(input, order),
    }
}

fn refusal(input: &Input<'_>, order: &ManualHeal) -> ManualHealAnswer {
    let (Some(finding), Some(set)) = (input.findings.get(&order.set), input.sets.get(&order.set)) else {
        return ManualHealAnswer::Refused { why: Refusal::SetNotShown };
    };
    let unclear = matches!(finding.diagnosis, Diagnosis::Settling | Diagnosis::Unknown);
    if unclear && finding.seen < UNCLEAR_SWEEPS {
        return ManualHealAnswer::Waiting { why: ManualWait::Unclear(finding.diagnosis) };
    }
    let why = carry_out(input, finding, set, order).err();
    ManualHealAnswer::Refused { why: why.unwrap_or(Refusal::NothingToDo) }
}

fn carry_out(input: &Input<'_>, finding: &Finding, set: &ScaleSet, order: &ManualHeal) -> Result<Remedy, Refusal> {
    let sight = Sight {
        finding,
        set,
        manager: CurrentManager { state: input.manager, incarnation: input.incarnation, owner: input.owner },
        conflict_behaviour: input.conflict_behaviour,
        covered: input.can_check_sessions.contains(&set.id) && set.has_place(),
    };
    match &order.what {
        ManualAction::Heal => heal(&sight),
        ManualAction::DeleteSession { session } => {
            delete(&sight, session, input.ledger).map(|warrant| deletion(&sight, warrant.session().clone()))
        }
    }
}

/// What the verdict on a manual heal depends on.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    pub finding: &'a Finding,
    pub set: &'a ScaleSet,
    pub manager: CurrentManager<'a>,
    pub conflict_behaviour: ConflictBehaviour,
    /// Whether a GitHub client of ours can delete sessions of the set.
    pub covered: bool,
}

/// The remedy where the table of [`super::remedy`] has none, or why there is none.
fn heal(sight: &Sight<'_>) -> Result<Remedy, Refusal> {
    untouchable(sight)?;
    match (sight.finding.diagnosis, sight.conflict_behaviour) {
        (Diagnosis::ConflictAbandoned | Diagnosis::StartAbandoned | Diagnosis::Unheld, _)
        | (Diagnosis::Unknown, ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown)
            if sight.finding.worker.0 != WorkerState::Unknown || sight.finding.diagnosis != Diagnosis::Unknown =>
        {
            Ok(Remedy::Toggle)
        }
        (diagnosis, _) => Err(Refusal::ToggleUseless(diagnosis)),
    }
}

/// Which remedy deletes the session: workers of a build that gives up need a toggle afterwards.
fn deletion(sight: &Sight<'_>, session: SessionId) -> Remedy {
    match sight.conflict_behaviour {
        ConflictBehaviour::GivesUp if sight.finding.diagnosis == Diagnosis::ConflictAbandoned => {
            Remedy::DeleteThenToggle { session }
        }
        ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown | ConflictBehaviour::Retries => {
            Remedy::DeleteSession { session }
        }
    }
}

/// The verdict on an operator's request to delete a session, or every reason against it. Asked again at every attempt.
///
/// # Errors
/// The reasons.
pub fn delete(sight: &Sight<'_>, session: &SessionId, ledger: &[LedgerSession]) -> Result<DeletionWarrant, Refusal> {
    let row = ledger.iter().find(|row| row.id == *session);
    untouchable(sight)?;
    if !sight.covered {
        return Err(Refusal::NoCredential);
    }
    if sight.manager.incarnation.is_none() {
        return Err(Refusal::IncarnationUnknown);
    }
    match row {
        Some(row) => {
            let mut against = stale::provably_stale(row, sight.set, sight.manager).err().unwrap_or_default();
            against.retain(|reason| !is_lifted(*reason));
            if !against.is_empty() {
                return Err(Refusal::NotStale { session: session.clone(), against });
            }
        }
        None => match sight.manager.state {
            ManagerState::Up | ManagerState::Restarted => {}
            ManagerState::Down | ManagerState::Unreachable => return Err(Refusal::ManagerDown),
        },
    }
    let refused = sight.finding.diagnosis.class() == Class::Refused;
    if !refused && row.is_none_or(|row| stale::provably_stale(row, sight.set, sight.manager).is_err()) {
        return Err(Refusal::NoConflictSeen(sight.finding.diagnosis));
    }
    Ok(DeletionWarrant::requested(session))
}

/// Sets that no manual heal touches.
fn untouchable(sight: &Sight<'_>) -> Result<(), Refusal> {
    if sight.set.enabled == Enablement::Disabled {
        return Err(Refusal::SetDisabled);
    }
    if sight.finding.worker.0 == WorkerState::Listening {
        return Err(Refusal::ListenerRuns);
    }
    if sight.finding.diagnosis == Diagnosis::Listening { Err(Refusal::Listens) } else { Ok(()) }
}

/// Whether the operator may know better.
const fn is_lifted(reason: NotStale) -> bool {
    match reason {
        NotStale::NotInLedger
        | NotStale::OpeningRunUnknown
        | NotStale::OwnerUnknown
        | NotStale::OwnerDiffers
        | NotStale::Ended => true,
        NotStale::OpenedByUs
        | NotStale::CurrentRunUnknown
        | NotStale::SameRun
        | NotStale::LaterRun
        | NotStale::RunsTooClose
        | NotStale::OpenedTooLate
        | NotStale::AliveAfterStart
        | NotStale::ManagerDown
        | NotStale::OtherSet
        | NotStale::OtherPlace => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{finding, ledger_session, mins, scale_set};
    use crate::model::session::OpenedBy;
    use crate::model::{Confidence, Incarnation, Owner, Wall};

    const RUN: Incarnation = Incarnation(mins(60));
    const OLD: Incarnation = Incarnation(mins(10));

    fn try_delete(
        diagnosis: Diagnosis,
        row: Option<&LedgerSession>,
        change: impl FnOnce(&mut Finding),
    ) -> Result<Remedy, Refusal> {
        let mut finding = finding(1, diagnosis, Confidence::Strong);
        change(&mut finding);
        let owner = Owner::of_garm("c1");
        let manager = CurrentManager { state: ManagerState::Up, incarnation: Some(RUN), owner: Some(&owner) };
        let set = scale_set(1);
        let sight = Sight {
            finding: &finding,
            set: &set,
            manager,
            conflict_behaviour: ConflictBehaviour::GivesUp,
            covered: true,
        };
        delete(&sight, &SessionId::new("s-1"), row.map(std::slice::from_ref).unwrap_or_default())
            .map(|warrant| deletion(&sight, warrant.session().clone()))
    }

    fn row(run: Incarnation) -> LedgerSession {
        ledger_session(1, "s-1", run, Wall(run.0.0 + 60_000))
    }

    #[test]
    fn operator_may_delete_a_session_that_conflicts() {
        let unknown = LedgerSession { opened_by: OpenedBy::UnknownIncarnation, ..row(OLD) };
        let foreign = LedgerSession { owner: Owner::of_garm("other"), ..row(OLD) };
        for row in [None, Some(row(OLD)), Some(unknown), Some(foreign)] {
            let remedy = try_delete(Diagnosis::ConflictAbandoned, row.as_ref(), |_| {});
            assert!(matches!(remedy, Ok(Remedy::DeleteThenToggle { .. })), "{row:?}: {remedy:?}");
            let remedy = try_delete(Diagnosis::HeldElsewhere, row.as_ref(), |_| {});
            assert!(matches!(remedy, Ok(Remedy::DeleteSession { .. })), "{row:?}: {remedy:?}");
        }
    }

    #[test]
    fn session_of_the_current_incarnation_is_never_deleted() {
        let late = LedgerSession { first_seen: RUN.0, ..row(OLD) };
        let alive = LedgerSession { last_seen: mins(62), ..row(OLD) };
        for row in [row(RUN), row(Incarnation(mins(61))), late, alive] {
            for diagnosis in [Diagnosis::ConflictAbandoned, Diagnosis::ConflictRetrying, Diagnosis::HeldElsewhere] {
                assert!(try_delete(diagnosis, Some(&row), |_| {}).is_err(), "{row:?}");
            }
        }
    }

    #[test]
    fn session_of_unknown_origin_needs_a_seen_conflict() {
        for diagnosis in Diagnosis::ALL.iter().copied() {
            let refused = matches!(
                diagnosis,
                Diagnosis::ConflictAbandoned | Diagnosis::ConflictRetrying | Diagnosis::HeldElsewhere
            );
            assert_eq!(try_delete(diagnosis, None, |_| {}).is_ok(), refused, "{diagnosis}");
            let listens = try_delete(diagnosis, None, |finding| finding.worker.0 = WorkerState::Listening);
            assert!(listens.is_err(), "{diagnosis}");
        }
    }

    #[test]
    fn manual_heal_toggles_only_workers_that_gave_up() {
        let set = scale_set(1);
        let manager = CurrentManager { state: ManagerState::Up, incarnation: Some(RUN), owner: None };
        for (diagnosis, worker, toggled) in [
            (Diagnosis::Unheld, WorkerState::Unknown, true),
            (Diagnosis::StartAbandoned, WorkerState::Absent, true),
            (Diagnosis::Unknown, WorkerState::Absent, true),
            (Diagnosis::Unknown, WorkerState::Unknown, false),
            (Diagnosis::ConflictRetrying, WorkerState::Retrying, false),
            (Diagnosis::Evicted, WorkerState::Listening, false),
            (Diagnosis::Deaf, WorkerState::Listening, false),
            (Diagnosis::Listening, WorkerState::Unknown, false),
        ] {
            let finding = Finding { worker: (worker, mins(61)), ..finding(1, diagnosis, Confidence::Strong) };
            let sight = Sight {
                finding: &finding,
                set: &set,
                manager,
                conflict_behaviour: ConflictBehaviour::GivesUp,
                covered: false,
            };
            assert_eq!(heal(&sight).is_ok(), toggled, "{diagnosis} {worker}");
            let off = ScaleSet { enabled: Enablement::Disabled, ..set.clone() };
            assert!(heal(&Sight { set: &off, ..sight }).is_err(), "{diagnosis}: an operator disabled it");
        }
    }
}
