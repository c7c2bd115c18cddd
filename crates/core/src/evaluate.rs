//! From the diagnosis to a decision, and to the permission to delete a session. The engine and `replay` decide alike,
//! because both fill the input here.

use crate::decide::manual::{self, Sight};
use crate::decide::stale::{self, CurrentManager};
use crate::decide::warrant::DeletionWarrant;
use crate::decide::{Footing, Input};
use crate::diagnose::{CRASH_LOOP, Fleet};
use crate::model::session::LedgerSession;
use crate::model::{EndpointName, ManagerName, ManualHeal, Now, OwnQuota, Pause, Remedy, ScaleSetId, Treatment, Wall};
use crate::policy::{Mode, Policy};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a decision depends on besides the diagnosis; the fields mean the same as in [`Input`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    pub now: Now,
    pub name: ManagerName,
    pub mode: Mode,
    pub policy: Policy,
    pub history: Vec<Treatment>,
    pub ledger: Arc<Vec<LedgerSession>>,
    pub pauses: Vec<Pause>,
    pub manual_heals: Vec<ManualHeal>,
    pub breaker_reset: Option<Wall>,
    pub can_check_sessions: BTreeSet<ScaleSetId>,
    pub quotas: BTreeMap<EndpointName, OwnQuota>,
    pub footing: Footing,
}

impl Conditions {
    /// The input of [`decide`](crate::decide::decide) for a diagnosed fleet.
    pub fn input<'a>(&'a self, fleet: &'a Fleet) -> Input<'a> {
        Input {
            now: self.now,
            name: &self.name,
            mode: self.mode,
            policy: &self.policy,
            findings: &fleet.findings,
            sets: &fleet.sets,
            manager: fleet.manager,
            incarnation: fleet.incarnation,
            crash_loop: fleet.restarts >= CRASH_LOOP,
            conflict_behaviour: fleet.conflict_behaviour,
            endpoints: &fleet.endpoints,
            blind: fleet.blind,
            fault_at_github: fleet.fault_at_github,
            history: &self.history,
            ledger: &self.ledger,
            owner: fleet.owner.as_ref(),
            pauses: &self.pauses,
            manual_heals: &self.manual_heals,
            breaker_reset: self.breaker_reset,
            can_check_sessions: &self.can_check_sessions,
            quotas: &self.quotas,
            footing: &self.footing,
        }
    }
}

/// The manager, as a proof of staleness needs it.
pub fn current_manager(fleet: &Fleet) -> CurrentManager<'_> {
    CurrentManager { state: fleet.manager, incarnation: fleet.incarnation, owner: fleet.owner.as_ref() }
}

/// The permission to delete a treatment's session, where it still holds: by proof, or by the verdict on the operator's
/// request.
pub fn deletion_warrant(fleet: &Fleet, ledger: &[LedgerSession], treatment: &Treatment) -> Option<DeletionWarrant> {
    let (Remedy::DeleteSession { session } | Remedy::DeleteThenToggle { session }) = &treatment.remedy else {
        return None;
    };
    let set = fleet.sets.get(&treatment.set)?;
    let manager = current_manager(fleet);
    if treatment.ordered.is_some() {
        let finding = fleet.findings.get(&treatment.set)?;
        let (conflict_behaviour, covered) = (fleet.conflict_behaviour, treatment.place.is_some());
        let sight = Sight { finding, set, manager, conflict_behaviour, covered };
        return manual::delete(&sight, session, ledger).ok();
    }
    let rows = ledger.iter().filter(|row| row.set == treatment.set);
    stale::newest_is_stale(rows, set, manager).ok().map(DeletionWarrant::of_stale)
}
