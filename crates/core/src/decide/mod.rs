//! Deciding: finding + history + policy → treat, watch, block or escalate. Pure; one rule, one file.
//!
//! | file | rule |
//! |---|---|
//! | [`remedy`] | diagnosis → remedy, wait or escalation; *a no-op update is not a remedy* |
//! | [`stale`] | the proof that a session is stale |
//! | [`warrant`] | the permission to delete a session |
//! | [`guards`] | everything that blocks a remedy, all of it |
//! | [`budget`], [`backoff`] | how often, and how soon again |
//! | [`canary`] | an incident's first treatment runs alone |
//! | [`rollout`] | how many at once: more, as treatments show that they help |
//! | [`entity_limit`] | how many sets of an entity may wait for their workers |
//! | [`breaker`] | heals that do not help stop the healing |
//! | [`blast`] | many sets at once: one cause, or a fault at GitHub |
//! | [`pause`] | an operator forbids new treatments |
//! | [`manual`] | an operator asks for a heal |
//! | [`bounds`](mod@bounds) | the most that a policy allows |
//!
//! [`decide`] applies them to every set, in the order of the sets' ids, so that the same input gives the same answer.
//! Limits apply across the whole sweep: each treatment allowed counts against the next.

pub mod backoff;
pub mod blast;
pub mod bounds;
pub mod breaker;
pub mod budget;
pub mod canary;
pub mod entity_limit;
pub mod guards;
pub mod manual;
pub mod pause;
mod remedy;
pub mod rollout;
pub mod stale;
pub mod warrant;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

use crate::model::fleet::Fleet;
use crate::model::session::{LedgerSession, OpenedBy};
use crate::model::{
    BlockedBy, Decision, Diagnosis, EndpointName, Finding, Guard, ManagerName, ManagerState, ManualHeal, Now, OwnQuota,
    Pause, Remedy, ScaleSet, ScaleSetId, SetDecision, Treatment, Waiting, Wall,
};
use crate::policy::{Mode, Policy};
use bounds::Started;
pub use bounds::{Bounds, bounds};
use canary::{Admission, Canaries};
use entity_limit::EntityLimits;
use guards::{By, Proposal, SweepState};
use remedy::{Case, Prescription};
use rollout::Rollout;
use serde::{Deserialize, Serialize};
use stale::{Proof, current_manager};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use warrant::DeletionWarrant;

/// Everything a decision about one manager's sets depends on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub fleet: &'a Fleet,
    pub given: &'a Conditions,
}

/// What a decision depends on besides the diagnosis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    pub now: Now,
    /// The name that pauses give the manager.
    pub name: ManagerName,
    pub mode: Mode,
    pub policy: Policy,
    /// This manager's treatments opened within 24 h, and every open one.
    pub history: Vec<Treatment>,
    pub ledger: Arc<Vec<LedgerSession>>,
    pub pauses: Vec<Pause>,
    /// Manual heals without a final answer.
    pub manual_heals: Vec<ManualHeal>,
    /// When an operator last reset the breaker.
    pub breaker_reset: Option<Wall>,
    /// The sets for which a client of ours can open and delete sessions.
    pub can_check_sessions: BTreeSet<ScaleSetId>,
    /// Our own credentials' quotas, where known.
    pub quotas: BTreeMap<EndpointName, OwnQuota>,
    #[serde(alias = "footing")] // this and the variants: their names in snapshots of before 0.1.0
    pub write_access: WriteAccess,
}

/// Whether our own store lets us send what changes something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum WriteAccess {
    /// The journal can be read, and the lease is ours.
    #[serde(alias = "firm")]
    Granted,
    /// Another instance has the lease.
    #[serde(alias = "lease_of")]
    HeldByOther {
        holder: String,
        /// Unless the holder renews it.
        until: Wall,
    },
    /// The store cannot be read or written: past treatments are not known, and no new one could be journaled.
    StoreFailed { why: String },
}

