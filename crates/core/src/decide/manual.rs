//! A person's order (`heal SET`): what it may do, and what it may not.
//!
//! It lifts the limits on our own doing: settle time, repeated confirmation, canary, budgets, back-off, breaker, blast
//! radius, and the mode `observe`. It lifts nothing that keeps from harm: nothing is done on weak evidence, which may
//! miss a listener that runs; a set that a person disabled is not enabled; a session of the living run is never deleted. A session that a person names may
//! be one that we never saw or cannot place; then the manager's own refusal must show that it is not the manager's: who
//! holds a session is not refused one.

use super::remedy::Prescription;
use super::stale::{self, CurrentManager, NotStale};
use super::{Input, budget};
use crate::model::session::LedgerSession;
use crate::model::{
    Class, ConflictBehaviour, Decision, Diagnosis, Enablement, Finding, ManagerState, ManualAction, ManualHeal,
    ManualHealAnswer, Remedy, ScaleSet, ScaleSetId, SessionId, WorkerState,
};

/// Sweeps that an order gives a diagnosis to become clear.
const UNCLEAR_SWEEPS: u32 = 5;

/// The order for a set, the latest of several.
pub(super) fn of<'a>(input: &Input<'a>, set: ScaleSetId) -> Option<&'a ManualHeal> {
    input.orders.iter().rev().find(|order| order.set == set)
}

/// The remedy of an order; or why there is none.
pub(super) fn remedy(
    input: &Input<'_>,
    finding: &Finding,
    set: &ScaleSet,
    order: &ManualHeal,
    prescription: &Prescription,
) -> Result<Remedy, String> {
    match (&order.what, prescription) {
        // What we would do by ourselves is better founded than a bare toggle; a session probe heals nothing.
        (ManualAction::Heal, Prescription::Apply(remedy)) if budget::kind_is_heal(remedy.kind()) => Ok(remedy.clone()),
        (ManualAction::Heal | ManualAction::DeleteSession { .. }, _) => carry_out(input, finding, set, order),
    }
}

/// What is said to an order, from this sweep's decision about its set.
#[must_use]
pub fn answer(input: &Input<'_>, order: &ManualHeal, decision: &Decision) -> ManualHealAnswer {
    match decision {
        Decision::Treating { treatment } => ManualHealAnswer::Treating { treatment: *treatment },
        Decision::Treat { .. } => ManualHealAnswer::Waiting { why: "it begins".to_owned() },
        Decision::Blocked { guards, .. } => {
            let why: Vec<_> = guards.iter().map(|held| format!("{}: {}", held.guard, held.value)).collect();
            ManualHealAnswer::Waiting { why: why.join("; ") }
        }
        Decision::Leave | Decision::Watch { .. } | Decision::Escalate { .. } => refusal(input, order),
    }
}

fn refusal(input: &Input<'_>, order: &ManualHeal) -> ManualHealAnswer {
    let (Some(finding), Some(set)) = (input.findings.get(&order.set), input.sets.get(&order.set)) else {
        return ManualHealAnswer::Refused { why: "the manager does not show the set".to_owned() };
    };
    let unclear = matches!(finding.diagnosis, Diagnosis::Settling | Diagnosis::Unknown);
    if unclear && finding.seen < UNCLEAR_SWEEPS {
        return ManualHealAnswer::Waiting { why: format!("the set is {} so far", finding.diagnosis) };
    }
    let why = carry_out(input, finding, set, order).err();
    ManualHealAnswer::Refused { why: why.unwrap_or_else(|| "there is nothing to do".to_owned()) }
}

fn carry_out(input: &Input<'_>, finding: &Finding, set: &ScaleSet, order: &ManualHeal) -> Result<Remedy, String> {
    let sight = Sight {
        finding,
        set,
        manager: CurrentManager { state: input.manager, incarnation: input.incarnation, owner: input.owner },
        conflict_behaviour: input.conflict_behaviour,
        covered: input.can_check_sessions.contains(&set.id) && set.has_place(),
    };
    match &order.what {
        ManualAction::Heal => heal(&sight),
        ManualAction::DeleteSession { session } => delete(&sight, session, input.ledger),
    }
}

/// What an order looks at.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The diagnosis and its evidence.
    pub finding: &'a Finding,
    /// The set as the manager shows it.
    pub set: &'a ScaleSet,
    /// The manager as a proof needs it.
    pub manager: CurrentManager<'a>,
    /// What its build does after a refused start.
    pub conflict_behaviour: ConflictBehaviour,
    /// Whether a client of ours can delete sessions of the set.
    pub covered: bool,
}

/// The remedy of an order to heal for which the table of [`super::remedy`] has none; or why there is none.
///
/// # Errors
/// In words, for the person.
fn heal(sight: &Sight<'_>) -> Result<Remedy, String> {
    untouchable(sight)?;
    match (sight.finding.diagnosis, sight.conflict_behaviour) {
        (Diagnosis::ConflictAbandoned | Diagnosis::StartAbandoned | Diagnosis::Unheld, _)
        | (Diagnosis::Unknown, ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown)
            if sight.finding.worker.0 != WorkerState::Unknown || sight.finding.diagnosis != Diagnosis::Unknown =>
        {
            Ok(Remedy::Toggle)
        }
        (diagnosis, _) => Err(format!(
            "a toggle does not help a set that is {diagnosis}; `explain` tells what does, and `--session ID` ends a \
             session that you know to be stale"
        )),
    }
}

