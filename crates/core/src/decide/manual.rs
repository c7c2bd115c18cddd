//! A manual heal (`heal SET`): what it may do, and what it may not.
//!
//! It lifts the limits on what we do automatically: grace period, repeated confirmation, canary, budgets, back-off,
//! breaker, blast radius, and the mode `observe`. It lifts nothing that prevents harm: weak evidence may miss a running
//! listener, a set that an operator disabled is not enabled, and a session of the current incarnation is never deleted.
//! A session that the operator names may be unknown to us. Then a refusal must show that it is not the manager's own:
//! the holder of the session is not refused one.

use super::Input;
use super::remedy::Prescription;
use super::stale::{self, CurrentManager, current_manager};
use super::warrant::DeletionWarrant;
use crate::model::session::{LedgerSession, NotStale};
use crate::model::{
    Class, ConflictBehaviour, Decision, Diagnosis, Enablement, Finding, ManagerState, ManualAction, ManualHeal,
    ManualHealAnswer, ManualWait, Refusal, Remedy, ScaleSet, ScaleSetId, SessionId, WorkerState,
};

/// Sweeps that a manual heal waits for a clear diagnosis.
const UNCLEAR_SWEEPS: u32 = 5;

pub(super) fn of<'a>(input: &Input<'a>, set: ScaleSetId) -> Option<&'a ManualHeal> {
    input.given.manual_heals.iter().rev().find(|heal| heal.set == set)
}

/// Its remedy, or why it has none.
pub(super) fn remedy(
    input: &Input<'_>,
    finding: &Finding,
    set: &ScaleSet,
    heal: &ManualHeal,
    prescription: &Prescription,
) -> Result<Remedy, Refusal> {
    match (&heal.what, prescription) {
        // What we would do automatically is better founded than a bare toggle; a session check heals nothing.
        (ManualAction::Heal, Prescription::Apply(remedy)) if remedy.kind().heals() => Ok(remedy.clone()),
        (ManualAction::Heal | ManualAction::DeleteSession { .. }, _) => carry_out(input, finding, set, heal),
    }
}

/// The answer to a manual heal, from this sweep's decision about its set.
pub fn answer(input: &Input<'_>, heal: &ManualHeal, decision: &Decision) -> ManualHealAnswer {
    match decision {
        Decision::Treating { treatment } => ManualHealAnswer::Treating { treatment: *treatment },
        Decision::Treat { .. } => ManualHealAnswer::Waiting { why: ManualWait::Begins },
        Decision::Blocked { guards, .. } => ManualHealAnswer::Waiting { why: ManualWait::BlockedBy(guards.clone()) },
        Decision::Leave | Decision::Watch { .. } | Decision::Escalate { .. } => refusal(input, heal),
    }
}

fn refusal(input: &Input<'_>, heal: &ManualHeal) -> ManualHealAnswer {
    let (Some(finding), Some(set)) = (input.fleet.findings.get(&heal.set), input.fleet.sets.get(&heal.set)) else {
        return ManualHealAnswer::Refused { why: Refusal::SetNotShown };
    };
    let unclear = matches!(finding.diagnosis, Diagnosis::Settling | Diagnosis::Unknown);
    if unclear && finding.seen < UNCLEAR_SWEEPS {
        return ManualHealAnswer::Waiting { why: ManualWait::Unclear(finding.diagnosis) };
    }
    let why = carry_out(input, finding, set, heal).err();
    ManualHealAnswer::Refused { why: why.unwrap_or(Refusal::NothingToDo) }
}

fn carry_out(input: &Input<'_>, finding: &Finding, set: &ScaleSet, heal: &ManualHeal) -> Result<Remedy, Refusal> {
    let ctx = HealContext {
        finding,
        set,
        manager: current_manager(input.fleet),
        conflict_behaviour: input.fleet.conflict_behaviour,
        covered: input.given.can_check_sessions.contains(&set.id) && set.has_place(),
    };
    match &heal.what {
        ManualAction::Heal => toggle(&ctx),
        ManualAction::DeleteSession { session } => {
            delete(&ctx, session, &input.given.ledger).map(|warrant| deletion(&ctx, warrant.session().clone()))
        }
    }
}