/// One decision per finding, in the order of the sets' ids.
pub fn decide(input: &Input<'_>) -> Vec<SetDecision> {
    let records = Records::of(input);
    let outlooks: Vec<(&Finding, Outlook<'_>)> =
        input.fleet.findings.values().map(|finding| (finding, outlook(input, &records, finding))).collect();
    let mut sweep = sweep_state(input, &outlooks);
    let mut decision = |finding: &Finding, outlook| match outlook {
        Outlook::Decided(decision) => decision,
        Outlook::Wants(remedy, set) => {
            let by = if manual::of(input, set.id).is_some() { By::Operator } else { By::Policy };
            weigh(input, &mut sweep, &Proposal { remedy: &remedy, set, finding, rows: records.rows(set.id), by })
        }
    };
    let decided =
        |(finding, outlook): (&Finding, _)| SetDecision { set: finding.set, decision: decision(finding, outlook) };
    outlooks.into_iter().map(decided).collect()
}

/// What is known of a set before the guards are asked.
enum Outlook<'a> {
    Decided(Decision),
    Wants(Remedy, &'a ScaleSet),
}

fn outlook<'a>(input: &Input<'a>, records: &Records<'a>, finding: &Finding) -> Outlook<'a> {
    if let Some(open) = records.rows(finding.set).iter().rev().find(|row| !row.step.is_closed()) {
        return Outlook::Decided(Decision::Treating { treatment: open.id });
    }
    let Some(set) = input.fleet.sets.get(&finding.set) else {
        return Outlook::Decided(Decision::Watch { waiting: Waiting::Evidence, until: None });
    };
    let unseen = matches!(input.fleet.manager, ManagerState::Down | ManagerState::Unreachable);
    if unseen && finding.diagnosis == Diagnosis::Unknown {
        // The manager needs help, and its state says so.
        return Outlook::Decided(Decision::Watch { waiting: Waiting::Evidence, until: None });
    }
    let covered = input.given.can_check_sessions.contains(&set.id) && set.has_place();
    let proof = if covered { records.proof(input, set) } else { None };
    let prescription = remedy::prescribe(&Case {
        input,
        finding,
        set,
        stale: proof.as_ref(),
        session_lives: records.session_lives(input, set.id),
        may_check_session: covered && input.given.policy.session_check,
    });
    if let Some(heal) = manual::of(input, set.id) {
        return match manual::remedy(input, finding, set, heal, &prescription) {
            Ok(remedy) => Outlook::Wants(remedy, set),
            Err(_) => Outlook::Decided(Decision::Leave),
        };
    }
    match prescription {
        Prescription::Decided(decision) => Outlook::Decided(decision),
        Prescription::Apply(remedy) => Outlook::Wants(remedy, set),
    }
}

fn sweep_state(input: &Input<'_>, outlooks: &[(&Finding, Outlook<'_>)]) -> SweepState {
    let (history, now, policy) = (&input.given.history, input.given.now.wall, &input.given.policy);
    // The incident is about sets that we heal: one that is missing for days is no part of it.
    let ill = outlooks.iter().filter_map(|(finding, outlook)| match outlook {
        Outlook::Decided(Decision::Treating { .. }) => finding.ill_since,
        Outlook::Wants(remedy, _) if remedy.kind().heals() => finding.ill_since,
        Outlook::Decided(_) | Outlook::Wants(..) => None,
    });
    let began = canary::began(input.fleet.incarnation, ill);
    let enabled = input.fleet.findings.values().filter(|finding| finding.diagnosis != Diagnosis::Disabled).count();
    SweepState {
        breaker: breaker::state(history, input.given.breaker_reset, now, policy),
        canaries: Canaries::of(history, began),
        rollout: Rollout::of(history, began, enabled, policy),
        enabled,
        recent_heals: budget::recent_heals(history, now),
        blast: blast::block(input),
        entities: EntityLimits::of(input),
        left_disabled: bounds::left_disabled(policy, history, now),
        started: 0,
        allowed: Vec::new(),
    }
}