/// The remedy of an order to delete a session; or every reason against it. Asked again at every attempt: see the
/// ledger's row of the session, if it has one.
///
/// # Errors
/// In words, for the person.
pub fn delete(sight: &Sight<'_>, session: &SessionId, ledger: &[LedgerSession]) -> Result<Remedy, String> {
    let row = ledger.iter().find(|row| row.id == *session);
    untouchable(sight)?;
    if !sight.covered {
        return Err("no GitHub credential of ours covers the set; configure one under [[github]]".to_owned());
    }
    if sight.manager.incarnation.is_none() {
        return Err("the manager's present run is not known, so nothing tells its sessions from older ones".to_owned());
    }
    match row {
        Some(row) => {
            let against = stale::provably_stale(row, sight.set, sight.manager).err().unwrap_or_default();
            let against: Vec<&str> = against.into_iter().filter(|reason| !is_lifted(*reason)).map(in_words).collect();
            if !against.is_empty() {
                return Err(format!("session {session} is not deleted: {}", against.join("; ")));
            }
        }
        None => match sight.manager.state {
            ManagerState::Up | ManagerState::Restarted => {}
            ManagerState::Down | ManagerState::Unreachable => return Err(in_words(NotStale::ManagerDown).to_owned()),
        },
    }
    let refused = sight.finding.diagnosis.class() == Class::Refused;
    if !refused && row.is_none_or(|row| stale::provably_stale(row, sight.set, sight.manager).is_err()) {
        return Err(format!(
            "the set is {}, and nothing shows that the manager was refused a session: it may hold this very one, and \
             deleting that would kill the manager",
            sight.finding.diagnosis
        ));
    }
    let session = session.clone();
    Ok(match sight.conflict_behaviour {
        ConflictBehaviour::GivesUp if sight.finding.diagnosis == Diagnosis::ConflictAbandoned => {
            Remedy::DeleteThenToggle { session }
        }
        ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown | ConflictBehaviour::Retries => {
            Remedy::DeleteSession { session }
        }
    })
}

/// What no order touches.
fn untouchable(sight: &Sight<'_>) -> Result<(), String> {
    if sight.set.enabled == Enablement::Disabled {
        return Err("the set is disabled by a person; enable it in the manager, and it will start".to_owned());
    }
    match sight.finding.worker.0 {
        WorkerState::Listening => Err("its listener runs: interrupting it could crash the manager".to_owned()),
        WorkerState::Unknown | WorkerState::Absent | WorkerState::Idle | WorkerState::Retrying => {
            if sight.finding.diagnosis == Diagnosis::Listening {
                return Err("it listens: there is nothing to heal".to_owned());
            }
            Ok(())
        }
    }
}

/// Whether a person may know better.
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

/// A reason against a deletion, for people.
#[must_use]
pub const fn in_words(reason: NotStale) -> &'static str {
    match reason {
        NotStale::NotInLedger => "its session was never seen, so its id is not known",
        NotStale::Ended => "the last session that was seen has ended",
        NotStale::OpenedByUs => "we opened it ourselves, and end it ourselves",
        NotStale::OpeningRunUnknown => "nobody knows which run of the manager opened it",
        NotStale::CurrentRunUnknown => "the manager's present run is not known",
        NotStale::SameRun => "the manager's present run opened it: it is in use",
        NotStale::LaterRun => "a later run of the manager than the present one opened it",
        NotStale::RunsTooClose => "the run that opened it and the present one may be the same",
        NotStale::OpenedTooLate => "it was first seen too close to the present run's start",
        NotStale::AliveAfterStart => "it was seen alive after the present run's start: another process holds it",
        NotStale::ManagerDown => "the manager does not answer, so nothing says that its process is a new one",
        NotStale::OwnerUnknown => "the name under which the manager opens sessions is not known",
        NotStale::OwnerDiffers => "another owner opened it",
        NotStale::OtherSet => "it belongs to another set",
        NotStale::OtherPlace => "the set is elsewhere at GitHub by now, or its place is not known",
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
    ) -> Result<Remedy, String> {
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
    }

    fn row(run: Incarnation) -> LedgerSession {
        ledger_session(1, "s-1", run, Wall(run.0.0 + 60_000))
    }

    #[test]
    fn a_person_may_know_better_about_sessions_that_the_manager_was_refused_for() {
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
    fn a_session_of_the_living_run_is_never_deleted_whoever_says_so() {
        let late = LedgerSession { first_seen: RUN.0, ..row(OLD) };
        let alive = LedgerSession { last_seen: mins(62), ..row(OLD) };
        for row in [row(RUN), row(Incarnation(mins(61))), late, alive] {
            for diagnosis in [Diagnosis::ConflictAbandoned, Diagnosis::ConflictRetrying, Diagnosis::HeldElsewhere] {
                assert!(try_delete(diagnosis, Some(&row), |_| {}).is_err(), "{row:?}");
            }
        }
    }

    #[test]
    fn without_a_refusal_a_session_of_unknown_origin_may_be_the_managers_own() {
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
    fn an_order_to_heal_toggles_only_what_no_longer_tries() {
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
            assert!(heal(&Sight { set: &off, ..sight }).is_err(), "{diagnosis}: a person disabled it");
        }
    }
}