/// What the verdict on a manual heal depends on. Only this crate fills it, from what was observed: see
/// [`deletion_warrant`](super::deletion_warrant).
#[derive(Debug, Clone, Copy)]
pub(super) struct HealContext<'a> {
    pub finding: &'a Finding,
    pub set: &'a ScaleSet,
    pub manager: CurrentManager<'a>,
    pub conflict_behaviour: ConflictBehaviour,
    /// Whether a GitHub client of ours can delete sessions of the set.
    pub covered: bool,
}

/// The toggle where the table of [`super::remedy`] has no remedy, or why a toggle would not help.
fn toggle(ctx: &HealContext<'_>) -> Result<Remedy, Refusal> {
    untouchable(ctx)?;
    match (ctx.finding.diagnosis, ctx.conflict_behaviour) {
        (Diagnosis::ConflictAbandoned | Diagnosis::StartAbandoned | Diagnosis::Unheld, _)
        | (Diagnosis::Unknown, ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown)
            if ctx.finding.worker.state != WorkerState::Unknown || ctx.finding.diagnosis != Diagnosis::Unknown =>
        {
            Ok(Remedy::Toggle)
        }
        (diagnosis, _) => Err(Refusal::ToggleUseless(diagnosis)),
    }
}

/// Which remedy deletes the session: workers of a build that gives up need a toggle afterwards.
fn deletion(ctx: &HealContext<'_>, session: SessionId) -> Remedy {
    match ctx.conflict_behaviour {
        ConflictBehaviour::GivesUp if ctx.finding.diagnosis == Diagnosis::ConflictAbandoned => {
            Remedy::DeleteThenToggle { session }
        }
        ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown | ConflictBehaviour::Retries => {
            Remedy::DeleteSession { session }
        }
    }
}

/// The verdict on an operator's request to delete a session, or every reason against it. Asked again at every attempt.
pub(super) fn delete(
    ctx: &HealContext<'_>,
    session: &SessionId,
    ledger: &[LedgerSession],
) -> Result<DeletionWarrant, Refusal> {
    let row = ledger.iter().find(|row| row.id == *session);
    untouchable(ctx)?;
    if !ctx.covered {
        return Err(Refusal::NoCredential);
    }
    if ctx.manager.incarnation.is_none() {
        return Err(Refusal::IncarnationUnknown);
    }
    match row {
        Some(row) => {
            let mut against = stale::provably_stale(row, ctx.set, ctx.manager).err().unwrap_or_default();
            against.retain(|reason| !is_lifted(*reason));
            if !against.is_empty() {
                return Err(Refusal::NotStale { session: session.clone(), against });
            }
        }
        None => match ctx.manager.state {
            ManagerState::Up | ManagerState::Restarted => {}
            ManagerState::Down | ManagerState::Unreachable => return Err(Refusal::ManagerDown),
        },
    }
    let refused = ctx.finding.diagnosis.class() == Class::Refused;
    if !refused && row.is_none_or(|row| stale::provably_stale(row, ctx.set, ctx.manager).is_err()) {
        return Err(Refusal::NoConflictSeen(ctx.finding.diagnosis));
    }
    Ok(DeletionWarrant::requested(session))
}

/// Sets that no manual heal touches.
fn untouchable(ctx: &HealContext<'_>) -> Result<(), Refusal> {
    if ctx.set.enabled == Enablement::Disabled {
        return Err(Refusal::SetDisabled);
    }
    if ctx.finding.worker.state == WorkerState::Listening {
        return Err(Refusal::ListenerRuns);
    }
    if ctx.finding.diagnosis == Diagnosis::Listening { Err(Refusal::Listens) } else { Ok(()) }
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