/// Treat or block. A dry run counts as a treatment for the next sets, so that it shows what healing would do.
fn weigh(input: &Input<'_>, sweep: &mut SweepState, proposal: &Proposal<'_>) -> Decision {
    let (policy, history) = (&input.given.policy, &input.given.history);
    let mut guards = guards::gather(input, sweep, proposal);
    let remedy = proposal.remedy.clone();
    let next = Started { set: proposal.set.id, remedy: remedy.kind() };
    let blocks = |guards: &[BlockedBy]| guards.iter().any(|block| block.guard() != Guard::DryRun);
    if !blocks(&guards) && proposal.by == By::Policy {
        guards.extend(bounds::blocks(policy, sweep.enabled, history, &sweep.allowed, next, input.given.now.wall));
        sweep.allowed.push(next);
    }
    if blocks(&guards) {
        return Decision::Blocked { remedy, guards };
    }
    let cause = proposal.finding.diagnosis;
    let canary = if remedy.kind().heals() {
        let first = sweep.canaries.admit(cause) == Admission::First;
        sweep.canaries.start_heal(proposal.set.id, cause);
        sweep.entities.start(proposal.set, remedy.kind());
        sweep.started = sweep.started.saturating_add(1);
        proposal.by == By::Policy && (first || sweep.breaker.is_open())
    } else {
        sweep.canaries.start_session_check(proposal.set.id);
        false
    };
    if guards.is_empty() { Decision::Treat { remedy, canary } } else { Decision::Blocked { remedy, guards } }
}

/// The journal and the ledger, by set.
struct Records<'a> {
    rows: BTreeMap<ScaleSetId, Vec<&'a Treatment>>,
    sessions: BTreeMap<ScaleSetId, Vec<&'a LedgerSession>>,
}

impl<'a> Records<'a> {
    fn of(input: &Input<'a>) -> Self {
        let mut rows: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for row in &input.given.history {
            rows.entry(row.set).or_default().push(row);
        }
        for of_set in rows.values_mut() {
            of_set.sort_by_key(|row| (row.opened, row.id));
        }
        let mut sessions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for session in input.given.ledger.iter() {
            sessions.entry(session.set).or_default().push(session);
        }
        Self { rows, sessions }
    }

    fn rows(&self, set: ScaleSetId) -> &[&'a Treatment] {
        self.rows.get(&set).map_or(&[], Vec::as_slice)
    }

    fn sessions(&self, set: ScaleSetId) -> &[&'a LedgerSession] {
        self.sessions.get(&set).map_or(&[], Vec::as_slice)
    }

    fn proof(&self, input: &Input<'_>, set: &ScaleSet) -> Option<Proof> {
        let sessions = self.sessions(set.id);
        if sessions.is_empty() {
            return None;
        }
        stale::newest_is_stale(sessions.iter().copied(), set, current_manager(input.fleet)).ok()
    }

    fn session_lives(&self, input: &Input<'_>, set: ScaleSetId) -> bool {
        let newest = self.sessions(set).iter().max_by_key(|session| (session.first_seen, &session.id));
        newest.zip(input.fleet.incarnation).is_some_and(|(session, current)| {
            session.ended.is_none() && session.opened_by == OpenedBy::Manager(current)
        })
    }
}

/// The permission to delete a treatment's session, where it still holds: by proof, or by the verdict on the operator's
/// request.
pub fn deletion_warrant(fleet: &Fleet, ledger: &[LedgerSession], treatment: &Treatment) -> Option<DeletionWarrant> {
    let (Remedy::DeleteSession { session } | Remedy::DeleteThenToggle { session }) = &treatment.remedy else {
        return None;
    };
    let set = fleet.sets.get(&treatment.set)?;
    let manager = current_manager(fleet);
    if treatment.manual_heal.is_some() {
        let finding = fleet.findings.get(&treatment.set)?;
        let (conflict_behaviour, covered) = (fleet.conflict_behaviour, treatment.place.is_some());
        let ctx = manual::HealContext { finding, set, manager, conflict_behaviour, covered };
        return manual::delete(&ctx, session, ledger).ok();
    }
    let rows = ledger.iter().filter(|row| row.set == treatment.set);
    stale::newest_is_stale(rows, set, manager).ok().map(DeletionWarrant::of_stale)
}
