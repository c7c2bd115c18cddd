//! From the diagnosis to the input of a decision. The engine and `replay` fill it here, so that they decide alike.

use crate::decide::{Footing, Input};
use crate::diagnose::{CRASH_LOOP, Fleet};
use crate::model::session::LedgerSession;
use crate::model::{EndpointName, ManagerName, ManualHeal, Now, OwnQuota, Pause, ScaleSetId, Treatment, Wall};
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
    #[must_use]
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
            orders: &self.manual_heals,
            breaker_reset: self.breaker_reset,
            can_check_sessions: &self.can_check_sessions,
            quotas: &self.quotas,
            footing: &self.footing,
        }
    }
}
